"""``save`` for the formats of this package."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from layergraph.api import default_ir2torch
from layergraph.elsewhere import imported
from layergraph.errors import FileError, StateError
from layergraph.functions.foreign import listing
from layergraph.functions.names import Targets, is_own
from layergraph.ir import FUNCTION, Ir, TensorSpec, check
from layergraph.ir2torch.load import fitting, flat, names_of, packed_in
from layergraph.ir2torch.wrapper_keys import under_plain_keys
from layergraph.plugins import function_homes, kind_homes
from layergraph.tensors.memory import lie_alike, numbers_of, without_class
from layergraph_files.atomic import Written, writing
from layergraph_files.bounds import check_writable
from layergraph_files.build import disguised
from layergraph_files.container import CODES, new_header
from layergraph_files.document import WriteValue, inline, to_document
from layergraph_files.parse_errors import PathName, reading, shown
from layergraph_files.paths import to_path
from layergraph_files.reader import VALUE_PREFIX
from layergraph_files.shards import (
    INDEX_SUFFIX,
    SAVE_KEY,
    bytes_of,
    index_document,
    index_path,
    obsolete,
    shard_names,
    split,
)
from layergraph_files.text import compact, laid_out
from layergraph_files.unlisted import unlisted
from layergraph_files.versions import FORMAT


@dataclass(frozen=True, slots=True)
class Item:
    """A tensor to write.

    Attributes:
        dtype: its dtype in the file by the name in torch: ``"float32"``.
        shape: its shape in the file.
        source: its values, or their bytes. A tensor is copied to the CPU only when it is written.
        cast: the dtype to cast a tensor to; None for bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    source: torch.Tensor | bytes
    cast: torch.dtype | None = None

    @property
    def length(self) -> int:
        """Return its size in bytes."""
        return math.prod(self.shape) * self.width

    @property
    def width(self) -> int:
        """Return the size of one element in bytes."""
        width: int = getattr(torch, self.dtype).itemsize
        return width

    def give(self, receive: Callable[[bytes | memoryview], object]) -> None:
        """Pass the bytes to a function. Only this tensor is then in memory twice."""
        if isinstance(self.source, bytes):
            receive(self.source)
        elif self.length:
            numbers, _held = numbers_of(self.source.to(device="cpu", dtype=self.cast))
            receive(numbers)


def save(
    ir: Ir,
    path: PathName,
    state_dict: Mapping[str, torch.Tensor] | None = None,
    *,
    max_shard_size: int | str | None = None,
) -> None:
    """Write a model to a file atomically: see :func:`layergraph.save`.

    A save replaces a model of the same name, in one file or several. The old model can be loaded
    until the new one is complete, even if the save fails or is killed.

    Args:
        ir: the structure.
        path: the ``.json`` or ``.safetensors`` file to write.
        state_dict: the weights, under the keys of the original model. They are cast to the dtypes
            of the IR. A tensor with several keys is written once, under the first of them.
            If one of them is a DTensor, all processes call ``save``, and each writes its part:
            see :mod:`layergraph_distributed`.
        max_shard_size: the maximum size of the tensors in one file. A larger model goes to
            ``model-00001-of-00002-….safetensors`` and so on, with the index
            ``model.safetensors.index.json``. None: one file.
    """
    target = to_path(path, "save(ir, path, state_dict)")
    if target.suffix == ".json" and not target.name.endswith(INDEX_SUFFIX):
        _expect_writable(ir, target)
        if state_dict is not None:
            raise FileError(f"{shown(target)}: a .json holds no weights; save them as .safetensors")
        text = laid_out(_document(ir, target, inline)).encode("ascii")
        with (
            reading(target),
            writing(target, lambda _names, _alone: ()) as written,
            written.file(target.name) as file,
        ):
            file.write(text)
        return
    if state_dict is not None and is_distributed(state_dict):
        save_parts = imported("layergraph_distributed.save", "save_parts")
        save_parts(ir, path, state_dict, max_shard_size)
        return
    prepared = prepare(ir, target, max_shard_size)
    weights = {} if state_dict is None else weights_of(ir, state_dict)
    with reading(target), writing(target, partial(obsolete, target)) as written:
        _write(written, prepared, weights)


def is_distributed(state_dict: Mapping[str, object]) -> bool:
    """Return whether a state dict holds a tensor that is distributed over processes."""
    tensors = sys.modules.get("torch.distributed.tensor")  # before its import, none exist
    kind = getattr(tensors, "DTensor", None)
    return kind is not None and any(isinstance(each, kind) for each in state_dict.values())


