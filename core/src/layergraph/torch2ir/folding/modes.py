"""Merging of the IRs of both modes into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layergraph.control_flow.guards import assume
from layergraph.ir import (
    FUNCTION,
    INPUT,
    MODULE,
    OUTPUT,
    STATE,
    Graph,
    Implementation,
    Ir,
    Namer,
    Node,
    Ref,
    Value,
    returned,
)
from layergraph.ir.bodies import owners
from layergraph.ir.from_nodes import graph_of_new
from layergraph.ir.values import parts, rebuilt
from layergraph.torch2ir.folding.fold import Draft
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.tracing.module_call import ModeRead, Trace
from layergraph.torch2ir.tracing.other_mode import ModeReading, mode_calls

_ASSUME = f"layergraph.{assume.__name__}"


def merged(
    module_index: ModuleIndex, one: Draft, other: Draft, readings: set[ModeReading]
) -> Ir | None:
    """Merge both modes of a model; return None if one IR cannot hold both.

    Args:
        module_index: the model.
        one: the implementations in the model's own mode.
        other: those in the other mode.
        readings: the module whose mode is read, and the module that reads it.
    """
    try:
        return _Merger(module_index, one, other, readings).merged()
    except _NotMergeableError:
        return None


def guard_modes(module_index: ModuleIndex, trace: Trace) -> None:
    """Turn each recorded use of a mode into a guard."""
    for call in mode_calls(trace.scopes):
        where = f"training of {call.target or 'the model'!r} ({call.where})"
        # Code that sets the mode reads none; the guard is for the mode before the call.
        training = call.args[0] if call.args else module_index.at(call.target).module.training
        call.args = (ModeRead(call.target), training, where)
        call.kind, call.target = "function", _ASSUME
        call.value.wish = assume.__name__


class _NotMergeableError(Exception):
    """Two captures do not fit into one IR."""


class _Merger:
    """Merges both modes of a model: see :func:`merged` for the arguments."""

    def __init__(
        self, module_index: ModuleIndex, one: Draft, other: Draft, readings: set[ModeReading]
    ) -> None:
        self._module_index = module_index
        self._root = one.root
        self._one, self._other = (
            {each.name: each for each in draft.implementations} for draft in (one, other)
        )
        self._paths = {one.root if not each.path else each.path: each.path for each in module_index}
        self._owners = owners(self._one) | owners(self._other)
        self._paths |= {body: self._paths[owner] for body, owner in self._owners.items()}
        self._readers = {reader for _, reader in readings}
        # The other modules whose mode a module's code reads, by the reading module.
        self._read = {
            reader: sorted(path for path, by in readings if by == reader != path)
            for reader in self._readers
        }

    def merged(self) -> Ir:
        """Return the merged IR.

        Raises:
            _NotMergeableError: one IR cannot hold both.
        """
        names = list({**self._one, **self._other})
        self._types = {name: self._type(name) for name in names}
        self._are_types_equal = all(
            self._types[name] == each.type
            for ir in (self._one, self._other)
            for name, each in ir.items()
        )
        merged = {name: self._implementation(name) for name in names}
        if any(each.evaluation is not None for each in merged.values()):
            guarded = {name for name, each in merged.items() if _border_changes(each)}
            guarded |= self._led_from_outside(merged)
            merged = {name: self._guarded(each, guarded) for name, each in merged.items()}
        return Ir([self._in_step(each) for each in merged.values()], self._root)

    def _type(self, name: str) -> str:
        irs = [ir for ir in (self._one, self._other) if name in ir]
        if len(irs) == 1:
            return irs[0][name].type  # a body is in one mode only
        types = {ir[name].type for ir in irs if ir[name].nodes}
        if not types:
            return self._one[name].type
        return types.pop() if len(types) == 1 else MODULE

    def _implementation(self, name: str) -> Implementation:
        if name not in self._one or name not in self._other:
            return self._retyped((self._one if name in self._one else self._other)[name])
        one, other = self._retyped(self._one[name]), self._retyped(self._other[name])
        if not other.nodes or one == other:
            return one
        if not one.nodes:
            return replace(other, training=one.training)
        tensors = {**one.tensors, **other.tensors}
        if tensors != {**other.tensors, **one.tensors}:
            raise _NotMergeableError  # two constants of one name
        training, evaluation = (one, other) if self._trains(name) else (other, one)
        graph, second = _graph(training), _graph(evaluation)
        if graph == second:
            return replace(one, tensors=tensors)
        follows = None
        if self._paths[name] in self._readers:
            follows = _follow_mode(graph, second, self._mode(name))
        if follows is not None:
            return replace(one, nodes=follows.nodes, edges=follows.edges, tensors=tensors)
        return replace(
            one, nodes=graph.nodes, edges=graph.edges, tensors=tensors, evaluation=second
        )

    def _retyped(self, implementation: Implementation) -> Implementation:
        if self._are_types_equal:
            return implementation
        kind = self._types[implementation.name]
        return replace(
            implementation,
            type=kind,
            data=implementation.data if implementation.type == kind else {},
            nodes={
                name: replace(node, type=self._types[node.implementation]) if node.is_call else node
                for name, node in implementation.nodes.items()
            },
        )

    def _trains(self, name: str) -> bool:
        return self._module_index.at(self._paths[name]).module.training

    def _mode(self, name: str) -> str:
        return _key(self._paths[name])

    def _led_from_outside(self, merged: dict[str, Implementation]) -> set[str]:
        """Return the graphs that depend on a mode other than their own and their callees'.

        An outer module passes its mode down as a flag. So all modules on the path from there must
        be in one mode.
        """
        changing = {name for name, each in merged.items() if each.evaluation is not None}
        reading = {name for name, path in self._paths.items() if path in self._readers}
        callers: dict[str, set[str]] = {name: set() for name in merged}
        unexplained = changing - reading
        for name, implementation in merged.items():
            for graph in implementation.graphs:
                for node in graph.nodes.values():
                    if node.is_call:
                        callers[node.implementation].add(self._owners.get(name, name))
                        if node.implementation in changing | reading:
                            unexplained.discard(name)
        led: set[str] = set()
        stack = list(unexplained)
        while stack:
            name = stack.pop()
            if name == self._root:
                raise _NotMergeableError
            if name not in led:
                led.add(name)
                around = {self._owners[name]} if name in self._owners else callers[name]
                stack.extend(around - reading)
        return led

    def _guarded(self, implementation: Implementation, guarded: set[str]) -> Implementation:
        """Guard the callee's mode before calls whose graph depends on it."""
        name = implementation.name
        graph = self._guarded_graph(name, implementation, guarded)
        evaluation = implementation.evaluation
        if evaluation is not None:
            evaluation = self._guarded_graph(name, evaluation, guarded)
        if graph is implementation and evaluation is implementation.evaluation:
            return implementation
        return replace(implementation, nodes=graph.nodes, edges=graph.edges, evaluation=evaluation)

    def _guarded_graph(self, caller: str, graph: Graph, guarded: set[str]) -> Graph:
        if not any(node.implementation in guarded for node in graph.nodes.values() if node.is_call):
            return graph
        nodes: list[Node] = []
        arguments = graph.arguments()
        namer = Namer(graph.nodes)
        for node in graph.nodes.values():
            if node.is_call and node.implementation in guarded:
                nodes += self._guard(caller, self._paths[node.implementation], namer)
            nodes.append(replace(node, args=arguments[node.name]))
        return graph_of_new(nodes)

    def _in_step(self, implementation: Implementation) -> Implementation:
        """Guard that other modules whose mode this one's code reads are in the same mode."""
        name = implementation.name
        read = self._read.get(self._paths[name], ())
        if not read or self._one.get(name) == self._other.get(name):
            return implementation
        graphs = [self._begun(name, graph, read) for graph in implementation.graphs]
        evaluation = graphs[1] if len(graphs) > 1 else None
        return replace(
            implementation, nodes=graphs[0].nodes, edges=graphs[0].edges, evaluation=evaluation
        )

    def _begun(self, name: str, graph: Graph, read: Sequence[str]) -> Graph:
        """Return the graph with guards of modes after its inputs."""
        arguments = graph.arguments()
        nodes = [replace(node, args=arguments[node.name]) for node in graph.nodes.values()]
        namer = Namer(graph.nodes)
        guards = [node for path in read for node in self._guard(name, path, namer)]
        inputs = sum(node.type == INPUT for node in nodes)
        return graph_of_new([*nodes[:inputs], *guards, *nodes[inputs:]])

    def _guard(self, caller: str, path: str, namer: Namer) -> list[Node]:
        mine = Node(namer.name("training"), STATE, self._mode(caller), args=())
        theirs = Node(namer.name("training"), STATE, _key(path), args=())
        nodes = [mine, theirs]
        expected = mine.name
        if self._trains(caller) != self._module_index.at(path).module.training:
            expected = namer.name("not_")
            nodes.append(Node(expected, FUNCTION, "operator.not_", args=(Ref(mine.name),)))
        where = f"training of {path!r}, as against the module around it,"
        args = (Ref(theirs.name), Ref(expected), where)
        return [*nodes, Node(namer.name(assume.__name__), FUNCTION, _ASSUME, args=args)]


