"""Graphs for torch.jit.script.

TorchScript cannot call the guards, because they take values of any type. So each guard becomes an
assertion of operations that TorchScript knows.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any, Optional, TypeAlias

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from layergraph.control_flow import choices, guards
from layergraph.control_flow.regions import REGIONS
from layergraph.control_flow.states import set_state
from layergraph.errors import BuildError
from layergraph.outputs import OutputClass

_CHOICES = frozenset({choices.truth, choices.holds, choices.choose, choices.conditionally})
_INSTEAD = "use torch.compile or torch.export"


def scriptable(graph: fx.Graph) -> fx.Graph:
    """Replace the guards of a graph by assertions, in place, and return it.

    Raises:
        BuildError: TorchScript cannot run the graph.
    """
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        target: Any = node.target
        if target is set_state:
            raise BuildError(
                f"torch.jit.script cannot take {node.name!r}: TorchScript sets no buffer to a "
                f"tensor of another shape; {_INSTEAD}"
            )
        if target in REGIONS:
            raise BuildError(
                f"torch.jit.script cannot take {node.name!r}: TorchScript has no node that begins "
                f"or ends a region; {_INSTEAD}"
            )
        if target in _CHOICES:
            raise BuildError(
                f"torch.jit.script cannot take {node.name!r}: TorchScript does not know the types "
                f"of both ways of a choice; {_INSTEAD}, or capture with values='assume'"
            )
        if isinstance(target, OutputClass):
            _return_dict(node)
            graph.erase_node(node)
            continue
        write = _ASSERTED.get(target)
        if write is not None:
            with graph.inserting_before(node):
                write(graph, *node.args, **node.kwargs)
            graph.erase_node(node)
    return graph


def _return_dict(node: fx.Node) -> None:
    """Return a dict in place of an output class, because TorchScript knows no class of ours."""
    fields: Any = node.args[0]
    found = {name: value for name, value in fields.items() if value is not None}
    for user in list(node.users):
        user.args = map_aggregate(user.args, lambda each: found if each is node else each)


_Optional: TypeAlias = Optional[torch.Tensor]  # noqa: UP045 - torch.jit.script asks for this form


def _is_none(value: _Optional) -> bool:
    return value is None


def _given(value: _Optional, message: str) -> torch.Tensor:
    assert value is not None, message  # noqa: S101
    return value


def own_containers(module: nn.Module, copies: dict[int, nn.Module]) -> dict[str, Any]:
    """Return the children of a module, with copies of the containers that share their tensors.

    torch.jit.script replaces the children of containers, which would change the model.

    Args:
        module: the module.
        copies: by the ``id`` of a container, its copy.
    """
    children: dict[str, Any] = dict(module._modules)
    for name, child in children.items():
        if child is None or not child._modules or isinstance(child, fx.GraphModule):
            continue
        if id(child) not in copies:
            copies[id(child)] = copied = copy.copy(child)
            copied._modules = own_containers(child, copies)
        children[name] = copies[id(child)]
    return children


def _assert(graph: fx.Graph, holds: fx.Node, where: str, expected: object) -> None:
    message = guards.broken(where, expected, "something else")
    graph.call_function(torch._assert, (holds, message))


def _equal(graph: fx.Graph, value: Any, expected: Any, where: str) -> None:
    if isinstance(value, fx.Node) and value.op == "placeholder":
        value.type = _Optional if expected is None else type(expected)
    if expected is None:
        _assert(graph, graph.call_function(_is_none, (value,)), where, expected)
        return
    plain = list(expected) if isinstance(expected, tuple) else expected
    of = plain if isinstance(plain, list) else [plain]
    if not all(isinstance(each, bool | int | float | str | torch.dtype) for each in of):
        raise BuildError(
            f"torch.jit.script cannot take what is assumed of {where}: that it is {expected!r}; "
            f"{_INSTEAD}"
        )
    _assert(graph, graph.call_function(operator.eq, (value, plain)), where, expected)


def _truth(graph: fx.Graph, value: Any, expected: bool, where: str, otherwise: str = "") -> None:
    where = f"{where}: {otherwise}" if otherwise else where
    _equal(graph, graph.call_function(bool, (value,)), expected, where)


def _length(graph: fx.Graph, value: Any, expected: int, where: str) -> None:
    _equal(graph, graph.call_function(len, (value,)), expected, where)


def _tensor(
    graph: fx.Graph,
    value: fx.Node,
    name: str,
    rank: int | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    where = f"the input {name!r}"
    if value.op == "placeholder" and value.args:
        value.type = _Optional
        message = guards.broken(where, "a tensor", "None")
        given = graph.call_function(_given, (value, message))
        value.replace_all_uses_with(given, lambda user: user is not given)
        value = given
    if rank is not None:
        _equal(graph, graph.call_method("dim", (value,)), rank, f"the rank of {where}")
    if dtype is not None:
        _equal(graph, graph.call_function(getattr, (value, "dtype")), dtype, f"dtype of {where}")


def _device(_: fx.Graph, __: object, ___: str, ____: bool, _____: str) -> None:
    """Drop the guard, because it only warns."""


def _container(_: fx.Graph, value: object, kind: str, __: object, where: str) -> None:
    if isinstance(value, fx.Node) and value.op == "placeholder" and kind in _NUMBERS:
        # TorchScript itself checks the type of a number.
        value.type = _NUMBERS[kind]
        return
    raise BuildError(
        f"torch.jit.script cannot take {where}, a {kind}: TorchScript would have to know the types "
        f"of all that is in it; {_INSTEAD}"
    )


def _distinct(_: fx.Graph, __: object, where: str) -> None:
    raise BuildError(f"torch.jit.script cannot tell objects apart, and {where}; {_INSTEAD}")


_NUMBERS = {each.__name__: each for each in (int, float)}
_ASSERTED: dict[Any, Callable[..., None]] = {
    guards.assume: _equal,
    guards.assume_truth: _truth,
    guards.assume_length: _length,
    guards.assume_tensor: _tensor,
    guards.assume_container: _container,
    guards.assume_named: _container,
    guards.assume_distinct: _distinct,
    guards.assume_device: _device,
}
