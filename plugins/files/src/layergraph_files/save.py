"""Models into files."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from layergraph.api import default_ir2torch
from layergraph.errors import ArgumentError, FileError, StateError
from layergraph.functions import is_own
from layergraph.ir import FUNCTION, Ir, TensorSpec, check
from layergraph.ir2torch.load import fitting, names_of
from layergraph.plugins import function_homes
from layergraph.tensors import lie_alike, numbers_of, without_class
from layergraph_files.atomic import Written, writing
from layergraph_files.bounds import check_writable
from layergraph_files.build import disguised
from layergraph_files.container import CODES, new_header
from layergraph_files.document import to_document
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
from layergraph_files.versions import FORMAT


@dataclass(frozen=True, slots=True)
class Item:
    """A tensor on its way into a file.

    Attributes:
        dtype: its dtype in the file, as torch calls it: ``"float32"``.
        shape: its size in the file.
        source: its numbers, where they are: they are fetched when their turn comes.
        cast: the dtype that a tensor is to have; None for bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    source: torch.Tensor | bytes
    cast: torch.dtype | None = None

    @property
    def length(self) -> int:
        """How many bytes it has."""
        width: int = getattr(torch, self.dtype).itemsize
        return math.prod(self.shape) * width

    def give(self, receive: Callable[[bytes | memoryview], object]) -> None:
        """Give its bytes away; at no time is there more than this one tensor twice."""
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
    """Write a model to a file: all of it, or nothing.

    A model that is there is replaced, be it in one file or in several. Until it is, and if the save
    fails or is killed, the old one can be loaded.

    Args:
        ir: the structure.
        path: where to. The suffix decides: ``.json`` is the structure as a text for people;
            ``.safetensors`` is the structure and the weights, for which any reader of that format
            finds the weights under the keys of the state dict.
        state_dict: the weights, under the keys of the original. They are written in the dtypes that
            the IR says, a tensor with several keys once, under the first of them. None: the file
            holds no weights.
        max_shard_size: how many bytes of tensors one file may hold, as a number or as in ``"5GB"``.
            A larger model is written to ``model-00001-of-00002-….safetensors`` and so on, with the
            index ``model.safetensors.index.json``. None: all goes to one file.

    Raises:
        ArgumentError: the arguments are in another order, or something else.
        InvalidIrError: the IR breaks a rule.
        BuildError: with weights: a layer cannot be built, to compare them with.
        StateError: the weights do not fit.
        FileError: the file cannot be written, or cannot hold the model.
    """
    target = _checked(ir, path, state_dict)
    check(ir)
    with reading(target):
        check_writable(ir)
    homes = _homes(ir)
    if target.suffix == ".json" and not target.name.endswith(INDEX_SUFFIX):
        if state_dict is not None:
            raise FileError(f"{shown(target)}: a .json holds no weights; save them as .safetensors")
        with (
            reading(target),
            writing(target, lambda _names, _alone: ()) as written,
            written.file(target.name) as file,
        ):
            file.write(laid_out(to_document(ir, homes)).encode("ascii"))
        return
    if target.suffix != ".safetensors":
        raise FileError(f"{shown(target)}: give it the suffix .safetensors or .json")
    most = sys.maxsize if max_shard_size is None else bytes_of(max_shard_size)
    weights = {} if state_dict is None else _weights(ir, state_dict)
    values: dict[str, Item] = {}

    def write_value(spec: TensorSpec) -> dict[str, str]:
        name = f"{VALUE_PREFIX}{len(values)}"
        values[name] = _value(spec)
        return {"tensor": name}

    structure = {"format": "pt", FORMAT: compact(to_document(ir, homes, write_value))}
    # What belongs to the structure comes first, so that it is in the same file.
    with reading(target), writing(target, partial(obsolete, target)) as written:
        _write(written, target, values | weights, structure, most)


def _checked(ir: object, path: object, state_dict: object) -> Path:
    """The path, if all arguments are in their places.

    Raises:
        ArgumentError: they are not.
    """
    call = "save(ir, path, state_dict)"
    if not isinstance(ir, Ir):
        raise ArgumentError(
            f"a {type(ir).__name__} stands where the Ir belongs: {call}; layergraph.to_ir(model) "
            "gives one"
        )
    if state_dict is not None and not isinstance(state_dict, Mapping):
        raise ArgumentError(
            f"a {type(state_dict).__name__} stands where the state dict belongs: {call}; "
            "model.state_dict() gives one"
        )
    return to_path(path, call)


