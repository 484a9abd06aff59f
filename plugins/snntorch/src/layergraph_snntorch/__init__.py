"""Spiking neurons of snntorch, which is imported on first use."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl

NEURONS = frozenset("Alpha Lapicque Leaky RLeaky RSynaptic SConv2dLSTM SLSTM Synaptic".split())
_TYPES = frozenset(map(str.lower, NEURONS))
_HOMES = ("snntorch._neurons.", f"{__name__}.stateful")

# Not the hook `layers`: to list the classes, it would import snntorch at the first conversion.


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Describe the neurons of snntorch by the arguments of their constructors."""
    cls = type(module)
    if cls.__name__ not in NEURONS or not cls.__module__.startswith(_HOMES):
        return None
    from .neurons import to_ir

    return to_ir(module)


@hookimpl(trylast=True)
def ir_to_torch(implementation: Implementation) -> nn.Module | None:
    """Make the neurons of snntorch."""
    if implementation.type not in _TYPES:
        return None
    from .neurons import to_torch

    return to_torch(implementation)
