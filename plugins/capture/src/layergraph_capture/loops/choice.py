"""Choice of loops: the repetitions whose number of turns differs between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from layergraph.torch2ir.tracing.module_call import Call, ModuleCall, Trace
from layergraph_capture.loops.repeats import Forms, Item, Repeat, form_of
from layergraph_capture.loops.splits import loops_in

Chosen = Mapping[ModuleCall, Sequence[Repeat]]
"""By module call, the repetitions that become loops, from left to right."""


class NotAlikeError(Exception):
    """Two runs differ in more than the number of turns of their loops."""


@dataclass(slots=True)
class _Run:
    """The repetitions of one run.

    Attributes:
        found: by module call, all repetitions.
        chosen: the repetitions that become loops in this pass; none is inside another one.
    """

    forms: Forms
    found: dict[ModuleCall, tuple[Repeat, ...]] = field(default_factory=dict)
    chosen: dict[ModuleCall, list[Repeat]] = field(default_factory=dict)

    def repeats(self, scope: ModuleCall) -> tuple[Repeat, ...]:
        """Return the repetitions of a module call."""
        if scope not in self.found:
            self.found[scope] = loops_in(scope.items, self.forms.of(scope.items))
        return self.found[scope]

    def choose(self, scope: ModuleCall, repeat: Repeat) -> None:
        """Choose a repetition as a loop."""
        self.chosen.setdefault(scope, []).append(repeat)

    def copy(self, scope: ModuleCall, like: ModuleCall) -> None:
        """Copy the choices of an equal module call, also for the module calls inside."""
        if like in self.chosen:
            self.chosen[scope] = list(self.chosen[like])
        for own, other in zip(scope.items, like.items, strict=True):
            if isinstance(own, ModuleCall) and isinstance(other, ModuleCall):
                self.copy(own, other)


def loops_of(traces: Sequence[Trace]) -> list[Chosen]:
    """Return, for each run, the innermost loops.

    Args:
        traces: runs of one model that differ in the sizes of their inputs.

    Raises:
        NotAlikeError: the runs differ in more than that.
    """
    forms = Forms()
    runs = [_Run(forms) for _ in traces]
    _choose_in_scopes(runs, [trace.root for trace in traces])
    return [run.chosen for run in runs]


def _choose_in_scopes(runs: list[_Run], scopes: list[ModuleCall]) -> bool:
    """Choose loops in one module call of all runs; return whether there are any."""
    parts = [run.repeats(scope) for run, scope in zip(runs, scopes, strict=True)]
    return _choose(runs, scopes, parts, [0] * len(runs), [len(each.items) for each in scopes])


def _choose(
    runs: list[_Run],
    scopes: list[ModuleCall],
    parts: list[tuple[Repeat, ...]],
    starts: list[int],
    ends: list[int],
) -> bool:
    """Choose loops in one part of a module call of all runs.

    Args:
        runs: the runs.
        scopes: the module call in each run.
        parts: the repetitions in the part in each run.
        starts: the index of the first item of the part in each run.
        ends: the index after its last item in each run.
    """
    if len({len(each) for each in parts}) > 1:
        raise NotAlikeError("they repeat other calls")
    has_loops = False
    at = list(starts)
    for same in zip(*parts, strict=True):
        here = [each.start for each in same]
        has_loops |= _choose_between(runs, scopes, at, here)
        at = [each.end for each in same]
        has_loops |= _choose_repeat(runs, scopes, same)
    return _choose_between(runs, scopes, at, ends) or has_loops


def _choose_repeat(runs: list[_Run], scopes: list[ModuleCall], same: tuple[Repeat, ...]) -> bool:
    inside = [
        tuple(
            Repeat(one.start + each.start, one.period, one.turns, one.inside) for one in each.inside
        )
        for each in same
    ]
    starts = [each.start for each in same]
    counts = [len(run.chosen.get(scope, ())) for run, scope in zip(runs, scopes, strict=True)]
    ends = [each.start + each.period for each in same]
    if _choose(runs, scopes, inside, starts, ends):
        for run, scope, each, count in zip(runs, scopes, same, counts, strict=True):
            _repeat_choice(run, scope, each, count)
        return True
    if len({each.turns for each in same}) == 1:
        return False
    for run, scope, each in zip(runs, scopes, same, strict=True):
        run.choose(scope, each)
    return True


def _repeat_choice(run: _Run, scope: ModuleCall, repeat: Repeat, count: int) -> None:
    """Copy the choices of the first turn of a repetition to all turns."""
    first = run.chosen.get(scope, [])[count:]
    for turn in range(1, repeat.turns):
        ahead = turn * repeat.period
        for each in first:
            run.choose(scope, replace(each, start=each.start + ahead))
        for index in range(repeat.start, repeat.start + repeat.period):
            own, like = scope.items[index + ahead], scope.items[index]
            if isinstance(own, ModuleCall) and isinstance(like, ModuleCall):
                run.copy(own, like)


def _choose_between(
    runs: list[_Run], scopes: list[ModuleCall], starts: list[int], ends: list[int]
) -> bool:
    """Choose loops in items that are not repeated, which must be equal in all runs."""
    if len({end - start for start, end in zip(starts, ends, strict=True)}) > 1:
        raise NotAlikeError("they make another number of calls")
    has_loops = False
    columns = [
        scope.items[start:end] for scope, start, end in zip(scopes, starts, ends, strict=True)
    ]
    for items in zip(*columns, strict=True):
        if len({_form(item, runs[0].forms) for item in items}) > 1:
            raise NotAlikeError("they make other calls")
        inner = [item for item in items if isinstance(item, ModuleCall)]
        if inner:
            has_loops |= _choose_in_scopes(runs, inner)
    return has_loops


def _form(item: Item, forms: Forms) -> object:
    if isinstance(item, Call):
        return forms.of([item])[0]
    return item.path, form_of(item.args), form_of(item.kwargs), form_of(item.result), *item.known
