"""Records with both ways of each of many decisions, which inputs may combine.

Each decision costs one run, as a decision in the turns of a loop does: its two ways meet before the
next decision.
"""

from __future__ import annotations

from functools import partial

from layergraph.capturing import Example
from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph_capture.loops.answers import RunWith, Usual, as_numbers_say, bounded
from layergraph_capture.loops.find import Finder, run_longer, takes_functions, turned
from layergraph_capture.loops.other_runs import OtherRuns
from layergraph_capture.loops.other_ways import OtherWays


def with_separate_ways(trace: Trace, example: Example, run: RunWith) -> Trace | None:
    """Return a record that holds both ways of each decision of a run.

    Args:
        trace: the record of the run.
        example: the example call of the run.
        run: runs the model on another call, with answers to its decisions.

    Returns:
        The record; None if the ways of a decision do not meet, or if a size decides.
    """
    if takes_functions(trace) or any(each.is_by_size for each in trace.decisions):
        return None
    return turned(partial(_with_ways, trace, example, run))


def _with_ways(trace: Trace, example: Example, run_with: RunWith, usual: Usual) -> Trace | None:
    def run(example: Example) -> Trace:
        return run_with(example, usual.plan())

    try:
        natural = run_with(example, as_numbers_say)
        run_with = bounded(run_with, natural.decisions)
        base = run(example)
    except (CaptureError, RuntimeError):
        return None
    ways = OtherWays(usual, partial(run_longer, example, run_with), natural)
    return Finder(trace, OtherRuns(example, run, run), (), ways).without_loops(base)
