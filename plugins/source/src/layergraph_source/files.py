"""Writing the source to a file: all of it, or nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layergraph.errors import ArgumentError
from layergraph.ir import Ir

if TYPE_CHECKING:
    import torch


def write(
    ir: Ir,
    path: str | os.PathLike[str],
    state_dict: Mapping[str, torch.Tensor] | None = None,
    *,
    class_name: str = "Net",
) -> None:
    """Write the source of a model.

    Args:
        ir: the structure.
        path: the file.
        state_dict: None: source holds no weights.
        class_name: as for :func:`layergraph_source.to_source`.

    Raises:
        ArgumentError: there is a state dict.
        BuildError: as for :func:`layergraph_source.to_source`.
        OSError: the file cannot be written.
    """
    from layergraph_source.writer import to_source

    if state_dict is not None:
        raise ArgumentError(
            "a .py file holds no weights; save the source without a state dict, and the weights "
            "with torch.save or as .safetensors"
        )
    replace_text(Path(path), to_source(ir, class_name))


def replace_text(path: Path, text: str) -> None:
    """Replace a text file atomically.

    Raises:
        OSError: the file cannot be written; the old one is unchanged.
    """
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        mode: Any = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
