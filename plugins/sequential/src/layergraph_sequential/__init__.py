"""Handlers for the containers of torch.nn: Sequential, ModuleList and ModuleDict."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.errors import BuildError

_KINDS: dict[type[nn.Module], str] = {
    nn.Sequential: "sequential",
    nn.ModuleList: "modulelist",
    nn.ModuleDict: "moduledict",
}


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
    """Answer for the three types.

    Raises:
        BuildError: the implementation says something that such a container does not do.
    """
    classes = {kind: cls for cls, kind in _KINDS.items()}
    if implementation.type not in classes:
        return None
    _refuse_other_graphs(implementation)
    if implementation.data:
        raise BuildError(
            f"implementation {implementation.name!r}: a {implementation.type} has no attributes, "
            f"but {', '.join(implementation.data)} is said; remove it"
        )
    container = classes[implementation.type]()
    # Not through the constructors: those would number the children anew, or refuse some names.
    for name, child in children.items():
        container.add_module(name, child)
    return container


def _refuse_other_graphs(implementation: Implementation) -> None:
    runs = list((implementation.children or {}).values())
    for graph in implementation.graphs:
        if graph.nodes and (implementation.type != "sequential" or graph.chain() != runs):
            raise BuildError(
                f"implementation {implementation.name!r}: its graph is not what a "
                f"{implementation.type} runs; give it the type 'module', which runs any graph"
            )
