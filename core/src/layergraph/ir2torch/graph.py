"""Building a graph of torch.fx from the graph of an implementation."""

from __future__ import annotations

import copyreg
import functools
import operator
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self, TypeAlias, cast

import torch
from torch import fx
from torch.nn.utils.rnn import PackedSequence

from layergraph.control_flow.choices import conditionally
from layergraph.control_flow.guards import assume, assume_tensor
from layergraph.control_flow.states import SETTER, set_state
from layergraph.errors import BuildError, Place
from layergraph.functions.checked import packed_sequence
from layergraph.functions.foreign import listing
from layergraph.functions.names import Targets, is_own
from layergraph.functions.table import TAKES_BODIES
from layergraph.ir import (
    FUNCTION,
    INPUT,
    OUTPUT,
    STATE,
    Body,
    Graph,
    Node,
    Record,
    Ref,
    Symbol,
    Value,
    returned,
)
from layergraph.ir.names import is_argument_name
from layergraph.ir.values import parts, rebuilt
from layergraph.known_objects import maker_of
from layergraph.literals import (
    OUTPUT_CLASS,
    UnknownValueError,
    class_of_torch,
    output_of,
    torch_value,
)
from layergraph.outputs import OutputClass, reduce_class

_CHECKING = frozenset(
    {"layergraph.assume_container", "layergraph.assume_named", "layergraph.holds"}
)


def fx_graph(
    source: Graph,
    where: Place,
    functions: Targets,
    targets: Mapping[str, str],
    methods: Mapping[str, str] = MappingProxyType({}),
) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """Return the graph of torch.fx for the graph of an implementation, and its nodes.

    Args:
        source: a checked graph with nodes.
        where: the place of the graph in the IR, for errors.
        functions: the functions that nodes may call.
        targets: for each call and state node, the attribute path of the module or tensor, from the
            module that gets the graph.
        methods: for each body that a node runs, the name of the method that runs it.

    Returns:
        The graph, and its nodes by the names of those of the source, because torch.fx may give a
        node another name. Nodes that only check or make an argument are not among them.

    Raises:
        BuildError: torch and the plugins have no function or symbol of a name.
    """
    builder = _GraphBuilder(source, where, functions, targets, methods)
    return builder.build(), builder.built


