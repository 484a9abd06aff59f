"""The forms in which a model may lie under one name, and which of them counts.

``m.safetensors`` is one file, or it is several: then ``m.safetensors.index.json`` names them. A
save leaves one of the two forms. Only while it replaces one by the other are both there, as they
are if it is killed then; the one file counts as long as it is there.
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
    """The file that a path means: itself, another form of the model, or that of a folder.

    Raises:
        FaultError: there is none, or there are two.
    """
    if is_folder(path):
        found = _form(path / _MODEL, None, limits) or path / _TEXT
        if status(found) is None:
            names = f"{_MODEL}, {index_path(Path(_MODEL)).name}, {_TEXT}"
            raise ParseError(None, f"the folder has none of {names}", "give the file itself")
        return found
    single = _single(path)
    return path if single is None else _form(single, path, limits) or path


def state(path: Path) -> object:
    """A token that changes if another process replaces the files that a path means."""
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
    """The one file of the model that a path is a form of; None for a text."""
    if path.name.endswith(INDEX_SUFFIX):
        return path.with_name(path.name.removesuffix(".index.json"))
    return path if path.suffix == ".safetensors" else None


def _form(single: Path, asked: Path | None, limits: Limits) -> Path | None:
    """The form that is there, or that counts of two.

    Args:
        single: the path of the one file.
        asked: the path that was given; None for a folder.
        limits: how much a file may make layergraph do.
    """
    index = index_path(single)
    there = [each for each in (single, index) if status(each)]
    if len(there) < 2:
        return there[0] if there else None
    if is_staged(single):
        return single
    # Other programs may keep both, but where layergraph wrote one it would have removed the other.
    if asked is None or _is_own(index, limits):
        message = f"there are two models, {single.name} and {index.name}"
        raise ParseError(None, message, "remove the older one")
    return asked


def _is_own(index: Path, limits: Limits) -> bool:
    try:
        return read_index(index, limits).save is not None
    except FileError:
        return False
