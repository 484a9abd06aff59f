"""Editing an IR: each edit keeps it valid or raises, and the tensors follow."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from layergraph.errors import ArgumentError, near
from layergraph.ir import (
    FUNCTION,
    INPUT,
    OUTPUT,
    Implementation,
    Ir,
    Node,
    Ref,
    TensorSpec,
    Value,
    map_leaves,
    refs,
)
from layergraph_rewrite import nesting
from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.effects import effect_of, may_pass
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.new_layers import set_tensors
from layergraph_rewrite.report import Report
from layergraph_rewrite.select import Selection, select
from layergraph_rewrite.sources import Source, Tensors
from layergraph_rewrite.terms import Applied, Existing, Layer, applied, renamed
from layergraph_rewrite.terms import Tensors as Given
from layergraph_rewrite.terms import Value as Wildcard
from layergraph_rewrite.working import WorkingGraph, WorkingLayer, changed
from layergraph_rewrite.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from layergraph_rewrite.match import Match

Where: TypeAlias = str | Site | Call

_Places: TypeAlias = list[tuple[WorkingGraph, str | None, tuple[Ref, bool] | None]]


class Edit:
    """An edit of an IR. The IR and its state dict stay as they are; ``ir`` and ``state`` are new.

    Layers are named by their paths (``"layer1.0.conv1"``). Nodes are named by the layer that they
    call, where one node calls it, or by composite and node (``"layer1.0:add"``; ``":add"`` in the
    root), or by the :class:`Call` that :meth:`select` gives. If a composite has a graph for each
    mode, an edit changes both where both have the node.

    Args:
        ir: the IR.
        state: its state dict. None: ``edit.state`` is None too.

    Attributes:
        report: the record of the changes that rules and passes made.

    Raises:
        InvalidIrError: the IR breaks a rule.
        StateError: the state dict is not of this IR.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_rewrite import layer
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Dropout())
        >>> edit = lg.edit(lg.to_ir(model), model.state_dict())
        >>> edit.replace("1", layer("gelu"))
        Call('root:_1': gelu)
        >>> edit.remove("2")
        >>> lg.to_torch(edit.ir, edit.state)
        Sequential(
          (0): Linear(in_features=2, out_features=3, bias=True)
          (1): GELU(approximate='none')
        )
    """

    def __init__(self, ir: Ir, state: Mapping[str, torch.Tensor] | None = None) -> None:
        self._space = Workspace(ir, state)
        self.report = Report()

    # What there is.

    @property
    def ir(self) -> Ir:
        """The IR as it is now: a copy, checked.

        Raises:
            InvalidIrError: the edits broke a rule.
        """
        return self._space.ir()

    @property
    def state(self) -> Tensors | None:
        """The state dict as it is now. Its tensors are read when they are asked for."""
        return self._space.state()

    def call(self, where: Where) -> Call:
        """Return the handle of a node.

        Raises:
            EditError: there is no such node, or several nodes call the layer.
        """
        owner, name = self._find(where)
        return Call(owner.graphs_with(name)[0], name)

    def calls(self, layer: str) -> list[Call]:
        """Return the nodes that call a layer.

        Raises:
            EditError: there is no such layer.
        """
        found = {(graph.owner.name, name): graph for graph, name in self._layer(layer).calls}
        return [Call(graph, name) for (_, name), graph in found.items()]

    def __iter__(self) -> Iterator[Call]:
        """Yield all nodes: those of the root in execution order, and inside each call its own."""
        yield from self._walk(self._space.root, {})

    def _walk(self, layer: WorkingLayer, seen: dict[int, None]) -> Iterator[Call]:
        seen[id(layer)] = None
        names: dict[str, None] = {}
        for graph in layer.graphs:
            for node in list(graph):
                if node.name in names or node.name not in graph:
                    continue
                names[node.name] = None
                yield Call(graph, node.name)
                if node.name in graph and node.is_call:
                    inner = graph.layer_of(node)
                    if id(inner) not in seen:
                        yield from self._walk(inner, seen)

    def select(self, text: str = "", **options: Any) -> Selection:
        """Return the nodes that match: see :meth:`layergraph.Ir.select`."""
        return select(self, text, **options)

    @property
    def layers(self) -> Mapping[str, WorkingLayer]:
        """All layers under edit, by name."""
        return self._space.layers

    def home(self, key: str) -> tuple[WorkingLayer, str]:
        """Return the layer and the name of the tensor that a key stands for in this edit."""
        return self._space.home(key)

    def names_inside(self, layer: str) -> set[str]:
        """Return the names of a layer and of all layers inside it.

        Raises:
            EditError: there is no such layer.
        """
        return {each.name for each in self._layer(layer).inside()}

    def working_graphs(self) -> Iterator[WorkingGraph]:
        """Yield all graphs."""
        for layer in list(self._space.root.inside()):
            yield from layer.graphs

    def tensors(self, layer: str) -> Tensors:
        """Return the tensors of a layer by name; each is read when it is asked for."""
        return Tensors(self._layer(layer).sources)

    # Layers.

    def set(
        self,
        layer: Where,
        type: str | None = None,  # noqa: A002 the word of the IR
        *,
        tensors: Given | None = None,
        **attributes: Any,
    ) -> None:
        """Change the type or attributes of a layer, and so of all calls of it.

        Args:
            layer: the layer.
            type: its new type. Its attributes are only the given ones then; annotations stay.
            tensors: new tensors by name, or functions that compute them when they are read. A
                tensor that is not given stays if it has the right shape; else the constructor of
                the layer makes it. A tied tensor changes under all its names.
            attributes: new values of attributes. An attribute cannot be named ``layer``, ``type``
                or ``tensors``.

        Raises:
            EditError: there is no such layer, or a tied tensor would change its shape.
            ArgumentError: the layer has no such tensor, or none of that shape.
            BuildError: the attributes do not fit the type.

        Example:
            >>> import torch, layergraph as lg
            >>> edit = lg.edit(lg.to_ir(torch.nn.Linear(2, 3)))
            >>> edit.set("root", bias=False)
            >>> print(edit.ir)
            root: linear(in_features=2, out_features=3, bias=False)
        """
        found = self._layer(layer)
        before = found.type, found.data, found.tensors, found.sources
        if type is not None:
            found.data = {name: each for name, each in found.data.items() if "." in name}
            found.type = type
        found.data = {**found.data, **attributes}
        if found.children is not None:
            if tensors:
                raise EditError(f"{found.name!r} is a composite; set the tensors of a layer in it")
            return
        tied = self._ties_of(found)
        try:
            set_tensors(found, tensors, has_state=self._space.has_state)
            for name, others in tied.items():
                if name not in found.sources and self._space.has_state:
                    raise EditError(
                        f"{name!r} of {found.name!r} is tied to a tensor of {others[0][0].name!r}; "
                        "untie it first"
                    )
                for other, tensor in others:
                    if found.sources.get(name) is not before[3].get(name):
                        self._set_tied(found, name, other, tensor, before[3])
        except Exception:
            found.type, found.data, found.tensors, found.sources = before
            raise
        for graph, name in list(found.calls):
            graph.change(changed(graph.nodes[name], type=found.type))

    def _set_tied(
        self,
        layer: WorkingLayer,
        name: str,
        other: WorkingLayer,
        tensor: str,
        before: Mapping[str, Source],
    ) -> None:
        source = layer.sources[name]
        if name in before and source.read().shape != before[name].read().shape:
            raise EditError(
                f"{name!r} of {layer.name!r} is tied to {tensor!r} of {other.name!r}, and would "
                "change its shape; untie it first"
            )
        other.sources = {**other.sources, tensor: source}

    def _ties_of(self, layer: WorkingLayer) -> dict[str, list[tuple[WorkingLayer, str]]]:
        """Return the tensors that each tensor of a layer is tied to."""
        groups: dict[tuple[int, str], list[tuple[WorkingLayer, str]]] = {}
        mine: dict[str, tuple[int, str]] = {}
        for each in self._space.layers.values():
            for name, spec in each.tensors.items():
                if spec.tied is not None:
                    home, tensor = self._space.home(spec.tied)
                    group = groups.setdefault((id(home), tensor), [(home, tensor)])
                    group.append((each, name))
        for anchor, members in groups.items():
            mine |= {name: anchor for each, name in members if each is layer}
        return {
            name: [pair for pair in groups[anchor] if pair != (layer, name)]
            for name, anchor in mine.items()
        }

    def untie(self, layer: Where, tensor: str) -> None:
        """Cut a tensor of a layer off from those that it is tied to. It keeps its values.

        Raises:
            EditError: there is no such layer, or the tensor is not tied.
        """
        found = self._layer(layer)
        spec = found.tensors.get(tensor)
        others = self._ties_of(found).get(tensor)
        if others is None:
            raise EditError(f"{tensor!r} of {found.name!r} is tied to no other tensor")
        if spec is not None and spec.tied is not None:
            found.tensors[tensor] = _untied(spec)
        else:  # the others are tied to this one: the next of them becomes the one to tie to
            first, *rest = others
            first[0].tensors[first[1]] = _untied(first[0].tensors[first[1]])
            key = self._space.key(*first)
            for each, name in rest:
                each.tensors[name] = _tied(each.tensors[name], key)
        if tensor in found.sources:
            source = found.sources[tensor]
            found.sources = {**found.sources, tensor: Source(lambda: source.read().clone())}

    def annotate(self, where: Where, annotations: Mapping[str, Value]) -> None:
        """Add annotations to a layer, or to a node that calls none.

        Args:
            where: the layer or node.
            annotations: values by name; each name has a dot in it: ``{"acme.bits": 4}``.

        Raises:
            EditError: there is no such layer or node, or a name has no dot.
        """
        for name in annotations:
            if "." not in name:
                raise EditError(f"an annotation needs a dot in its name, as 'acme.{name}'")
        layer = self._layer_or_none(where)
        if layer is not None:
            layer.data = {**layer.data, **annotations}
            return
        owner, name = self._find(where)
        for graph in owner.graphs_with(name):
            node = graph.nodes[name]
            graph.change(changed(node, data={**node.data, **annotations}))

    def rename(self, where: Where, new: str, *, parent: str | None = None) -> None:
        """Give a layer another name, or move it into another composite; its keys follow.

        Args:
            where: the layer; or a node that calls none, as ``":add"``.
            new: the new last part of its path.
            parent: the path of the composite to move it to; ``""`` is the root. What calls the
                layer has to contain it.

        Raises:
            EditError: there is no such layer or node, or the name is taken.
        """
        if not new or "." in new:
            raise EditError(f"{new!r} is no name for a layer; give one without a dot")
        layer = self._layer_or_none(where)
        if layer is None:
            self._rename_node(*self._find(where), new)
        else:
            nesting.rename(self._space, layer, new, None if parent is None else self._layer(parent))

    def _rename_node(self, owner: WorkingLayer, name: str, new: str) -> None:
        if new == name:
            return
        if any(new in graph for graph in owner.graphs):
            raise EditError(f"{owner.name!r} has a node {new!r}; choose another name")
        if owner.namer.name(new) != new:
            raise EditError(f"{new!r} is no name for a node; choose an identifier of Python")
        for graph in owner.graphs_with(name):
            graph.rename(name, new)

    def share(self, layer: Where, with_: Where) -> None:
        """Let all calls of a layer call another one, whose tensors they then share.

        The keys of the layer stay, as those of a tied module.

        Raises:
            EditError: the layers have other types or attributes.
        """
        one, other = self._layer(layer), self._layer(with_)
        if one is other:
            return
        if (one.type, one.attributes) != (other.type, other.attributes):
            raise EditError(
                f"{one.name!r} and {other.name!r} have other types or attributes; only like layers "
                "can be shared"
            )
        nesting.share(self._space, one, other)

    def unshare(self, where: Where) -> str:
        """Give a call of a shared layer a copy of the layer, with copies of its tensors.

        Returns:
            The name of the copy.

        Raises:
            EditError: the node calls no layer.
        """
        owner, name = self._find(where)
        graph = owner.graphs_with(name)[0]
        node = graph.nodes[name]
        if not node.is_call:
            raise EditError(f"{owner.name}:{name} calls no layer, so that it shares none")
        copy = nesting.copy(self._space, owner, graph.layer_of(node))
        for each in owner.graphs_with(name):
            each.change(changed(each.nodes[name], implementation=copy.name))
        owner.is_edited = True
        return copy.name

    # Nodes.

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
        new = self._make(owner, name, term, Ref(name), after=True)
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
        node = owner.graphs_with(name)[0].nodes[name]
        value = _argument(owner, node, argument)
        new = self._make(owner, name, term, value, after=False)
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
        if other is not owner or not any(
            src in each.users and name in each.users[src] for each in owner.graphs
        ):
            raise EditError(f"no edge goes from {owner.name}:{src} to {other.name}:{name}")
        new = self._make(owner, name, term, Ref(src), after=False)
        for graph in owner.graphs_with(name):
            if name in graph.users.get(src, ()):
                graph.replace_uses(src, Ref(new), only=[name])
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
        if not isinstance(term, Applied | str):
            term = term(*(node.args or ()), **node.kwargs)
        value = next((arg for arg in node.args or () if type(arg) is Ref), None)
        old = owner.graphs_with(name)[0].layer_of(node) if node.is_call else None
        child = _child_name(owner, old) if old is not None else None
        if old is not None and child is not None and len({n for _, n in old.calls}) == 1:
            term = _named_after(term, child)
        new = self._make(owner, name, term, value, after=False, replaces=old)
        for graph in owner.graphs_with(name):
            graph.replace_uses(name, Ref(new))
            graph.remove(name)
            graph.rename(new, name)
        if old is not None:
            nesting.drop_unused(self._space, old)
        return self.call(Site(owner.name, name))

    def remove(self, where: Where, *, by: Where | Value = None) -> None:
        """Remove a node, and its layer if nothing else uses it. Its users read its argument.

        Args:
            where: the node.
            by: the node or plain value that its users read instead; None: its only argument that
                is the value of a node, or its first one.

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
        value: Value = None
        if by is not None:
            value = self._value(owner, by)
        elif has_users:
            args = node.args or ()
            if not args or type(args[0]) is not Ref:
                raise EditError(
                    f"the first argument of {owner.name}:{name} is no value of a node; say by= "
                    "which value its users read instead"
                )
            value = args[0]
        old = owner.graphs_with(name)[0].layer_of(node) if node.is_call else None
        owner.is_edited = True
        for graph in owner.graphs_with(name):
            self._check_order(graph, name, value, graph.users[name])
            graph.replace_uses(name, value)
            graph.remove(name)
        if old is not None:
            nesting.drop_unused(self._space, old)

    def replace_uses(self, where: Where, by: Where | Value) -> None:
        """Let all users of a node read another node, or a plain value. The node stays.

        Raises:
            EditError: the other node runs after a user.
        """
        owner, name = self._find(where)
        value = self._value(owner, by)
        owner.is_edited = True
        for graph in owner.graphs_with(name):
            users = [
                user
                for user in graph.users[name]
                if not (type(value) is Ref and user == value.node)
            ]
            self._check_order(graph, name, value, users)
            graph.replace_uses(name, value, only=users)

    def set_arguments(self, where: Where, *args: Value, **kwargs: Value) -> None:
        """Give a node other arguments. ``Ref(name)`` is the value of a node of the same graph.

        Raises:
            EditError: an argument names no node that runs before.
        """
        owner, name = self._find(where)
        owner.is_edited = True
        for graph in owner.graphs_with(name):
            for source in refs(*args, *kwargs.values()):
                if source not in graph or not graph.order.is_before(source, name):
                    raise EditError(f"{owner.name}:{source} does not run before {name!r}")
            graph.change(changed(graph.nodes[name], args=args, kwargs=kwargs))

    def move(
        self, where: Where, *, before: Where | None = None, after: Where | None = None
    ) -> None:
        """Let a node run before or after another one of its graph.

        Raises:
            EditError: it would run before a value that it reads, after a node that reads it, or
                pass a node that changes a tensor in place, draws random numbers or ends a region.
        """
        target = before if before is not None else after
        if target is None or (before is not None and after is not None):
            raise ArgumentError("say where to move the node: before= or after= another one")
        owner, name = self._find(where)
        other_owner, other = self._find(target)
        if owner is not other_owner or name == other:
            raise EditError(f"{owner.name}:{name} cannot move to {other_owner.name}:{other}")
        for graph in owner.graphs_with(name):
            if other in graph:
                place = other if before is not None else graph.order.after(other)
                self._move(graph, name, place)

    def _move(self, graph: WorkingGraph, name: str, before: str | None) -> None:
        if before == name:
            return
        node = graph.nodes[name]
        label = graph.order.label
        is_back = before is not None and label(before) < label(name)
        passed = (
            [before, *graph.order.between(before, name)]
            if is_back
            else (list(graph.order.between(name, before or "")))
        )
        effect = effect_of(node, self._space.layers)
        for each in passed:
            other = graph.nodes[each]  # type: ignore[index]
            if each in node.sources() or name in other.sources():
                raise EditError(f"{name!r} cannot pass {each!r}: one reads the other")
            if not may_pass(effect, effect_of(other, self._space.layers)):
                raise EditError(
                    f"{name!r} cannot pass {each!r}: one changes a tensor in place, draws random "
                    "numbers, or begins or ends a region"
                )
        graph.order.remove(name)
        graph.order.insert(name, before=before)

    def replace_match(self, match: Match, result: Any) -> None:
        """Replace the calls of a match by a call or a value: see :class:`Rule`.

        Raises:
            EditError: a value is not in the graph of the last call.
        """
        owner, name = self._find(match.root)
        spots = [call.spot for call in match.calls]
        layers = [graph.layer_of(graph.nodes[n]) for graph, n in spots if graph.nodes[n].is_call]
        if isinstance(result, Applied):
            term, old = _renamed_like(result, match, layers)
            value: Value = Ref(self._make(owner, name, term, None, after=False, replaces=old))
        else:
            value = self._value(owner, result)
        owner.is_edited = True
        for graph in owner.graphs_with(name):
            self._check_order(graph, name, value, graph.users[name])
            graph.replace_uses(name, value)
            graph.remove(name)
        for call in sorted(match.calls[1:], key=_last_first):
            for graph in call.spot[0].owner.graphs_with(call.spot[1]):
                if not graph.users[call.spot[1]]:
                    graph.remove(call.spot[1])
                    graph.owner.is_edited = True
        for layer in layers:
            if not layer.calls:
                nesting.drop_unused(self._space, layer)

    # Inputs, outputs and nesting.

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
        for each in owner.graphs:
            inputs = [node.name for node in each if node.type == INPUT]
            before = each.order.after(inputs[-1]) if inputs else next(iter(each.order), None)
            each.add(Node(name, INPUT, name, ()), before=before)
        for caller, site in list(owner.calls):
            node = caller.nodes[site]
            given = self._value(caller.owner, value)
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
            caller.change(changed(node, args=tuple(args), kwargs=kwargs))
        for each in owner.graphs:
            each.remove(name)
        owner.is_edited = True

    def set_outputs(self, *values: Where | Value, graph: str = "") -> None:
        """Let the model, or a composite, return other values: one value as it is, several a tuple.

        Raises:
            EditError: there is no such node.
        """
        owner = self._layer(graph)
        given = tuple(self._value(owner, each) for each in values)
        returned = given[0] if len(given) == 1 else given
        for each in owner.graphs:
            each.change(changed(each.output(), args=(returned,)))
        owner.is_edited = True

    def inline(self, where: Where) -> None:
        """Replace the call of a composite by the calls inside it. Paths and keys stay.

        Raises:
            EditError: the node calls no composite, or has a condition.
        """
        nesting.inline(self._space, *self._find(where))

    def inline_named(self, where: Where) -> dict[str, str]:
        """Inline a composite, and return the new names of its nodes by their old ones.

        Raises:
            EditError: as for :meth:`inline`.
        """
        return nesting.inline(self._space, *self._find(where))

    def drop_unused_layers(self) -> None:
        """Remove the layers that no node calls and that hold nothing that is used."""
        nesting.drop_all_unused(self._space)

    def outline(self, nodes: Collection[Where], name: str) -> Call:
        """Move nodes of one graph, with the layers that they call, into a new composite.

        The keys of these layers get the name of the composite in front.

        Args:
            nodes: the nodes. No other node may run between them.
            name: the name of the new composite.

        Raises:
            EditError: the nodes cannot be a composite.
        """
        found = [self._find(each) for each in nodes]
        new = nesting.outline(self._space, found, name)
        return self.call(new)

    # Inside.

    def _value(self, owner: WorkingLayer, value: Any) -> Value:
        """Return a value of a node of a graph, or a plain value."""
        if isinstance(value, Call | Site | str):
            other, name = self._find(value)
            if other is not owner:
                raise EditError(f"{other.name}:{name} is not in the graph of {owner.name!r}")
            return Ref(name)
        return value

    def _check_order(
        self, graph: WorkingGraph, name: str, value: Value, users: Collection[str]
    ) -> None:
        for source in refs(value):
            if source not in graph:
                raise EditError(f"there is no node {source!r} in {graph.owner.name!r}")
            if graph.order.is_before(source, name):
                continue
            for user in users:
                if not graph.order.is_before(source, user):
                    raise EditError(
                        f"{user!r} reads {name!r}, and cannot read {source!r}, which runs later"
                    )

    def _refuse_output(self, owner: WorkingLayer, name: str) -> None:
        if owner.graphs_with(name)[0].nodes[name].type == OUTPUT:
            raise EditError(f"nothing runs after {owner.name}:{name}; insert before it")

    def _make(
        self,
        owner: WorkingLayer,
        at: str,
        term: Any,
        value: Value,
        *,
        after: bool,
        replaces: WorkingLayer | None = None,
    ) -> str:
        """Make the nodes of a term at a node, in each graph that has it; return the last one."""
        owner.is_edited = True
        places = [
            (graph, graph.order.after(at) if after else at, graph.nodes[at].when)
            for graph in owner.graphs_with(at)
        ]
        return self._build(owner, places, term, value, {}, replaces)

    def _build(
        self,
        owner: WorkingLayer,
        places: _Places,
        term: Any,
        value: Value,
        made: dict[int, WorkingLayer],
        replaces: WorkingLayer | None = None,
    ) -> str:
        if isinstance(term, str):
            layer = self._layer(term)
            return _put(owner, places, layer.type, layer.name, (value,), {}, _last(layer.name))
        call = applied(term)

        def given(each: Any) -> Value:
            if isinstance(each, Wildcard):
                return value
            if isinstance(each, Applied):
                return Ref(self._build(owner, places, each, value, made))
            return self._value(owner, each) if isinstance(each, Call | Site) else each

        args = tuple(map_leaves(given, each) for each in call.args)
        kwargs = {name: map_leaves(given, each) for name, each in call.kwargs.items()}
        operation = call.operation
        if isinstance(operation, Existing):
            node = operation.call.node
            return _put(owner, places, node.type, node.implementation, args, kwargs, node.name)
        if not isinstance(operation, Layer):
            function = operation.names[0]
            wish = operation.name or _last(function)
            return _put(owner, places, FUNCTION, function, args, kwargs, wish)
        layer = made.get(id(operation)) or self._new_layer(owner, operation, replaces)
        made[id(operation)] = layer
        return _put(owner, places, layer.type, layer.name, args, kwargs, _last(layer.name))

    def _new_layer(
        self, owner: WorkingLayer, operation: Layer, replaces: WorkingLayer | None
    ) -> WorkingLayer:
        kind = operation.types[0]
        layer = WorkingLayer(Implementation(kind, dict(operation.attributes)))
        layer.training = owner.training if replaces is None else replaces.training
        child = None if replaces is None else _child_name(owner, replaces)
        if child is not None and child == operation.name:
            nesting.replace_child(self._space, owner, child, layer)
        else:
            nesting.adopt(self._space, owner, operation.name or kind, layer)
        set_tensors(layer, operation.tensors, has_state=self._space.has_state)
        return layer

    def _layer_or_none(self, where: Where) -> WorkingLayer | None:
        if isinstance(where, Call):
            return None if where.layer is None else self._layer(where.layer)
        if isinstance(where, Site) or ":" in where:
            owner, name = self._find(where)
            graph = owner.graphs_with(name)[0]
            node = graph.nodes[name]
            return graph.layer_of(node) if node.is_call else None
        return self._space.named(where)

    def _layer(self, where: Where) -> WorkingLayer:
        layer = self._layer_or_none(where)
        if layer is None:
            text = str(where.site) if isinstance(where, Call) else str(where)
            alike = near(text, self._space.layers)
            hint = f"; did you mean {' or '.join(map(repr, alike))}?" if alike else ""
            raise EditError(f"there is no layer {text!r}{hint}")
        return layer

    def _find(self, where: Where) -> tuple[WorkingLayer, str]:
        """Return a node: the layer that its graph belongs to, and its name."""
        if isinstance(where, Call):
            where = where.site
        if isinstance(where, str) and ":" in where:
            graph, _, node = where.rpartition(":")
            where = Site(graph, node)
        if isinstance(where, Site):
            owner = self._layer(where.graph)
            if not owner.graphs_with(where.node):
                names = [name for graph in owner.graphs for name in graph.nodes]
                alike = near(where.node, names)
                hint = f"; did you mean {' or '.join(map(repr, alike))}?" if alike else ""
                raise EditError(f"{owner.name!r} has no node {where.node!r}{hint}")
            return owner, where.node
        if not isinstance(where, str):
            raise ArgumentError(f"{where!r:.60} is no node; give the path of a layer, or a Call")
        layer = self._space.named(where)
        if layer is None or layer is self._space.root:
            if self._space.root.graphs_with(where):
                return self._space.root, where
            self._layer(where)
            raise EditError("the root is the model itself; no node calls it")
        sites = list(dict.fromkeys((graph.owner, name) for graph, name in layer.calls))
        if len(sites) != 1:
            listed = ", ".join(f"'{owner.name}:{name}'" for owner, name in sites[:5])
            raise EditError(
                f"{len(sites)} nodes call {where!r}; say which: {listed}"
                if sites
                else f"no node calls {where!r}"
            )
        return sites[0]


