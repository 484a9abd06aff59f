"""Handlers for the containers of torch.nn, for modules and for parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.errors import BuildError

_KINDS: dict[type[nn.Module], str] = {
    nn.Sequential: "sequential",
    nn.ModuleList: "modulelist",
    nn.ModuleDict: "moduledict",
    nn.ParameterList: "parameterlist",
    nn.ParameterDict: "parameterdict",
}


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Describe the five containers, if one holds only layers or only parameters."""
    kind = _KINDS.get(type(module))
    if kind is None or not _holds_its_own(module):
        return None
    return Implementation(kind, children={})


@hookimpl(trylast=True)
def ir_to_torch(
    implementation: Implementation, children: Mapping[str, nn.Module]
) -> nn.Module | None:
    """Make the five containers.

    Raises:
        BuildError: the implementation has attributes, tensors or a graph that the container cannot
            have.
    """
    classes = {kind: cls for cls, kind in _KINDS.items()}
    if implementation.type not in classes:
        return None
    _refuse_other_graphs(implementation)
    if implementation.attributes:
        raise BuildError(
            f"implementation {implementation.name!r}: a {implementation.type} has no attributes, "
            f"but here it has {', '.join(implementation.attributes)}; remove it"
        )
    cls = classes[implementation.type]
    if cls is nn.ParameterList:
        parameters = _parameters(implementation, children)
        if list(parameters) != _numbers(len(parameters)):
            raise BuildError(
                f"implementation {implementation.name!r}: the tensors of a parameterlist are "
                f"{', '.join(parameters)}; number them from 0, in order"
            )
        return nn.ParameterList(parameters.values())
    if cls is nn.ParameterDict:
        # Pass the items, because the constructor sorts the keys of a dict.
        return nn.ParameterDict(_parameters(implementation, children).items())
    container = cls()
    # Do not use the constructors: they renumber children, and refuse some names.
    for name, child in children.items():
        container.add_module(name, child)
    return container


def _holds_its_own(module: nn.Module) -> bool:
    """Return whether a container holds only children, or only parameters, under its own keys."""
    if isinstance(module, nn.ParameterList):
        keys = _numbers(len(module))
    elif isinstance(module, nn.ParameterDict):
        keys = list(module.keys())
    else:
        return not module._parameters and not module._buffers
    # A container of parameters may also hold other values, which it does not register under keys.
    registered = [name for name, each in module._parameters.items() if each is not None]
    return keys == registered and not module._buffers and not module._modules


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _parameters(
    implementation: Implementation, children: Mapping[str, nn.Module]
) -> dict[str, nn.Parameter]:
    """Return the parameters of a container by name. The core sets their dtypes and values."""
    parameters = {}
    for name, spec in implementation.tensors.items():
        if spec.kind != "parameter" or spec.shape is None:
            raise BuildError(
                f"implementation {implementation.name!r}, tensor {name!r}: a "
                f"{implementation.type} holds parameters; say its kind and shape"
            )
        parameters[name] = nn.Parameter(torch.zeros(spec.shape, dtype=torch.float32))
    if children:
        raise BuildError(
            f"implementation {implementation.name!r}: a {implementation.type} holds parameters, "
            f"but it has the children {', '.join(children)}; give it the type 'module'"
        )
    return parameters


def _refuse_other_graphs(implementation: Implementation) -> None:
    runs = list((implementation.children or {}).values())
    for graph in implementation.graphs:
        if graph.nodes and (implementation.type != "sequential" or graph.chain() != runs):
            raise BuildError(
                f"implementation {implementation.name!r}: its graph differs from what a "
                f"{implementation.type} runs; give it the type 'module', which runs any graph"
            )