def _homes(ir: Ir) -> dict[str, str]:
    """The functions of plugins that an IR calls, to the distributions that name them."""
    called = {
        node.implementation: None
        for each in ir.values()
        for graph in each.graphs
        for node in graph.nodes.values()
        if node.type == FUNCTION and not is_own(node.implementation)
    }
    homes = function_homes() if called else {}
    return {name: homes[name] for name in called if name in homes}


def _value(spec: TensorSpec) -> Item:
    """The value of a constant or buffer as a tensor that others can read, or as bytes."""
    value = spec.value or b""
    dtype = spec.dtype or "float32"
    if spec.kind is not None and spec.shape is not None and dtype in CODES:
        item = Item(dtype, spec.shape, value)
        if item.length == len(value):
            return item
    return Item("uint8", (len(value),), value)


def _weights(ir: Ir, state_dict: Mapping[str, torch.Tensor]) -> dict[str, Item]:
    """The tensors of a state dict that a file holds, by name, if they fit."""
    wanted = fitting(default_ir2torch().tensors(ir), state_dict)
    weights: dict[str, Item] = {}
    for names in names_of(wanted).values():
        given = {name: without_class(state_dict[name]) for name in names if name in state_dict}
        like = wanted[names[0]]
        tensor = next(iter(given.values()))
        for name, each in given.items():
            if each.is_meta:
                raise StateError(f"{name!r} is on the meta device and has no values")
            if not _is_same(tensor, each):
                raise StateError(
                    f"{names[0]!r} and {name!r} are one tensor in the model, but differ in the "
                    "state dict; give one of them"
                )
        if not torch.can_cast(tensor.dtype, like.dtype):
            raise StateError(f"{names[0]!r} is of {tensor.dtype} where {like.dtype} is wanted")
        stored = disguised(like)
        dtype = str(stored.dtype).removeprefix("torch.")
        weights[names[0]] = Item(dtype, tuple(stored.shape), tensor, like.dtype)
    return weights


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same numbers, to the bit."""
    # Most often they are two views of the same memory: state_dict() detaches.
    if lie_alike(one, other):
        return True
    if one.dtype is not other.dtype:
        return False
    bits = [each.detach().cpu().contiguous().flatten().view(torch.uint8) for each in (one, other)]
    return torch.equal(*bits)


def _write(
    written: Written,
    path: Path,
    items: Mapping[str, Item],
    structure: dict[str, str],
    most: int,
) -> None:
    """Write the files of a model.

    Args:
        written: where to put them.
        path: where the one file is to be, if it is one.
        items: what they are to hold; values come first.
        structure: the metadata that says what the model is.
        most: how many bytes of tensors one file may hold.
    """
    total = sum(item.length for item in items.values())
    if total <= most:
        _write_part(written, path.name, items, structure)
        return
    own = [name for name in items if name.startswith(VALUE_PREFIX)]
    rest = [(name, item.length) for name, item in items.items() if name not in set(own)]
    shards = split(rest, most)
    # The structure is read without the weights, so what belongs to it is in one file.
    shards[0] = own + shards[0]
    parts = [{name: items[name] for name in shard} for shard in shards]
    # Files of two saves must not be taken for one model, should somebody mix them.
    metadata = {SAVE_KEY: _digest(structure[FORMAT], parts)}
    homes: dict[str, str] = {}
    names = shard_names(path, len(parts), metadata[SAVE_KEY])
    for file_name, part in zip(names, parts, strict=True):
        said = metadata | ({"format": "pt"} if homes else structure)
        _write_part(written, file_name, part, said)
        homes |= dict.fromkeys(part, file_name)
    index = index_document(homes, total, metadata[SAVE_KEY])
    with written.file(index_path(path).name) as file:
        file.write((json.dumps(index, indent=1) + "\n").encode("ascii"))


def _digest(document: str, parts: Iterable[Mapping[str, Item]]) -> str:
    """What tells two saves apart: the same for the same model, as all of a file is."""
    digest = hashlib.sha256(document.encode())
    for part in parts:
        header, order = _header(part, {})
        digest.update(header)
        for name in order:
            part[name].give(digest.update)
    return digest.hexdigest()


def _header(items: Mapping[str, Item], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    return new_header([(name, each.dtype, each.shape) for name, each in items.items()], metadata)


def _write_part(
    written: Written, name: str, items: Mapping[str, Item], metadata: Mapping[str, str]
) -> None:
    header, order = _header(items, metadata)
    with written.file(name) as file:
        file.write(header)
        for each in order:
            items[each].give(file.write)