def edit(ir: Ir, state: Mapping[str, torch.Tensor] | None = None) -> Edit:
    """Begin an edit of an IR: see :class:`Edit`.

    Args:
        ir: the IR, which stays as it is.
        state: its state dict. None: ``edit.state`` is None too.

    Raises:
        InvalidIrError: the IR breaks a rule.
        StateError: the state dict is not of this IR.

    Example:
        >>> import torch, layergraph as lg
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout())
        >>> edit = lg.edit(lg.to_ir(model), model.state_dict())
        >>> edit.remove("1")
        >>> print(edit.ir)
        root: sequential()
            input_1 = input
            _0 = linear 0(input_1)
            return _0
        0: linear(in_features=2, out_features=3, bias=True)
    """
    return Edit(ir, state)


def _put(
    owner: WorkingLayer,
    places: _Places,
    kind: str,
    implementation: str,
    args: tuple[Value, ...],
    kwargs: dict[str, Value],
    wish: str,
) -> str:
    """Add a node at a place in each graph, under one name."""
    name = owner.namer.name(wish)
    for graph, before, when in places:
        node = Node(name, kind, implementation, args, kwargs, when=when)
        graph.add(node, before=before)
    return name


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _child_name(owner: WorkingLayer, layer: WorkingLayer) -> str | None:
    """Return the name of a layer as the only child of a parent; None if it has other parents."""
    names = [child for parent, child in layer.parents if parent is owner]
    return names[0] if len(layer.parents) == 1 and names else None


