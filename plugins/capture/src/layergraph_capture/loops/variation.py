"""The search for sizes of the inputs on which the turns of loops depend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from layergraph.capturing import Example
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph_capture.loops.choice import NotAlikeError, loops_of
from layergraph_capture.loops.counts import Count, counts_of, turns_in
from layergraph_capture.loops.item_counts import ItemCount
from layergraph_capture.loops.lengths import Length, lengths
from layergraph_capture.loops.other_runs import OtherRuns
from layergraph_capture.loops.size_guards import AnyLength, Varied

# The turns of the shorter one of the two runs that show the loops.
_BASE_TURNS = 5
# If the example has more turns, the two runs stay short, because long runs are slow.
LONG = 32


class Variation:
    """Runs a model with other numbers of turns, two runs for each size on which loops depend.

    Args:
        example: the example call of the user.
        runs: the runs of the search.
        is_short: whether the runs stay short if the example has many turns.

    Attributes:
        found: the pairs of runs.
    """

    def __init__(self, example: Example, runs: OtherRuns, *, is_short: bool) -> None:
        self._example = example
        self._runs = runs
        self._is_short = is_short
        # Sizes that have grown by a number, each with the most turns of what is repeated only then.
        self._grown: list[tuple[Length, int, int]] = []
        self.found: list[Varied] = []

    def vary(self, counts: Sequence[Count]) -> None:
        """Run the model with other numbers of turns, if such inputs can be made."""
        for count in counts:
            self._vary(count)
        if not self.found and self._runs.own_known is not None:
            # Its turn numbers show code that does something else in every n-th turn.
            for count in counts_of(self._runs.own_known):
                self._vary(count)

    def vary_items(self, items: Sequence[Sequence[ItemCount]]) -> None:
        """Run the model with other numbers of items in lists among the arguments.

        Args:
            items: for each number, the lists whose number to vary, in alternatives.
        """
        for each in items:
            self._vary(Count(each[0].size, each[0].size), each)

    def _vary(self, count: Count, among: Iterable[AnyLength] = ()) -> None:
        is_short = self._is_short and count.turns > LONG
        base_turns = _BASE_TURNS if is_short else max(count.turns, _BASE_TURNS)
        ahead = base_turns - count.turns
        for length in among or lengths(self._example, count.number, count.each):
            if any(each.length.is_same_size(length) for each in self.found):
                return
            if self._is_known_not_to_count(length, max(ahead, 1), count):
                continue
            base = self._runs.search(length, ahead) if ahead else self._runs.own(length)
            if base is None or (ahead > 0 and not self._counts(base, length, ahead, count)):
                continue
            if not self._other_ways_take(base, length, ahead + 1):
                continue
            longer = self._runs.search(length, ahead + 1)
            if longer is None or (ahead == 0 and not self._counts(longer, length, 1, count)):
                continue
            try:
                if any(loops_of([base, longer])):
                    self.found.append(Varied(count, base_turns, length, base, longer))
                    self._runs.own_known = None  # each pair of runs has its own
                    return
            except NotAlikeError:
                continue

    def _other_ways_take(self, base: Trace, length: AnyLength, turns: int) -> bool:
        """Return whether the other ways of a run take another length; they may tell sizes apart."""
        if isinstance(length, ItemCount) or not base.decisions:
            return True
        return self._runs.goes_other_ways(length, turns)

    def _counts(self, longer: Trace, length: AnyLength, turns: int, count: Count) -> bool:
        """Return whether a run of a larger size repeats something more often than the count says.

        If it does not, and repeats all that the example repeats, this is the wrong size.
        """
        if isinstance(length, ItemCount):
            # A model that only stacks the items repeats no computation.
            return True
        own = self._runs.own(length)
        if own is None:
            return True
        before, after = Counter(turns_in(own)), Counter(turns_in(longer))
        if before - after:
            return True
        most = max(after - before, default=0)
        self._grown.append((length, turns * length.step, most))
        return most > count.turns

    def _is_known_not_to_count(self, length: AnyLength, turns: int, count: Count) -> bool:
        """Return whether a run in which the size grew at least as much has shown it."""
        growth = turns * length.step
        return isinstance(length, Length) and any(
            known.varies_all_of(length) and growth <= tried and most <= count.turns
            for known, tried, most in self._grown
        )