class _GraphBuilder:
    def __init__(
        self,
        source: Graph,
        where: Place,
        functions: Targets,
        targets: Mapping[str, str],
        methods: Mapping[str, str],
    ) -> None:
        self._source = source
        self._where = where
        self._functions = functions
        self._targets = targets
        self._methods = methods
        # Inputs that a node of the graph checks need no check from their input node.
        self._checked = {
            arg.node
            for node in source.nodes.values()
            if node.implementation in _CHECKING
            for arg in (node.args or ())[:2]
            if type(arg) is Ref
        }
        self._graph = fx.Graph()
        self.built: dict[str, fx.Node] = {}

    def build(self) -> fx.Graph:
        arguments = self._source.arguments()
        parameters = self._source.parameters()
        checks: list[tuple[Node, str, dict[str, Any]]] = []
        optional: str | None = None
        for node in self._source.in_execution_order():
            place = self._where.at("node", node.name)
            if node.type != INPUT and checks:
                self._check_inputs(checks)
                checks = []
            args = tuple([self._value(*each, place) for each in _ways(node, arguments[node.name])])
            own = (node.when,) if node.when is not None else ()
            kwargs = {
                name: self._value(
                    arg, own, place, in_signature=(node.type, name) == (INPUT, "default")
                )
                for name, arg in node.kwargs.items()
            }
            if node.type == OUTPUT:
                self._graph.output(returned(args))
                continue
            if node.type == INPUT:
                op, target = "placeholder", parameters[node.name]
                if "default" in kwargs:
                    optional = target
                    args = (kwargs["default"],)
                elif optional is not None:
                    raise BuildError(
                        f"{place}: the input {target!r} has no default, but {optional!r} before it "
                        "has one; give both of them one, or none"
                    )
                if kwargs:
                    checks.append((node, target, kwargs))
                kwargs = {}
            else:
                op, target, args = self._computing(node, place, args, kwargs)
            # torch.fx renames other names that code cannot have.
            name = "self_" if node.name == "self" else node.name
            created = self._graph.create_node(op, target, args, kwargs, name=name)
            self.built[node.name] = created
        return self._graph

    def _computing(
        self, node: Node, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, Any, tuple[Any, ...]]:
        op, target = "call_module", cast("Any", self._targets.get(node.name))
        if node.type == STATE:
            if not args:
                return "get_attr", target, args
            setter = self._graph.create_node("get_attr", SETTER, name=SETTER)
            op, target, args = "call_function", set_state, (setter, target, *args)
        if node.type == FUNCTION:
            op, target, args = self._function(node, place, args, kwargs)
        if node.when is not None:
            return self._conditional(node, op, target, args, place)
        return op, target, args

    def _check_inputs(self, checks: list[tuple[Node, str, dict[str, Any]]]) -> None:
        for node, name, known in checks:
            value = self.built[node.name]
            if "fixed" in known:
                self._graph.call_function(assume, (value, known["fixed"], f"the input {name!r}"))
            elif node.name not in self._checked:
                facts = (known.get("rank"), known.get("dtype"))
                self._graph.call_function(assume_tensor, (value, name, *facts))

    def _function(
        self, node: Node, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, Any, tuple[Any, ...]]:
        target = self._functions.target(node.implementation)
        if target is None:
            name = node.implementation
            other = "a version of torch that has it" if name.startswith("torch.") else listing(name)
            raise BuildError(
                f"{place}: no function is named {name!r}; install the plugin that names it, or "
                f"{other}"
            )
        taken = node.bodies()
        if taken and is_own(node.implementation) and node.implementation not in TAKES_BODIES:
            raise BuildError(
                f"{place}: {node.implementation} takes no function, but gets the body {taken[0]!r}"
            )
        if target.op == "attribute":
            if len(args) != 1 or kwargs:
                raise BuildError(f"{place}: {node.implementation} takes one argument, the value")
            return "call_function", getattr, (*args, target.target)
        if target.op == "call_method" and not args:
            raise BuildError(f"{place}: {node.implementation} takes the tensor as first argument")
        return target.op, target.target, args

    def _conditional(
        self, node: Node, op: str, target: Any, args: tuple[Any, ...], place: Place
    ) -> tuple[str, Any, tuple[Any, ...]]:
        """Return the call that runs a node only if its condition holds.

        It is one node with all that it reads among its arguments. So whatever reads or edits the
        graph sees the condition, and an interpreter of torch.fx runs it as the module does.
        """
        condition, expected = self._value(node.when, (), place)
        called = target
        if op == "call_module":
            called = self._graph.create_node("get_attr", target, name=f"{node.name}_module")
        elif op == "call_method":
            called = getattr(torch.Tensor, target)
        return "call_function", conditionally, (condition, expected, called, *args)

    def _value(self, plain: Value, ways: _Ways, place: Place, *, in_signature: bool = False) -> Any:
        inside = parts(plain)
        if inside is not None:
            values = [self._value(each, ways, place, in_signature=in_signature) for each in inside]
            if type(plain) is Record:
                cls, given = _record_class(plain, tuple(values), place)
                if in_signature:
                    return cls(*given)
                # A separate node, because inside a list or dict fx prints the class by a name that
                # is not among the globals of the code.
                for condition, expected in ways:
                    given = (self.built[condition.node], expected, cls, *given)
                    cls = conditionally
                return self._graph.create_node("call_function", cls, given)
            return rebuilt(plain, values)
        if type(plain) is Ref:
            return self.built[plain.node]
        if type(plain) is Body:
            method = self._methods[plain.implementation]
            return self._graph.create_node("get_attr", method, name=method)
        if type(plain) is Symbol:
            try:
                return torch_value(plain)
            except UnknownValueError as error:
                raise BuildError(f"{place}: {error}; use a version of torch that has it") from None
        return plain


