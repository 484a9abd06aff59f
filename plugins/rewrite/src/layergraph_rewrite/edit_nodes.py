"""The edits of nodes."""

from __future__ import annotations

from typing import Any

from layergraph.errors import ArgumentError
from layergraph.ir import (
    INPUT,
    OUTPUT,
    Node,
    Ref,
    Value,
    refs,
)
from layergraph_rewrite import nesting
from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.effects import effect_of, may_pass
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.places import Place, Places, Where, child_name
from layergraph_rewrite.terms import Applied, Layer, applied, renamed
from layergraph_rewrite.working import WorkingGraph, WorkingLayer, changed


class NodeEdits(Places):
    """The edits of nodes; see :class:`~layergraph_rewrite.Edit`."""

    def insert_after(self, where: Where, term: Any) -> Call:
        """Insert a call after a node. All users of the node read the new one.

        Args:
            where: the node.
            term: the call: ``layer("relu")``, ``function("torch.flatten")(VALUE, 1)``, or the path
                of a layer that exists. VALUE is the value of the node.

        Raises:
            EditError: there is no such node.

        Example:
            >>> import torch, layergraph as lg
            >>> from layergraph_rewrite import layer
            >>> edit = lg.edit(lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3))))
            >>> edit.insert_after("0", layer("relu"))
            Call('root:relu': relu)
        """
        owner, name = self._find(where)
        self._refuse_output(owner, name)
        users = [list(graph.users[name]) for graph in owner.graphs_with(name)]
        places = [
            Place(
                graph, graph.order.after(name), graph.nodes[name].when, Ref(name), Node("", "", "")
            )
            for graph in owner.graphs_with(name)
        ]
        new = self._make(owner, places, _called(term))
        for graph, before in zip(owner.graphs_with(name), users, strict=True):
            graph.replace_uses(name, Ref(new), only=before)
        return self.call(Site(owner.name, new))

    def insert_before(self, where: Where, term: Any, *, argument: int | str = 0) -> Call:
        """Insert a call before a node, on one of its arguments.

        Args:
            where: the node.
            term: as for :meth:`insert_after`. VALUE is the argument.
            argument: the position or name of the argument.

        Raises:
            EditError: there is no such node or argument.
        """
        owner, name = self._find(where)
        places = [
            Place(graph, name, node.when, _argument(owner, node, argument), node)
            for graph, node in _nodes(owner, name)
        ]
        new = self._make(owner, places, _called(term))
        for graph in owner.graphs_with(name):
            graph.change(_with_argument(graph.nodes[name], argument, Ref(new)))
        return self.call(Site(owner.name, new))

    def insert_on(self, source: Where, sink: Where, term: Any) -> Call:
        """Insert a call on the edge between two nodes of one graph; other users stay.

        Raises:
            EditError: there is no such edge.
        """
        owner, src = self._find(source)
        other, name = self._find(sink)
        places = [
            Place(graph, name, node.when, Ref(src), node)
            for graph, node in _nodes(other, name)
            if other is owner and name in graph.users.get(src, ())
        ]
        if not places:
            raise EditError(f"no edge goes from {owner.name}:{src} to {other.name}:{name}")
        new = self._make(owner, places, _called(term))
        for place in places:
            place.graph.replace_uses(src, Ref(new), only=[name])
        return self.call(Site(owner.name, new))

    def replace(self, where: Where, term: Any) -> Call:
        """Replace a node by another call. The node keeps its name.

        Args:
            where: the node.
            term: as for :meth:`insert_after`. A layer or function that is not called takes the
                arguments of the node. A new layer takes the name of the one that it replaces.

        Raises:
            EditError: there is no such node, or it is an input or the output.
        """
        owner, name = self._find(where)
        node = owner.graphs_with(name)[0].nodes[name]
        if node.type in (INPUT, OUTPUT):
            raise EditError(f"{owner.name}:{name} is an {node.type}; it cannot be replaced")
        old = owner.graphs_with(name)[0].layer_of(node) if node.is_call else None
        takes_name = old is not None and self._is_only_call(old, owner, name)
        if old is not None and takes_name:
            term = _named_after(term, child_name(owner, old))
        places = [
            Place(graph, name, each.when, _first_ref(each), each)
            for graph, each in _nodes(owner, name)
        ]
        new = self._make(owner, places, term, replaces=old if takes_name else None)
        for graph in owner.graphs_with(name):
            graph.replace_uses(name, Ref(new))
            graph.remove(name)
            graph.rename(new, name)
        if old is not None:
            nesting.drop_unused(self._space, old)
        return self.call(Site(owner.name, name))

    def _is_only_call(self, layer: WorkingLayer, owner: WorkingLayer, name: str) -> bool:
        """Return whether removing a node removes its layer too, which frees the path."""
        if child_name(owner, layer) is None:
            return False
        inside = {id(each) for each in layer.inside()}
        if any((graph.owner, each) != (owner, name) for graph, each in layer.calls):
            return False
        if any(id(home) in inside for home in self._space.read_homes(inside)):
            return False
        return all(
            id(parent) in inside or each is layer
            for each in layer.inside()
            for parent, _ in each.parents
        ) and all(
            id(graph.owner) in inside or each is layer
            for each in layer.inside()
            for graph, _ in each.calls
        )

    def remove(self, where: Where, *, by: Where | Value = None) -> None:
        """Remove a node, and its layer if nothing else uses it. Its users read its argument.

        Args:
            where: the node.
            by: the node or plain value for its users; None: its only argument that is a node, or
                its first argument.

        Raises:
            EditError: there is no such node, it is an input or the output, or ``by`` is needed.
        """
        owner, name = self._find(where)
        node = owner.graphs_with(name)[0].nodes[name]
        if node.type in (INPUT, OUTPUT):
            raise EditError(
                f"{owner.name}:{name} is an {node.type}; use remove_input or set_outputs"
            )
        has_users = any(graph.users[name] for graph in owner.graphs_with(name))
        values = [
            self._value(owner, by)
            if by is not None
            else _passed_on(owner, each)
            if has_users
            else None
            for _, each in _nodes(owner, name)
        ]
        for graph, value in zip(owner.graphs_with(name), values, strict=True):
            if name in refs(value):
                raise EditError(f"{owner.name}:{name} goes, and cannot be read; say another by=")
            self._check_order(graph, name, value, graph.users[name])
        old = owner.graphs_with(name)[0].layer_of(node) if node.is_call else None
        owner.is_edited = True
        for graph, value in zip(owner.graphs_with(name), values, strict=True):
            graph.replace_uses(name, value)
            graph.remove(name)
        if old is not None:
            nesting.drop_unused(self._space, old)

    def replace_uses(self, where: Where, by: Where | Value) -> None:
        """Replace a node by another node or a plain value for all its users. The node stays.

        Raises:
            EditError: the other node runs after a user.
        """
        owner, name = self._find(where)
        value = self._value(owner, by)
        own = value.node if type(value) is Ref else None
        users = [
            [user for user in graph.users[name] if user != own] for graph in owner.graphs_with(name)
        ]
        for graph, each in zip(owner.graphs_with(name), users, strict=True):
            self._check_order(graph, name, value, each)
        owner.is_edited = True
        for graph, each in zip(owner.graphs_with(name), users, strict=True):
            graph.replace_uses(name, value, only=each)

    def set_arguments(self, where: Where, *args: Value, **kwargs: Value) -> None:
        """Set the arguments of a node. ``Ref(name)`` is the value of a node of the same graph.

        Raises:
            EditError: an argument names no node that runs before.
        """
        owner, name = self._find(where)
        if owner.graphs_with(name)[0].nodes[name].type == INPUT:
            raise EditError(f"{owner.name}:{name} is an input, and takes no arguments")
        for graph in owner.graphs_with(name):
            for source in refs(*args, *kwargs.values()):
                if source not in graph or not graph.order.is_before(source, name):
                    raise EditError(f"{owner.name}:{source} does not run before {name!r}")
        owner.is_edited = True
        for graph in owner.graphs_with(name):
            graph.change(changed(graph.nodes[name], args=args, kwargs=kwargs))

    def move(
        self, where: Where, *, before: Where | None = None, after: Where | None = None
    ) -> None:
        """Move a node before or after another one of its graph.

        Raises:
            EditError: it would run before a value that it reads, after a node that reads it, or
                pass a node that changes a tensor in place, draws random numbers or ends a region.
        """
        target = before if before is not None else after
        if target is None or (before is not None and after is not None):
            raise ArgumentError("say where to move the node: before= or after= another one")
        (owner, name), (other_owner, other) = self._find(where), self._find(target)
        if owner is not other_owner or name == other:
            raise EditError(f"{owner.name}:{name} cannot move to {other_owner.name}:{other}")
        if INPUT in (node.type for _, node in _nodes(owner, name)):
            raise EditError(f"{owner.name}:{name} is an input; the order of inputs stays")
        places = [
            (graph, other if before is not None else graph.order.after(other))
            for graph in owner.graphs_with(name)
            if other in graph
        ]
        if any(place is None or graph.nodes[name].type == OUTPUT for graph, place in places):
            raise EditError(f"{owner.name}:{name} cannot move there: the output stays last")
        for graph, place in places:
            self._check_move(graph, name, place)
        for graph, place in places:
            if place != name:
                graph.order.remove(name)
                graph.order.insert(name, before=place)
        owner.is_edited = True

    def _check_move(self, graph: WorkingGraph, name: str, before: str | None) -> None:
        if before == name:
            return
        node = graph.nodes[name]
        label = graph.order.label
        passed = list(graph.order.between(name, before))
        if before is not None and label(before) < label(name):
            passed = [before, *graph.order.between(before, name)]
        effect = effect_of(node, self._space.layers)
        for each in passed:
            other = graph.nodes[each]
            if each in node.sources() or name in other.sources():
                raise EditError(f"{name!r} cannot pass {each!r}: one reads the other")
            if not may_pass(effect, effect_of(other, self._space.layers)):
                raise EditError(
                    f"{name!r} cannot pass {each!r}: one changes a tensor in place, draws random "
                    "numbers, or begins or ends a region"
                )


