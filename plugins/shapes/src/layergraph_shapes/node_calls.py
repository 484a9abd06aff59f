"""Calls of layers and functions on fake tensors, with the errors of torch as ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from layergraph.control_flow import choices, guards
from layergraph.errors import LayergraphError, ShapeError, first_line
from layergraph.ir import Implementation
from layergraph_shapes.alternatives import Answers
from layergraph_shapes.arguments import without_comparison
from layergraph_shapes.decisions import Decisions
from layergraph_shapes.fake_model import FakeModel
from layergraph_shapes.messages import place, text_of, undetermined
from layergraph_shapes.observer import Observer, Path
from layergraph_shapes.reading import method_of
from layergraph_shapes.recurrent import Recurrent, is_recurrent

_GUARDS = frozenset(guards.GUARDS)
# Each call of these functions on tensors without numbers is a decision.
_QUESTIONS = frozenset(
    {choices.truth, choices.holds, torch.equal, torch.allclose, torch.is_nonzero}
)
_QUESTION_METHODS = frozenset({"equal", "allclose", "is_nonzero", "__bool__"})
_NO_NUMBERS = (DataDependentOutputException, GuardOnDataDependentSymNode)


class NodeCalls:
    """Makes the calls of nodes that call no graph.

    Args:
        model: the model.
        observer: runs the functions and layers.
        decisions: answers decisions.
    """

    def __init__(self, model: FakeModel, observer: Observer, decisions: Decisions) -> None:
        self._model = model
        self._observer = observer
        self._decisions = decisions

    def leaf(
        self,
        path: Path,
        leaf: Implementation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answers: Answers,
    ) -> Any:
        """Run a leaf.

        Raises:
            ShapeError: the leaf does not take these inputs, or needs the numbers in a tensor.
        """
        module = self._model.modules[leaf.name]
        run = Recurrent(module) if is_recurrent(module, args) else module
        kwargs = without_comparison(module, args, kwargs)
        try:
            return self._run(path, leaf, leaf, run, args, kwargs, answers)
        except _WithoutNumbersError as error:
            raise undetermined(path, leaf, error) from error

    def function(
        self,
        path: Path,
        owner: Implementation,
        name: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answers: Answers,
    ) -> Any:
        """Run a function, or the method of a name.

        Args:
            path: the path of the node.
            owner: the owner of the graph.
            name: the name of the function in the IR.
            target: the function, or the name of a method.
            args: its positional arguments.
            kwargs: its keyword arguments.
            answers: the answers to decisions.

        Raises:
            ShapeError: the function does not take these inputs, or needs the numbers in a tensor.
            UndecidedError: the call is a decision without an answer.
        """
        function = method_of(target) if isinstance(target, str) else target
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
                return self._decisions.answer(path, args, answers)
            raise undetermined(path, name or str(target), error) from error
        return value

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


class _WithoutNumbersError(Exception):
    """A function needs the numbers in a tensor."""
