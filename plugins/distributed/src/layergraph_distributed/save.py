"""Saving a model from all processes at once: each writes the parts of the tensors that it holds.

The files are those of a plain save. Rank 0 creates them with their final size, and each process
writes its bytes to their offsets. So no process needs memory beyond its parts and a copy of one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from layergraph.api import default_ir2torch
from layergraph.errors import FileError, StateError
from layergraph.ir import Ir
from layergraph.ir2torch.load import fitting, names_of
from layergraph.ir2torch.wrapper_keys import under_plain_keys
from layergraph.tensors.memory import numbers_of, unsuitable
from layergraph_distributed.agreement import Agreement
from layergraph_distributed.parts import is_first_copy, local_of, placed, ranks_of, region_of
from layergraph_files.atomic import Written, writing
from layergraph_files.parse_errors import PathName, reading, shown
from layergraph_files.paths import to_path
from layergraph_files.regions import Region, spans, whole
from layergraph_files.save import (
    Item,
    Prepared,
    check_cast,
    files_of,
    header_of,
    is_same,
    item_like,
    prepare,
    shards_of,
    unlike,
    write_index,
)
from layergraph_files.shards import obsolete
from layergraph_files.versions import FORMAT


@dataclass(frozen=True, slots=True)
class _Own:
    """The part of a tensor that this process writes.

    Attributes:
        local: the local tensor, with the dtype of the model.
        cast: the dtype in the file.
        shape: the shape of the whole tensor in the file.
        width: the size of one element in the file, in bytes.
        region: the region of the local tensor in the whole tensor.
        ranks: the ranks over which the tensor is distributed; None: this rank has the whole tensor.
    """

    local: torch.Tensor
    cast: torch.dtype
    shape: tuple[int, ...]
    width: int
    region: Region
    ranks: frozenset[int] | None = None

    def give(self, receive: Callable[[int, memoryview], object]) -> int:
        """Pass each range of bytes and its offset to a function. Return the number of bytes."""
        numbers, _held = numbers_of(self.local.to(device="cpu", dtype=self.cast))
        at = 0
        for start, length in spans(self.shape, self.region, self.width):
            receive(start, numbers[at : at + length])
            at += length
        return at


def save_parts(
    ir: Ir,
    path: PathName,
    state_dict: Mapping[str, torch.Tensor],
    max_shard_size: int | str | None,
) -> None:
    """Write a model from all processes of the default group: see :func:`layergraph.save`.

    Args:
        ir: the structure, the same in all processes.
        path: the path, the same in all processes, on a file system that all processes see.
        state_dict: the tensors of this process: DTensors, of which it holds a part, and plain
            tensors, whose values are the same in all processes that have them.
        max_shard_size: as for :func:`layergraph.save`.

    Raises:
        FileError: a process cannot write its part, ends, or waits for too long.
        StateError: the weights do not fit the structure.
    """
    target = to_path(path, "save(ir, path, state_dict)")
    together = Agreement(target)
    saving = _Saving(together)
    told = together.take(lambda: saving.prepare(ir, target, state_dict, max_shard_size))
    together.take(lambda: saving.compare(target, told))
    parts = saving.parts
    with reading(target), ExitStack() as stack:
        if len(parts) > 1:
            saving.name(together.take(saving.digest))
        paths = together.take(lambda: saving.create(stack, target))[0]
        written = together.take(lambda: saving.write(paths))
        together.take(lambda: saving.finish(stack, sum(written)))


class _Saving:
    """One process's side of a save.

    Attributes:
        parts: the tensors of each file, without values.
    """

    def __init__(self, together: Agreement) -> None:
        self._rank = together.rank
        self._own: dict[str, _Own] = {}
        self._prepared: Prepared
        self._written: Written | None = None
        self._files: dict[str, dict[str, str]]
        self.parts: Sequence[Mapping[str, Item]] = []

    def prepare(
        self,
        ir: Ir,
        target: Path,
        state_dict: Mapping[str, torch.Tensor],
        max_shard_size: int | str | None,
    ) -> tuple[str, list[str]]:
        """Check the model, and return the data that the processes compare.

        Returns:
            A digest of the structure and of the layout of the files, and the tensors that are
            missing in this process.
        """
        self._prepared = prepare(ir, target, max_shard_size)
        weights, missing = self._weights(ir, state_dict)
        self.parts = shards_of(self._prepared, weights)
        self._files = {target.name: self._prepared.metadata}
        digest = hashlib.sha256(os.fsencode(target.name))
        for part in self.parts:
            digest.update(header_of(part, self._prepared.metadata)[0])
        if self._rank == 0:
            for name, value in self._prepared.values.items():
                self._own[name] = _whole(value)
        return digest.hexdigest(), missing

    def _weights(
        self, ir: Ir, state_dict: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Item], list[str]]:
        """Check a state dict, and return its tensors without values, and the missing ones."""
        listed = default_ir2torch().tensors(ir)
        state_dict = under_plain_keys(listed, state_dict)
        wanted = {key: tensor for key, tensor, persists in listed if persists}
        lacking = {
            names[0]: wanted[names[0]]
            for names in names_of(wanted).values()
            if not any(name in state_dict for name in names)
        }
        known = {key: _like(key, each) for key, each in state_dict.items()}
        fitting(listed, known | lacking)
        weights: dict[str, Item] = {}
        for names in names_of(wanted).values():
            key, like = names[0], wanted[names[0]]
            item = weights[key] = item_like(like, b"")
            given = {name: state_dict[name] for name in names if name in state_dict}
            if not given:
                continue
            first = next(iter(given.values()))
            for name, each in given.items():
                if not _is_same(first, each):
                    raise unlike(key, name)
            check_cast(key, first.dtype, like.dtype)
            region = region_of(key, first)
            if region is not None and len(item.shape) > like.ndim:
                region = [*region, *whole(item.shape[-1:])]
            if region is not None and is_first_copy(first):
                local, ranks = local_of(first), ranks_of(first)
                self._own[key] = _Own(local, like.dtype, item.shape, item.width, region, ranks)
        return weights, list(lacking)

    def compare(self, target: Path, told: list[tuple[str, list[str]]]) -> None:
        """Raise if the processes save different models, and decide which parts this one writes.

        Args:
            target: the path of the model, for errors.
            told: the result of :meth:`prepare` in each process.
        """
        for rank, (digest, _) in enumerate(told):
            if digest != told[0][0]:
                raise FileError(
                    f"{shown(target)}: ranks 0 and {rank} save different models or names; "
                    "call save with the same structure and path in all processes"
                )
        missing = [set(each) for _, each in told]
        nowhere = set.intersection(*missing)
        if nowhere:
            raise StateError(
                f"{shown(target)}: {min(nowhere)!r} is missing in the state dicts of all processes"
            )
        for key, own in self._own.items():
            for rank in sorted(own.ranks or ()):
                if key in missing[rank]:
                    raise StateError(
                        f"{shown(target)}: {key!r} is distributed over the ranks "
                        f"{sorted(own.ranks or ())}, but missing in the state dict of rank {rank}"
                    )
        # If several groups of ranks hold the same tensor, the group of the lowest rank writes it.
        for key, own in list(self._own.items()):
            first = next(rank for rank, each in enumerate(missing) if key not in each)
            if first not in (own.ranks or {self._rank}):
                del self._own[key]

    def digest(self) -> str:
        """Return a digest of the parts that this process writes."""
        digest = hashlib.sha256()
        for key in sorted(self._own):
            digest.update(key.encode())
            self._own[key].give(lambda _, numbers: digest.update(numbers))
        return digest.hexdigest()

    def name(self, digests: list[str]) -> None:
        """Name the files of a model in several files by the digests of all processes."""
        digest = hashlib.sha256(self._prepared.metadata[FORMAT].encode())
        for part in self.parts:
            digest.update(header_of(part, {})[0])
        digest.update("".join(digests).encode())
        self._files = files_of(self._prepared, self.parts, digest.hexdigest())

    def create(self, stack: ExitStack, target: Path) -> list[str]:
        """Create the files in rank 0, with their final size, and return their paths."""
        if self._rank:
            return []
        self._written = stack.enter_context(writing(target, partial(obsolete, target)))
        paths = []
        for (name, metadata), part in zip(self._files.items(), self.parts, strict=True):
            header, _ = header_of(part, metadata)
            with self._written.file(name) as file:
                file.write(header)
                file.truncate(len(header) + sum(item.length for item in part.values()))
            paths.append(self._written.staged(name))
        if len(self.parts) > 1:
            write_index(self._written, target, self._files, self.parts)
        return paths

    def write(self, paths: Sequence[str]) -> int:
        """Write the parts of this process into the files, and return the number of bytes."""
        count = 0
        for path, metadata, part in zip(paths, self._files.values(), self.parts, strict=True):
            if not self._own.keys() & part.keys():
                continue
            header, order = header_of(part, metadata)
            place = len(header)
            with reading(path), _existing(path) as file:
                for key in order:
                    if key in self._own:
                        count += self._own[key].give(partial(_write_at, file, place))
                    place += part[key].length
                os.fsync(file.fileno())
        return count

    def finish(self, stack: ExitStack, count: int) -> None:
        """In rank 0, move the files to their final paths if all bytes were written once."""
        total = sum(item.length for part in self.parts for item in part.values())
        if count != total:
            raise StateError(
                f"the processes hold {count} bytes of the tensors, but there are {total}; let each "
                "tensor have the same placements in all processes"
            )
        stack.close()


def _existing(path: str) -> FileIO:
    """Open a file that rank 0 created. A process that does not see it must not create its own."""
    flags = os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        return FileIO(os.open(path, flags), "wb")
    except FileNotFoundError as error:
        remedy = "save to a file system that all processes see"
        raise FileError(
            f"{shown(path)}: this process does not see the file that rank 0 created; {remedy}"
        ) from error


def _write_at(file: FileIO, place: int, start: int, numbers: memoryview) -> None:
    file.seek(place + start)
    done = 0
    while done < len(numbers):
        done += file.write(numbers[done:]) or 0


def _like(key: str, given: torch.Tensor) -> torch.Tensor:
    """Check a tensor, and return one on the meta device for a DTensor, any other as it is."""
    if not isinstance(given, DTensor):
        if isinstance(given, torch.Tensor) and given.is_meta:
            raise StateError(f"{key!r} is on the meta device and has no values")
        return given
    local = local_of(given)
    if local.is_meta:
        raise StateError(f"{key!r} is on the meta device and has no values")
    if reason := unsuitable(local):
        raise StateError(f"the part of {key!r} in this process {reason}")
    return torch.empty(given.shape, dtype=given.dtype, device="meta")


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors have equal placements and, in this process, equal bits."""
    return placed(one) == placed(other) and is_same(local_of(one), local_of(other))


def _whole(item: Item) -> _Own:
    """Return a value of the structure as a tensor that one process writes."""
    numbers = torch.frombuffer(bytearray(item.source), dtype=torch.uint8) if item.length else None
    local = torch.empty(0, dtype=torch.uint8) if numbers is None else numbers
    return _Own(local, torch.uint8, (item.length,), 1, whole((item.length,)))