def _key(path: str) -> str:
    """Return the key of the mode of a module."""
    return f"{path}.training" if path else "training"


def _graph(implementation: Implementation) -> Graph:
    return Graph(nodes=implementation.nodes, edges=implementation.edges)


def _border_changes(implementation: Implementation) -> bool:
    if implementation.evaluation is None:
        return False
    training, evaluation = (
        (list(graph.parameters().values()), _returned(graph)) for graph in implementation.graphs
    )
    return training != evaluation


def _returned(graph: Graph) -> int:
    """Return the number of values that a graph returns; -1 for None."""
    arguments = graph.arguments()
    output = next(node.name for node in graph.nodes.values() if node.type == OUTPUT)
    value = returned(arguments[output])
    if value is None:
        return -1
    return len(value) if type(value) is tuple else 1


def _follow_mode(training: Graph, evaluation: Graph, key: str) -> Graph | None:
    """Return one graph for both modes if they differ only in flags equal to the mode; else None."""
    if list(training.nodes) != list(evaluation.nodes):
        return None
    mode = Node(Namer(training.nodes).name("training"), STATE, key, args=())
    follows = False
    nodes: list[Node] = []
    one, other = training.arguments(), evaluation.arguments()
    for name, node in training.nodes.items():
        twin = evaluation.nodes[name]
        if (node.type, node.implementation) != (twin.type, twin.implementation):
            return None
        try:
            args = _followed(one[name], other[name], mode.name)
            kwargs = _followed(node.kwargs, twin.kwargs, mode.name)
        except _NotMergeableError:
            return None
        if not follows and (args, kwargs) != (one[name], node.kwargs):
            follows = True
            nodes.append(mode)
        nodes.append(replace(node, args=args, kwargs=kwargs))
    return graph_of_new(nodes) if follows else None


def _followed(training: Value, evaluation: Value, mode: str) -> Value:
    """Return the common value, or a reference to the mode if the values are the mode flags."""
    inside, twins = parts(training), parts(evaluation)
    if type(training) is not type(evaluation):
        raise _NotMergeableError
    if inside is None or twins is None:
        if training is True and evaluation is False:
            return Ref(mode)
        if training != evaluation and not (training != training and evaluation != evaluation):
            raise _NotMergeableError
        return training
    alike = len(inside) == len(twins)
    if type(training) is dict:
        alike = list(training) == list(evaluation)
    if not alike:
        raise _NotMergeableError
    return rebuilt(training, [_followed(a, b, mode) for a, b in zip(inside, twins, strict=True)])
