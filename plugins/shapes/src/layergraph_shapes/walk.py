"""A walk through the graphs of an IR, in which each node runs on fake tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from layergraph.control_flow import choices, regions
from layergraph.control_flow.loops import loop
from layergraph.control_flow.states import set_state
from layergraph.errors import LayergraphError, ShapeError
from layergraph.ir import BODY, Implementation, Node
from layergraph_shapes.alternatives import (
    Answers,
    Decision,
    UndecidedError,
    chosen,
    on_each_way,
)
from layergraph_shapes.arguments import by_parameter
from layergraph_shapes.decisions import Decisions
from layergraph_shapes.fake_model import FakeModel
from layergraph_shapes.messages import place
from layergraph_shapes.node_calls import NodeCalls
from layergraph_shapes.observer import Observer, Path
from layergraph_shapes.reading import deep, filled, last_read
from layergraph_shapes.repeats import Repeats
from layergraph_shapes.sizes import Sizes

# The limit of a walk, as for Ir.flatten: a short file can describe a huge number of calls.
_NODES, _NODES_EACH = 100_000, 100


class Walk:
    """One call of a model without numbers.

    Args:
        model: the model.
        sizes: the symbolic sizes.
        observer: receives the values.
        decisions: the answers to decisions, by name; the walk takes both ways of others.
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
        self._decisions = Decisions(decisions or {})
        self._calls = NodeCalls(model, observer, self._decisions)
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
                result = self._calls.leaf((), root, args, kwargs, {})
                self._observer.computed(result, [])
                self._observer.leave(root, result, [*given, result])
        self._decisions.check_given()
        return result

    @property
    def decisions(self) -> dict[str, Decision]:
        """The decisions without a given answer, by name."""
        return self._decisions.open

    def _composite(
        self, implementation: Implementation, path: Path, bound: dict[str, Any], answers: Answers
    ) -> Any:
        is_open = bool(answers or self._bodies or self._model.sets_state)
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
        return *self._decisions.count, self._sizes.count

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
                name = str(each.target)
                value = self._model.ir.get(name) if is_module else self._model.state(name)
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
        target: Any = each.target
        args = filled(each.args, values)
        kwargs = filled(each.kwargs, values)
        condition: Any = True
        expected: Any = True
        if target is choices.conditionally:
            condition, expected, target, *rest = args
            args = tuple(rest)
        elif each.op == "call_module":
            target = self._model.ir[str(target)]

        def compute(known: Answers) -> Any:
            if chosen(condition, known) is not expected:
                return None
            if isinstance(target, Implementation) and target.nodes:
                inputs = by_parameter(self._model.graph_of(target), target.name, args, kwargs)
                value = self._composite(target, path, inputs, known)
            else:
                given = chosen(args, known), chosen(kwargs, known)
                if target is set_state:
                    is_certain = not known and condition is True
                    self._model.set_state(path, *given[0][1:], is_certain=is_certain)
                    return None
                name = node.implementation if node else ""
                if isinstance(target, Implementation):
                    value = self._calls.leaf(path, target, *given, known)
                elif any(map(_is_body, (*given[0], *given[1].values()))):
                    value = self._with_bodies(path, owner, name, target, *given, known)
                else:
                    value = self._calls.function(path, owner, name, target, *given, known)
            if node is not None:
                self._show(path, node, value, known)
            return value

        return on_each_way(compute, answers)

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
            is_true = self._calls.function(
                path, owner, name, choices.truth, (condition,), {}, answers
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


def _is_body(value: Any) -> bool:
    return isinstance(value, Implementation) and value.type == BODY
