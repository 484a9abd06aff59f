"""Texts that point to a line of code."""

from __future__ import annotations

import functools
import inspect
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Container
from types import FrameType
from typing import Any

from layergraph.torch2ir.code_owners import TORCH_FOLDER, is_of_layergraph, is_of_user


def line(filename: str, number: int, function: str) -> str:
    """Return the text of a line of code, with its file, number and function."""
    text = linecache.getline(filename, number).strip()
    return f"{filename.rpartition(os.sep)[2]}, line {number}, in {function}: {text}"


def line_of(error: BaseException, files: Container[str]) -> str:
    """Return the line that raised an error: of the model's code if possible, else of other code.

    Args:
        error: the error.
        files: the files of the model's code.
    """
    frames = traceback.extract_tb(error.__traceback__)
    of_others = [frame for frame in frames if not is_of_layergraph(frame.filename)]
    of_users = [frame for frame in of_others if is_of_user(frame.filename)]
    of_model = [frame for frame in of_users if frame.filename in files]
    # If the model is a layer of torch, no frame is the user's.
    frame = (of_model or of_users or of_others or frames)[-1]
    return line(frame.filename, frame.lineno or 0, frame.name)


@functools.cache
def first_line_of(cls: Any) -> str:
    """Return the line where the definition of a module class begins."""
    forward = inspect.getattr_static(cls, "forward", None)
    code = getattr(inspect.unwrap(forward), "__code__", None) if callable(forward) else None
    return "" if code is None else line(code.co_filename, code.co_firstlineno, code.co_name)


def user_frame() -> FrameType | None:
    """Return the frame of the model's code that is running; None if there is none."""
    return _frame(is_of_user)


def calling_frame() -> FrameType:
    """Return the frame of the code that called layergraph."""
    return _frame(lambda filename: not is_of_layergraph(filename)) or sys._getframe(1)


def _frame(is_wanted: Callable[[str], bool]) -> FrameType | None:
    """Return the innermost frame whose file the predicate accepts."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and not is_wanted(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


Place = tuple[tuple[str, int], ...]
"""The running lines of the model's code, inner ones first: each one a file and a number."""


def code_place() -> str:
    """Return the line that is running: of the model's code if possible, else of torch's."""
    shown = user_frame() or _frame(lambda filename: filename.startswith(TORCH_FOLDER))
    if shown is None:
        return "nowhere"
    return line(shown.f_code.co_filename, shown.f_lineno, shown.f_code.co_name)
