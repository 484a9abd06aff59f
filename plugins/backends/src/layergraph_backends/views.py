"""Views: nodes whose values are parts of other values, and the functions that write a part back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from layergraph.ir import FUNCTION, Node, Ref, Value
from layergraph.ir.values import leaves
from layergraph_rewrite.aliases import shares, written
from layergraph_rewrite.working import WorkingGraph, WorkingLayer
from layergraph_shapes import TensorMeta

_GETITEM, _SETITEM = "operator.getitem", "operator.setitem"
_SPLITS = frozenset({"split", "chunk", "tensor_split", "split_with_sizes"})
_SELF_INVERSE = frozenset({"transpose", "swapaxes", "swapdims", "t", "T", "mT"})
_RESHAPING = frozenset({"view", "view_as", "unflatten", "unsqueeze", "squeeze"})
_IDENTITIES = frozenset({"detach", "alias", "data", "requires_grad_"})

Meta = Callable[[str], Any]


class View(NamedTuple):
    """The relation of a value to the value of which it is a part.

    Attributes:
        parent: the node of the whole.
        put: a node that computes the new whole from the old whole and the new part. An int: the
            index of the part in a tuple. None: the part is the whole tensor.
    """

    parent: str
    put: Node | int | None = None


class Views:
    """The nodes of a graph whose values are parts of other values.

    Args:
        graph: the graph.
        layers: all layers by name.
        meta: returns the description of the value of a node.
    """

    def __init__(self, graph: WorkingGraph, layers: Mapping[str, WorkingLayer], meta: Meta) -> None:
        self._graph = graph
        self._layers = layers
        self._meta = meta
        self._known: dict[str, View | None] = {}

    def of(self, name: str) -> View | None:
        """Return the view relation of a node; None if its value is no part, or unknown."""
        if name not in self._known:
            self._known[name] = self._view(self._graph.nodes[name])
        return self._known[name]

    def root(self, name: str) -> str:
        """Return the outermost whole of which a node's value is a part."""
        while (view := self.of(name)) is not None:
            name = view.parent
        return name

    def is_copy(self, node: Node) -> bool:
        """Return whether a node indexes a tensor with tensors, lists or masks."""
        args = node.args or ()
        if node.implementation != _GETITEM or len(args) != 2:
            return False
        parts = args[1] if type(args[1]) is tuple else (args[1],)
        return any(type(each) in (list, bool) or self._is_tensor(each) for each in parts)

    def _is_tensor(self, value: Value) -> bool:
        return type(value) is Ref and isinstance(self._meta(value.node), TensorMeta)

    def _view(self, node: Node) -> View | None:
        args = node.args or ()
        if node.when is not None or not args or type(args[0]) is not Ref:
            return None
        parent = args[0].node
        is_leaf = node.is_call and not self._layers[node.implementation].graphs
        if is_leaf or node.type == FUNCTION:
            if written(node, self._layers) == [parent]:
                return View(parent)
            if is_leaf and self._layers[node.implementation].type == "identity":
                return View(parent)
        if node.type != FUNCTION:
            return None
        if node.implementation == _GETITEM and len(args) == 2:
            return self._item(node, parent, args[1])
        if not node.implementation.startswith(("torch.Tensor.", "torch.")):
            return None
        name = node.implementation.rpartition(".")[2]
        if name in _IDENTITIES:
            return View(parent)
        put = self._put(name, node, parent)
        return None if put is None else View(parent, put)

    def _item(self, node: Node, parent: str, key: Value) -> View | None:
        if self._is_tensor(Ref(parent)):
            parts = key if type(key) is tuple else (key,)
            return _set(node, parent, key) if all(map(self._is_basic, parts)) else None
        source = self._graph.nodes[parent]
        name = source.implementation.rpartition(".")[2]
        # Two parts of what another function returns may share memory.
        are_apart = source.type == FUNCTION and (
            name in _SPLITS or name == "unbind" or not shares(source.implementation)
        )
        return View(parent, key) if are_apart and type(key) is int else None

    def _is_basic(self, part: Value) -> bool:
        """Return whether a part of an index selects a view."""
        inside = leaves(part.start, part.stop, part.step) if type(part) is slice else [part]
        return all(
            each is None
            or each is ...
            or type(each) is int
            or (type(each) is Ref and type(self._meta(each.node)) in (int, str))
            for each in inside
        )

    def _put(self, name: str, node: Node, parent: str) -> Node | None:
        """Return a node that writes the part returned by a torch function back into the whole."""
        own, whole, part = self._meta(node.name), self._meta(parent), Ref(node.name)
        args, kwargs = (node.args or ())[1:], node.kwargs
        if name in _SPLITS and not kwargs.keys() - {"dim"}:
            dim = args[1] if len(args) == 2 else kwargs.get("dim", 0)
            return _call(parent, "torch.cat", part, dim)
        if name == "unbind" and not kwargs.keys() - {"dim"}:
            return _call(parent, "torch.stack", part, args[0] if args else kwargs.get("dim", 0))
        if name in _RESHAPING and isinstance(own, TensorMeta) and isinstance(whole, TensorMeta):
            same = own.dtype is whole.dtype
            return _call(parent, "torch.Tensor.view_as", part, Ref(parent)) if same else None
        if kwargs:
            return None
        if name in _SELF_INVERSE:
            return _call(parent, node.implementation, part, *args)
        if name == "permute":
            order = args[0] if len(args) == 1 and type(args[0]) in (tuple, list) else args
            return _call(parent, "torch.permute", part, _inverse(order)) if _ints(order) else None
        if name in ("select", "narrow") and isinstance(whole, TensorMeta) and _ints(args):
            dim, start = args[:2]
            place = start if name == "select" else slice(start, start + args[2])
            if name == "narrow" and start < 0:
                return None
            key = (*(slice(None),) * (dim % len(whole.shape)), place)
            return _call(parent, _SETITEM, Ref(parent), key, part)
        return None


def _set(node: Node, parent: str, key: Value) -> View:
    return View(parent, _call(parent, _SETITEM, Ref(parent), key, Ref(node.name)))


def _call(name: str, function: str, *args: Any) -> Node:
    return Node(name, FUNCTION, function, args)


def _ints(values: Any) -> bool:
    return all(type(each) is int for each in values)


def _inverse(order: Any) -> tuple[int, ...]:
    forward = [each % len(order) for each in order]
    return tuple(forward.index(at) for at in range(len(forward)))
