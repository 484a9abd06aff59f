"""The files of a model, opened: its structure, and where its weights are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from layergraph.errors import FileError
from layergraph.files.bounds import check_bounds
from layergraph.files.container import Header, Stored, read_header
from layergraph.files.document import from_document, functions
from layergraph.files.faults import FaultError, PathName, Spot, expect_fields, reading
from layergraph.files.limits import Limits
from layergraph.files.shards import INDEX_SUFFIX, SAVE_KEY, index_path, read_index
from layergraph.files.text import parse, whole
from layergraph.files.values import decode_bytes
from layergraph.files.versions import FORMAT, current
from layergraph.ir import Ir, check

VALUE_PREFIX = ".value."
"""How the names of tensors begin that are no weights: no key of a state dict begins with a dot."""


@dataclass(frozen=True, slots=True)
class Part:
    """An open ``.safetensors`` file.

    Attributes:
        path: where it is.
        file: the file.
        header: what its header says.
    """

    path: Path
    file: BinaryIO
    header: Header

    def bytes_of(self, stored: Stored) -> bytes:
        """The bytes of a tensor."""
        self.file.seek(self.header.data + stored.start)
        return self.file.read(stored.length)


@dataclass(frozen=True, slots=True)
class Opened:
    """A model in files that are open.

    Attributes:
        path: the file that holds the structure.
        ir: the structure.
        functions: the functions of plugins that it calls, to the distributions that named them.
        weights: the name of each tensor of the state dict to the file that holds it, and where.
    """

    path: Path
    ir: Ir
    functions: dict[str, str]
    weights: dict[str, tuple[Part, Stored]]


@contextmanager
def opened(path: PathName, limits: Limits) -> Iterator[Opened]:
    """Open the files of a model, and read its structure.

    Raises:
        FileError, InvalidIrError: as for :func:`load`.
    """
    found = _found(Path(path))
    with ExitStack() as stack:
        if found.suffix == ".json" and not found.name.endswith(INDEX_SUFFIX):
            yield _of_text(found, limits)
        else:
            yield _of_parts(found, _parts(found, limits, stack))


@contextmanager
def opened_weights(path: PathName, limits: Limits) -> Iterator[dict[str, tuple[Part, Stored]]]:
    """Open files for their weights alone: any program may have written them.

    Args:
        path: a ``.safetensors`` file, the index of several, or a folder with one of these.
        limits: how much the files may make layergraph do.

    Yields:
        The name of each weight to the file that holds it, and where.

    Raises:
        FileError: a file cannot be read, or is of another form.
    """
    found = _found(Path(path))
    with ExitStack() as stack:
        stored = _stored(_parts(found, limits, stack))
        yield {name: each for name, each in stored.items() if not name.startswith(VALUE_PREFIX)}


def _parts(found: Path, limits: Limits, stack: ExitStack) -> list[Part]:
    if found.name.endswith(INDEX_SUFFIX):
        return _indexed(found, limits, stack)
    if found.suffix == ".safetensors":
        return [_part(found, limits, stack)]
    raise FileError(f"{found}: no model has that suffix; give a .safetensors or .json file")


def _stored(parts: list[Part]) -> dict[str, tuple[Part, Stored]]:
    return {name: (part, each) for part in parts for name, each in part.header.tensors.items()}


def _found(path: Path) -> Path:
    """The file that a path means, which may be that of a folder."""
    if not path.is_dir():
        if not path.exists() and path.suffix == ".safetensors" and index_path(path).exists():
            return index_path(path)
        return path
    names = [f"model{INDEX_SUFFIX}", "model.safetensors", "model.json"]
    there = [path / name for name in names if (path / name).exists()]
    if not there:
        raise FileError(f"{path}: the folder has none of {', '.join(names)}; give the file itself")
    if len(there) > 1 and there[1].suffix == ".safetensors":
        raise FileError(f"{path}: the folder has two models, {there[0]} and {there[1]}; give one")
    return there[0]


def _part(path: Path, limits: Limits, stack: ExitStack) -> Part:
    with reading(path):
        file = stack.enter_context(path.open("rb"))
        return Part(path, file, read_header(file, limits))


def _indexed(path: Path, limits: Limits, stack: ExitStack) -> list[Part]:
    """The files that an index names, if each holds just what the index says."""
    index = read_index(path, limits)
    parts = [_part(path.with_name(name), limits, stack) for name in index.files]
    there = {name: part.path.name for part in parts for name in part.header.tensors}
    with reading(path):
        for name in sorted(index.homes.keys() | there.keys()):
            if index.homes.get(name) != there.get(name):
                message = f"it says {index.homes.get(name)}, but the files say {there.get(name)}"
                raise FaultError(((None, "weight_map"), name), message, "save the model anew")
        for part in parts:
            if part.header.metadata.get(SAVE_KEY) != index.save:
                message = f"{part.path.name} comes from another save than the index"
                raise FaultError(None, message, "save the model anew")
    return parts


def _of_text(path: Path, limits: Limits) -> Opened:
    with reading(path), path.open("rb") as file:
        document = parse(whole(file, limits))
    with reading(path, document):
        document = current(document)
        ir = from_document(document)
        check(ir)
        check_bounds(ir)
        return Opened(path, ir, functions(document), {})


def _of_parts(path: Path, parts: list[Part]) -> Opened:
    first = parts[0]
    where = f"{os.fspath(first.path)}, __metadata__"
    with reading(path):
        text = first.header.metadata.get(FORMAT)
        if text is None:
            remedy = "it holds weights alone: save the model with layergraph"
            raise FaultError(None, "it holds no structure of a model", remedy)
    document: Any = None
    with reading(where):
        document = parse(text.encode("utf-8", "surrogatepass"))
    stored = _stored(parts)
    taken: set[str] = set()

    def read_value(form: Any, spot: Spot) -> bytes:
        if not isinstance(form, dict):
            return decode_bytes(form, spot)
        name = expect_fields(form, spot, "tensor")["tensor"]
        if not isinstance(name, str) or not name.startswith(VALUE_PREFIX) or name not in stored:
            remedy = f"name one of the file that begins with {VALUE_PREFIX!r}"
            raise FaultError((spot, "tensor"), f"there is no tensor {name!r} for a value", remedy)
        if name in taken:
            raise FaultError((spot, "tensor"), f"{name!r} is another value", "give each its own")
        taken.add(name)
        part, place = stored[name]
        return part.bytes_of(place)

    with reading(where, document):
        document = current(document)
        ir = from_document(document, read_value)
        check(ir)
        check_bounds(ir)
        needs = functions(document)
    weights = {name: each for name, each in stored.items() if name not in taken}
    return Opened(first.path, ir, needs, weights)
