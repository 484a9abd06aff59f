"""Lines of code: the text that points to one, and whose code a file is."""

from __future__ import annotations

import contextlib
import functools
import inspect
import linecache
import os
import sys
import traceback
from collections.abc import Container
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from layergraph import undo


def folder(path: str | Path) -> str:
    """The folder of a file, as the names of the files in it begin."""
    return f"{Path(path).parent}{os.sep}"


TORCH_FOLDER = folder(torch.__file__)
_OF_LAYERGRAPH = folder(folder(folder(__file__)))
_OF_LIBRARIES = (TORCH_FOLDER, contextlib.__file__, os.__file__, "<frozen ")
_capturing: tuple[str, ...] = (folder(folder(__file__)), undo.__file__)
_packages = {__name__.partition(".")[0]}


def add_capturing(file: str) -> None:
    """Let the files beside one count as code that captures, and not as the model's.

    Args:
        file: the ``__file__`` of a package that has a tracer.
    """
    global _capturing  # noqa: PLW0603 packages add themselves once, when they are imported
    _capturing = (*_capturing, folder(file))
    _packages.add(Path(file).parent.name)


def is_capturing_package(module: str) -> bool:
    """Return whether a module, by its name, is in the core or in a package that has a tracer."""
    return module.partition(".")[0] in _packages


def is_capturing(filename: str) -> bool:
    """Return whether a file is part of what captures a model."""
    return filename.startswith(_capturing)


def is_of_layergraph(filename: str) -> bool:
    """Return whether a file is part of the core, or of what captures a model."""
    return filename.startswith((_OF_LAYERGRAPH, *_capturing))


def is_of_user(filename: str) -> bool:
    """Return whether a file belongs neither to layergraph nor to torch or Python's own library."""
    return not is_of_layergraph(filename) and not filename.startswith(_OF_LIBRARIES)


def line(filename: str, number: int, function: str) -> str:
    """A line of code, with its place."""
    text = linecache.getline(filename, number).strip()
    return f"{filename.rpartition(os.sep)[2]}, line {number}, in {function}: {text}"


def line_of(error: BaseException, files: Container[str]) -> str:
    """The line of the model's code, or else of others', at which an error came about.

    Args:
        error: the error.
        files: the files of the model's code.
    """
    frames = traceback.extract_tb(error.__traceback__)
    of_others = [frame for frame in frames if not is_of_layergraph(frame.filename)]
    of_users = [frame for frame in of_others if is_of_user(frame.filename)]
    of_model = [frame for frame in of_users if frame.filename in files]
    # A layer of torch may be the whole model.
    frame = (of_model or of_users or of_others or frames)[-1]
    return line(frame.filename, frame.lineno or 0, frame.name)


@functools.cache
def first_line_of(cls: Any) -> str:
    """The line where the code of a class of modules begins."""
    forward = inspect.getattr_static(cls, "forward", None)
    code = getattr(inspect.unwrap(forward), "__code__", None) if callable(forward) else None
    return "" if code is None else line(code.co_filename, code.co_firstlineno, code.co_name)


def code_place() -> str:
    """The line of the model's code that is running, or else of torch's."""
    of_torch: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if is_of_user(filename):
            break
        if of_torch is None and filename.startswith(TORCH_FOLDER):
            of_torch = frame
        frame = frame.f_back
    shown = frame or of_torch
    if shown is None:
        return "nowhere"
    return line(shown.f_code.co_filename, shown.f_lineno, shown.f_code.co_name)
