"""The way from example inputs to the tracer of one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from layergraph.capturing import Capturer, CaptureRequest
from layergraph.errors import Unsupported
from layergraph.torch2ir.code_owners import add_tracer_package
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph.torch2ir.tracing.tracer import Tracer
from layergraph_capture.arguments import Arguments
from layergraph_capture.constants import Constants
from layergraph_capture.kept_sizes import replace_kept_sizes
from layergraph_capture.original import unfit
from layergraph_capture.replaying.tracer import ReplayTracer
from layergraph_capture.tracer import EagerTracer
from layergraph_capture.ways.explore import Explorer

add_tracer_package(__name__, __file__)


class EagerCapturer(Capturer):
    """Captures a model by running it on example inputs.

    Args:
        request: the request for it; it has an example.

    Raises:
        CaptureError: the model does not take the example inputs, or a graph cannot hold them.
    """

    def __init__(self, request: CaptureRequest) -> None:
        args = () if request.args is None else request.args
        self._arguments = Arguments(request.model, args, request.kwargs or {})
        self._constants = Constants(request.module_index)
        self._request = request
        self._kind = ReplayTracer if request.modes == "both" else EagerTracer

    def tracer(self, answers: Sequence[bool] = ()) -> EagerTracer:
        """See :class:`Capturer`.

        Args:
            answers: the ways to go at the first decisions by numbers.
        """
        request = self._request
        return self._kind(
            request.module_index,
            request.keys,
            request.memory,
            request.functions,
            self._constants,
            request.values,
            self._arguments,
            answers,
        )

    def complete(self, trace: Trace, run: Callable[[Callable[[], Tracer]], Trace]) -> Trace:
        """See :class:`Capturer`."""
        if not trace.decisions:
            return trace
        return Explorer(lambda answers: run(partial(self.tracer, answers))).explored(trace)

    def faults(self) -> list[Unsupported]:
        """See :class:`Capturer`."""
        return unfit(self._request.module_index, self._constants, self._arguments)

    def finish(self) -> None:
        """See :class:`Capturer`."""
        replace_kept_sizes()
