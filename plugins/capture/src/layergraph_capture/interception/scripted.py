"""Rewriting of scripted code so that the dispatcher sees each tensor that the code makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

_NUMBERS = frozenset({"FloatType", "IntType"})
# These nodes make no tensor: they return an existing one, or the result of a block.
_PASSING = frozenset({"prim::Constant", "prim::If", "prim::Loop", "prim::Uninitialized"})


def shown(graph: Any) -> Any:
    """Make a graph construct tensors from numbers by operators, and return the graph.

    ``torch.tensor`` in scripted code writes into memory, and no mode of torch sees the numbers.

    Args:
        graph: the graph of a scripted function; changed in place.
    """
    for node in list(graph.findAllNodes("aten::tensor")):
        data, dtype, device, _ = node.inputs()
        graph.setInsertPoint(node)
        none = graph.insertConstant(None)
        if data.type().kind() in _NUMBERS:
            made = _full(graph, data, dtype, device, none)
        elif _is_list_of_numbers(data):
            parts = [_full(graph, each, dtype, device, none) for each in data.node().inputs()]
            listed = _inserted(graph, "prim::ListConstruct", parts)
            listed.setType(torch._C.ListType.ofTensors())
            made = _inserted(graph, "aten::stack", [listed, graph.insertConstant(0)])
        else:
            continue
        node.output().replaceAllUsesWith(made)
        node.destroy()
    return graph


def _is_list_of_numbers(value: Any) -> bool:
    # Another use may change the list.
    if value.node().kind() != "prim::ListConstruct" or len(value.uses()) > 1:
        return False
    numbers = list(value.node().inputs())
    return bool(numbers) and all(each.type().kind() in _NUMBERS for each in numbers)


def _full(graph: Any, number: Any, dtype: Any, device: Any, none: Any) -> Any:
    size = _inserted(graph, "prim::ListConstruct", [])
    size.setType(torch._C.ListType.ofInts())
    return _inserted(graph, "aten::full", [size, number, dtype, none, device, none])


def _inserted(graph: Any, kind: str, inputs: list[Any]) -> Any:
    return graph.insertNode(graph.create(kind, inputs, 1)).output()


def unseen_operators(graph: Any) -> list[str]:
    """Return the names of nodes that make tensors in another way than by an operator.

    Args:
        graph: the graph of a scripted function.
    """
    return sorted({each.kind() for each in _nodes(graph) if _makes_unseen(each)})


def _makes_unseen(node: Any) -> bool:
    if node.kind() in _PASSING or not any(map(_is_tensor, node.outputs())):
        return False
    schema = node.schema()
    if schema != "(no schema)" and torch._C._dispatch_has_kernel(schema.partition("(")[0]):
        return False
    return not any("Tensor" in str(each.type()) for each in node.inputs())


def _is_tensor(value: Any) -> bool:
    return bool(value.type().kind() == "TensorType")


def _nodes(holder: Any) -> Iterator[Any]:
    for node in holder.nodes():
        yield node
        for block in node.blocks():
            yield from _nodes(block)
