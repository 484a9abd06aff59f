"""Calls of ``backward`` in a forward, and reads of the gradients that they leave in tensors.

The node runs ``backward`` as the code does: it also adds gradients to parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from layergraph.errors import CaptureError
from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import TracedValue
from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.trackers.snapshot import StateSnapshot

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer

BACKWARD = "layergraph.backward"
GRADIENT = "layergraph.gradient"
_backward: Any = torch.autograd.backward


class Backward:
    """Makes and records these calls.

    Args:
        tracer: the tracer of the run.
        snapshot: restores the gradients of parameters after the run.
    """

    def __init__(self, tracer: EagerTracer, snapshot: StateSnapshot) -> None:
        self._tracer = tracer
        self._snapshot = snapshot

    def table(self) -> dict[Any, Any]:
        """Return the functions that calls and reads go to."""
        tensor: Any = torch.Tensor
        return {
            tensor.backward: self.of_tensor,
            tensor.grad.__get__: self.gradient,
            tensor.requires_grad_: self.requires_grad,
        }

    def patches(self) -> Iterator[Patch]:
        """Yield the patch of the function of torch that no mode sees."""

        def backward(*args: Any, **kwargs: Any) -> None:
            if self._tracer.is_recording():
                self._call(*args, **kwargs)
            else:
                _backward(*args, **kwargs)

        yield torch.autograd, "backward", backward

    def keep_saved(self) -> None:
        """Raise if code computes gradients, and autograd has saved no tensors so far."""
        try:
            self._tracer.switch.saved.need()
        except CaptureError as error:
            # The code of the model may catch the error.
            self._tracer.refuse(str(error))
            raise

    def of_tensor(self, _: Any, args: Any, kwargs: Any) -> None:
        """Make and record a call of ``Tensor.backward``."""
        self._call_of_tensor(*args, **kwargs)

    def _call_of_tensor(
        self,
        tensor: torch.Tensor,
        gradient: Any = None,
        retain_graph: Any = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        self._call(tensor, gradient, retain_graph, create_graph, inputs=inputs)

    def _call(
        self,
        tensors: Any,
        grad_tensors: Any = None,
        retain_graph: Any = None,
        create_graph: bool = False,
        grad_variables: Any = None,
        inputs: Any = None,
    ) -> None:
        tracer = self._tracer
        tracer.compare_state()
        gradients = grad_variables if grad_tensors is None else grad_tensors
        given = (tensors, gradients, retain_graph, create_graph, inputs)
        args = tuple([tracer.to_literal(each) for each in given])
        self.keep_saved()
        tracer.unrecorded(self._snapshot.keep_gradients, (), {})
        tracer.recorder.call("function", BACKWARD, args, {})
        named = {"inputs": inputs}
        tracer.calls.attempt(BACKWARD, _backward, given[:4], named)

    def requires_grad(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Record a call of ``requires_grad_``, which returns its argument.

        The argument itself gets the new value, and no alias does: an alias is no leaf of autograd.
        """
        tracer, tensor = self._tracer, args[0]
        result = tracer.function("torch.Tensor.requires_grad_", func, args, kwargs)
        value = tracer.tensors.value_of(result)
        if result is tensor or value is None or tracer.tensors.is_state(tensor):
            return result
        tracer.tensors.bind_alike(tensor, value)
        return tensor

    def gradient(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with the gradient that ``backward`` has left in a tensor that forward has made."""
        tracer, tensor = self._tracer, args[0]
        answer = tracer.unrecorded(func, args, kwargs)
        if tracer.unrecorded(torch.Tensor.requires_grad.__get__, args, kwargs):  # type: ignore[attr-defined]
            value: Value = tracer.tensors.value_of(tensor)
            is_leaf = tracer.unrecorded(torch.Tensor.is_leaf.__get__, args, kwargs)  # type: ignore[attr-defined]
            if not isinstance(value, TracedValue) or not is_leaf:
                tracer.refuse(
                    "'grad' of a tensor that requires gradients and that forward has not made "
                    "without them; pass it as an argument"
                )
            elif answer is None:
                tracer.guards.expect_call(GRADIENT, (value,), None)
            elif not tracer.tensors.is_value(answer):
                tracer.tensors.bind(
                    answer, tracer.recorder.call("function", GRADIENT, (value,), {})
                )
            return answer
        if answer is not None:
            tracer.refuse("'grad' of a tensor; pass it as an argument")
        else:
            tracer.guards.expect_call("torch.Tensor.requires_grad", (tracer.read(tensor),), False)
        return answer
