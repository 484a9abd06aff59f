"""A walk through the graphs of an IR, in which each node runs on fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from layergraph.control_flow import choices, guards, regions
from layergraph.control_flow.loops import loop
from layergraph.errors import ArgumentError, LayergraphError, ShapeError, first_line
from layergraph.ir import BODY, Implementation, Node
from layergraph_shapes.alternatives import (
    Answers,
    Decision,
    UndecidedError,
    chosen,
    on_each_way,
)
from layergraph_shapes.arguments import by_parameter, without_comparison
from layergraph_shapes.fake_model import FakeModel
from layergraph_shapes.messages import place, text_of, undetermined
from layergraph_shapes.observer import Observer, Path
from layergraph_shapes.reading import deep, filled, last_read, method_of
from layergraph_shapes.recurrent import Recurrent, is_recurrent
from layergraph_shapes.repeats import Repeats
from layergraph_shapes.sizes import Sizes

_GUARDS = frozenset(guards.GUARDS)
# Each call of these functions on tensors without numbers is a decision.
_QUESTIONS = frozenset(
    {choices.truth, choices.holds, torch.equal, torch.allclose, torch.is_nonzero}
)
_QUESTION_METHODS = frozenset({"equal", "allclose", "is_nonzero", "__bool__"})
_NO_NUMBERS = (DataDependentOutputException, GuardOnDataDependentSymNode)
# The limit of a walk, as for Ir.flatten: a short file can describe a huge number of calls.
_NODES, _NODES_EACH = 100_000, 100


class Walk:
    """One call of a model without numbers.

    Args:
        model: the model.
        sizes: the symbolic sizes.
        observer: receives the values.
        decisions: the answers to decisions, by name; the walk takes both ways of others.

    Attributes:
        decisions: the decisions without a given answer, by name.
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
        self._bodies = 0
        self._repeats = Repeats(model, observer)
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
        with deep(len(self._model.ir)):
            if root.nodes:
                bound = by_parameter(self._model.graph_of(root), root.name, args, kwargs)
                result = self._composite(root, (), bound, {})
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

    def _composite(
        self, implementation: Implementation, path: Path, bound: dict[str, Any], answers: Answers
    ) -> Any:
        is_open = bool(answers or self._bodies)
        call = None if is_open else self._repeats.call(implementation, path, bound)
        first = None if call is None else self._repeats.first(call)
        if call is not None and first is not None:
            for _ in self._repeats.again(first, call):
                self._count()
            return self._repeats.result(first, call)
        before = self._undetermined
        training = self._model.modules[implementation.name].training
        self._observer.enter(implementation, list(bound.values()), training)
        result = self._run_composite(implementation, path, bound, answers)
        if call is not None and before == self._undetermined:
            self._repeats.keep(call, self._repeats.call(implementation, path, bound), result)
        return result

    @property
    def _undetermined(self) -> tuple[int, int, int]:
        """The numbers of what calls do not share: decisions, answers to them, and sizes."""
        return len(self.decisions), len(self._asked), self._sizes.count

    def _count(self) -> None:
        self._remaining -= 1
        if self._remaining < 0:
            raise ShapeError("the model makes too many calls; give a part of it")

    def _run_composite(
        self, implementation: Implementation, path: Path, bound: dict[str, Any], answers: Answers
    ) -> Any:
        alive: dict[fx.Node, Any] = {}
        try:
            # If the graph raises, restore the modes of its open regions.
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
            alive: receives the values that later nodes read, except parameters.
        """
        graph, nodes = self._model.fx_graph_of(implementation)
        last = last_read(graph)
        values: dict[fx.Node, Any] = {}
        for each in graph.nodes:
            self._count()
            node = nodes.get(each)
            here = (*path, node.name if node else each.name)
            if each.op == "output":
                return filled(each.args[0], values)
            if each.op == "placeholder":
                value = bound[each.target] if each.target in bound else each.args[0]
            elif each.op == "get_attr":
                is_module = node is None or node.is_call
                name = each.target
                value = self._model.ir[name] if is_module else self._model.state(name)
            else:
                value = self._node(implementation, each, node, here, values, answers)
            if node is not None and each.op in ("placeholder", "get_attr"):
                self._show(here, node, value, answers)
            values[each] = value
            if each.op != "placeholder":
                alive[each] = value
                released = [alive.pop(read) for read in last.get(each, ())]
                self._observer.computed(value, released)
            self._check_sizes(here)
        return None

    def _show(self, path: Path, node: Node, value: Any, answers: Answers) -> None:
        # Inside a loop body, one path has a different value in each iteration.
        if not self._bodies:
            self._observer.value(path, node, value, answers)

    def _check_sizes(self, path: Path) -> None:
        name = self._sizes.fixed()
        if name is not None:
            raise ShapeError(
                f"{place(path)}: the size {name!r} cannot vary: it has to be "
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
        """Return the value of a call, on all ways of its arguments and its condition."""
        op: str = each.op
        target: Any = each.target
        args = filled(each.args, values)
        kwargs = filled(each.kwargs, values)
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
                inputs = by_parameter(self._model.graph_of(target), target.name, args, kwargs)
                value = self._composite(target, path, inputs, known)
            else:
                given = chosen(args, known), chosen(kwargs, known)
                if isinstance(target, Implementation):
                    value = self._leaf(path, target, *given, known)
                else:
                    name = node.implementation if node else ""
                    value = self._function(path, owner, name, op, target, *given, known)
            if node is not None:
                self._show(path, node, value, known)
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
        kwargs = without_comparison(module, args, kwargs)
        try:
            return self._run(path, leaf, leaf, run, args, kwargs, answers)
        except _WithoutNumbersError as error:
            raise undetermined(path, leaf, error) from error

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
        if any(map(_is_body, (*args, *kwargs.values()))):
            return self._with_bodies(path, owner, name, target, args, kwargs, answers)
        function = target if op == "call_function" else method_of(target)
        is_question = function in _QUESTIONS or target in _QUESTION_METHODS
        try:
            value = self._run(path, owner, name, function, args, kwargs, answers)
            is_question = is_question or isinstance(value, torch.SymBool)
            if isinstance(value, torch.SymBool):
                return self._run(path, owner, name, bool, (value,), {}, answers)
        except _WithoutNumbersError as error:
            if function in _GUARDS:
                return None  # the guard may pass for some numbers; later values are valid for these
            if is_question:
                return self._answer(path, args, answers)
            raise undetermined(path, name or str(target), error) from error
        return value

    def _with_bodies(
        self,
        path: Path,
        owner: Implementation,
        name: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answers: Answers,
    ) -> Any:
        """Run a function that runs bodies.

        Raises:
            ShapeError: the walk does not know how often the function runs its bodies.
        """
        if target is loop and not kwargs:
            body, turns, carried, given, collected = args
            kept: list[Any] = []

            def turn(*values: Any) -> Any:
                result = self._body(body, path, values, answers)
                collects = list(result[len(carried) :])
                self._observer.computed(collects, [])
                kept.extend(collects)
                return result

            try:
                return loop(turn, turns, carried, given, collected)
            finally:
                self._observer.computed(None, kept)
        if target is torch.cond and not kwargs:
            condition, if_true, if_false, operands = args
            is_true = self._function(
                path, owner, name, "call_function", choices.truth, (condition,), {}, answers
            )
            return self._body(if_true if is_true else if_false, path, operands, answers)
        raise ShapeError(
            f"{place(path)}: {name} runs functions of the model, and shapes do not say how often"
        )

    def _body(self, body: Implementation, path: Path, values: Sequence[Any], known: Answers) -> Any:
        """Run a body on values that stay alive until its end."""
        given = dict(zip(self._model.graph_of(body).parameters().values(), values, strict=True))
        alive: dict[fx.Node, Any] = {}
        self._observer.computed(list(values), [])
        self._bodies += 1
        try:
            return self._graph(body, path, given, known, alive)
        finally:
            self._bodies -= 1
            self._observer.failed([*alive.values(), *values])

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
            owner = self._model.owner_of(owner)
            return self._observer.run(owner, called, function, args, kwargs, answers)
        except LayergraphError:
            raise
        except _NO_NUMBERS as error:
            raise _WithoutNumbersError(first_line(error)) from error
        except (DynamicOutputShapeException, UnsupportedFakeTensorException) as error:
            raise ShapeError(
                f"{place(path)}: torch cannot tell the shapes of {text_of(called)} without "
                f"numbers: {first_line(error)}"
            ) from error
        except Exception as error:
            raise ShapeError(
                f"{place(path)}: {text_of(called)} does not take these inputs: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error


def _is_body(value: Any) -> bool:
    return isinstance(value, Implementation) and value.type == BODY


class _WithoutNumbersError(Exception):
    """A function needs the numbers in a tensor."""
