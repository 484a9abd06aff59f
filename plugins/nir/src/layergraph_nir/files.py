"""Write and read files of NIR."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import nir  # type: ignore[import-untyped]

from layergraph.api import to_torch
from layergraph.errors import ArgumentError, FileError
from layergraph.ir import Ir
from layergraph_files.atomic import writing
from layergraph_files.paths import to_path
from layergraph_nir.hdf5 import read_graph
from layergraph_nir.reading import from_nir
from layergraph_nir.writing import to_nir

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn


def save(
    ir: Ir, path: Any, state_dict: Mapping[str, torch.Tensor] | None = None, **options: Any
) -> None:
    """Write a model to a file of NIR atomically.

    Args:
        ir: the IR of the model.
        path: the path.
        state_dict: the weights.
        options: the options of :func:`layergraph_nir.to_nir`; ``args`` is required.

    Raises:
        LoweringError: NIR has no primitive for some layers or functions.
        ArgumentError: the options do not fit.
        FileError: the file cannot be written.
    """
    target = to_path(path, "save(ir, path, state_dict, args=…)")
    graph = to_nir(ir, state_dict, **options)
    content = io.BytesIO()
    nir.write(content, graph)
    with writing(target, lambda *_: ()) as written, written.file(target.name) as file:
        file.write(content.getbuffer())


def load(path: Any, *, dt: float | None = None, max_bytes: int | None = None) -> Ir:
    """Return the IR of the model in a file of NIR, without its weights.

    Args:
        path: the path.
        dt: the length of a time step, in seconds: see :func:`layergraph_nir.from_nir`.
        max_bytes: the limit for the bytes of all arrays; None: depends on the size of the file.

    Raises:
        FileError: the file is damaged, or has a node that layergraph does not support.
    """
    return _read(path, "load(path)", dt, max_bytes)[0]


def load_model(
    path: Any,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    dt: float | None = None,
    max_bytes: int | None = None,
) -> nn.Module:
    """Build the model in a file of NIR.

    It raises the errors of :func:`load`.

    Args:
        path: the path.
        device: the device of its tensors.
        dtype: the dtype of its floating-point tensors; None: float32.
        dt: the length of a time step, in seconds.
        max_bytes: the limit for the bytes of all arrays; None: depends on the size of the file.
    """
    ir, state = _read(path, "load_model(path)", dt, max_bytes)
    return to_torch(ir, state).to(device=device, dtype=dtype)


def _read(
    path: Any, call: str, dt: float | None, max_bytes: int | None
) -> tuple[Ir, dict[str, torch.Tensor]]:
    found = to_path(path, call)
    graph = read_graph(found, max_bytes)
    with _named(str(found)):
        return from_nir(graph, dt=dt)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Add the path of the file to an error about its content."""
    try:
        yield
    except ArgumentError as error:
        raise FileError(f"{path!r}: {error}") from error
