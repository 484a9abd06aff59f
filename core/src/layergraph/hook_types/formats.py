"""A row of the hook ``formats``: a file format, its reader and its writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layergraph.ir import Ir

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Format:
    """A file format, one row of the hook ``formats``.

    Its functions import torch when they need it, so that reading a structure does not import torch.

    Attributes:
        suffix: the end of the file names, such as ``".onnx"``, in lower case. The empty suffix
            stands for a folder, and for a path that no other suffix fits.
        description: one line about the format.
        write: ``write(ir, path, state_dict, **options)`` writes a file, all of it or nothing; None
            if the format cannot be written.
        read: ``read(path, **options)`` returns the :class:`~layergraph.Ir` in a file; None if the
            format cannot be read.
        build: ``build(path, **options)`` returns the module that a file with weights describes;
            None if the format has no weights.

    Example:
        >>> import pathlib, layergraph as lg
        >>> def write(ir, path, state_dict=None):
        ...     pathlib.Path(path).write_text(str(ir))
        >>> lg.Format(".txt", "the printed IR", write=write).suffix
        '.txt'
    """

    suffix: str
    description: str
    write: Callable[..., None] | None = None
    read: Callable[..., Ir] | None = None
    build: Callable[..., nn.Module] | None = None