_Ways: TypeAlias = tuple[tuple[Ref, bool], ...]


def _ways(node: Node, args: tuple[Value, ...]) -> list[tuple[Value, _Ways]]:
    """Return the arguments of a node, each with the conditions under which the node reads it.

    A named tuple in it is made only then: the values in it may be None otherwise.
    """
    own = (node.when,) if node.when is not None else ()
    is_choice = node.implementation == "layergraph.choose" and node.type == FUNCTION
    if is_choice and len(args) == 3 and type(args[0]) is Ref:
        condition, if_true, if_false = args
        return [
            (condition, own),
            (if_true, (*own, (condition, True))),
            (if_false, (*own, (condition, False))),
        ]
    return [(arg, own) for arg in args]


class _RecordMeta(type):
    """The metaclass of named tuples, so that pickle stores a class by its name and fields."""


class _RecordTuple(tuple[Any, ...]):
    """The base of the named tuples of graphs.

    We do not use :func:`collections.namedtuple`, because it executes source text that contains the
    names of the fields.
    """

    __slots__ = ()
    _fields: tuple[str, ...] = ()
    _field_defaults: dict[str, Any] = {}  # noqa: RUF012

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        given = dict(zip(cls._fields, args, strict=False))
        if len(args) > len(cls._fields) or given.keys() & kwargs.keys():
            raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}, each once")
        given.update(kwargs)
        if given.keys() != {*cls._fields}:
            raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}")
        return cls._make([given[name] for name in cls._fields])

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:
        return tuple.__new__(cls, iterable)

    def _replace(self, **kwargs: Any) -> Self:
        return type(self)(**{**self._asdict(), **kwargs})

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        # torch.fx writes the repr of constants into code: this one is a syntax error there.
        fields = ", ".join([f"{name}={value!r}" for name, value in self._asdict().items()])
        return f"<{type(self).__name__}({fields})>"


@functools.cache
def _named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    members = {field: property(operator.itemgetter(at)) for at, field in enumerate(fields)}
    namespace = {**members, "__slots__": (), "_fields": fields, "__match_args__": fields}
    return _RecordMeta(name, (_RecordTuple,), namespace)


def _reduce_record(cls: Any) -> tuple[Any, ...]:
    return _named_tuple, (cls.__name__, cls._fields)


copyreg.pickle(_RecordMeta, _reduce_record)
copyreg.pickle(OutputClass, reduce_class)  # type: ignore[arg-type]


# The named tuples of torch that a record with the same name and fields stands for, and the function
# that makes each.
_TUPLES_OF_TORCH: dict[Any, Any] = {PackedSequence: packed_sequence}


def _record_class(
    record: Record, values: tuple[Any, ...], place: Place
) -> tuple[Any, tuple[Any, ...]]:
    """Return the callable that makes a record, and its arguments."""
    for known, made_by in _TUPLES_OF_TORCH.items():
        if record.type == known.__name__ and tuple(record.fields) == known._fields:
            return made_by, values
    try:
        of_torch = class_of_torch(record)
        known = maker_of(record.type, record.fields)
    except (UnknownValueError, ValueError) as error:
        raise BuildError(f"{place}: there is no {error}; correct its fields") from None
    if of_torch is not None:
        return of_torch, (values,)
    if known is not None:
        return known[0], (*known[1], *values)
    if record.type.startswith(OUTPUT_CLASS):
        try:
            return output_of(record, values)
        except UnknownValueError as error:
            raise BuildError(f"{place}: {error}; correct the record") from None
    for name in (record.type, *record.fields):
        if not is_argument_name(name) or (name.startswith("_") and name != record.type):
            raise BuildError(
                f"{place}: {record.type!r} is no named tuple: {name!r} cannot be a name in it; "
                "use an identifier"
            )
    return _named_tuple(record.type, tuple(record.fields)), values
