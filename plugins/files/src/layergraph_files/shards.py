"""Models in several files, with the usual index ``model.safetensors.index.json``."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from layergraph.errors import FileError
from layergraph_files.limits import DEFAULT_LIMITS, Limits
from layergraph_files.parse_errors import JsonPath, ParseError, expect, reading, shown
from layergraph_files.paths import can_name, open_file, status
from layergraph_files.text import parse, whole

INDEX_SUFFIX = ".safetensors.index.json"
SAVE_KEY = "layergraph_save"
"""The key, in the metadata of an index and of its shards, of the digest of their save."""

# The end of the names of shards, after the name of the model.
_END = re.compile(r"\d{5}-of-\d{5}-[0-9a-f]{12}\.safetensors")

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, slots=True)
class Index:
    """The content of an index file.

    Attributes:
        homes: for each tensor, the name of the file that holds it.
        save: the digest of the save; None if another program wrote the index.
    """

    homes: dict[str, str]
    save: str | None

    @property
    def files(self) -> list[str]:
        """Return the sorted names of the files. The first holds the structure."""
        return sorted(set(self.homes.values()))


def bytes_of(size: float | str) -> int:
    """Return a size in bytes; parse text such as ``"5GB"``.

    Raises:
        FileError: the value is not a size.
    """
    if isinstance(size, Real) and not isinstance(size, bool) and 1 <= size < math.inf:
        return int(size)
    text = size.strip().upper() if isinstance(size, str) else ""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]I?B)?", text, re.ASCII)
    count = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if count < 1:
        raise FileError(f"{size!r:.100} is not a file size; give a number of bytes, or '5GB'")
    return count


def split(sizes: Iterable[tuple[str, int]], most: int) -> list[list[str]]:
    """Distribute tensors over files, in their order.

    Args:
        sizes: the name and the size in bytes of each tensor.
        most: the most bytes in one file. A larger tensor gets its own file.

    Returns:
        For each file, the names of its tensors.
    """
    shards: list[list[str]] = [[]]
    room = most
    for name, size in sizes:
        if size > room and shards[-1]:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= size
    return shards


def shard_names(path: Path, count: int, save: str) -> list[str]:
    """Return the names of the files of a model in several files.

    The names contain the digest of the save, so that the files of a new model do not replace those
    of an old one before the index names the new ones.

    Raises:
        ParseError: an index may not contain such names.
    """
    end = f"{count:05}-{save[:12]}{path.suffix}"
    names = [f"{path.stem}-{number + 1:05}-of-{end}" for number in range(count)]
    if not _is_plain(names[0]):
        message = "the name of a model in several files cannot begin with a dot or contain : or \\"
        raise ParseError(None, message, "give another name, or save it in one file")
    return names


def obsolete(target: Path, new: Collection[str], alone: bool) -> list[Path]:
    """Return the files of earlier saves of a name that the new save does not replace.

    Args:
        target: the path of the model.
        new: the names of the files of the new save.
        alone: True if no other save is moving files. Shards that no index names then belong to
            killed saves.

    Raises:
        FileError: another program wrote the index.
    """
    index = index_path(target)
    # Readers start from the index or the single file, so we remove these first.
    there = [path for path in (target, index) if path.name not in new and status(path)]
    names = set(_own_files(index))
    if alone:
        names.update(os.listdir(target.parent))
    start = f"{target.stem}-"
    shards = sorted(
        name
        for name in names
        if name.startswith(start) and _END.fullmatch(name, len(start)) and name not in new
    )
    kept = _named_elsewhere(index) if shards else set()
    return there + [target.with_name(name) for name in shards if name not in kept]


def _named_elsewhere(index: Path) -> set[str]:
    """Return the files that other indexes in the folder, such as a copied one, name."""
    names: set[str] = set()
    for path in index.parent.iterdir():
        if path.name.endswith(INDEX_SUFFIX) and path.name != index.name:
            with suppress(FileError):
                names.update(read_index(path, DEFAULT_LIMITS).files)
    return names


def _own_files(path: Path) -> list[str]:
    """Return the files that an index of layergraph names; none if there is no index."""
    if status(path) is None:
        return []
    try:
        index = read_index(path, DEFAULT_LIMITS)
    except FileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []  # another process removed it just now
        index = None
    if index is None or index.save is None:
        raise FileError(
            f"{shown(path)}: another program wrote this index of a model of the same name; move it "
            "away, or save under another name"
        )
    return index.files


def index_path(path: Path) -> Path:
    """Return the path of the index for the path of the single file."""
    return path.with_name(f"{path.stem}{INDEX_SUFFIX}")


def index_document(homes: Mapping[str, str], total: int, save: str) -> dict[str, Any]:
    """Return the content of an index file as parsed JSON."""
    return {"metadata": {"total_size": total, SAVE_KEY: save}, "weight_map": dict(homes)}


def read_index(path: Path, limits: Limits) -> Index:
    """Read an index file.

    Raises:
        FileError: it is not an index, or names files in another folder.
    """
    document: Any = None
    with reading(path), open_file(path) as file:
        document = parse(whole(file, limits))
    with reading(path, document):
        fields = expect(document, dict, None, "an index of safetensors")
        metadata = expect(fields.get("metadata", {}), dict, (None, "metadata"), "an object")
        spot: JsonPath = (None, "weight_map")
        homes = expect(fields.get("weight_map"), dict, spot, "files by tensor")
        for name, file_name in homes.items():
            here = (spot, name)
            expect(file_name, str, here, "the name of a file")
            if not _is_plain(file_name):
                remedy = "name .safetensors files in the same folder"
                raise ParseError(here, f"{file_name!r:.200} is not a valid file name", remedy)
        if not homes:
            raise ParseError(spot, "there are no tensors", "name the file of each tensor")
        save = metadata.get(SAVE_KEY)
        return Index(homes, None if save is None else expect(save, str, spot, "a text"))


def _is_plain(name: str) -> bool:
    plain = re.fullmatch(r"[^./\\:\0][^/\\:\0]*\.safetensors", name)
    return plain is not None and can_name(name)
