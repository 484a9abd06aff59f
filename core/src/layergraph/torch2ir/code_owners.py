"""The owner of a file or a package: layergraph, torch, Python's library, or the model."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from layergraph import undo


def _folder(path: str | Path) -> str:
    """Return the folder of a file, as a prefix of file names."""
    return f"{Path(path).parent}{os.sep}"


TORCH_FOLDER = _folder(torch.__file__)
_CORE_FOLDER = _folder(_folder(__file__))
_LIBRARIES = (TORCH_FOLDER, "<frozen ")
_PYTHON_FOLDER = _folder(os.__file__)
_INSTALLED = "-packages"  # the folder of libraries may be inside that of Python
_capturing: tuple[str, ...] = (_folder(__file__), undo.__file__)

_own_packages = {__name__.partition(".")[0]}


def add_tracer_package(name: str, file: str) -> None:
    """Register a package as part of capture, so that its code does not count as the model's.

    Args:
        name: the ``__name__`` of a module of the package.
        file: the ``__file__`` of a module in the folder of the package.
    """
    global _capturing  # noqa: PLW0603 a package adds itself once, when it is imported
    _capturing = (*_capturing, _folder(file))
    _own_packages.add(name.partition(".")[0])


def is_own_package(module: str) -> bool:
    """Return whether a module, by its name, belongs to a package that captures models."""
    return module.partition(".")[0] in _own_packages


def is_capturing(filename: str) -> bool:
    """Return whether a file is part of the code that captures models."""
    return filename.startswith(_capturing)


def is_of_layergraph(filename: str) -> bool:
    """Return whether a file is part of the core, or of the code that captures models."""
    return filename.startswith((_CORE_FOLDER, *_capturing))


def is_of_user(filename: str) -> bool:
    """Return whether a file belongs neither to layergraph nor to torch or Python's library."""
    if is_of_layergraph(filename) or filename.startswith(_LIBRARIES):
        return False
    return not filename.startswith(_PYTHON_FOLDER) or _INSTALLED in filename
