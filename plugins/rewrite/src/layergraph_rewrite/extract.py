"""Extraction of the part of a model between two cuts as a separate model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from layergraph.errors import ArgumentError
from layergraph.gc_pause import gc_paused
from layergraph.ir import BODY, FUNCTION, INPUT, OUTPUT, STATE, Ir, Node, Ref
from layergraph_rewrite.aliases import aliases, written
from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.edit import Edit
from layergraph_rewrite.effects import Effect, effect_of
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.sources import Tensors
from layergraph_rewrite.working import WorkingGraph, WorkingLayer, changed

if TYPE_CHECKING:
    import torch

Cut: TypeAlias = str | Site | Call


def extract(
    ir: Ir,
    state: Mapping[str, torch.Tensor] | None = None,
    *,
    inputs: Cut | Sequence[Cut] | None = None,
    outputs: Cut | Sequence[Cut] | None = None,
) -> tuple[Ir, Tensors | None]:
    """Extract a part of a model as a separate model with the same paths and keys.

    The part computes the same activations as the whole model, bit for bit, in both modes. A
    composite with a cut inside it is inlined; its layers keep their paths.

    Args:
        ir: the IR, which stays as it is.
        state: its state dict.
        inputs: the start of the part: layers or nodes, whose first arguments become the inputs, in
            this order; or inputs of the model, by name. None: the inputs of the model that the
            outputs need.
        outputs: the end of the part: layers or nodes, whose values it returns; several as a tuple.
            None: the output of the model.

    Returns:
        The IR of the part, and its state dict; None without ``state``.

    Raises:
        EditError: there is no such layer or node, the part needs a value from before the inputs, or
            an in-place operation outside of the part changes a value in it.
        InvalidIrError, StateError: as for :func:`layergraph.edit`.

    Example:
        >>> import torch, layergraph as lg
        >>> layers = [torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 4)]
        >>> model = torch.nn.Sequential(*layers)
        >>> ir, state = lg.extract(lg.to_ir(model), model.state_dict(), inputs="1", outputs="2")
        >>> x = torch.randn(5, 3)
        >>> torch.equal(lg.to_torch(ir, state)(x), model[1:](x))
        True
    """
    edit = Edit(ir, state)
    starts = [_site(edit, each) for each in _listed(inputs)]
    ends = [_site(edit, each) for each in _listed(outputs)]
    for site in [*starts, *ends]:
        _check_called_once(edit, site)
    part = _Part(edit, starts, ends)
    part.cut()
    return edit.ir, edit.state


def _listed(cuts: Any) -> list[Cut]:
    if cuts is None:
        return []
    if isinstance(cuts, str | Call | Site):
        return [cuts]
    try:
        return list(cuts)
    except TypeError:
        raise ArgumentError(f"{cuts!r:.60} is no place to cut; give the path of a layer") from None


def _site(edit: Edit, cut: Cut) -> Site:
    return edit.call(cut).site


def _check_called_once(edit: Edit, site: Site) -> None:
    layer = edit.layers[site.graph]
    while layer.parents:
        places = {(graph.owner.name, name) for graph, name in layer.calls}
        if len(places) != 1:
            raise EditError(
                f"{site} is in {layer.name!r}, which {len(places)} nodes call; a cut there is no "
                "single value"
            )
        layer = next(iter(layer.calls))[0].owner
    if layer.type == BODY:
        raise EditError(
            f"{site} is in {layer.name!r}, which may run several times; a cut there is no single "
            "value"
        )


class _Part:
    def __init__(self, edit: Edit, starts: list[Site], ends: list[Site]) -> None:
        self._edit = edit
        self._root = next(
            layer for layer in edit.layers.values() if not layer.parents and layer.type != BODY
        )
        self._starts = starts
        self._ends = ends

    @gc_paused()
    def cut(self) -> None:
        """Move all cuts into the graph of the root, and remove the nodes outside of them."""
        self._begin()
        while True:
            deep = next((site for site in self._marks() if site.graph != self._root.name), None)
            if deep is None:
                break
            self._surface(deep)
        graphs = list(self._root.graphs)
        if self._ends:
            for graph in graphs:
                self._return_ends(graph)
        kept = [self._kept(graph) for graph in graphs]
        for graph, names in zip(graphs, kept, strict=True):
            for name in reversed([node.name for node in graph]):
                if name not in names:
                    graph.remove(name)
        self._root.is_edited = True
        self._edit.drop_unused_layers()

    def _marks(self) -> list[Site]:
        return [*self._starts, *self._ends]

    def _begin(self) -> None:
        """Insert a mark node for the first argument of each start and the value of each end.

        A mark survives the inlining of the marked node.
        """
        begun: list[Site] = []
        for site in self._starts:
            owner = self._edit.layers[site.graph]
            node = owner.graphs_with(site.node)[0].nodes[site.node]
            begun.append(site if node.type == INPUT else _begin_at(owner, node))
        self._starts = begun
        self._ends = [_end_at(self._edit.layers[site.graph], site) for site in self._ends]

    def _surface(self, site: Site) -> None:
        """Inline the composite of a cut into its caller."""
        layer = self._edit.layers[site.graph]
        graph, name = next(iter(layer.calls))
        owner = graph.owner
        names = self._edit.inline(Site(owner.name, name))

        def moved(each: Site) -> Site:
            return Site(owner.name, names[each.node]) if each.graph == site.graph else each

        self._starts = [moved(each) for each in self._starts]
        self._ends = [moved(each) for each in self._ends]

    def _return_ends(self, graph: WorkingGraph) -> None:
        """Make the graph return the values of the end marks, and remove these marks."""
        values: list[Any] = []
        for site in self._ends:
            if site.node not in graph:
                raise EditError(f"{site} is there in one mode only; end elsewhere")
            values += graph.nodes[site.node].args or ()
        returned = values[0] if len(values) == 1 else tuple(values)
        graph.change(changed(graph.output(), args=(returned,)))
        for site in self._ends:
            graph.remove(site.node)

    def _kept(self, graph: WorkingGraph) -> set[str]:
        """Return the nodes of the part, after the marks became inputs."""
        late = self._late_writes(graph)
        inputs = self._inputs(graph)
        kept = set(inputs or ())
        unknown = _read(graph, [graph.output().name], kept, inputs)
        if unknown is not None:
            raise EditError(
                f"the part reads the input {unknown!r} of the model too; add it to the inputs, or "
                "cut elsewhere"
            )
        self._keep_effects(graph, kept, inputs, late)
        return kept

    def _late_writes(self, graph: WorkingGraph) -> set[str]:
        """Return the nodes that change the value of a mark in place after it."""
        layers = self._edit.layers
        found: set[str] = set()
        for site in self._starts:
            shared = aliases(graph, [site.node], layers)
            found |= {
                user
                for each in shared
                for user in graph.users[each]
                if graph.order.is_before(site.node, user)
                and each in written(graph.nodes[user], layers)
            }
        return found

    def _inputs(self, graph: WorkingGraph) -> list[str] | None:
        """Turn the marks into inputs, in order; return the names of all inputs; None for any."""
        if not self._starts:
            return None
        names = []
        first = next(iter(graph.order))
        for site in self._starts:
            node = graph.nodes[site.node]
            names.append(site.node)
            users = list(graph.users[site.node])
            fixed = node.kwargs if node.type == INPUT else {}
            parameter = node.implementation if node.type == INPUT else site.node
            temporary = self._root.namer.name("moved")
            graph.add(Node(temporary, INPUT, parameter, (), dict(fixed)), before=first)
            graph.replace_uses(site.node, Ref(temporary), only=users)
            graph.remove(site.node)
            graph.rename(temporary, site.node)
            if first == site.node:
                first = next(iter(graph.order))
        # Each input goes before the former first node, so the inputs are in order.
        return names

    def _keep_effects(
        self, graph: WorkingGraph, kept: set[str], inputs: list[str] | None, late: set[str]
    ) -> None:
        """Add the nodes with effects on values of the part.

        Raises:
            EditError: a node outside of the part changes a value of the part in place.
        """
        layers = self._edit.layers
        if len(kept) == 1:
            return
        last = max(graph.order.label(name) for name in kept if name != graph.output().name)
        for node in list(graph):
            if node.name in kept or (node.type in (INPUT, STATE) and not node.sets_state):
                continue
            effect = effect_of(node, layers)
            if not effect & ~Effect.DRAWS:
                continue
            is_known = all(source in kept for source in node.sources())
            label = graph.order.label(node.name)
            if node.sets_state and not is_known:
                continue
            is_before = bool(node.sources()) and label < last
            if is_known and (effect & Effect.REGION or node.sets_state or is_before):
                kept.add(node.name)
            elif effect & Effect.WRITES and label < last:
                self._keep_write(graph, node, kept, inputs, late)

    def _keep_write(
        self,
        graph: WorkingGraph,
        node: Node,
        kept: set[str],
        inputs: list[str] | None,
        late: set[str],
    ) -> None:
        """Add a node that changes a value of the part in place, with all that it reads."""
        changed = written(node, self._edit.layers)
        is_seen = not aliases(graph, changed, self._edit.layers).isdisjoint(kept)
        if not is_seen and node.name not in late:
            return
        more = set(kept)
        if _read(graph, [node.name], more, inputs) is not None:
            raise EditError(
                f"{node.name!r}, which the part leaves out, changes {changed[0]!r} in place; cut "
                "elsewhere"
            )
        kept |= more


def _read(
    graph: WorkingGraph, names: list[str], kept: set[str], inputs: list[str] | None
) -> str | None:
    """Add nodes and all that they read; return a model input that is missing from the part."""
    stack = list(names)
    while stack:
        name = stack.pop()
        if name in kept:
            continue
        node = graph.nodes[name]
        if node.type == INPUT and inputs is not None:
            return name
        kept.add(name)
        stack += node.sources()
    return None


def _end_at(owner: WorkingLayer, site: Site) -> Site:
    graphs = owner.graphs_with(site.node)
    if graphs[0].nodes[site.node].type == OUTPUT:
        raise EditError(f"{site} is the output; name the layer that gives its value")
    if len(graphs) < len(owner.graphs):
        raise EditError(f"{site} is there in one mode only; end elsewhere")
    mark = owner.namer.name(f"{site.node}_output")
    for graph in graphs:
        node = Node(mark, FUNCTION, _MARK, (Ref(site.node),))
        graph.add(node, before=graph.order.after(site.node))
    return Site(owner.name, mark)


def _begin_at(owner: WorkingLayer, node: Node) -> Site:
    args = node.args or ()
    if not args or type(args[0]) is not Ref:
        raise EditError(
            f"the first argument of {owner.name}:{node.name} is no value; begin at another node"
        )
    source = args[0].node
    mark = owner.namer.name(f"{node.name}_input")
    for graph in owner.graphs_with(node.name):
        # Later readers of the value belong to the part.
        first = graph.nodes[node.name].args or ()
        if first[:1] != (Ref(source),):
            raise EditError(
                f"{owner.name}:{node.name} reads another value in the other mode; begin elsewhere"
            )
        graph.add(Node(mark, FUNCTION, _MARK, (Ref(source),)), before=node.name)
        users = [
            user
            for user in graph.users[source]
            if user == node.name or graph.order.is_before(node.name, user)
        ]
        graph.replace_uses(source, Ref(mark), only=users)
    return Site(owner.name, mark)


_MARK = "layergraph.mark"
