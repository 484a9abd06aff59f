"""The way from example inputs to the tracer of one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from layergraph.capturing import Capturer, CaptureRequest, Example, Run
from layergraph.errors import Unsupported
from layergraph.torch2ir.code_owners import add_tracer_package
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph_capture.arguments import Arguments
from layergraph_capture.loops.find import looped
from layergraph_capture.original import unfit
from layergraph_capture.replaying.tracer import ReplayTracer
from layergraph_capture.symbolic.conversions import Conversions
from layergraph_capture.symbolic.kept_sizes import replace_kept_sizes
from layergraph_capture.tracer import EagerTracer
from layergraph_capture.trackers.constants import Constants
from layergraph_capture.trackers.objects import Objects
from layergraph_capture.ways.examples import one_record
from layergraph_capture.ways.explore import Explorer, Ways
from layergraph_capture.ways.modes import merged_modes
from layergraph_capture.ways.runs import Runs
from layergraph_capture.ways.same_record import are_one_graph

add_tracer_package(__name__, __file__)


class EagerCapturer(Capturer):
    """Captures a model by running it on example inputs.

    Args:
        request: the request for it; it has an example.

    Raises:
        CaptureError: the model does not take the example inputs, or a graph cannot hold them.
    """

    def __init__(self, request: CaptureRequest) -> None:
        self._objects = Objects(request.hooks.structures(), request.functions)
        self._examples = [
            Arguments(
                request.model,
                () if args is None else args,
                kwargs or {},
                self._objects,
                request.examples,
            )
            for args, kwargs in request.examples
        ]
        self._constants = Constants(request.module_index)
        self._runs = Runs(request.module_index)
        self._conversions = Conversions()
        self._request = request
        self._kind = ReplayTracer if request.modes == "both" else EagerTracer

    def tracer(
        self,
        arguments: Arguments | None = None,
        answers: Sequence[bool] = (),
        *,
        numbers_turns: bool = False,
        replays: bool = True,
        knows: Callable[[Sequence[Change]], bool] | None = None,
    ) -> EagerTracer:
        """See :class:`Capturer`.

        Args:
            arguments: an example; the first one by default.
            answers: the ways to go at the first decisions by numbers.
            numbers_turns: whether the numbers of the turns of loops are symbolic.
            replays: whether the tracer may tell what the other mode does.
            knows: returns whether other runs have shown that changes matter to no later run.
        """
        request = self._request
        return (self._kind if replays else EagerTracer)(
            request.module_index,
            request.keys,
            request.memory,
            request.functions,
            self._constants,
            request.values,
            self._examples[0] if arguments is None else arguments,
            self._objects,
            answers,
            self._conversions,
            numbers_turns=numbers_turns,
            knows=knows,
        )

    def complete(self, trace: Trace, run: Run) -> Trace:
        """See :class:`Capturer`."""
        ways: list[Ways] = []
        traces: list[Trace] = []
        self._runs.add(self.tracer, trace)
        runs = [trace, *[self._run_with(run, each) for each in self._examples[1:]]]
        with_loops = self._looped(run, runs)
        if with_loops is not None:
            return with_loops
        for trace, arguments in zip(runs, self._examples, strict=True):
            explorer = Explorer(partial(self._run_with, run, arguments))
            ways.append(explorer.explored(trace))
            traces += explorer.traces
        if ways == [trace]:
            # It decides nothing: no question has to become a guard.
            return trace
        complete = one_record(ways)
        complete.other = merged_modes([each.other for each in traces])
        if complete.other is not None and complete.other.differs:
            with complete.other.swapped():
                complete.in_other_mode = one_record(ways)
        return complete

    def _looped(self, run: Run, traces: Sequence[Trace]) -> Trace | None:
        """Return the record with loops that serves all examples; None if there is none.

        Examples of several lengths have one such record.
        """
        found: Trace | None = None
        for trace, example in zip(traces, self._request.examples, strict=True):
            is_rollable = all(each.is_by_size for each in trace.decisions) and not any(
                scope.function for scope in trace.scopes
            )
            run_on = partial(self._run_on, run, replays=trace.other is not None)
            own = looped(trace, example, run_on) if is_rollable else None
            if own is None or (found is not None and not are_one_graph(found, own)):
                return None
            found = found or own
        return found

    def _run_with(self, run: Run, arguments: Arguments, answers: Sequence[bool] = ()) -> Trace:
        return self._runs.run(run, partial(self.tracer, arguments, answers))

    def _run_on(self, run: Run, example: Example, *, replays: bool) -> Trace:
        """Run the model on an example to find its loops."""
        request = self._request
        make = partial(self.tracer, numbers_turns=True, replays=replays)
        if example is request.examples[0]:
            # Its run is one of those with which each other is compared.
            return run(partial(make, knows=lambda _: True))
        args, kwargs = example
        arguments = Arguments(
            request.model, args or (), kwargs or {}, self._objects, [*request.examples, example]
        )
        return self._runs.try_out(run, partial(make, arguments))

    def faults(self) -> list[Unsupported]:
        """See :class:`Capturer`."""
        found = (
            unfit(self._request.module_index, self._constants, each) for each in self._examples
        )
        return next(filter(None, found), [])

    def retries(self) -> bool:
        """See :class:`Capturer`."""
        # Code may need plain numbers of int() and float(), as those for an array of numpy are.
        if not (self._conversions.keep_origins and self._conversions.have_kept):
            return False
        self._conversions.keep_origins = False
        self._runs = Runs(self._request.module_index)
        return True

    def finish(self) -> None:
        """See :class:`Capturer`."""
        replace_kept_sizes()
