"""Construction of the graph of one module call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layergraph.control_flow.transforms import bound
from layergraph.errors import CaptureError
from layergraph.ir import (
    BODY,
    FUNCTION,
    INPUT,
    MODULE,
    OUTPUT,
    STATE,
    Body,
    Graph,
    Implementation,
    Namer,
    Node,
    Ref,
    TensorSpec,
    Value,
    map_leaves,
)
from layergraph.ir.from_nodes import graph_of_new
from layergraph.ir.graph import KEYWORD_ONLY
from layergraph.tensors.state import describe_constant
from layergraph.torch2ir.folding.conditions import CHOOSE
from layergraph.torch2ir.folding.interfaces import Interface
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    FunctionRead,
    ModeRead,
    ModuleCall,
    StateRead,
    TracedBody,
    TracedValue,
    values_in,
)

if TYPE_CHECKING:
    from layergraph.torch2ir.folding.fold import Fold

BOUND = f"layergraph.{bound.__name__}"
GETITEM = "operator.getitem"


class GraphBuilder:
    """Builds the graph of one module call.

    Args:
        folding: the fold.
        scope: the module call.
        interface: its inputs and outputs.
        around: for a body, the builder of the graph around it.

    Attributes:
        bodies: the bodies that the graph runs.
    """

    def __init__(
        self,
        folding: Fold,
        scope: ModuleCall,
        interface: Interface,
        around: GraphBuilder | None = None,
    ) -> None:
        self._folding = folding
        self._scope = scope
        self._interface = interface
        self._namer = Namer()
        self._nodes: list[Node] = []
        self._values: dict[TracedValue, Ref] = {}
        self._parts: dict[TracedValue, tuple[Ref, int, Condition | None]] = {}
        self._states: dict[str, Ref] = {}
        self._bound: dict[ModuleCall, Value] = {}
        # Constants and bodies belong to the module.
        self._path: str = scope.path if around is None else around._path
        self._tensors: dict[str, TensorSpec] = {} if around is None else around._tensors
        self.bodies: list[Implementation] = [] if around is None else around.bodies
        self._body_namer: Namer = Namer() if around is None else around._body_namer

    def build(self, items: list[Call | ModuleCall]) -> Implementation:
        """Return the implementation with the graph of calls."""
        output = self._namer.name(OUTPUT)
        for value, parameter in self._interface.inputs.items():
            said = self._folding.said_of(value, self._scope)
            self._values[value] = self._add(parameter, INPUT, parameter, kwargs=said)
            if self._folding.is_by_name(value, self._scope):
                self._nodes[-1].data[KEYWORD_ONLY] = True
        result = self._scope.result
        if self._scope.parent is not None and not self._scope.function:
            result = _one_or_tuple(list(self._interface.outputs))
        graph = self._graph(items, result, output)
        return Implementation(
            type=MODULE, nodes=graph.nodes, edges=graph.edges, tensors=self._tensors
        )

    def _graph(self, items: list[Call | ModuleCall], result: Value, output: str) -> Graph:
        for item in items:
            if not isinstance(item, ModuleCall):
                self._call(item)
            elif item.function:
                self._bind(item)
            else:
                self._call_scope(item)
        self._nodes.append(Node(output, OUTPUT, OUTPUT, args=(self._plain(result),)))
        return graph_of_new(self._nodes)

    def _body(self, body: TracedBody) -> Body:
        """Add the implementation of a loop body, and return the reference to it."""
        inside = GraphBuilder(self._folding, self._scope, self._interface, self)
        output = inside._namer.name(OUTPUT)
        for value in body.inputs:
            inside._values[value] = inside._add(value.wish, INPUT, value.wish)
        graph = inside._graph(self._folding.inlined(body.items), body.result, output)
        return self._named(body.wish, graph)

    def _named(self, wish: str, graph: Graph) -> Body:
        """Add the implementation of a body, and return the reference to it."""
        name = f"{self._folding.name_at(self._path)}/{self._body_namer.name(wish)}"
        self.bodies.append(Implementation(BODY, name=name, nodes=graph.nodes, edges=graph.edges))
        return Body(name)

    def _bind(self, scope: ModuleCall) -> None:
        """Build the graph of a function; values read from outside become its last inputs."""
        interface = self._folding.interfaces[scope]
        inside = GraphBuilder(self._folding, scope, interface, self)
        body = self._named(scope.function, inside.build(self._folding.inlined(scope.items)))
        outside = [*interface.inputs][len(values_in(*scope.args)) :]
        self._bound[scope] = body
        if outside:
            args = (body, *map(self._plain, outside))
            self._bound[scope] = self._add(bound.__name__, FUNCTION, BOUND, args)

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
            # A read of a mode makes a node only if it becomes a guard.
            return
        if call.kind == "state" and (call.is_late or call.args):
            # A hidden state needs a node for each read, because each call of the leaf replaces it.
            args = self._plain(call.args)
            when = call.when if args else None
            self._values[call.value] = self._add(
                call.value.wish, STATE, call.target, args, when=when
            )
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
        """Return an alias of a value; the alias is None if its condition does not hold."""
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
        if isinstance(leaf, TracedBody):
            return self._body(leaf)
        if isinstance(leaf, FunctionRead):
            return self._bound[leaf.scope]
        if isinstance(leaf, ModeRead):
            return self._state(f"{leaf.path}.training" if leaf.path else "training")
        return leaf

    def _state(self, read: str) -> Ref:
        if read not in self._states:
            key = self._constant(read) if read.startswith(":") else read
            self._states[read] = self._add(key.rpartition(".")[2], STATE, key)
        return self._states[read]

    def _constant(self, read: str) -> str:
        """Return the key of a constant, which belongs to the module that reads it."""
        name = f"_constant_{len(self._tensors)}"
        place = f"a constant in {self._path or 'the model'!r}"
        self._tensors[name] = describe_constant(
            self._folding.constant(read), place, self._folding.kinds
        )
        return f"{self._path}.{name}" if self._path else name


def _one_or_tuple(values: list[TracedValue]) -> Value:
    if len(values) == 1:
        return values[0]
    return tuple(values) or None
