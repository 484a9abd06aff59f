"""Files of NIR."""

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
    """Write a model to a file of NIR, all of it or nothing.

    Args:
        ir: the IR of the model.
        path: the path.
        state_dict: the weights.
        options: those of :func:`layergraph_nir.to_nir`; ``args`` is needed.

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
        max_bytes: the most bytes of the arrays in the file; None: in proportion to its size.

    Raises:
        FileError: the file is damaged, or has what no layer computes.
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
    """Build the model in a file of NIR: see :func:`load`.

    Args:
        path: the path.
        device: the device of its tensors.
        dtype: the dtype of its numbers; None: float32.
        dt: the length of a time step, in seconds.
        max_bytes: the most bytes of the arrays in the file; None: in proportion to its size.
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
    """Name the file in an error of its content."""
    try:
        yield
    except ArgumentError as error:
        raise FileError(f"{path!r}: {error}") from error
