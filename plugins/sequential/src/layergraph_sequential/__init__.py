"""Handlers for the containers of torch.nn: Sequential, ModuleList and ModuleDict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.errors import BuildError

_KINDS = {nn.Sequential: "sequential", nn.ModuleList: "modulelist", nn.ModuleDict: "moduledict"}


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Answer for the three classes, unless a tensor was registered on the container itself."""
    kind = _KINDS.get(type(module))
    if kind is None or module._parameters or module._buffers:
        return None
    return Implementation(kind, children={})


@hookimpl(trylast=True)
def ir_to_torch(
    implementation: Implementation, children: Mapping[str, nn.Module]
) -> nn.Module | None:
    """Answer for the three types."""
    if implementation.type in _KINDS.values() and implementation.data:
        raise BuildError(
            f"implementation {implementation.name!r}: a {implementation.type} has no attributes, "
            f"but {', '.join(implementation.data)} is said; remove it"
        )
    match implementation.type:
        case "sequential":
            return nn.Sequential(OrderedDict(children))
        case "modulelist":
            container: nn.Module = nn.ModuleList()
        case "moduledict":
            container = nn.ModuleDict()
        case _:
            return None
    # Not through the constructors: those would number the children anew, or refuse some names.
    for name, child in children.items():
        container.add_module(name, child)
    return container
