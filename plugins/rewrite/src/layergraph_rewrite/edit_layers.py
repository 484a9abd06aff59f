"""The edits of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from layergraph.ir import Ir, Value
from layergraph_rewrite import copying, nesting, ties
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.likeness import Likeness, counterparts
from layergraph_rewrite.new_layers import known_shapes, set_tensors
from layergraph_rewrite.places import Places, Where
from layergraph_rewrite.terms import Tensors as Given
from layergraph_rewrite.working import WorkingLayer, changed
from layergraph_rewrite.workspace import Workspace

if TYPE_CHECKING:
    import torch


class LayerEdits(Places):
    """The edits of layers; see :class:`~layergraph_rewrite.Edit`."""

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
            type: its new type. With a new type, the given attributes replace all old ones;
                annotations stay.
            tensors: new tensors by name, or functions that compute them when they are read. A
                function with an argument gets the tensor of that name that the layer has now. A
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
        if found.children is not None and type not in (None, found.type):
            raise EditError(f"{found.name!r} is a composite; replace the call of it instead")
        before = found.type, found.data, found.tensors, found.sources
        shapes = None if found.children is not None else known_shapes(found)
        if type is not None:
            found.data = {name: each for name, each in found.data.items() if "." in name}
            found.type = type
        found.data = {**found.data, **attributes}
        if found.children is not None:
            if tensors:
                found.data = before[1]
                raise EditError(f"{found.name!r} is a composite; set the tensors of a layer in it")
            return
        tied = ties.ties_of(self._space, found)
        try:
            set_tensors(
                found,
                tensors,
                has_state=self._space.has_state,
                near=(
                    each for around in nesting.composites_around(found) for each in around.inside()
                ),
                before=shapes,
            )
            ties.update_tied(self._space, found, tied, before[3])
        except Exception:
            found.type, found.data, found.tensors, found.sources = before
            raise

    def open(self, layer: Where, ir: Ir, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        """Replace a leaf by the composite of another IR, with the same name and calls.

        The path of the leaf becomes the prefix of the keys inside. All layers inside get the leaf's
        mode.

        Args:
            layer: the leaf.
            ir: the IR of a model with the same inputs.
            tensors: the state dict of that model. It is read lazily.

        Raises:
            EditError: there is no such layer, it is a composite, or a tensor of it is tied or read
                by a node.
            InvalidIrError: the IR breaks a rule.
            StateError: the tensors are not those of that IR.

        Example:
            >>> import torch, layergraph as lg
            >>> edit = lg.edit(lg.to_ir(torch.nn.Sequential(torch.nn.SiLU())))
            >>> class Open(torch.nn.Module):
            ...     def forward(self, x):
            ...         return x * torch.sigmoid(x)
            >>> edit.open("0", lg.to_ir(Open()))
            >>> edit.ir["0"].type
            'module'
        """
        found = self._layer(layer)
        if found.children is not None:
            raise EditError(f"{found.name!r} is a composite already")
        if ties.ties_of(self._space, found) or found in self._space.read_homes(()):
            raise EditError(
                f"a tensor of {found.name!r} is tied to another one, or read by a node; the layers "
                "inside would have others"
            )
        copying.open_leaf(self._space, found, Workspace(ir, self._given(tensors)))

    def _given(
        self, tensors: Mapping[str, torch.Tensor] | None
    ) -> Mapping[str, torch.Tensor] | None:
        return (tensors or {}) if self._space.has_state else None

    def untie(self, layer: Where, tensor: str) -> None:
        """Untie a tensor of a layer from the others. It keeps its values.

        Raises:
            EditError: there is no such layer, or the tensor is not tied.
        """
        ties.untie(self._space, self._layer(layer), tensor)

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
            _rename_node(*self._find(where), new)
        else:
            nesting.rename(self._space, layer, new, None if parent is None else self._layer(parent))

    def share(self, layer: Where, with_: Where) -> None:
        """Redirect all calls of a layer or composite to another one, which shares its tensors.

        The keys of the layer stay in the state dict, as for a tied module. With a composite, all
        layers inside it are shared with those that have the same paths inside the other one.

        Raises:
            EditError: the layers, or layers inside them, differ in type, attributes or graphs, or
                one is inside the other.

        Example:
            >>> import torch, layergraph as lg
            >>> block = lambda: torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
            >>> model = torch.nn.Sequential(block(), block())
            >>> edit = lg.edit(lg.to_ir(model), model.state_dict())
            >>> edit.share("1", "0")
            >>> rebuilt = lg.to_torch(edit.ir, edit.state)
            >>> rebuilt.get_submodule("1") is rebuilt.get_submodule("0")
            True
        """
        one, other = self._layer(layer), self._layer(with_)
        if one is other:
            return
        if one in other.inside() or other in one.inside():
            raise EditError(f"one of {one.name!r} and {other.name!r} is inside the other")
        alike = Likeness(self._space.home)
        if alike(one) != alike(other):
            raise EditError(
                f"{one.name!r} and {other.name!r} have other types, attributes or graphs; only "
                "like layers can be shared"
            )
        try:
            others = counterparts(one, other)
        except ValueError as error:
            raise EditError(
                f"a layer inside {one.name!r} is called where two are inside {other.name!r}: "
                f"{error}; share these first"
            ) from error
        for each, counterpart in others.items():
            if each is not counterpart:
                for name in ties.ties_of(self._space, each):
                    ties.untie(self._space, each, name)  # what is tied to it keeps its own values
        nesting.share(self._space, others)

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
        copy = copying.copy(self._space, owner, graph.layer_of(node))
        for each in owner.graphs_with(name):
            each.change(changed(each.nodes[name], implementation=copy.name))
        owner.is_edited = True
        return copy.name

    def reshare(self, where: Where, layer: Where) -> None:
        """Redirect a node from a copy, which :meth:`unshare` made, back to the original.

        Raises:
            EditError: there is no such node or layer.
        """
        owner, name = self._find(where)
        original, copy = self._layer(layer), self._layer(self.call(where))
        for graph in owner.graphs_with(name):
            graph.change(changed(graph.nodes[name], implementation=original.name))
        if not copy.calls:
            nesting.drop_unused(self._space, copy)


def _rename_node(owner: WorkingLayer, name: str, new: str) -> None:
    if new == name:
        return
    if any(new in graph for graph in owner.graphs):
        raise EditError(f"{owner.name!r} has a node {new!r}; choose another name")
    if owner.namer.name(new) != new:
        raise EditError(f"{new!r} is no name for a node; choose an identifier of Python")
    for graph in owner.graphs_with(name):
        graph.rename(name, new)