def _nodes(owner: WorkingLayer, name: str) -> list[tuple[WorkingGraph, Node]]:
    return [(graph, graph.nodes[name]) for graph in owner.graphs_with(name)]


def _called(term: Any) -> Any:
    """Return a term as a call; a path of a layer stays."""
    return term if isinstance(term, str) else applied(term)


def _first_ref(node: Node) -> Value:
    return next((arg for arg in node.args or () if type(arg) is Ref), None)


def _passed_on(owner: WorkingLayer, node: Node) -> Value:
    """Return the argument that the users of a removed node read instead."""
    args = node.args or ()
    found = refs(*args, *node.kwargs.values())
    if len(set(found)) == 1:
        return Ref(found[0])
    if not args or type(args[0]) is not Ref:
        raise EditError(
            f"the first argument of {owner.name}:{node.name} is no value of a node; say by= "
            "which value its users read instead"
        )
    return args[0]


def _named_after(term: Any, child: str | None) -> Any:
    """Return a term with a name for its layer, unless the term states one."""
    if isinstance(term, Layer) and term.name is None:
        return renamed(term, child)
    if isinstance(term, Applied) and term.operation.name is None:
        return Applied(renamed(term.operation, child), term.args, term.kwargs)
    return term


def _argument(owner: WorkingLayer, node: Node, argument: int | str) -> Value:
    args = node.args or ()
    if isinstance(argument, str) and argument in node.kwargs:
        return node.kwargs[argument]
    if isinstance(argument, int) and -len(args) <= argument < len(args):
        return args[argument]
    raise EditError(f"{owner.name}:{node.name} has no argument {argument!r}")


def _with_argument(node: Node, argument: int | str, value: Value) -> Node:
    if isinstance(argument, str):
        return changed(node, kwargs={**node.kwargs, argument: value})
    args = list(node.args or ())
    args[argument] = value
    return changed(node, args=tuple(args))
