"""The edits of interfaces: inputs, outputs and composites."""

from __future__ import annotations

from collections.abc import Collection

from layergraph.ir import (
    BODY,
    INPUT,
    Node,
    Value,
    refs,
)
from layergraph_rewrite import inlining, nesting, outlining, unrolling
from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.places import Places, Where
from layergraph_rewrite.working import WorkingLayer, changed


class BorderEdits(Places):
    """The edits of interfaces; see :class:`~layergraph_rewrite.Edit`."""

    def add_input(self, name: str, *, graph: str = "", value: Where | Value = None) -> Call:
        """Add an input at the end of the inputs of the model, or of a composite.

        Args:
            name: the name of the parameter.
            graph: the composite; the root if it is empty.
            value: for a composite, the value that every call of it passes.

        Raises:
            EditError: the name is taken.
        """
        owner = self._layer(graph)
        if any(name in each for each in owner.graphs) or owner.namer.name(name) != name:
            raise EditError(f"{name!r} is taken in {owner.name!r}, or no name for an argument")
        _refuse_leaf(owner)
        callers = [(caller, site, self._value(caller.owner, value)) for caller, site in owner.calls]
        for caller, site, given in callers:
            for source in refs(given):
                if source not in caller or not caller.order.is_before(source, site):
                    raise EditError(f"{caller.owner.name}:{source} does not run before {site!r}")
        for each in owner.graphs:
            inputs = [node.name for node in each if node.type == INPUT]
            before = each.order.after(inputs[-1]) if inputs else next(iter(each.order), None)
            each.add(Node(name, INPUT, name, ()), before=before)
        for caller, site, given in callers:
            node = caller.nodes[site]
            caller.owner.is_edited = True
            caller.change(changed(node, kwargs={**node.kwargs, name: given}))
        owner.is_edited = True
        return self.call(Site(owner.name, name))

    def remove_input(self, name: str, *, graph: str = "") -> None:
        """Remove an input that no node reads.

        Args:
            name: the name of the input's node.
            graph: the composite; the root if it is empty.

        Raises:
            EditError: there is no such input, or a node reads it.
        """
        owner = self._layer(graph)
        _refuse_leaf(owner)
        inputs = [node.name for each in owner.graphs[:1] for node in each if node.type == INPUT]
        if name not in inputs:
            raise EditError(f"{owner.name!r} has no input {name!r}; it has {', '.join(inputs)}")
        for each in owner.graphs:
            if each.users[name]:
                user = next(iter(each.users[name]))
                raise EditError(f"{user!r} reads the input {name!r}; change it first")
        index = inputs.index(name)
        parameter = owner.graphs[0].nodes[name].implementation
        for caller, site in list(owner.calls):
            node = caller.nodes[site]
            args = list(node.args or ())
            kwargs = {
                key: each for key, each in node.kwargs.items() if key not in (name, parameter)
            }
            if index < len(args):
                del args[index]
            caller.owner.is_edited = True
            caller.change(changed(node, args=tuple(args), kwargs=kwargs))
        for each in owner.graphs:
            each.remove(name)
        owner.is_edited = True

    def set_outputs(self, *values: Where | Value, graph: str = "") -> None:
        """Change the values that the model, or a composite, returns; several become a tuple.

        Raises:
            EditError: there is no such node.
        """
        owner = self._layer(graph)
        given = tuple(self._value(owner, each) for each in values)
        _refuse_leaf(owner)
        for source in refs(*given):
            if not all(source in each for each in owner.graphs):
                raise EditError(f"{owner.name}:{source} runs in one mode only")
        returned = given[0] if len(given) == 1 else given
        for each in owner.graphs:
            each.change(changed(each.output(), args=(returned,)))
        owner.is_edited = True

    def inline(self, where: Where) -> dict[str, str]:
        """Replace the call of a composite by the calls inside it. Paths and keys stay.

        Returns:
            The new names of the nodes inside, by their old ones.

        Raises:
            EditError: the node calls no composite, or has a condition.
        """
        return inlining.inline(self._space, *self._find(where))

    def unroll(self, where: Where, turns: int | None = None) -> None:
        """Replace a loop by its iterations.

        Args:
            where: the node that calls ``layergraph.loop``.
            turns: the number of iterations. If it depends on sizes of inputs, the new graph has a
                guard for this number.

        Raises:
            EditError: the node is no loop, or states another number of iterations.

        Example:
            >>> import torch, layergraph as lg
            >>> class Powers(torch.nn.Module):
            ...     def forward(self, x):
            ...         total = x
            ...         for _ in range(x.size(0)):
            ...             total = total * x
            ...         return total
            >>> x = torch.full((3,), 2.0)
            >>> edit = lg.edit(lg.to_ir(Powers(), (x,)))
            >>> edit.unroll("root:loop", 3)
            >>> lg.to_torch(edit.ir, {})(x)
            tensor([16., 16., 16.])
        """
        unrolling.unroll(self._space, *self._find(where), turns)

    def drop_unused_layers(self) -> None:
        """Remove the layers that no call or read reaches, and that contain no reached layer."""
        nesting.drop_all_unused(self._space)

    def outline(self, nodes: Collection[Where], name: str) -> Call:
        """Move nodes of one graph, with the layers that they call, into a new composite.

        The name of the composite becomes a prefix of the keys of these layers.

        Args:
            nodes: the nodes. No other node may run between them.
            name: the name of the new composite.

        Raises:
            EditError: the nodes cannot be a composite.
        """
        found = [self._find(each) for each in nodes]
        new = outlining.outline(self._space, found, name)
        return self.call(new)


def _refuse_leaf(owner: WorkingLayer) -> None:
    if not owner.graphs:
        raise EditError(f"{owner.name!r} is a {owner.type}, and has no graph")
    if owner.type == BODY:
        raise EditError(
            f"{owner.name!r} is a body; the function that runs it knows its inputs and outputs"
        )
