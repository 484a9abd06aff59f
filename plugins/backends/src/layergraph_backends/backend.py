"""The interface of a back end for the walk through a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch

if TYPE_CHECKING:
    from layergraph_backends.step import Step

NO_HANDLER = "no handler"

Tensors: TypeAlias = Callable[[str], tuple[str, torch.Tensor]]
"""A function that returns, for the key of a tensor, another key and its tensor."""


class Backend:
    """The representation of one model in a target. Subclass it for a target.

    A value of the target is any object: a name of a variable, a node of a graph. It must not be
    None, a number, a text or a container, because these are plain Python values of the model.

    Attributes:
        target: the name of the target, as in the rows of the hook ``lowerings``.
        computes_both_ways: whether the target runs conditional steps always, and selects the result
            afterwards. Otherwise a conditional step is refused.
        takes_turns: whether to unroll a loop with a known number of iterations. Otherwise the
            target needs a handler for ``layergraph.loop``.
        repeats: whether to ask :meth:`repeated` about a call of a composite that repeats an earlier
            one. Set it only if no built-in handler of the target reads the numbers in tensors,
            because such calls differ in these numbers.

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
        """Return the target's value for an input of the model.

        Args:
            name: the name of the parameter; for a tensor in a container, with its place there.
            meta: its shape and dtype, a :class:`layergraph_shapes.TensorMeta`; None if unknown; for
                a symbolic number, its name.
        """
        raise NotImplementedError

    def tensor(self, key: str, tensor: torch.Tensor) -> Any:
        """Return the target's value for a parameter or buffer that a graph reads.

        Args:
            key: its key in the state dict.
            tensor: the detached tensor.
        """
        raise NotImplementedError

    def composite(self, step: Step, lower: Callable[..., Any]) -> Any:
        """Return the value of a call of a composite.

        This method inlines the graph. A target with functions can lower the graph once per form,
        and return a call.

        Args:
            step: the call.
            lower: ``lower(*args, **kwargs)`` walks through the graph with these arguments, and
                returns its result.
        """
        return lower(*step.args, **step.kwargs)

    def repeated(self, step: Step, first: Step, tensors: Tensors) -> Any:  # noqa: ARG002
        """Return the value of a call that repeats an earlier one; None to lower it like that one.

        The two composites differ only in names and in the numbers of their tensors. Their arguments
        have the same shapes and dtypes.

        Args:
            step: the call.
            first: the earlier call.
            tensors: returns, for the key of a tensor that the first call reads, the key and the
                tensor that this call reads in its place.
        """
        return None

    def lacking(self, step: Step) -> str:  # noqa: ARG002 for subclasses
        """Return the reason why no handler supports a layer or function, for the list of lacks.

        A row without layers and functions could give the reason too. But the walk asks no such row
        about a step that depends on an unsupported one, so only the first of these would be listed.

        Args:
            step: the step. Some of its arguments may be unknown.
        """
        return NO_HANDLER

    def guard(self, text: str, step: Step) -> None:
        """Record a guard, which the rebuilt model would check.

        This method does nothing, because :class:`~layergraph_backends.Lowered` lists the guards.

        Args:
            text: the checked fact.
            step: the guard.
        """