def _named_after(term: Any, child: str) -> Any:
    """Return a term whose layer takes a name, if it says none itself."""
    if isinstance(term, Applied) and term.operation.name is None:
        return Applied(renamed(term.operation, child), term.args, term.kwargs)
    return term


def _renamed_like(
    term: Applied, match: Match, layers: list[WorkingLayer]
) -> tuple[Applied, WorkingLayer | None]:
    """Return a term that takes the name of the layer that it stands for, and that layer.

    That is the only layer of the match, or the only one of its type, if nothing else calls it.
    """
    operation = term.operation
    if not isinstance(operation, Layer) or operation.name is not None:
        return term, None
    alike = (
        layers if len(layers) == 1 else [each for each in layers if each.type == operation.types[0]]
    )
    spots = {call.spot[1] for call in match.calls}
    if len(alike) != 1 or any(name not in spots for _, name in alike[0].calls):
        return term, None
    owner = match.root.spot[0].owner
    child = _child_name(owner, alike[0])
    if child is None or any(
        user not in spots
        for graph, name in alike[0].calls
        if name != match.root.site.node
        for user in graph.users[name]
    ):
        return term, None
    return Applied(renamed(operation, child), term.args, term.kwargs), alike[0]


def _last_first(call: Call) -> int:
    graph, name = call.spot
    return -graph.order.label(name)


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


def _untied(spec: TensorSpec) -> TensorSpec:
    return replace(spec, tied=None)


def _tied(spec: TensorSpec, key: str) -> TensorSpec:
    return replace(spec, tied=key)
