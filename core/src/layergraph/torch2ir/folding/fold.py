"""From the sequence of calls to one graph for each module.

A module call is a range of the sequence. What it reads from outside are its inputs, what others
read of it are its outputs; so flags, dicts and output classes at its border need no special case.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch

from layergraph.errors import CaptureError
from layergraph.ir import (
    FUNCTION,
    INPUT,
    MODULE,
    OUTPUT,
    ROOT,
    STATE,
    Graph,
    Implementation,
    Ir,
    Namer,
    Node,
    Ref,
    TensorSpec,
    Value,
    graph_from_nodes,
    map_leaves,
)
from layergraph.ir.modes import own_mode
from layergraph.state import describe_constant
from layergraph.torch2ir.folding.conditions import CHOOSE, conditional
from layergraph.torch2ir.folding.interfaces import Interface, interfaces
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.indexing.overrides import overridden
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    ModeRead,
    ModuleCall,
    StateRead,
    Trace,
    TracedValue,
    inside_out,
    values_in,
)
from layergraph.torch2ir.tracing.other_mode import OtherMode, is_mode_call

GETITEM = "operator.getitem"


@dataclass(slots=True, eq=False)
class _Graph:
    """The graph that the calls of one module share."""

    implementation: Implementation
    keeps_type: bool


class Folded:
    """A captured model, of whose calls one graph for each module has been made.

    Args:
        module_index: the model's modules.
        trace: what they did.
        tensors: by path of a module, what has to be said of its tensors.

    Attributes:
        ir: the IR of the model.

    Raises:
        CaptureError: a constant cannot be described.
    """

    def __init__(
        self, module_index: ModuleIndex, trace: Trace, tensors: dict[str, dict[str, TensorSpec]]
    ) -> None:
        self._module_index = module_index
        self._trace = trace
        self._tensors = tensors
        self._folding = _Folding(module_index, trace, trace.scopes, interfaces(trace.scopes))
        self.ir = self._folding.fold().ir(tensors)

    def with_other(self, other: OtherMode) -> Ir | None:
        """The IR of the other mode; None if its module calls have other borders."""
        borders = self._folding.interfaces
        if any(_leaks(each.scope, borders[each.scope]) for each in other.replaced):
            return None
        known = self._folding.unchanged(other)
        with other.swapped():
            scopes = self._trace.scopes
            if other.replaced:
                scopes = list(inside_out(self._trace.root))
                inside = [interfaces(inside_out(each.scope)) for each in other.replaced]
                borders = {key: each for found in inside for key, each in found.items()} | borders
            again = partial(_Folding, self._module_index, self._trace, scopes, borders)
            folding = again().fold(known)
            if folding.dissolves:
                # Two calls of one module that were alike are so no more, which their callers see.
                folding = again().fold()
            return folding.ir(self._tensors)


def _leaks(scope: ModuleCall, interface: Interface) -> bool:
    """Return whether code outside of a module call reads a value that it does not return."""
    return not interface.outputs.keys() <= {*values_in(scope.result)}


class _Folding:
    def __init__(
        self,
        module_index: ModuleIndex,
        trace: Trace,
        scopes: Sequence[ModuleCall],
        interfaces: dict[ModuleCall, Interface],
    ) -> None:
        self.interfaces = interfaces
        self._module_index = module_index
        self._trace = trace
        self._scopes = scopes
        self._parameters = {parameter.value: parameter for parameter in trace.parameters}
        self._graphs: dict[str, _Graph] = {}
        self._dissolved: dict[ModuleCall, list[Call | ModuleCall]] = {}
        self._root_name = _free_root_name(module_index)

    def fold(self, known: Mapping[str, _Graph] = MappingProxyType({})) -> _Folding:
        """Make the graph of each module but those that are known."""
        self._graphs |= known
        for scope in self._scopes:
            if scope.path not in known:
                self._fold(scope)
        return self

    @property
    def dissolves(self) -> bool:
        """Return whether a caller does a module call in its own name."""
        return bool(self._dissolved)

    def unchanged(self, other: OtherMode) -> dict[str, _Graph]:
        """The graphs that are the same in the other mode."""
        if self.dissolves:
            return {}
        others = {each.call.value.scope.path for each in other.changed}
        others |= {scope.path for each in other.replaced for scope in each.scopes()}
        return {path: graph for path, graph in self._graphs.items() if path not in others}

    # --- module calls ---

    def _fold(self, scope: ModuleCall) -> None:
        items = self._items(scope)
        module_info = self._module_index.at(scope.path)
        graph = _GraphBuilder(self, scope, self.interfaces[scope]).build(items)
        if scope.parent is not None and not self._is_self_contained(module_info, graph):
            self._dissolved[scope] = items
            return
        keeps_type = self._keeps_type(module_info, scope)
        if keeps_type and module_info.answer is not None:
            graph = replace(graph, type=module_info.answer.type, data=module_info.answer.data)
        known = self._graphs.get(scope.path)
        if known is None:
            self._graphs[scope.path] = _Graph(graph, keeps_type)
        elif known.keeps_type != keeps_type or known.implementation != graph:
            # The same module does something else this time: the caller does it in its own name.
            self._dissolved[scope] = items

    def _items(self, scope: ModuleCall) -> list[Call | ModuleCall]:
        """Return the items that a module call does in its own name."""
        if not self._dissolved:
            return scope.items
        items: list[Call | ModuleCall] = []
        for item in scope.items:
            inside = self._dissolved.get(item) if isinstance(item, ModuleCall) else None
            if inside is None:
                items.append(item)
            else:
                items += inside if item.when is None else self._conditional(inside, item.when)
        return items

    def _conditional(
        self, items: Sequence[Call | ModuleCall], when: Condition
    ) -> Iterator[Call | ModuleCall]:
        for item, copied in conditional(items, when):
            if isinstance(item, ModuleCall) and isinstance(copied, ModuleCall):
                self.interfaces[copied] = self.interfaces[item]
            yield copied

    def _is_self_contained(self, module_info: ModuleInfo, graph: Graph) -> bool:
        """Return whether a module calls and reads only what is inside it."""
        return all(
            self._module_index.at(node.implementation).is_within(module_info)
            for node in graph.nodes.values()
            if node.is_call or node.type == STATE
        )

    def _keeps_type(self, module_info: ModuleInfo, scope: ModuleCall) -> bool:
        """Return whether a container, and what it calls, is called as its class calls.

        Only then can its class do the calling in the rebuilt model.
        """
        if module_info.answer is None:
            return False
        called = [item for item in scope.items if isinstance(item, ModuleCall)]
        return self._is_plain(scope) and all(
            item not in self._dissolved and self._is_plain(item) and not self._calls_itself(item)
            for item in called
        )

    def _calls_itself(self, scope: ModuleCall) -> bool:
        """Return whether a module has code around its forward, which its caller's graph runs."""
        return "__call__" in overridden(self._module_index.at(scope.path).module)

    def _is_plain(self, scope: ModuleCall) -> bool:
        interface = self.interfaces[scope]
        outputs = list(interface.outputs)
        if scope.parent is None and all(map(is_mode_call, scope.items)):
            outputs = list(scope.args)
        return (
            not scope.kwargs
            and all(item.when is None for item in scope.items)
            and list(scope.args) == list(interface.inputs)
            and [scope.result] == outputs
        )

    def said_of(self, value: TracedValue, scope: ModuleCall) -> dict[str, Value]:
        """Return the attributes of an input node."""
        said: dict[str, Value] = {}
        if scope.parent is None and value in self._parameters:
            said |= self._parameters[value].said()
        if value.rank is not None and "rank" in scope.known:
            said["rank"] = value.rank
        if value.dtype is not None and "dtype" in scope.known:
            said["dtype"] = value.dtype
        return said

    def type_of(self, path: str) -> str:
        return self._graphs[path].implementation.type

    def constant(self, key: str) -> torch.Tensor:
        return self._trace.constants[key]

    def leaf_type(self, path: str) -> str:
        answer = self._module_index.at(path).answer
        if answer is None:
            raise CaptureError(f"{path!r} is no leaf")
        return answer.type

    # --- the whole ---

    def name_of(self, module_info: ModuleInfo) -> str:
        return module_info.path or self._root_name

    def ir(self, tensors: dict[str, dict[str, TensorSpec]]) -> Ir:
        implementations = []
        for module_info in self._module_index:
            implementation = self._implementation(module_info)
            around = module_info.parents[0].module.training if module_info.parents else True
            training = module_info.module.training
            implementations.append(
                Implementation(
                    type=implementation.type,
                    data=implementation.data,
                    name=self.name_of(module_info),
                    nodes=implementation.nodes,
                    edges=implementation.edges,
                    children=None
                    if module_info.is_leaf
                    else {
                        name: self.name_of(child) for name, child in module_info.children.items()
                    },
                    tensors=tensors[module_info.path] | implementation.tensors,
                    kept_modes=module_info.kept_modes,
                    training=own_mode(training=training, around=around),
                )
            )
        return Ir(implementations, self._root_name)

    def _implementation(self, module_info: ModuleInfo) -> Implementation:
        if module_info.path in self._graphs:
            return self._graphs[module_info.path].implementation
        answer = module_info.answer
        if answer is None:
            return Implementation(type=MODULE)
        return Implementation(type=answer.type, data=answer.data)


