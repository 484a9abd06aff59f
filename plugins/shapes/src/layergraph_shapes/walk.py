"""A walk along the graphs of an IR: each node runs on tensors without memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from layergraph import choices, guards, regions
from layergraph.errors import ArgumentError, LayergraphError, ShapeError, first_line
from layergraph.ir import Implementation, Node
from layergraph_shapes.alternatives import (
    Answers,
    Decision,
    UndecidedError,
    chosen,
    on_each_way,
)
from layergraph_shapes.fake_model import FakeModel
from layergraph_shapes.observer import Observer, Path
from layergraph_shapes.recurrent import Recurrent, is_recurrent
from layergraph_shapes.sizes import Sizes

_GUARDS = frozenset(
    {
        guards.assume,
        guards.assume_container,
        guards.assume_environment,
        guards.assume_length,
        guards.assume_tensor,
        guards.assume_truth,
    }
)
# If their arguments have no numbers, each of these is a decision.
_QUESTIONS = frozenset(
    {choices.truth, choices.holds, torch.equal, torch.allclose, torch.is_nonzero}
)
_QUESTION_METHODS = frozenset({"equal", "allclose", "is_nonzero", "__bool__"})
_NO_NUMBERS = (DataDependentOutputException, GuardOnDataDependentSymNode)
# The limit of a walk, as for Ir.flatten: a short file can call itself a great many times.
_NODES, _NODES_EACH = 100_000, 100
_FRAMES_A_LEVEL = 12


class Walk:
    """One call of a model without numbers.

    Args:
        model: the model.
        sizes: the symbolic sizes.
        observer: sees the values.
        decisions: the answers to decisions, by name; others go both ways.

    Attributes:
        decisions: the decisions that went both ways, by name.
    """

    def __init__(
        self,
        model: FakeModel,
        sizes: Sizes,
        observer: Observer,
        decisions: Mapping[str, bool] | None = None,
    ) -> None:
        self._model = model
        self._sizes = sizes
        self._observer = observer
        self._answered = dict(decisions or {})
        self._asked: set[str] = set()
        self.decisions: dict[str, Decision] = {}
        nodes = sum(len(graph.nodes) for each in model.ir.values() for graph in each.graphs)
        self._remaining = _NODES + _NODES_EACH * nodes

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model, and return its result. Call it while the model is running.

        Raises:
            ArgumentError: the model takes other arguments.
            AssumptionError: a guard fails.
            ShapeError: a node cannot be run.
        """
        root = self._model.ir[self._model.ir.root]
        with _deep(len(self._model.ir)):
            if root.nodes:
                result = self._composite(root, (), self._bound(root, args, kwargs), {})
            else:
                given = [*args, *kwargs.values()]
                self._observer.enter(root, given, self._model.modules[root.name].training)
                result = self._leaf((), root, args, kwargs, {})
                self._observer.computed(result, [])
                self._observer.leave(root, result, [*given, result])
        for name in self._answered.keys() - self._asked:
            known = ", ".join(sorted({*self._asked, *self.decisions})) or "none"
            raise ArgumentError(f"there is no decision {name!r}; the decisions are: {known}")
        return result

    def _bound(
        self, implementation: Implementation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the value of each parameter.

        Raises:
            ArgumentError: there are too many, or too few.
        """
        graph = self._model.graph_of(implementation)
        parameters = graph.parameters()
        bound = dict(zip(parameters.values(), args, strict=False))
        twice = bound.keys() & kwargs.keys()
        unknown = kwargs.keys() - {*parameters.values()}
        bound |= kwargs
        missing = [
            parameter
            for name, parameter in parameters.items()
            if parameter not in bound and "default" not in graph.nodes[name].kwargs
        ]
        takes = f"it takes {', '.join(parameters.values()) or 'none'}"
        where = f"the inputs of {implementation.name!r}"
        if len(args) > len(parameters):
            raise ArgumentError(f"{where}: {len(args)} were given, but {takes}")
        for wrong, names in (("twice", twice), ("in vain", unknown), ("nowhere", missing)):
            if names:
                raise ArgumentError(f"{where}: {sorted(names)} given {wrong}; {takes}")
        return bound

    def _composite(
        self, implementation: Implementation, path: Path, bound: dict[str, Any], answers: Answers
    ) -> Any:
        training = self._model.modules[implementation.name].training
        self._observer.enter(implementation, list(bound.values()), training)
        alive: dict[fx.Node, Any] = {}
        try:
            # A graph that fails leaves no region open.
            with regions.ending():
                result = self._graph(implementation, path, bound, answers, alive)
        except (UndecidedError, LayergraphError):
            self._observer.failed([*alive.values(), *bound.values()])
            raise
        self._observer.leave(implementation, result, [*alive.values(), *bound.values()])
        return result

    def _graph(
        self,
        implementation: Implementation,
        path: Path,
        bound: dict[str, Any],
        answers: Answers,
        alive: dict[fx.Node, Any],
    ) -> Any:
        """Run the nodes of a graph.

        Args:
            implementation: the owner of the graph.
            path: the path of the call.
            bound: the values of the parameters.
            answers: the answers to decisions.
            alive: is filled with the values that nodes still read, besides the parameters.
        """
        graph, nodes = self._model.fx_graph_of(implementation)
        last_read = _last_read(graph)
        values: dict[fx.Node, Any] = {}
        for each in graph.nodes:
            self._remaining -= 1
            if self._remaining < 0:
                raise ShapeError("the model makes too many calls; give a part of it")
            node = nodes.get(each)
            here = (*path, node.name if node else each.name)
            if each.op == "output":
                return _filled(each.args[0], values)
            if each.op == "placeholder":
                value = bound[each.target] if each.target in bound else each.args[0]
            elif each.op == "get_attr":
                is_module = node is None or node.is_call
                name = each.target
                value = self._model.ir[name] if is_module else self._model.state(name)
            else:
                value = self._node(implementation, each, node, here, values, answers)
            if node is not None and each.op in ("placeholder", "get_attr"):
                self._observer.value(here, node, value, answers)
            values[each] = value
            if each.op != "placeholder":
                alive[each] = value
                released = [alive.pop(read) for read in last_read.get(each, ())]
                self._observer.computed(value, released)
            self._check_sizes(here)
        return None

    def _check_sizes(self, path: Path) -> None:
        name = self._sizes.fixed()
        if name is not None:
            raise ShapeError(
                f"{_place(path)}: the size {name!r} cannot vary: it has to be "
                f"{self._sizes.value_of(name)}; give a number for it"
            )

    def _node(
        self,
        owner: Implementation,
        each: fx.Node,
        node: Node | None,
        path: Path,
        values: Mapping[fx.Node, Any],
        answers: Answers,
    ) -> Any:
        """Return the value of a call, on all ways that its arguments and its condition have."""
        op: str = each.op
        target: Any = each.target
        args = _filled(each.args, values)
        kwargs = _filled(each.kwargs, values)
        condition: Any = True
        expected: Any = True
        if target is choices.conditionally:
            condition, expected, target, *rest = args
            args = tuple(rest)
            op = "call_module" if isinstance(target, Implementation) else "call_function"
        elif op == "call_module":
            target = self._model.ir[str(target)]

        def compute(known: Answers) -> Any:
            if chosen(condition, known) is not expected:
                return None
            if isinstance(target, Implementation) and target.nodes:
                bound = self._bound(target, args, kwargs)
                value = self._composite(target, path, bound, known)
            else:
                given = chosen(args, known), chosen(kwargs, known)
                if isinstance(target, Implementation):
                    value = self._leaf(path, target, *given, known)
                else:
                    name = node.implementation if node else ""
                    value = self._function(path, owner, name, op, target, *given, known)
            if node is not None:
                self._observer.value(path, node, value, known)
            return value

        return on_each_way(compute, answers)

    def _leaf(
        self,
        path: Path,
        leaf: Implementation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answers: Answers,
    ) -> Any:
        module = self._model.modules[leaf.name]
        run = Recurrent(module) if is_recurrent(module, args) else module
        try:
            return self._run(path, leaf, leaf, run, args, kwargs, answers)
        except _WithoutNumbersError as error:
            raise _undetermined(path, leaf, error) from error

    def _function(
        self,
        path: Path,
        owner: Implementation,
        name: str,
        op: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answers: Answers,
    ) -> Any:
        function = target if op == "call_function" else _method(target)
        is_question = function in _QUESTIONS or target in _QUESTION_METHODS
        try:
            value = self._run(path, owner, name, function, args, kwargs, answers)
            is_question = is_question or isinstance(value, torch.SymBool)
            if isinstance(value, torch.SymBool):
                return self._run(path, owner, name, bool, (value,), {}, answers)
        except _WithoutNumbersError as error:
            if function in _GUARDS:
                return None  # numbers may pass it, and what comes after holds for these
            if is_question:
                return self._answer(path, args, answers)
            raise _undetermined(path, name or str(target), error) from error
        return value

    def _answer(self, path: Path, args: tuple[Any, ...], answers: Answers) -> bool:
        name = "/".join(path)
        self._asked.add(name)
        if name in self._answered:
            return self._answered[name]
        where = next((each for each in args[1:] if isinstance(each, str)), "")
        decision = self.decisions.setdefault(name, Decision(name, where))
        if decision not in answers:
            raise UndecidedError(decision)
        return answers[decision]

    def _run(
        self,
        path: Path,
        owner: Implementation,
        called: Implementation | str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answers: Answers,
    ) -> Any:
        """Run a function or a layer, and turn the errors of torch into ours."""
        try:
            return self._observer.run(owner, called, function, args, kwargs, answers)
        except LayergraphError:
            raise
        except _NO_NUMBERS as error:
            raise _WithoutNumbersError(first_line(error)) from error
        except (DynamicOutputShapeException, UnsupportedFakeTensorException) as error:
            raise ShapeError(
                f"{_place(path)}: torch cannot tell the shapes of {_text(called)} without numbers: "
                f"{first_line(error)}"
            ) from error
        except Exception as error:
            raise ShapeError(
                f"{_place(path)}: {_text(called)} does not take these inputs: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error


class _WithoutNumbersError(Exception):
    """A function needs the numbers in a tensor."""


def _filled(value: Any, values: Mapping[fx.Node, Any]) -> Any:
    """Return an argument with values in the place of nodes, in plain containers."""
    if isinstance(value, fx.Node):
        return values[value]
    if isinstance(value, dict):
        return {key: _filled(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if isinstance(value, tuple):
        inside = [_filled(each, values) for each in value]
        return type(value)(*inside) if hasattr(value, "_fields") else tuple(inside)
    if isinstance(value, slice):
        return slice(*[_filled(each, values) for each in (value.start, value.stop, value.step)])
    return value


def _undetermined(path: Path, called: Implementation | str, error: Exception) -> ShapeError:
    return ShapeError(
        f"{_place(path)}: the numbers in a tensor decide what {_text(called)} returns, and shapes "
        f"do not tell it ({error})"
    )


def _method(name: Any) -> Callable[..., Any]:
    def method(value: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(value, name)(*args, **kwargs)

    return method


def _place(path: Path) -> str:
    return f"node {'/'.join(path)!r}" if path else "the model"


def _text(called: Implementation | str) -> str:
    if isinstance(called, Implementation):
        return f"the {called.type} {called.name!r}"
    return called or "a function"


def _last_read(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """Return, for each node, those that it is the last to read.

    The inputs are not among them, because the caller holds them, nor is what the output reads.
    """
    last: dict[fx.Node, fx.Node] = {}
    for each in graph.nodes:
        last[each] = each
        for read in each.all_input_nodes:
            last[read] = each
    found: dict[fx.Node, list[fx.Node]] = {}
    for each, reader in last.items():
        if each.op != "placeholder":
            found.setdefault(reader, []).append(each)
    return found


@contextmanager
def _deep(levels: int) -> Iterator[None]:
    """Let Python recurse as deep as a model may be."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + _FRAMES_A_LEVEL * min(levels, 2000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
