"""A back end, as the walk along a model sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch

if TYPE_CHECKING:
    from layergraph_backends.step import Step

NO_HANDLER = "no handler"

Tensors: TypeAlias = Callable[[str], tuple[str, torch.Tensor]]
"""Gives for the key of a tensor another key, and the tensor of it."""


class Backend:
    """Collects what a target says of one model. Subclass it for a target.

    A value of the target is any object: a name of a variable, a node of a graph. It is not None,
    a number, text or a container, because these are values that the model computes with in plain
    Python, and stand for themselves.

    Attributes:
        target: the name of the target, as the rows of the hook ``lowerings`` have it.
        computes_both_ways: whether the target computes a step also where the model does not run it,
            and chooses afterwards. Otherwise a step that runs under a condition is refused.
        takes_turns: whether a loop with a known number of turns becomes these turns. Otherwise the
            target needs a handler for ``layergraph.loop``.
        repeats: whether :meth:`repeated` is asked about a call of a composite that is like one
            before. Set it only if no handler of the target that is built in looks at the numbers
            in tensors: they are what differs between such calls.

    Example:
        >>> from layergraph_backends import Backend
        >>> class Text(Backend):
        ...     target = "text"
        ...     def input(self, name, meta):
        ...         return Name(name)
        ...     def tensor(self, key, tensor):
        ...         return Name(key)
    """

    target: ClassVar[str]
    computes_both_ways: ClassVar[bool] = False
    takes_turns: ClassVar[bool] = True
    repeats: ClassVar[bool] = False

    def input(self, name: str, meta: Any) -> Any:
        """Return the value that stands for an input of the model.

        Args:
            name: the name of the parameter; of a tensor in a container, with its place there.
            meta: its shape and dtype, a :class:`layergraph_shapes.TensorMeta`; None if they are not
                known; the name of a symbolic number if it is none.
        """
        raise NotImplementedError

    def tensor(self, key: str, tensor: torch.Tensor) -> Any:
        """Return the value that stands for a parameter or buffer, which a graph reads.

        Args:
            key: its key in the state dict.
            tensor: the tensor, without history.
        """
        raise NotImplementedError

    def composite(self, step: Step, lower: Callable[..., Any]) -> Any:
        """Return the value of a call of a composite.

        This one inlines the graph. A target with functions of its own lowers the graph once for
        each form, and returns a call.

        Args:
            step: the call.
            lower: ``lower(*args, **kwargs)`` walks along the graph with these arguments, and gives
                its result.
        """
        return lower(*step.args, **step.kwargs)

    def repeated(self, step: Step, first: Step, tensors: Tensors) -> Any:  # noqa: ARG002
        """Return the value of a call that is like one before; None: it is lowered like that one.

        The two composites differ in names and in the numbers of their tensors only. The values that
        they are given have the same shapes and dtypes.

        Args:
            step: the call.
            first: the one before.
            tensors: gives, for the key of a tensor that the first call reads, the key and the
                tensor that this one reads in its place.
        """
        return None

    def lacking(self, step: Step) -> str:  # noqa: ARG002 what a subclass looks at
        """Return the reason for which no handler says a layer or function, for the list of lacks.

        A row without layers and functions could give it too. But the walk asks no such row about a
        step that reads the value of a step that lacks, so that only the first of them is listed.

        Args:
            step: the step. Some of its arguments may be unknown.
        """
        return NO_HANDLER

    def guard(self, text: str, step: Step) -> None:
        """Take note of a guard, which the rebuilt model would check.

        This one does nothing, because :class:`~layergraph_backends.Lowered` lists the guards.

        Args:
            text: what has to hold.
            step: the guard.
        """
