"""Models out of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layergraph.gc_pause import gc_paused
from layergraph.ir import Ir
from layergraph_files.limits import DEFAULT_LIMITS, Limits
from layergraph_files.parse_errors import PathName
from layergraph_files.reader import opened

if TYPE_CHECKING:
    import torch
    from torch import nn


@gc_paused()
def load(path: PathName, *, limits: Limits = DEFAULT_LIMITS) -> Ir:
    """Read the structure of a model from a file. Its weights are not read.

    Args:
        path: a ``.safetensors`` or ``.json`` file that :func:`layergraph.save` wrote; the index of
            several; or a folder with one of these in it, named ``model``.
        limits: how much the file may make layergraph do.

    Returns:
        The IR, which keeps the rules of :func:`layergraph.ir.check`.

    Raises:
        ArgumentError: the path is none.
        FileError: the file cannot be read, or is of another form.
        InvalidIrError: what it describes breaks a rule of IRs.
    """
    with opened(path, limits) as model:
        return model.ir


@gc_paused()
def load_model(
    path: PathName,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> nn.Module:
    """Build a model from a file that holds its structure and its weights.

    On the CPU, the weights are the file itself, mapped into memory: they are read when they are
    used, and a change of them is not written back. The file must not be changed meanwhile; to be
    replaced by another, as :func:`layergraph.save` does it, is no harm. Tensors that do not begin
    in the file where torch lets tensors begin in memory are read at once: kernels may round
    otherwise there.

    Args:
        path: as for :func:`load`, but for ``.json`` files, which hold no weights.
        device: where the parameters and buffers are to be; None: torch's default.
        dtype: what those of them are to be that are floating; None: what they were. Constants that
            the original did not register stay as they were, as they do in ``model.to(dtype)``.
        limits: how much the file may make layergraph do.

    Returns:
        The model, as :func:`layergraph.to_torch` gives it.

    Raises:
        ArgumentError: the path is none.
        FileError: the file cannot be read, is of another form, goes beyond a limit, or needs a
            plugin that is not installed.
        InvalidIrError: what it describes breaks a rule of IRs.
        BuildError: a layer has no handler, or is none that can be made.
        StateError: the weights do not fit the structure.
        PluginError: a handler broke its contract.
    """
    # Looking at a structure needs no torch.
    from layergraph_files.build import build

    with opened(path, limits, "load_model(path)") as model:
        return build(model, device, dtype, limits)
