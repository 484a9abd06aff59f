"""Texts of sizes in messages, such as ``torch._assert(n % 8 == 0, f"the length {n} …")``.

A text fixes the size, because code may go on by it. A message only goes to a person.
"""

from __future__ import annotations

import dis
import functools
import logging
import sys
import warnings
from types import CodeType, FrameType
from typing import Any

import torch

from layergraph.torch2ir.code_owners import is_of_layergraph

# Functions that return None, and take a text only to report it.
_REPORTING: frozenset[Any] = frozenset({torch._assert, warnings.warn, print})
_LOGGING = frozenset("critical debug error exception info log warning".split())


def is_in_message() -> bool:
    """Return whether the text that the running code asks for becomes a message."""
    frame = sys._getframe(1)
    while is_of_layergraph(frame.f_code.co_filename) and frame.f_back is not None:
        frame = frame.f_back
    called = _callers(frame.f_code).get(frame.f_lasti)
    return called is not None and _reports(called, frame)


def _reports(called: tuple[str, ...], frame: FrameType) -> bool:
    first, *rest = called
    missing = frame.f_builtins.get(first)
    found = frame.f_globals.get(first, missing)
    if not rest:
        return getattr(found, "__hash__", None) is not None and found in _REPORTING
    if found is warnings or found is torch:
        return getattr(found, rest[0], None) in _REPORTING
    is_logger = found is logging or isinstance(found, logging.Logger | logging.LoggerAdapter)
    return is_logger and len(rest) == 1 and rest[0] in _LOGGING


@functools.lru_cache(maxsize=256)
def _callers(code: CodeType) -> dict[int, tuple[str, ...]]:
    """Return the name of the called function, by the offsets of texts in its arguments.

    A call itself is among the offsets, because the function may make the text.
    """
    steps = [each for each in dis.get_instructions(code) if each.positions is not None]
    calls = [_span(each) for each in steps if each.opname.startswith("CALL")]
    texts = [each for each in steps if each.opname.startswith(("FORMAT", "CALL"))]
    # What a call calls begins where the call begins.
    loads: dict[tuple[int, int], list[dis.Instruction]] = {}
    for each in steps:
        if each.opname.startswith("LOAD_"):
            loads.setdefault(_span(each)[0], []).append(each)
    found: dict[int, tuple[str, ...]] = {}
    for each in texts:
        (start, end), around = _span(each), None
        for first, last in calls:
            if first <= start and end <= last and (around is None or first >= around):
                around = first
        named = [] if around is None else loads.get(around, [])
        if named and named[0].opname == "LOAD_GLOBAL":
            found[each.offset] = tuple([str(name.argval) for name in named])
    return found


def _span(step: dis.Instruction) -> tuple[tuple[int, int], tuple[int, int]]:
    at: Any = step.positions
    return (at.lineno or 0, at.col_offset or 0), (at.end_lineno or 0, at.end_col_offset or 0)
