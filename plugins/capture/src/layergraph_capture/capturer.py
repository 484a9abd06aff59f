"""The capturer for example inputs, which makes the tracer of each run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from layergraph.capturing import Capturer, CaptureRequest, Example, Run
from layergraph.errors import CaptureError, Unsupported
from layergraph.ir import Ir
from layergraph.torch2ir.code_owners import add_tracer_package
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph_capture.arguments import Arguments
from layergraph_capture.interception.saved_tensors import SavedTensors
from layergraph_capture.later_calls import LaterCalls
from layergraph_capture.loops.confirm import is_like_model
from layergraph_capture.loops.find import looped
from layergraph_capture.loops.lengths import longer_calls
from layergraph_capture.loops.separate_ways import with_separate_ways
from layergraph_capture.loops.short_runs import LongRunError, ShortRuns
from layergraph_capture.original import unfit
from layergraph_capture.replaying.tracer import ReplayTracer
from layergraph_capture.run_options import RunOptions
from layergraph_capture.state_tracer import StateTracer
from layergraph_capture.symbolic.conversions import Conversions
from layergraph_capture.symbolic.kept_sizes import replace_kept_sizes
from layergraph_capture.tables.keyed_tables import KeyedTables
from layergraph_capture.tracer import EagerTracer
from layergraph_capture.trackers.constants import Constants
from layergraph_capture.trackers.flags import Flags
from layergraph_capture.trackers.objects import Objects
from layergraph_capture.trackers.rebound_state import ReboundState
from layergraph_capture.ways.examples import one_record
from layergraph_capture.ways.explore import Explorer, Ways
from layergraph_capture.ways.plans import Plan
from layergraph_capture.ways.runs import Runs
from layergraph_capture.ways.same_record import are_one_graph

add_tracer_package(__name__, __file__)

# The most sizes of earlier calls that are compared.
_MOST_TABLES = 8


class EagerCapturer(Capturer):
    """Captures a model by running it on example inputs.

    Args:
        request: the capture request, with example inputs.

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
        self._short_runs = ShortRuns(request.examples[0], leaves=len(request.examples) == 1)
        self._constants = Constants(request.module_index)
        self._arguments = self._examples[0]
        self._runs = Runs(request.module_index)
        self._conversions = Conversions()
        self._saved = SavedTensors()
        self._branches: set[str] = set()
        self._doubts: list[Change] = []
        self._tables = KeyedTables(request.module_index.reach)
        self._request = request
        self._rebound = ReboundState(request.module_index, request.memory)
        self._flags = Flags()
        self._kind = ReplayTracer if request.modes == "both" else EagerTracer

    def tracer(
        self,
        arguments: Arguments | None = None,
        answers: Sequence[bool] = (),
        *,
        numbers_turns: bool = False,
        replays: bool = True,
        knows: Callable[[Sequence[Change]], bool] | None = None,
        branches: Collection[str] = (),
        plan: Plan | None = None,
    ) -> EagerTracer:
        """See :class:`Capturer`.

        Args:
            arguments: an example; the first one by default.
            answers: the forced answers of the first decisions.
            numbers_turns: whether the iteration numbers of loops are symbolic.
            replays: whether the tracer may replay the run in the other mode.
            knows: returns whether earlier runs have shown that changes affect no later run.
            branches: the lines whose comparisons of sizes are decisions.
            plan: answers the decisions by numbers.
        """
        request = self._request
        short_runs = self._short_runs
        if numbers_turns or answers:
            short_runs = ShortRuns(short_runs.example, leaves=False)
        options = RunOptions(
            self._arguments if arguments is None else arguments,
            self._objects,
            self._constants,
            request.values,
            self._conversions,
            short_runs,
            self._tables,
            self._saved,
            self._doubts,
            self._rebound,
            self._flags,
            answers,
            numbers_turns,
            knows,
            branches,
            plan,
        )
        kind = StateTracer if self._rebound.places else self._kind if replays else EagerTracer
        return kind(request.module_index, request.keys, request.memory, request.functions, options)

    def complete(self, trace: Trace, run: Run) -> Trace:
        """See :class:`Capturer`."""
        self._rebound.note_capture()
        if self._tables.begin():
            trace = self._with_tables(run) or trace
        trace = run(self.tracer) if self._flags.adopt() else trace
        ways: list[Ways] = []
        self._runs.add(self.tracer, trace)
        self._branches = {each.where for each in trace.decisions if each.is_by_size}
        runs = [trace, *[self._run_with(run, each) for each in self._examples[1:]]]
        with_loops = self._looped(run, runs)
        if with_loops is not None:
            return with_loops
        if self._short_runs.is_short:
            raise LongRunError("no loop of it is found")
        for trace, arguments in zip(runs, self._examples, strict=True):
            explorer = Explorer(partial(self._run_with, run, arguments))
            ways.append(explorer.explored(trace))
            if explorer.is_over and len(runs) == 1:
                run_on = partial(self._run_on, run, replays=trace.other is not None)
                separate = with_separate_ways(trace, self._short_runs.example, run_on)
                return separate or one_record(ways)
        # Without decisions, one run is complete.
        return trace if ways == [trace] else one_record(ways)

    def _with_tables(self, run: Run) -> Trace | None:
        """Return a run that computes the tables that are kept by sizes; None if it cannot."""
        made: list[EagerTracer] = []

        def make() -> EagerTracer:
            made.append(self.tracer())
            return made[-1]

        try:
            trace = run(make)
        except CaptureError:
            trace = None
        if trace is None or not made[0].tables.are_used:
            self._tables.give_up()
            return None
        return trace

    def _looped(self, run: Run, traces: Sequence[Trace]) -> Trace | None:
        """Return the one record with loops that serves all examples; None if there is none."""
        examples = [self._short_runs.example, *self._request.examples[1:]]
        found: Trace | None = None
        for trace, example in zip(traces, examples, strict=True):
            run_on = partial(self._run_on, run, replays=trace.other is not None)
            own = looped(trace, example, run_on)
            if own is None or (found is not None and not are_one_graph(found, own)):
                return None
            found = found or own
        return found

    def _run_with(self, run: Run, arguments: Arguments, answers: Sequence[bool] = ()) -> Trace:
        made: list[EagerTracer] = []

        def make() -> EagerTracer:
            made.append(self.tracer(arguments, answers))
            return made[-1]

        try:
            return self._runs.run(run, make)
        except CaptureError:
            # The decision whose answer is forced last, if the run has come to it.
            last = made[-1].decisions.made[len(answers) - 1 : len(answers)] if answers else []
            is_branch = any(each.is_branch for each in last)
            longer = self._on_longer(run, answers) if is_branch else None
            if longer is None:
                raise
            return longer

    def _on_longer(self, run: Run, answers: Sequence[bool]) -> Trace | None:
        """Return a run on a longer example whose sizes give the answers; None if there is none."""
        if len(self._request.examples) > 1:
            return None
        for example in longer_calls(self._request.examples[0]):
            make = partial(self.tracer, self._arguments_of(example), branches=self._branches)
            try:
                trace = self._runs.try_out(run, make)
            except CaptureError:
                continue
            if [each.answer for each in trace.decisions[: len(answers)]] == list(answers):
                return trace
        return None

    def _run_on(self, run: Run, example: Example, plan: Plan, *, replays: bool) -> Trace:
        """Run the model on an example to find its loops."""
        make = partial(self.tracer, numbers_turns=True, replays=replays, plan=plan)
        if example is self._short_runs.example:
            # The search compares this run with the others, so changes need no second run.
            return run(partial(make, knows=lambda _: True))
        return self._runs.try_out(run, partial(make, self._arguments_of(example)))

    def _arguments_of(self, example: Example) -> Arguments:
        """Return the arguments of an example that is none of the user's."""
        (args, kwargs), model = example, self._request.model
        calls = [*self._request.examples, example]
        return Arguments(model, args or (), kwargs or {}, self._objects, calls)

    def confirms(self, ir: Ir) -> bool:
        """See :class:`Capturer`."""
        is_same = self._rebound.is_same_in_both_modes()
        if self._rebound.adopt() or not is_same:
            self._begin_again()
            return False
        refusal = self._doubts[0].refusal() if self._doubts else self._tables.refusal
        if (refusal or self._tables.is_on) and not self._is_like_later_calls(ir):
            self._rebound.note(self._doubts)
            if not (self._rebound.adopt() or self._objects.fixes_numbers()):
                if refusal is not None and not self._tables.is_on:
                    raise refusal
                self._tables.give_up()
            self._begin_again()
            return False
        if not self._short_runs.is_short:
            return True
        given = self._request.module_index, self._constants, self._examples[0]
        if self._short_runs.is_compared and is_like_model(ir, *given):
            return True
        self._short_runs.give_up()
        self._begin_again()
        return False

    def _is_like_later_calls(self, ir: Ir) -> bool:
        index, keeps_state = self._request.module_index, bool(self._rebound.places)
        calls = LaterCalls(ir, index, self._constants, self._arguments_of, keeps_state)
        sizes = self._tables.sizes()[:_MOST_TABLES]
        return self._short_runs.is_compared and all(
            calls.are_like_first_ones(each, sizes) for each in self._request.examples
        )

    def faults(self) -> list[Unsupported]:
        """See :class:`Capturer`."""
        found = (
            unfit(self._request.module_index, self._constants, each) for each in self._examples
        )
        return next(filter(None, found), [])

    def retries(self) -> bool:
        """See :class:`Capturer`."""
        if self._short_runs.goes_on() or self._tables.begin() or self._rebound.adopt():
            self._begin_again()
            return True
        if self._saved.are_needed and not self._saved.are_kept:
            self._saved.are_kept = True
            self._begin_again()
            return True
        # Code may need plain results of int() and float(), for example to index a numpy array.
        if self._conversions.keep_origins and self._conversions.have_kept:
            self._conversions.keep_origins = False
        elif not self._objects.fixes_numbers():
            return False
        self._begin_again()
        return True

    def _begin_again(self) -> None:
        """Forget the runs, and take the example of the capture that follows."""
        runs = self._short_runs
        example = runs.example if runs.is_short else None
        self._arguments = self._examples[0] if example is None else self._arguments_of(example)
        self._runs = Runs(self._request.module_index)
        self._doubts.clear()

    def finish(self) -> None:
        """See :class:`Capturer`."""
        replace_kept_sizes()
