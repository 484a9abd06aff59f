"""The two ways of code behind a comparison, read from its bytecode."""

from __future__ import annotations

import dis
import functools
from types import CodeType

from layergraph.torch2ir.code_owners import is_of_user
from layergraph.torch2ir.tracing.lines import calling_frame

# Instructions between a comparison and the jump by its result.
_ON_THE_WAY = frozenset({"COMPARE_OP", "TO_BOOL", "UNARY_NOT", "COPY", "EXTENDED_ARG", "NOT_TAKEN"})

# Instructions of a method call, and the methods of numbers that compare.
_LOADS = frozenset({"LOAD_METHOD", "LOAD_ATTR"})
_CALLS = frozenset({"PRECALL", "CALL"})
_COMPARE = frozenset({"is_integer"})


def selects_way() -> bool:
    """Return whether the model's code is about to compute one of two ways by a comparison.

    An ``assert`` or an ``if`` that raises an error is no such branch: the code goes on one way
    only. Code that keeps the result, and code of other libraries between the model and us, is
    none either.
    """
    frame = calling_frame()
    code = frame.f_code
    return is_of_user(code.co_filename) and frame.f_lasti in _branches(code)


# A model compares sizes in few functions, many times.
@functools.lru_cache(maxsize=256)
def _branches(code: CodeType) -> frozenset[int]:
    """Return the offsets of the comparisons whose results select one of two ways."""
    steps = list(dis.get_instructions(code))
    at = {step.offset: index for index, step in enumerate(steps)}
    found: set[int] = set()
    pending: list[int] = []
    method = ""
    for index, step in enumerate(steps):
        if step.opname in _LOADS:
            method = step.argval
        if is_jump(step):
            ways = index + 1, at.get(step.argval, index)
            if not any(raises(steps, way) for way in ways):
                found |= {*pending, step.offset}
        if step.opname in _CALLS and method in _COMPARE:
            # While a function of Python runs, its caller is at the end of the call.
            pending += range(step.offset, steps[index + 1].offset, 2)
        else:
            pending = [*pending, step.offset] if step.opname in _ON_THE_WAY else []
    return frozenset(found)


def is_jump(step: dis.Instruction) -> bool:
    """Return whether an instruction jumps by a condition."""
    return step.opname.startswith(("POP_JUMP", "JUMP_IF")) and "NONE" not in step.opname


def raises(steps: list[dis.Instruction], index: int) -> bool:
    """Return whether the code raises an error before it takes another branch or returns."""
    for step in steps[index:]:
        if step.opname == "RAISE_VARARGS":
            return True
        if step.opname.startswith(("RETURN", "JUMP", "POP_JUMP", "FOR_ITER")):
            return False
    return False
