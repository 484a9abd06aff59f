"""Slices of lists in code, which may have an effect only if a loop has many turns.

Code may append a value in each turn to a list, and later take ``values[-10:]``. With fewer turns,
this is the whole list. We cannot observe reads of a list. So we search the bytecode of the
functions that have run for slices. Slices of tensors are in the record anyway, and lists of modules
have no turns. Functions that cannot reach an object with tensors, such as those of a configuration,
are ignored.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator, Sequence, Sized
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.code_owners import is_of_user
from layergraph.torch2ir.indexing.reach import Reach
from layergraph.torch2ir.tracing.lines import user_frame
from layergraph_capture.loops.frame_state import is_plain

UNKNOWN = 1 << 30
"""More turns than any run has, because no run reveals every use of a list."""

# The two shortest runs for the search of loops have up to so many turns.
_FEW_TURNS = 6
_CUTTING = frozenset("islice deque takewhile dropwhile compress nlargest nsmallest".split())
_SUBSCRIPTS = frozenset("BINARY_SUBSCR STORE_SUBSCR DELETE_SUBSCR".split())
_SLICES = frozenset("BINARY_SLICE STORE_SLICE".split())


class ListSlices:
    """Finds the least number of turns with which a run reveals every use of a list.

    Args:
        reach: finds the objects that the running functions reach.

    Attributes:
        seen: the functions that need no further check in this run, by ``id`` of their code.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self.seen: set[int] = set()
        # The functions with slices that have run, by ``id`` of their code; True if no call reached
        # tensors.
        self._slicing: dict[int, tuple[CodeType, bool]] = {}
        self._of_others: set[tuple[int, int]] = set()
        self._others: list[int] = []

    def enter(self, frame: FrameType) -> None:
        """Record a function that is about to run."""
        code = frame.f_code
        if id(code) not in self._reach.codes:
            self._reach.enter(frame)
        is_item = code.co_name == "__getitem__"
        slices = is_of_user(code.co_filename) and bool(_slices(code))
        if is_item:
            self._note_item(frame)
        if slices:
            _, was_plain = self._slicing.get(id(code), (code, True))
            self._slicing[id(code)] = code, was_plain and is_plain([*frame.f_locals.values()])
        if not (is_item or slices):
            self.seen.add(id(code))

    def _note_item(self, frame: FrameType) -> None:
        around = frame.f_back
        own = frame.f_locals.get(frame.f_code.co_varnames[0])
        if around is not None and isinstance(own, nn.Module):
            self._of_others.add((id(around.f_code), around.f_lasti))

    def note_call(self, args: Sequence[Any]) -> None:
        """Record a call of a torch function, because a slice in code may be that of a tensor."""
        if len(args) < 2 or type(args[1]) is not slice:
            return
        frame = user_frame()
        if frame is not None:
            self._of_others.add((id(frame.f_code), frame.f_lasti))

    def note_zip(self, items: Sequence[Any]) -> None:
        """Record a ``zip`` of several items, which the shortest one ends."""
        counts = [
            len(each)
            for each in items
            if isinstance(each, Sized) and not isinstance(each, torch.Tensor)
        ]
        if len({*counts}) > 1:
            self._others.append(max(counts) + 1)

    def turns(self, *, keeps_lists: bool) -> int:
        """Return the number of turns; 0 if any number is enough.

        Args:
            keeps_lists: whether the model stores lists of tensors where any code may read them.
        """
        found = [
            turns
            for code, was_plain in self._slicing.values()
            if keeps_lists or not was_plain
            for place, turns in _slices(code)
            if (id(code), place) not in self._of_others
        ]
        return max(found + self._others, default=0)


@functools.lru_cache(maxsize=4096)
def _slices(code: CodeType) -> tuple[tuple[int, int], ...]:
    """Return the offset of each slice in code, and the turns that reveal its effect."""
    return tuple(_search(code))


def _search(code: CodeType) -> Iterator[tuple[int, int]]:
    if not _CUTTING.isdisjoint(code.co_names):
        yield -1, UNKNOWN
    before: list[dis.Instruction] = []
    for each in dis.get_instructions(code):
        bounds = _bounds(each, before)
        if bounds is not None and (turns := _turns(bounds)) > _FEW_TURNS:
            yield each.offset, turns
        before = [*before[-3:], each]


def _bounds(step: dis.Instruction, before: Sequence[dis.Instruction]) -> Sequence[Any] | None:
    """Return the bounds of a slice instruction, constants if known; or None."""
    if step.opname in _SLICES:
        return [_constant(each) for each in before[-2:]]
    is_subscript = step.opname in _SUBSCRIPTS or step.argrepr == "[]"
    if not (is_subscript and before):
        return None
    last = before[-1]
    if last.opname == "BUILD_SLICE":
        return [_constant(each) for each in before[:-1][-(last.arg or 2) :]]
    known = _constant(last)
    return [known.start, known.stop, known.step] if type(known) is slice else None


def _constant(step: dis.Instruction) -> Any:
    is_constant = step.opname in ("LOAD_CONST", "LOAD_SMALL_INT")
    return step.argval if is_constant else step


def _turns(bounds: Sequence[Any]) -> int:
    """Return the number of turns that reveal the effect of a slice with these bounds."""
    numbers: list[int] = [0 if each is None else each for each in bounds]
    if not all(type(each) is int for each in numbers):
        return UNKNOWN
    start, stop, step = (*numbers, 1)[:3]
    # ``values[-10:]`` is the whole list of ten turns.
    return abs(start) + abs(stop) + 1 + (3 * abs(step) if abs(step) > 1 else 0)
