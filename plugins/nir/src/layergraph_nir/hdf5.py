"""Read untrusted files of NIR, which are HDF5 files.

An HDF5 file can link to other files, load code to decompress arrays, and expand to much more memory
than its size. So this module never calls ``nir.read``: it walks through the groups, and reads only
plain arrays and text, within limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import nir  # type: ignore[import-untyped]
import numpy as np

from layergraph.errors import FileError, first_line
from layergraph_files.parse_errors import reading
from layergraph_files.paths import open_file
from layergraph_nir.reading import MOST_LEVELS

# The filters that HDF5 and h5py contain, by their numbers: deflate, shuffle, checksum, lzf.
_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, 3, 32000})
_NODES = {
    name: getattr(nir, name) for name in nir.ir.__all__ if isinstance(getattr(nir, name), type)
}
_LONGEST = 4096
_TEXT_AT_ONCE = 2**28
_MOST_DIMENSIONS = 64


def read_graph(path: Path, max_bytes: int | None = None) -> Any:
    """Return the ``nir.NIRGraph`` in a file.

    Args:
        path: the path.
        max_bytes: the limit for the bytes of all arrays; None: 64 times the size of the file, plus
            256 MiB. Compression often makes arrays of equal numbers a thousand times smaller.

    Raises:
        FileError: the file is damaged, or uses a feature of HDF5 that NIR does not need.
    """
    with reading(path), open_file(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        budget = 64 * size + 2**28 if max_bytes is None else max_bytes
        try:
            with h5py.File(file, "r") as root:
                form = _Walk(path, size, budget).mapping(root, "")
        except FileError:
            raise
        except Exception as error:  # h5py raises errors of many classes for a damaged file
            raise FileError(
                f"{str(path)!r}: the file is damaged, or not a file of NIR: {first_line(error)}"
            ) from error
    node = form.get("node")
    if not isinstance(node, dict):
        raise FileError(f"{str(path)!r}: it has no group 'node', which holds the graph of NIR")
    return _node_of(path, node, "node", 0)


class _Walk:
    """Reads the groups and arrays of one file.

    Args:
        path: the path of the file, for messages.
        size: its size in bytes.
        budget: the limit for the bytes of all arrays.
    """

    def __init__(self, path: Path, size: int, budget: int) -> None:
        self._path = path
        self._size = size
        self._left = budget
        self._budget = budget
        self._seen: set[Any] = set()

    def mapping(self, group: Any, place: str, level: int = 0) -> dict[str, Any]:
        """Return a group as a dict."""
        if level > 2 * MOST_LEVELS + 4:
            raise self._error(place, "groups are nested too deeply")
        self._refuse_second_read(group, place)
        found = {}
        for raw in group.id:
            name = raw.decode("utf8") if isinstance(raw, bytes) else raw
            inside = f"{place}/{name}"
            if len(name) > _LONGEST:
                raise self._error(place, "a name is longer than 4096 characters")
            if group.id.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
                raise self._error(inside, "it is a link, which may lead to another file")
            each = h5py.h5o.open(group.id, raw)
            if isinstance(each, h5py.h5g.GroupID):
                found[name] = self.mapping(h5py.Group(each), inside, level + 1)
            elif isinstance(each, h5py.h5d.DatasetID):
                found[name] = self._array(h5py.Dataset(each), inside)
            else:
                raise self._error(inside, "it is neither a group nor an array")
        return found

    def _refuse_second_read(self, each: Any, place: str) -> None:
        # A group with several parents could be read exponentially often, or contain itself.
        address = h5py.h5o.get_info(each.id).addr
        if address in self._seen:
            raise self._error(place, "the file has it in two places")
        self._seen.add(address)

    def _array(self, array: Any, place: str) -> Any:
        self._refuse_second_read(array, place)
        plan = array.id.get_create_plist()
        if plan.get_external_count() or array.is_virtual:
            raise self._error(place, "its numbers are in another file")
        for index in range(plan.get_nfilters()):
            if plan.get_filter(index)[0] not in _FILTERS:
                raise self._error(
                    place, "its compression needs a plugin of HDF5; write it with gzip"
                )
        if array.shape is None:
            return None
        if len(array.shape) > _MOST_DIMENSIONS:
            raise self._error(place, f"it has {len(array.shape)} dimensions")
        text = h5py.check_string_dtype(array.dtype)
        if text is None and (array.dtype.kind not in "fiub" or array.dtype.itemsize > 8):
            raise self._error(place, f"it holds {array.dtype}, and neither numbers nor text")
        self._charge(place, math.prod(array.shape) * array.dtype.itemsize)
        if array.chunks:
            self._charge(place, math.prod(array.chunks) * array.dtype.itemsize)
        if text is None:
            return array[()]
        return self._text(array, place)

    def _text(self, array: Any, place: str) -> Any:
        if array.shape == ():
            return self._decoded(array[()], place, self._size)
        # Each string may be as long as the file, so we read few at a time.
        row = max(1, math.prod(array.shape[1:]))
        count = max(1, _TEXT_AT_ONCE // (row * max(self._size, 1)))
        found: list[Any] = []
        for start in range(0, array.shape[0], count):
            part = array[start : start + count]
            flat = [self._decoded(each, place, _LONGEST) for each in part.reshape(-1)]
            found += np.array(flat, dtype=object).reshape(part.shape).tolist()
        return found

    def _decoded(self, value: Any, place: str, longest: int) -> str:
        if not isinstance(value, bytes | str) or len(value) > longest:
            raise self._error(place, "its text is too long")
        self._charge(place, len(value))
        try:
            return value.decode("utf8") if isinstance(value, bytes) else value
        except UnicodeDecodeError:
            raise self._error(place, "its text is not UTF-8") from None

    def _charge(self, place: str, count: int) -> None:
        """Subtract bytes from the budget; refuse the file if it is used up."""
        self._left -= count
        if self._left < 0:
            raise self._error(
                place,
                f"the arrays have more than {self._budget} bytes; if you trust the file, give "
                "max_bytes",
            )

    def _error(self, place: str, reason: str) -> FileError:
        return FileError(f"{str(self._path)!r}: {place or '/'}: {reason}")


def _node_of(path: Path, form: Any, place: str, level: int) -> Any:
    """Build the node of NIR that a dict describes."""
    if not isinstance(form, dict) or level > MOST_LEVELS:
        raise FileError(f"{str(path)!r}: {place}: a node of NIR belongs here")
    kind = form.get("type")
    cls = _NODES.get(kind) if isinstance(kind, str) else None
    if cls is None or cls is nir.NIRNode:
        raise FileError(f"{str(path)!r}: {place}: NIR has no node of the type {kind!r:.60}")
    known = {"type", "metadata", "shape", *(each.name for each in fields(cls))}
    unknown = sorted(form.keys() - known)
    if unknown:
        raise FileError(f"{str(path)!r}: {place}: a {kind} has no {unknown[0]!r:.60}")
    metadata = form.get("metadata", {})
    if not isinstance(metadata, dict):
        raise FileError(f"{str(path)!r}: {place}: its metadata is no group")
    if cls is nir.NIRGraph:
        inside = form.get("nodes")
        if not isinstance(inside, dict):
            raise FileError(f"{str(path)!r}: {place}: it has no nodes")
        nodes = {
            name: _node_of(path, each, f"{place}/nodes/{name}", level + 1)
            for name, each in inside.items()
        }
        edges = list(_edges(path, form.get("edges"), place))
        return nir.NIRGraph(nodes, edges, metadata, type_check=False)
    try:
        return cls.from_dict(dict(form))
    except Exception as error:  # nir passes on the errors of numpy
        raise FileError(
            f"{str(path)!r}: {place}: its values do not make a valid {kind}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


def _edges(path: Path, listed: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(listed, np.ndarray) and not listed.size:
        return
    for pair in listed if isinstance(listed, list) else [None]:
        if not isinstance(pair, list) or [*map(type, pair)] != [str, str]:
            raise FileError(f"{str(path)!r}: {place}: its edges are not pairs of names")
        yield pair[0], pair[1]
