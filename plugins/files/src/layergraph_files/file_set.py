"""Finding the files of a model: one file, or several with an index.

``m.safetensors`` is one file, or ``m.safetensors.index.json`` names several. A save leaves one of
the two. Both exist while a save replaces one by the other, and if the save is killed at that time.
The single file counts as long as it exists.
"""

from __future__ import annotations

from pathlib import Path

from layergraph.errors import FileError
from layergraph_files.limits import Limits
from layergraph_files.parse_errors import ParseError
from layergraph_files.paths import is_folder, status
from layergraph_files.shards import INDEX_SUFFIX, index_path, read_index
from layergraph_files.staging import is_staged

_MODEL = "model.safetensors"
_TEXT = "model.json"


def find(path: Path, limits: Limits) -> Path:
    """Return the main file of a model: the single file or the index, at a path or in a folder.

    Raises:
        ParseError: a folder has no model, or there are two models.
    """
    if is_folder(path):
        found = _form(path / _MODEL, None, limits) or path / _TEXT
        if status(found) is None:
            names = f"{_MODEL}, {index_path(Path(_MODEL)).name}, {_TEXT}"
            raise ParseError(None, f"the folder has none of {names}", "give the path of a file")
        return found
    single = _single(path)
    return path if single is None else _form(single, path, limits) or path


def state(path: Path) -> object:
    """Return a token that changes if another process replaces the files of a path."""
    if is_folder(path):
        paths = [path / _MODEL, index_path(path / _MODEL), path / _TEXT]
    else:
        single = _single(path)
        paths = [path] if single is None else [single, index_path(single)]
    return [_identity(each) for each in paths]


def _identity(path: Path) -> object:
    found = status(path)
    return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _single(path: Path) -> Path | None:
    """Return the path of the single file for a path of a model; None for a ``.json`` text."""
    if path.name.endswith(INDEX_SUFFIX):
        return path.with_name(path.name.removesuffix(".index.json"))
    return path if path.suffix == ".safetensors" else None


def _form(single: Path, asked: Path | None, limits: Limits) -> Path | None:
    """Return the single file or the index, whichever exists; if both do, the one that counts.

    Args:
        single: the path of the single file.
        asked: the path that the user gave; None for a folder.
        limits: the limits for the index.
    """
    index = index_path(single)
    there = [each for each in (single, index) if status(each)]
    if len(there) < 2:
        return there[0] if there else None
    if is_staged(single):
        return single
    # Other programs may keep both. A save of layergraph removes the other one.
    if asked is None or _is_own(index, limits):
        message = f"there are two models, {single.name} and {index.name}"
        raise ParseError(None, message, "remove the older one")
    return asked


def _is_own(index: Path, limits: Limits) -> bool:
    try:
        return read_index(index, limits).save is not None
    except FileError:
        return False