class _GraphBuilder:
    """Writes the nodes of one module call."""

    def __init__(self, folding: _Folding, scope: ModuleCall, interface: Interface) -> None:
        self._folding = folding
        self._scope = scope
        self._interface = interface
        self._namer = Namer()
        self._nodes: list[Node] = []
        self._values: dict[TracedValue, Ref] = {}
        self._parts: dict[TracedValue, tuple[Ref, int, Condition | None]] = {}
        self._states: dict[str, Ref] = {}
        self._tensors: dict[str, TensorSpec] = {}

    def build(self, items: list[Call | ModuleCall]) -> Implementation:
        output = self._namer.name(OUTPUT)
        for value, parameter in self._interface.inputs.items():
            said = self._folding.said_of(value, self._scope)
            self._values[value] = self._add(parameter, INPUT, parameter, kwargs=said)
        for item in items:
            if isinstance(item, ModuleCall):
                self._call_scope(item)
            else:
                self._call(item)
        if self._scope.parent is None:
            returned = self._plain(self._scope.result)
        else:
            returned = self._plain(_one_or_tuple(list(self._interface.outputs)))
        self._nodes.append(Node(output, OUTPUT, OUTPUT, args=(returned,)))
        graph = graph_from_nodes(self._nodes)
        return Implementation(
            type=MODULE, nodes=graph.nodes, edges=graph.edges, tensors=self._tensors
        )

    def _add(
        self,
        wish: str,
        kind: str,
        implementation: str,
        args: tuple[Value, ...] = (),
        kwargs: dict[str, Value] | None = None,
        when: Condition | None = None,
    ) -> Ref:
        condition = None if when is None else (self._ref(when[0]), when[1])
        name = self._namer.name(wish)
        self._nodes.append(Node(name, kind, implementation, args, kwargs or {}, when=condition))
        return Ref(name)

    def _ref(self, value: TracedValue) -> Ref:
        read = self._read(value)
        if type(read) is not Ref:
            raise CaptureError(f"the condition {value.wish!r} is not a value of the graph")
        return read

    def _call(self, call: Call) -> None:
        if call.kind == "mode":
            # It is there for the guard that it may become.
            return
        if call.kind in ("state", "same"):
            same = StateRead(call.target) if call.kind == "state" else call.args[0]
            self._values[call.value] = self._alias(self._read(same), call.when)
            return
        args = self._plain(call.args)
        kwargs = self._plain(call.kwargs) if call.kwargs else {}
        kind, wish = FUNCTION, call.value.wish
        if call.kind == "module":
            kind, wish = self._folding.leaf_type(call.target), self._relative(call.target)
        self._values[call.value] = self._add(wish, kind, call.target, args, kwargs, call.when)

    def _alias(self, ref: Ref, when: Condition | None) -> Ref:
        """The same value; under a condition, a value that is None where that does not hold."""
        if when is None:
            return ref
        condition, expected = self._ref(when[0]), when[1]
        args = (condition, ref, None) if expected else (condition, None, ref)
        return self._add("choose", FUNCTION, CHOOSE, args)

    def _call_scope(self, scope: ModuleCall) -> None:
        interface = self._folding.interfaces[scope]
        args = tuple([self._plain(value) for value in interface.inputs])
        kind = self._folding.type_of(scope.path)
        ref = self._add(self._relative(scope.path), kind, scope.path, args, when=scope.when)
        outputs = list(interface.outputs)
        if len(outputs) == 1:
            self._values[outputs[0]] = ref
        else:
            self._parts |= {value: (ref, index, scope.when) for index, value in enumerate(outputs)}

    def _relative(self, path: str) -> str:
        return path.removeprefix(f"{self._scope.path}.")

    def _plain(self, value: Value) -> Value:
        return map_leaves(self._read, value)

    def _read(self, leaf: Value) -> Value:
        if isinstance(leaf, TracedValue):
            if leaf not in self._values:
                whole, index, when = self._parts[leaf]
                self._values[leaf] = self._add(
                    "getitem", FUNCTION, GETITEM, (whole, index), when=when
                )
            return self._values[leaf]
        if isinstance(leaf, StateRead):
            return self._state(leaf.key)
        if isinstance(leaf, ModeRead):
            return self._state(f"{leaf.path}.training" if leaf.path else "training")
        return leaf

    def _state(self, read: str) -> Ref:
        if read not in self._states:
            key = self._constant(read) if read.startswith(":") else read
            self._states[read] = self._add(key.rpartition(".")[2], STATE, key)
        return self._states[read]

    def _constant(self, read: str) -> str:
        """The key of a constant, which belongs to whoever reads it."""
        name = f"_constant_{len(self._tensors)}"
        place = f"a constant in {self._scope.path or 'the model'!r}"
        self._tensors[name] = describe_constant(self._folding.constant(read), place)
        return f"{self._scope.path}.{name}" if self._scope.path else name


def _free_root_name(module_index: ModuleIndex) -> str:
    taken = {each.path for each in module_index}
    numbered = (f"{ROOT}_{number}" for number in itertools.count(1))
    return next(name for name in itertools.chain([ROOT], numbered) if name not in taken)


def _one_or_tuple(values: list[TracedValue]) -> Value:
    if len(values) == 1:
        return values[0]
    return tuple(values) or None
