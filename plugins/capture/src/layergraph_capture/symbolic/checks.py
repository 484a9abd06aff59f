"""Checks of sizes: comparisons by which code only decides whether to raise an error.

The code ``if n != 1 and m != 1 and n != m: raise …`` goes on alike, whichever comparison is False.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Sequence
from types import CodeType, FrameType
from typing import Any, NamedTuple

from layergraph.torch2ir.tracing.lines import calling_frame
from layergraph.torch2ir.tracing.module_call import Call
from layergraph_capture.symbolic.branches import is_jump, raises

# Instructions that compute a condition, and have no effect.
_CONDITION = ("LOAD_", "COMPARE", "BINARY_", "UNARY_", "CONTAINS", "IS_OP", "COPY", "SWAP")
_SILENT = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "NOT_TAKEN", "TO_BOOL"})
# Instructions between a comparison and the jump by its result.
_ON_THE_WAY = frozenset({"COPY", "TO_BOOL"}) | _SILENT


class Guarded(NamedTuple):
    """A comparison with which the code has gone on, and its guard.

    Attributes:
        condition: the comparison that is True if the code goes on: a function, and its arguments.
        key: the key under which the guard is known.
        calls: the calls that record the guard; none if it was recorded before.
    """

    condition: tuple[Any, ...]
    key: Any
    calls: Sequence[Call]


class Check(NamedTuple):
    """A comparison in a check.

    Attributes:
        answer: the result with which the code goes on to the next condition, or to the error.
        exit: the offset where the code goes with the other result.
        is_last: whether the error follows.
    """

    answer: bool
    exit: int
    is_last: bool


_OPPOSITES = {
    f"operator.{one}": f"operator.{other}"
    for pair in (("eq", "ne"), ("lt", "ge"), ("gt", "le"))
    for one, other in (pair, pair[::-1])
}


class OpenCheck:
    """The comparisons of the check that runs, with which its code has gone on."""

    def __init__(self) -> None:
        self._frame: FrameType | None = None
        self._exit = -1
        self._last = -1
        self._guarded: list[Guarded] = []

    @staticmethod
    def condition(check: Check, origin: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the comparison that is True if the code of a check goes on."""
        name, *args = origin
        return name if check.answer else _OPPOSITES[name], *args

    def begin(self) -> Check | None:
        """Return the check that the code's comparison belongs to; None if it belongs to none.

        Comparisons of other checks are forgotten.
        """
        frame, check = check_here()
        is_next = check is not None and frame is self._frame and frame.f_lasti > self._last
        if not is_next or check is None or check.exit != self._exit:
            self.end()
        if check is not None:
            self._frame, self._exit, self._last = frame, check.exit, frame.f_lasti
        return check

    def add(self, guarded: Guarded) -> None:
        """Add the guard of a comparison with which the code goes on."""
        self._guarded.append(guarded)

    def taken(self) -> list[Guarded]:
        """Return the guards of the check, and forget them."""
        guarded, self._guarded = self._guarded, []
        return guarded

    def end(self) -> None:
        """Forget the check."""
        self._frame = None
        self._guarded.clear()


def check_here() -> tuple[FrameType, Check | None]:
    """Return the frame of the code that compares, and the check that the comparison belongs to."""
    frame = calling_frame()
    return frame, _checks(frame.f_code).get(frame.f_lasti)


@functools.lru_cache(maxsize=256)
def _checks(code: CodeType) -> dict[int, Check]:
    """Return the checks of a function, by the offsets of their comparisons."""
    if "RAISE_VARARGS" not in {dis.opname[each] for each in code.co_code[::2]}:
        return {}
    return _Reader(code).checks()


class _Reader:
    def __init__(self, code: CodeType) -> None:
        self._steps = list(dis.get_instructions(code))
        self._at = {step.offset: index for index, step in enumerate(self._steps)}

    def checks(self) -> dict[int, Check]:
        found: dict[int, Check] = {}
        compared: int | None = None
        for index, step in enumerate(self._steps):
            if step.opname == "COMPARE_OP":
                compared = step.offset
            elif is_jump(step) and step.opname.startswith("POP_JUMP"):
                check = None if compared is None else self._check(index)
                if compared is not None and check is not None:
                    found[compared] = check
                compared = None
            elif step.opname not in _ON_THE_WAY:
                compared = None
        return found

    def _check(self, index: int) -> Check | None:
        step = self._steps[index]
        goes = step.opname.endswith("TRUE")
        ways = {goes: self._followed(self._at[step.argval]), not goes: self._followed(index + 1)}
        for answer in (True, False):
            leave = ways[not answer]
            if self._ends(ways[answer], leave):
                is_last = raises(self._steps, ways[answer])
                return Check(answer, self._steps[leave].offset, is_last)
        return None

    def _followed(self, index: int) -> int:
        """Return the index of the first instruction that is no jump without a condition."""
        for _ in self._steps:
            step = self._steps[index]
            if step.opname.startswith("JUMP_") and not is_jump(step):
                index = self._at[step.argval]
            elif step.opname in _SILENT:
                index += 1
            else:
                break
        return index

    def _ends(self, start: int, leave: int) -> bool:
        """Return whether all paths raise an error, or go where the check is left; one raises."""
        pending, seen, has_error = [start], {leave}, False
        while pending:
            index = pending.pop()
            if index in seen:
                continue
            seen.add(index)
            if raises(self._steps, index):
                has_error = True
                continue
            step = self._steps[index]
            if is_jump(step) and step.opname.startswith("POP_JUMP"):
                pending += [self._followed(index + 1), self._followed(self._at[step.argval])]
            elif step.opname.startswith(_CONDITION):
                pending.append(self._followed(index + 1))
            else:
                return False
        return has_error
