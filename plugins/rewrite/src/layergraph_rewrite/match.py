"""Matching of patterns in graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layergraph.errors import first_line
from layergraph.ir import CORE_NODE_TYPES, FUNCTION, INPUT, OUTPUT, Node, Ref, Value
from layergraph.ir.values import Record, parts
from layergraph_rewrite.argument_defaults import argument_defaults
from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.new_layers import defaults_of
from layergraph_rewrite.pattern import Pattern, is_named
from layergraph_rewrite.terms import Applied, Existing, Function, Layer, OneOf
from layergraph_rewrite.terms import Value as Wildcard
from layergraph_rewrite.working import WorkingGraph

if TYPE_CHECKING:
    from layergraph_rewrite.edit import Edit
    from layergraph_rewrite.terms import Condition

Spot = tuple[WorkingGraph, str]
"""A node: its graph and its name."""


class Match(Mapping[str, Any]):
    """The calls and values of a match, by their names in the pattern.

    A call and the value of a node are a :class:`Call`; any other value is plain.

    Attributes:
        edit: the edit in which the match was found.
        calls: all calls, the last one first.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_rewrite import layer
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> match, = lg.find_matches(ir, lambda x: layer("relu")(layer("linear", name="fc")(x)))
        >>> match["fc"].layer, match["x"].type
        ('0', 'input')
    """

    def __init__(self, edit: Edit, calls: list[Call], named: dict[str, Any]) -> None:
        self.edit = edit
        self.calls = calls
        self._named = named

    @property
    def root(self) -> Call:
        """The last call."""
        return self.calls[0]

    def __getitem__(self, name: str) -> Any:
        try:
            return self._named[name]
        except KeyError:
            listed = ", ".join(self._named) or "nothing"
            raise EditError(f"the pattern names nothing {name!r}; it names {listed}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def __contains__(self, name: object) -> bool:
        return name in self._named

    def refreshed(self) -> Match:
        """Return the match with new handles of its nodes."""
        named = {
            name: Call(*each.spot) if isinstance(each, Call) else each
            for name, each in self._named.items()
        }
        return Match(self.edit, [Call(*call.spot) for call in self.calls], named)

    def __repr__(self) -> str:
        return f"Match({', '.join(str(call.site) for call in self.calls)})"


@dataclass(slots=True)
class Miss:
    """A near match: the calls match, and a condition on them fails; with the reason."""

    site: Site
    reason: str


_Goal = tuple[Any, Value, WorkingGraph]


class Matcher:
    """A search for one pattern at one node after another.

    Args:
        edit: the edit that has the graphs.
        pattern: the pattern.
        across: whether to follow values into and out of composites that one node calls.
    """

    def __init__(self, edit: Edit, pattern: Pattern, *, across: bool) -> None:
        self._edit = edit
        self._pattern = pattern
        self._across = across
        self._may_start = pattern.may_start_at()
        self._calls: dict[Applied, Spot] = {}
        self._values: dict[Wildcard, tuple[Value, WorkingGraph]] = {}
        self._trail: list[tuple[dict[Any, Any], Any]] = []
        self._miss: Miss | None = None

    def at(self, graph: WorkingGraph, name: str) -> Match | Miss | None:
        """Return the match whose last call is a node; a miss if it almost matched."""
        node = graph.nodes[name]
        kind = node.type
        if kind == FUNCTION:
            if not self._may_start("function", node.implementation):
                return None
        elif kind in CORE_NODE_TYPES or not self._may_start("layer", graph.layer_of(node).type):
            return None
        self._calls, self._values, self._trail = {}, {}, []
        self._miss = None
        if not self._solve([(self._pattern.root, Ref(name), graph)]):
            return self._miss
        calls = [Call(*spot) for spot in self._calls.values()]
        return Match(self._edit, calls, self._named(calls))

    def _named(self, calls: list[Call]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for term, call in zip(self._calls, calls, strict=True):
            if term.operation.name:
                named[term.operation.name] = call
        for wildcard, (value, graph) in self._values.items():
            if wildcard.name:
                named[wildcard.name] = Call(graph, value.node) if type(value) is Ref else value
        return named

    def _solve(self, goals: list[_Goal]) -> bool:
        while goals:
            term, value, graph = goals.pop()
            kind = type(term)
            if kind is Wildcard:
                if not self._bind(term, value, graph):
                    return False
            elif kind is Applied:
                ways = self._apply(term, value, graph)
                if len(ways) == 1:
                    goals += ways[0]
                else:
                    return self._first(goals, ways)
            elif kind is OneOf:
                return self._first(goals, [[(each, value, graph)] for each in term.terms])
            else:
                more = _inside(term, value, graph)
                if more is None:
                    return False
                goals += more
        return self._holds()

    def _first(self, goals: list[_Goal], ways: list[list[_Goal]]) -> bool:
        """Return whether the goals can be met; take the first way that can."""
        for way in ways:
            mark = len(self._trail)
            if self._solve([*goals, *way]):
                return True
            while len(self._trail) > mark:
                known, term = self._trail.pop()
                del known[term]
        return False

    def _bind(self, term: Wildcard, value: Value, graph: WorkingGraph) -> bool:
        if self._across:
            value, graph = _followed(value, graph)
        known = self._values.get(term)
        if known is not None:
            return known[1] is graph and _is_same(known[0], value)
        self._note(self._values, term, (value, graph))
        return True

    def _note(self, known: dict[Any, Any], term: Any, fact: Any) -> None:
        known[term] = fact
        self._trail.append((known, term))

    def _apply(self, term: Applied, value: Value, graph: WorkingGraph) -> list[list[_Goal]]:
        """Return the ways in which the arguments of a node may match; none for another node."""
        if self._across:
            value, graph = _followed(value, graph)
        if type(value) is not Ref:
            return []
        known = self._calls.get(term)
        if known is not None:
            return [[]] if known == (graph, value.node) else []
        node = graph.nodes[value.node]
        if (graph, node.name) in self._calls.values() or not self._is_operation(term, node, graph):
            return []
        self._note(self._calls, term, (graph, node.name))
        ways = _paired(term, node, graph)
        if not ways:
            self._missed(graph, node.name, "it has other arguments")
        return ways

    def _is_operation(self, term: Applied, node: Node, graph: WorkingGraph) -> bool:
        operation = term.operation
        if isinstance(operation, Layer):
            if not node.is_call:
                return False
            layer = graph.layer_of(node)
            if not is_named(operation, layer.type):
                return False
            for name, value in operation.attributes.items():
                given = layer.data[name] if name in layer.data else defaults_of(layer).get(name)
                if not _is_same(given, value):
                    self._missed(graph, node.name, f"its {name} is {given!r}, not {value!r}")
                    return False
        elif node.type != FUNCTION or not is_named(operation, node.implementation):
            return False
        assert not isinstance(operation, Existing)  # noqa: S101 a pattern has none
        if operation.where is not None and not _meets(operation.where, Call(graph, node.name)):
            self._missed(graph, node.name, "it does not meet the condition of the pattern")
            return False
        return True

    def _missed(self, graph: WorkingGraph, name: str, reason: str) -> None:
        if self._calls and self._miss is None:  # the last call matched, at least
            self._miss = Miss(Site(graph.owner.name, name), reason)

    def _holds(self) -> bool:
        """Return whether the pattern allows the uses of all calls."""
        spots = set(self._calls.values())
        root = next(iter(self._calls))
        for term, (graph, name) in self._calls.items():
            operation = term.operation
            assert not isinstance(operation, Existing)  # noqa: S101 a pattern has none
            uses = operation.uses
            if uses == "any" or term is root:
                continue
            users = (
                self._users(graph, name)
                if self._across
                else [(graph, user) for user in graph.users[name]]
            )
            if uses == "inside":
                outer = [spot for spot in users if spot not in spots]
                if outer:
                    self._missed(graph, name, f"{outer[0][1]!r} reads it too")
                    return False
            elif len(users) != uses:
                self._missed(graph, name, f"{len(users)} nodes read it, not {uses}")
                return False
        return True

    # Across the borders of composites.

    def _users(self, graph: WorkingGraph, name: str) -> list[Spot]:
        """Return the nodes that read a value, also through composites."""
        found: list[Spot] = []
        stack = [(graph, name)]
        while stack:
            here, each = stack.pop()
            for user in here.users[each]:
                behind = _behind(here, here.nodes[user], Ref(each))
                if behind is None:
                    found.append((here, user))
                stack += behind or ()
        return found


def _behind(graph: WorkingGraph, node: Node, value: Ref) -> list[Spot] | None:
    """Return the nodes to which a node passes a value; None if the node itself reads it."""
    if node.type == OUTPUT and len(graph.owner.calls) == 1:
        return list(graph.owner.calls)
    inner = graph.layer_of(node).graphs if node.is_call else []
    args = node.args or ()
    if len(inner) != 1 or node.sources().count(value.node) != args.count(value):
        return None
    inputs = [each.name for each in inner[0] if each.type == INPUT]
    return [(inner[0], each) for each, arg in zip(inputs, args, strict=False) if arg == value]


def _followed(value: Value, graph: WorkingGraph) -> tuple[Value, WorkingGraph]:
    """Return the source of a value, through results and inputs of composites."""
    while type(value) is Ref:
        node = graph.nodes[value.node]
        if node.is_call and node.when is None:
            inner = graph.layer_of(node).graphs
            if len(inner) != 1 or len(graph.layer_of(node).calls) != 1:
                break
            args = inner[0].output().args or ()
            if len(args) != 1:
                break
            value, graph = args[0], inner[0]
        elif node.type == INPUT and len(graph.owner.calls) == 1:
            ((outer, name),) = graph.owner.calls
            inputs = [each.name for each in graph if each.type == INPUT]
            args = outer.nodes[name].args or ()
            index = inputs.index(node.name)
            is_alone = len(graph.owner.graphs) == 1 and outer.nodes[name].when is None
            if not is_alone or index >= len(args):
                break
            value, graph = args[index], outer
        else:
            break
    return value, graph


def _meets(condition: Condition, call: Call) -> bool:
    try:
        return bool(condition(call))
    except Exception as error:
        raise EditError(
            f"the condition of a pattern raised {type(error).__name__} at {call.site}: "
            f"{first_line(error)}"
        ) from error


def _paired(term: Applied, node: Node, graph: WorkingGraph) -> list[list[_Goal]]:
    """Return the ways to pair the arguments of a term with those of a node, the last one first."""
    args, kwargs = node.args or (), node.kwargs
    if len(args) != len(term.args) or not kwargs.keys() >= term.kwargs.keys():
        return []
    left_out = kwargs.keys() - term.kwargs.keys()
    if left_out and not _are_defaults(node, left_out):
        return []
    named = [(each, kwargs[name], graph) for name, each in term.kwargs.items()]
    ways = [args]
    operation = term.operation
    if isinstance(operation, Function) and operation.is_commutative and len(args) > 1:
        ways.append((args[1], args[0], *args[2:]))
    return [
        [*((each, value, graph) for each, value in zip(term.args, way, strict=True)), *named][::-1]
        for way in ways
    ]


def _are_defaults(node: Node, names: AbstractSet[str]) -> bool:
    """Return whether a node passes the defaults of a function for some of its parameters."""
    if node.type != FUNCTION:
        return False
    defaults = argument_defaults(node.implementation)
    return all(name in defaults and _is_same(node.kwargs[name], defaults[name]) for name in names)


def _inside(term: Any, value: Value, graph: WorkingGraph) -> list[_Goal] | None:
    """Return the goals for the parts of a plain value; None if it is another value."""
    if not _is_alike(term, value):
        return None
    if type(term) is dict:
        return [(each, value[name], graph) for name, each in term.items()]
    inner, given = parts(term) or (), parts(value) or ()
    return [(one, other, graph) for one, other in zip(inner, given, strict=True)]


def _is_alike(one: Any, other: Any) -> bool:
    """Return whether two values are the same, ignoring the contents of containers."""
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        return bool(one.keys() == other.keys())
    if isinstance(one, Record):
        return one.type == other.type and [*one.fields] == [*other.fields]
    inner = parts(one)
    if inner is not None:
        return len(inner) == len(parts(other) or ())
    if isinstance(one, float | complex):
        return repr(one) == repr(other)  # -0.0 is not 0.0, and one NaN is like another
    return bool(one == other)


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two plain values are the same; 1 differs from True, also inside a list."""
    if not _is_alike(one, other):
        return False
    if type(one) is dict:
        return all(_is_same(each, other[name]) for name, each in one.items())
    pairs = zip(parts(one) or (), parts(other) or (), strict=True)
    return all(_is_same(each, like) for each, like in pairs)
