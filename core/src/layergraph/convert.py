"""The two conversions, each in one call."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.ir import Ir
from layergraph.ir2torch import Ir2Torch
from layergraph.torch2ir import Torch2Ir

if TYPE_CHECKING:
    from layergraph.torch2ir.folding.modes import Modes
    from layergraph.torch2ir.running.questions import Values


def to_ir(
    model: nn.Module,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    values: Values = "refuse",
    modes: Modes = "both",
) -> Ir:
    """Turn a model into its IR, with the installed plugins.

    Args, returns and raises as :meth:`layergraph.torch2ir.Torch2Ir.convert`.
    """
    return default_torch2ir().convert(model, args, kwargs, values=values, modes=modes)


def to_torch(
    ir: Ir | Mapping[str, Mapping[str, Any]],
    state_dict: Mapping[str, torch.Tensor] | None = None,
    device: torch.device | str | int | None = None,
) -> nn.Module:
    """Build the model that an IR describes, with the installed plugins.

    Args, returns and raises as :meth:`layergraph.ir2torch.Ir2Torch.convert`.
    """
    return default_ir2torch().convert(ir, state_dict, device)


# Nothing is registered on these, so that one of each is enough.


@functools.cache
def default_torch2ir() -> Torch2Ir:
    """The converter of :func:`to_ir`."""
    return Torch2Ir()


@functools.cache
def default_ir2torch() -> Ir2Torch:
    """The converter of :func:`to_torch`."""
    return Ir2Torch()