@dataclass(frozen=True, slots=True)
class Prepared:
    """A structure, ready to be written with weights.

    Attributes:
        target: the path of the single file.
        metadata: the metadata of the file with the structure.
        values: the values of the structure that are stored as tensors.
        most: the most bytes of tensors in one file.
    """

    target: Path
    metadata: dict[str, str]
    values: dict[str, Item]
    most: int


def prepare(ir: Ir, target: Path, max_shard_size: int | str | None) -> Prepared:
    """Check a structure and a path, and return what a save of them writes.

    Raises:
        FileError, InvalidIrError: as for :func:`layergraph.save`.
    """
    _expect_writable(ir, target)
    if target.suffix != ".safetensors":
        raise FileError(f"{shown(target)}: give it the suffix .safetensors or .json")
    most = sys.maxsize if max_shard_size is None else bytes_of(max_shard_size)
    values: dict[str, Item] = {}

    def write_value(spec: TensorSpec) -> dict[str, str]:
        name = f"{VALUE_PREFIX}{len(values)}"
        values[name] = _value(spec)
        return {"tensor": name}

    document = compact(_document(ir, target, write_value))
    return Prepared(target, {"format": "pt", FORMAT: document}, values, most)


def _document(ir: Ir, target: Path, write_value: WriteValue) -> dict[str, Any]:
    with reading(target):
        return to_document(ir, homes_of(ir), write_value, kinds_of(ir))


def _expect_writable(ir: Ir, target: Path) -> None:
    check(ir)
    with reading(target):
        check_writable(ir)
    refuse_unlisted(ir, target)


def refuse_unlisted(ir: Ir, path: Path) -> None:
    """Refuse calls of functions that no plugin lists: a loader would not find them by name."""
    found = list(unlisted(ir, Targets(default_ir2torch().hooks.named_functions())))
    if found:
        calls = [f"{place}: {name!r}; {listing(name)}" for place, name in found]
        raise FileError(
            "\n  ".join([f"{shown(path)}: no installed plugin lists these functions:", *calls])
        )


def homes_of(ir: Ir) -> dict[str, str]:
    """Return, for each function of a plugin that an IR calls, the plugin's distribution."""
    called = {
        node.implementation: None
        for each in ir.values()
        for graph in each.graphs
        for node in graph.nodes.values()
        if node.type == FUNCTION and not is_own(node.implementation)
    }
    homes = function_homes() if called else {}
    return {name: homes[name] for name in called if name in homes}


def kinds_of(ir: Ir) -> dict[str, str]:
    """Return, for each tensor kind in an IR, the distribution that lists the kind."""
    specs = [spec for each in ir.values() for spec in each.tensors.values()]
    named = dict.fromkeys(spec.packed.kind for spec in specs if spec.packed is not None)
    homes = kind_homes() if named else {}
    return {kind: homes[kind] for kind in named if kind in homes}


def _value(spec: TensorSpec) -> Item:
    """Return the value of a constant or buffer: a tensor of its dtype, or bytes if none fits."""
    value = spec.value or b""
    dtype = spec.dtype or "float32"
    if spec.shape is not None and dtype in CODES:
        item = Item(dtype, spec.shape, value)
        if item.length == len(value):
            return item
    return Item("uint8", (len(value),), value)


def weights_of(ir: Ir, state_dict: Mapping[str, torch.Tensor]) -> dict[str, Item]:
    """Check a state dict, and return the tensors to write, by key."""
    converter = default_ir2torch()
    tensors, kinds = converter.tensors(ir), converter.hooks.tensor_kinds
    given = under_plain_keys(tensors, state_dict)
    listed, state_dict = flat(tensors, given, kinds, packed_in(tensors, kinds))
    wanted = fitting(listed, state_dict)
    weights: dict[str, Item] = {}
    for names in names_of(wanted).values():
        given = {name: without_class(state_dict[name]) for name in names if name in state_dict}
        like = wanted[names[0]]
        tensor = next(iter(given.values()))
        for name, each in given.items():
            if each.is_meta:
                raise StateError(f"{name!r} is on the meta device and has no values")
            if not is_same(tensor, each):
                raise unlike(names[0], name)
        check_cast(names[0], tensor.dtype, like.dtype)
        weights[names[0]] = item_like(like, tensor)
    return weights


