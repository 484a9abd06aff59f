"""The way from example inputs to the tracer of one run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from layergraph.capturing import Capturer, CaptureRequest, Run
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
from layergraph_capture.ways.examples import merged_examples
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
        self._examples = [
            Arguments(request.model, () if args is None else args, kwargs or {})
            for args, kwargs in request.examples
        ]
        self._constants = Constants(request.module_index)
        self._request = request
        self._kind = ReplayTracer if request.modes == "both" else EagerTracer

    def tracer(
        self, arguments: Arguments | None = None, answers: Sequence[bool] = ()
    ) -> EagerTracer:
        """See :class:`Capturer`.

        Args:
            arguments: an example; the first one by default.
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
            self._examples[0] if arguments is None else arguments,
            answers,
        )

    def complete(self, trace: Trace, run: Run) -> Trace:
        """See :class:`Capturer`."""
        first, *others = self._examples
        traces = [self._explored(trace, first, run)]
        for arguments in others:
            traces.append(self._explored(run(partial(self.tracer, arguments)), arguments, run))
        return merged_examples(traces) if others else traces[0]

    def _explored(self, trace: Trace, arguments: Arguments, run: Run) -> Trace:
        """Return the record of all ways that the model takes with an example."""

        def run_with(answers: Sequence[bool]) -> Trace:
            return run(partial(self.tracer, arguments, answers))

        return Explorer(run_with).explored(trace) if trace.decisions else trace

    def faults(self) -> list[Unsupported]:
        """See :class:`Capturer`."""
        found = (
            unfit(self._request.module_index, self._constants, each) for each in self._examples
        )
        return next(filter(None, found), [])

    def finish(self) -> None:
        """See :class:`Capturer`."""
        replace_kept_sizes()
