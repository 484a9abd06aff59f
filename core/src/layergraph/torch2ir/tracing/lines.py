"""Lines of code: the text that points to one, and whose code a file is."""

from __future__ import annotations

import contextlib
import linecache
import os
from pathlib import Path

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
