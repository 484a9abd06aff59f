"""``load`` and ``load_model`` for the formats of this package."""

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
    """Read the structure of a model from a file, without its weights: see :func:`layergraph.load`.

    Args:
        path: a ``.safetensors`` or ``.json`` file that :func:`layergraph.save` wrote; the index of
            several; or a folder that holds one of these, named ``model``.
        limits: the limits for the file.
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
    """Build a model from a file with structure and weights: see :func:`layergraph.load_model`.

    Args:
        path: as for :func:`load`, except ``.json`` files, which hold no weights.
        device: the device of the parameters and buffers; None: torch's default.
        dtype: the dtype of the floating-point parameters and buffers; None keeps their dtypes.
        limits: the limits for the file.
    """
    # load() needs no torch, so that this module does not import it.
    from layergraph_files.build import build

    with opened(path, limits, "load_model(path)") as model:
        return build(model, device, dtype, limits)