def unlike(one: str, other: str) -> StateError:
    """Return the error for two keys of one tensor that have different values."""
    return StateError(
        f"{one!r} and {other!r} are one tensor in the model, but differ in the state dict; give "
        "one of them"
    )


def check_cast(key: str, dtype: torch.dtype, wanted: torch.dtype) -> None:
    """Check that the numbers of a state dict can be cast to those of the model.

    Raises:
        StateError: they are of another kind.
    """
    if not torch.can_cast(dtype, wanted):
        raise StateError(f"{key!r} is of {dtype} where {wanted} is wanted")


def item_like(like: torch.Tensor, source: torch.Tensor | bytes) -> Item:
    """Return a tensor of the model as it is written.

    Args:
        like: the tensor of the model.
        source: the values to write; empty if they are written apart.
    """
    stored = disguised(like)
    dtype = str(stored.dtype).removeprefix("torch.")
    return Item(dtype, tuple(stored.shape), source, like.dtype)


def is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors have equal bits."""
    # The common case: tied tensors of state_dict() are two views of one memory.
    if lie_alike(one, other):
        return True
    if one.dtype is not other.dtype:
        return False
    bits = [each.detach().cpu().contiguous().flatten().view(torch.uint8) for each in (one, other)]
    return torch.equal(*bits)


def _write(written: Written, prepared: Prepared, weights: dict[str, Item]) -> None:
    """Write the files of a model."""
    parts = shards_of(prepared, weights)
    if len(parts) == 1:
        write_part(written, prepared.target.name, parts[0], prepared.metadata)
        return
    # The digest detects a mix of files from two saves.
    files = files_of(prepared, parts, _digest(prepared.metadata[FORMAT], parts))
    for (name, metadata), part in zip(files.items(), parts, strict=True):
        write_part(written, name, part, metadata)
    write_index(written, prepared.target, files, parts)


def shards_of(prepared: Prepared, weights: dict[str, Item]) -> list[dict[str, Item]]:
    """Distribute the tensors of a model over files. The first file holds the structure."""
    # load() opens no weights, so that all values of the structure belong in the first file.
    everything = prepared.values | weights
    if sum(item.length for item in everything.values()) <= prepared.most:
        return [everything]
    shards = split([(name, item.length) for name, item in weights.items()], prepared.most)
    parts = [{name: weights[name] for name in shard} for shard in shards]
    parts[0] = prepared.values | parts[0]
    return parts


def files_of(
    prepared: Prepared, parts: Sequence[Mapping[str, Item]], save: str
) -> dict[str, dict[str, str]]:
    """Return the metadata of the files of a model in several files, by their names.

    Args:
        prepared: the structure.
        parts: the tensors of each file.
        save: the digest of the save.
    """
    names = shard_names(prepared.target, len(parts), save)
    return {
        name: {SAVE_KEY: save} | ({"format": "pt"} if at else prepared.metadata)
        for at, name in enumerate(names)
    }


def write_index(
    written: Written,
    target: Path,
    files: Mapping[str, Mapping[str, str]],
    parts: Sequence[Mapping[str, Item]],
) -> None:
    """Write the index of a model in several files."""
    homes = {key: name for name, part in zip(files, parts, strict=True) for key in part}
    total = sum(item.length for part in parts for item in part.values())
    index = index_document(homes, total, next(iter(files.values()))[SAVE_KEY])
    with written.file(index_path(target).name) as file:
        file.write((json.dumps(index, indent=1) + "\n").encode("ascii"))


def _digest(document: str, parts: Iterable[Mapping[str, Item]]) -> str:
    """Return a digest of a model. Two saves of equal models have equal digests."""
    digest = hashlib.sha256(document.encode())
    for part in parts:
        header, order = header_of(part, {})
        digest.update(header)
        for name in order:
            part[name].give(digest.update)
    return digest.hexdigest()


def header_of(items: Mapping[str, Item], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """Return the bytes of a file up to its data, and its tensors in the order of their data."""
    return new_header([(name, each.dtype, each.shape) for name, each in items.items()], metadata)


def write_part(
    written: Written, name: str, items: Mapping[str, Item], metadata: Mapping[str, str]
) -> None:
    """Write one file of a model.

    Args:
        written: the atomic write.
        name: the name of the file.
        items: the tensors.
        metadata: the texts of ``__metadata__``, by name.
    """
    header, order = header_of(items, metadata)
    with written.file(name) as file:
        file.write(header)
        for each in order:
            items[each].give(file.write)
