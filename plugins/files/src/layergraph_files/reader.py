"""Opening the files of a model: its structure, and the places of its weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from layergraph.errors import FileError, LayergraphError
from layergraph.ir import Ir, check
from layergraph_files.bounds import check_bounds
from layergraph_files.container import Header, Stored, read_header
from layergraph_files.document import from_document, functions, tensor_kinds
from layergraph_files.file_set import find, state
from layergraph_files.limits import Limits
from layergraph_files.parse_errors import (
    JsonPath,
    ParseError,
    PathName,
    expect_fields,
    reading,
    shown,
)
from layergraph_files.paths import open_file, to_path, within
from layergraph_files.shards import INDEX_SUFFIX, SAVE_KEY, read_index
from layergraph_files.text import parse, whole
from layergraph_files.values import decode_bytes
from layergraph_files.versions import FORMAT, current

VALUE_PREFIX = ".value."
"""The prefix of tensors that are values of the structure; no key of a state dict begins with it."""

_MOST_TRIES = 100


@dataclass(frozen=True, slots=True)
class Part:
    """An open ``.safetensors`` file.

    Attributes:
        path: its path.
        file: the open file.
        header: its header.
    """

    path: Path
    file: BufferedReader
    header: Header

    def bytes_of(self, stored: Stored) -> bytes:
        """Read the bytes of a tensor.

        Raises:
            FileError: the file cannot be read, or another program truncated it.
        """
        numbers = bytearray(stored.length)
        self.read_into(stored, memoryview(numbers))
        return bytes(numbers)

    def read_into(
        self,
        stored: Stored,
        memory: memoryview,
        spans: Iterable[tuple[int, int]] | None = None,
    ) -> None:
        """Read the bytes of a tensor, or a part of them, into memory of the same size.

        Args:
            stored: the place of the tensor.
            memory: the memory.
            spans: the offset in the tensor and the length of each part: see
                :func:`layergraph_files.regions.spans`. No other byte is read. None: the whole
                tensor.

        Raises:
            FileError: as for :meth:`bytes_of`.
        """
        at = 0
        with reading(self.path):
            for start, length in [(0, stored.length)] if spans is None else spans:
                # Bypass the buffer of the file, which reads more than we need.
                self.file.raw.seek(self.header.data + stored.start + start, os.SEEK_SET)
                end = at + length
                while at < end:
                    count = self.file.raw.readinto(memory[at:end])
                    if not count:
                        raise shorter()
                    at += count


def shorter() -> ParseError:
    """Return the error for a file that another program truncated while we read it."""
    remedy = "keep other programs from writing it meanwhile"
    return ParseError(None, "it became shorter while it was read", remedy)


@dataclass(frozen=True, slots=True)
class Opened:
    """A model in open files.

    Attributes:
        path: the file that holds the structure.
        ir: the structure.
        functions: for each function of a plugin that the structure calls, the name of the
            plugin's distribution.
        weights: for each key of the state dict, the file and the place of the tensor in it.
        kinds: for each tensor kind in the structure, the name of the distribution that lists it.
        metadata: the metadata of the file; empty for a ``.json`` file.
    """

    path: Path
    ir: Ir
    functions: dict[str, str]
    weights: dict[str, tuple[Part, Stored]]
    kinds: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


@contextmanager
def opened(given: PathName, limits: Limits, call: str = "load(path)") -> Iterator[Opened]:
    """Open the files of a model, and read its structure.

    Args:
        given: the path of the model.
        limits: the limits for the files.
        call: the signature of the function that the user called, for errors.

    Raises:
        ArgumentError, FileError, InvalidIrError: as for :func:`layergraph.load`.
    """
    path = to_path(given, call)
    with ExitStack() as stack:
        found, parts = _settled(path, limits, stack)
        model = _of_parts(found, parts) if parts else _of_text(found, limits)
        if parts and found != path and found.parent == path:
            _expect_same_text(path, model, limits)
        yield model


@contextmanager
def opened_weights(given: PathName, limits: Limits) -> Iterator[dict[str, tuple[Part, Stored]]]:
    """Open ``.safetensors`` files of any program, for their weights.

    Args:
        given: a ``.safetensors`` file, the index of several, or a folder with one of these.
        limits: the limits for the files.

    Yields:
        For each name of a weight, the file and the place of the weight in it.

    Raises:
        FileError: a file cannot be read, or has another format.
    """
    with ExitStack() as stack:
        found, parts = _settled(to_path(given, "load(path)"), limits, stack)
        if not parts:
            raise FileError(f"{shown(found)}: it holds no weights; give a .safetensors file")
        stored = _stored(parts)
        yield {name: each for name, each in stored.items() if not name.startswith(VALUE_PREFIX)}


def _settled(path: Path, limits: Limits, stack: ExitStack) -> tuple[Path, list[Part]]:
    """Find and open the files of a model. Return the main file, and the parts (none for a JSON).

    Another process may replace the model meanwhile: the files that an index names may be gone, or
    an index may replace a single file. So a failure counts only if the files have not changed;
    otherwise we try again.
    """
    before: object = None
    for _ in range(_MOST_TRIES):
        with ExitStack() as tried:
            try:
                with reading(path):
                    found = find(path, limits)
                parts = _parts(found, limits, tried)
            except FileError:
                now = state(path)
                if now == before:
                    raise
                before = now
            else:
                stack.push(tried.pop_all())
                return found, parts
    raise FileError(f"{shown(path)}: it changes all the time; load it when the save is complete")


def _parts(found: Path, limits: Limits, stack: ExitStack) -> list[Part]:
    if found.name.endswith(INDEX_SUFFIX):
        return _indexed(found, limits, stack)
    if found.suffix == ".safetensors":
        with reading(found):
            file = stack.enter_context(open_file(found))
            return [Part(found, file, read_header(file, limits))]
    if found.suffix == ".json":
        return []
    raise FileError(f"{shown(found)}: no model has that suffix; give a .safetensors or .json file")


def _stored(parts: list[Part]) -> dict[str, tuple[Part, Stored]]:
    return {name: (part, each) for part in parts for name, each in part.header.tensors.items()}


def _indexed(path: Path, limits: Limits, stack: ExitStack) -> list[Part]:
    """Open the files that an index names, and check that each holds what the index says."""
    index = read_index(path, limits)
    parts = []
    # Without this check, thousands of links to one file would each take memory for its header.
    seen: set[tuple[int, int]] = set()
    for name in index.files:
        shard = path.with_name(name)
        with reading(shard):
            file = stack.enter_context(open_file(within(shard, path)))
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) in seen:
                raise ParseError(None, "the index names its file twice", "name each file once")
            seen.add((found.st_dev, found.st_ino))
            parts.append(Part(shard, file, read_header(file, limits)))
    there = {name: part.path.name for part in parts for name in part.header.tensors}
    with reading(path):
        for name in sorted(index.homes.keys() | there.keys()):
            if index.homes.get(name) != there.get(name):
                message = f"it says {index.homes.get(name)}, but the files say {there.get(name)}"
                raise ParseError(((None, "weight_map"), name), message, "save the model again")
        for part in parts:
            if part.header.metadata.get(SAVE_KEY) != index.save:
                message = f"{part.path.name} and the index are from different saves"
                raise ParseError(None, message, "save the model again")
    return parts


def _expect_same_text(folder: Path, model: Opened, limits: Limits) -> None:
    """Raise if a folder also has a ``model.json`` with another structure.

    Raises:
        FileError: the structures differ.
    """
    text = folder / "model.json"
    try:
        other = _of_text(text, limits).ir
    except LayergraphError:
        return  # there is no such file, or it is not a model
    if other != model.ir:
        raise FileError(
            f"{shown(folder)}: the folder has two models, {model.path.name} and {text.name}, which "
            "differ in their structure; give one of them"
        )


def _of_text(path: Path, limits: Limits) -> Opened:
    with reading(path), open_file(path) as file:
        document = parse(whole(file, limits))
    return opened_document(path, document)


def opened_document(path: Path, document: Any) -> Opened:
    """Return the structure that a document describes, checked, without weights.

    Args:
        path: the file that holds the document, for errors.
        document: the document, as :func:`layergraph_files.text.parse` returns it.

    Raises:
        FileError: the document has another form, or exceeds a limit.
        InvalidIrError: the IR in the document breaks a rule.
    """
    with reading(path, document):
        document = current(document)
        ir = from_document(document)
        check(ir)
        check_bounds(ir)
        return Opened(path, ir, functions(document), {}, tensor_kinds(document))


def _of_parts(path: Path, parts: list[Part]) -> Opened:
    first = parts[0]
    where = f"{shown(first.path)}, __metadata__"
    with reading(path):
        text = first.header.metadata.get(FORMAT)
        if text is None:
            remedy = "save the model with layergraph"
            raise ParseError(None, "it holds weights only, without the model's structure", remedy)
    document: Any = None
    with reading(where):
        document = parse(text.encode("utf-8", "surrogatepass"))
    stored = _stored(parts)
    taken: set[str] = set()

    def read_value(form: Any, spot: JsonPath) -> bytes:
        if not isinstance(form, dict):
            return decode_bytes(form, spot)
        name = expect_fields(form, spot, "tensor")["tensor"]
        if not isinstance(name, str) or not name.startswith(VALUE_PREFIX) or name not in stored:
            remedy = f"name a tensor of the file that begins with {VALUE_PREFIX!r}"
            raise ParseError((spot, "tensor"), f"there is no tensor {name!r} for a value", remedy)
        if name in taken:
            raise ParseError((spot, "tensor"), f"another value has {name!r}", "give each its own")
        taken.add(name)
        part, place = stored[name]
        return part.bytes_of(place)

    with reading(where, document):
        document = current(document)
        ir = from_document(document, read_value)
        check(ir)
        check_bounds(ir)
        homes, kinds = functions(document), tensor_kinds(document)
    weights = {name: each for name, each in stored.items() if name not in taken}
    return Opened(first.path, ir, homes, weights, kinds, first.header.metadata)
