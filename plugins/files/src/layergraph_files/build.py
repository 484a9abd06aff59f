"""Building a model from open files, within limits."""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.api import default_ir2torch
from layergraph.elsewhere import imported
from layergraph.errors import BuildError, FileError, PluginError, StateError
from layergraph.functions.names import Targets
from layergraph.ir import FUNCTION
from layergraph.ir2torch.converter import device_of
from layergraph.ir2torch.load import Key
from layergraph.ir2torch.meta_model import MetaModel
from layergraph.tensors.kinds import TensorKinds
from layergraph.tensors.memory import numbers_of
from layergraph.undo import undoes
from layergraph_files.bounds import check_paths
from layergraph_files.budget import Allowance, Budget
from layergraph_files.container import ALIGNMENT, CODES, Stored
from layergraph_files.limits import Limits
from layergraph_files.parse_errors import reading, shown
from layergraph_files.reader import Opened, Part, shorter

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@undoes
def build(
    model: Opened,
    device: torch.device | str | int | None,
    dtype: torch.dtype | None,
    limits: Limits,
    mesh: DeviceMesh | None = None,
    plan: Any = None,
) -> nn.Module:
    """Build the model in open files: see :func:`layergraph.load_model`."""
    with _in_file(model):
        if dtype is not None and not dtype.is_floating_point:
            raise StateError(f"{dtype} is not a floating-point dtype; give one, or None")
        if mesh is not None or plan is not None:
            fill_parts = imported("layergraph_distributed.load", "fill_parts")
            meta_model = _skeleton(model, limits)
            _refuse_parts(meta_model)
            _expect_weights(model, meta_model.listed)
            filled: nn.Module = fill_parts(meta_model, model.weights, device, dtype, mesh, plan)
            return filled
        target = device_of(device)
        meta_model = _skeleton(model, limits)
        return meta_model.fill(_weights(model, meta_model), target, dtype)


@undoes
def build_meta_model(model: Opened, limits: Limits) -> MetaModel:
    """Build the model in open files on the meta device. The files may lack weights.

    Raises:
        FileError, BuildError, PluginError: as for :func:`layergraph.load_model`.
    """
    with _in_file(model):
        return _skeleton(model, limits)


def _skeleton(model: Opened, limits: Limits) -> MetaModel:
    converter = default_ir2torch()
    check_paths(model.ir, limits)
    _check_functions(model, Targets(converter.hooks.named_functions()))
    _check_kinds(model, converter.hooks.tensor_kinds)
    return converter.meta_model(model.ir, Budget(_allowance(model, limits)))


def _allowance(model: Opened, limits: Limits) -> Allowance:
    """Return the bounds for building a model, in proportion to its files."""
    stored = [each for _, each in model.weights.values()]
    specs = [spec for each in model.ir.values() for spec in each.tensors.values()]
    values = [len(each.value or b"") for spec in specs for each in spec.held()]
    held = sum(each.length for each in stored) + sum(values)
    numbers = [each.numbers for each in stored]
    tensors = _TENSORS + _TENSORS_EACH * len(model.ir) if limits.tensors is None else limits.tensors
    return Allowance(
        numbers=max([limits.tensor_numbers, *numbers, *values]),
        tensors=max(tensors, 4 * (len(stored) + len(specs))),
        bytes=_BYTES if limits.tensor_bytes is None else limits.tensor_bytes,
        memory=_MEMORY + 4 * held if limits.tensor_bytes is None else limits.tensor_bytes,
    )


# The bound on tensors: _TENSORS, and _TENSORS_EACH more for each layer.
_TENSORS_EACH, _TENSORS = 100, 1000
# The bound on bytes of all tensors. No real model has more.
_BYTES = 1 << 42
# The memory for tensors that the file does not hold.
_MEMORY = 1 << 28


@contextmanager
def _in_file(model: Opened) -> Iterator[None]:
    """Add the path of the file to errors."""
    try:
        yield
    except (BuildError, StateError, PluginError, FileError) as error:
        raise type(error)(f"{shown(model.path)}: {error}") from error.__cause__


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def _check_functions(model: Opened, known: Targets) -> None:
    """Raise, with the name of the distribution, if a plugin that lists a function is missing."""
    for each in model.ir.values():
        for graph in each.graphs:
            for node in graph.nodes.values():
                home = model.functions.get(node.implementation)
                if node.type != FUNCTION or home is None:
                    continue
                if known.target(node.implementation) is None:
                    raise FileError(
                        f"implementation {each.name!r}, node {node.name!r}: the function "
                        f"{node.implementation!r} {_from_plugin(home)}"
                    )


def _check_kinds(model: Opened, known: TensorKinds) -> None:
    """Raise, with the name of the distribution, if a plugin that lists a tensor kind is missing."""
    for each in model.ir.values():
        for name, spec in each.tensors.items():
            home = None if spec.packed is None else model.kinds.get(spec.packed.kind)
            if spec.packed is not None and home is not None and spec.packed.kind not in known:
                raise FileError(
                    f"implementation {each.name!r}, tensor {name!r}: the tensor kind "
                    f"{spec.packed.kind!r} {_from_plugin(home)}"
                )


def _from_plugin(home: str) -> str:
    plugin = home if _NAME.fullmatch(home) else repr(home)
    return f"comes from a plugin, {plugin} according to the file: install it if you trust it"


# --- weights, mapped from the file ---


def _weights(model: Opened, meta_model: MetaModel) -> dict[str, torch.Tensor]:
    """Return the state dict of the files. Tensors that are aligned in a file are mapped from it."""
    wanted = _expect_weights(model, meta_model.stored({})[0])
    found = mapped(model.weights)
    for name, tensor in found.items():
        if name in wanted:
            found[name] = undisguised(tensor, wanted[name].dtype)
    return found


def _refuse_parts(meta_model: MetaModel) -> None:
    """Refuse a model with a tensor that consists of parts: plans place plain tensors only."""
    for key, tensor, _ in meta_model.listed:
        packed = meta_model.packed.get(id(tensor))
        if packed is not None:
            raise StateError(
                f"{key!r} is a {packed.kind}, which consists of parts, and a plan places plain "
                "tensors only; load the model without a mesh and a plan"
            )


def _expect_weights(model: Opened, listed: Collection[Key]) -> dict[str, torch.Tensor]:
    """Return the tensors that the files have to hold, by key.

    Raises:
        StateError: the model has persistent tensors, and the files hold no weights.
    """
    wanted = {key: tensor for key, tensor, persists in listed if persists}
    if wanted and not model.weights:
        raise StateError(
            "it holds no weights; give them to layergraph.save, name a file that has them with "
            "weights=…, or build the model with newly initialised weights: "
            "layergraph.to_torch(layergraph.load(…))"
        )
    return wanted


def mapped(
    stored: Mapping[str, tuple[Part, Stored]], alignment: int = ALIGNMENT
) -> dict[str, torch.Tensor]:
    """Return the tensors of open files by name: mapped if they are aligned, copied if not.

    Args:
        stored: the places of the tensors.
        alignment: the alignment of a mapped tensor in bytes. The format allows no gaps, so some
            tensors are not aligned.

    Raises:
        FileError: a file cannot be mapped.
    """
    maps: dict[Path, mmap.mmap] = {}
    found = {}
    for name, (part, each) in stored.items():
        if part.path not in maps:
            maps[part.path] = _map(part)
        found[name] = _tensor(part, maps[part.path], each, alignment)
    return found


def _map(part: Part) -> mmap.mmap:
    with reading(part.path):
        try:
            return mmap.mmap(part.file.fileno(), part.header.end, access=mmap.ACCESS_COPY)
        except ValueError:  # the file became shorter
            raise shorter() from None


def _tensor(part: Part, mapped: mmap.mmap, stored: Stored, alignment: int) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, stored.dtype)
    offset = part.header.data + stored.start
    if stored.length and offset % alignment == 0 == offset % dtype.itemsize:
        count = stored.length // dtype.itemsize
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset).view(stored.shape)
    tensor = torch.empty(stored.shape, dtype=dtype, device="cpu")
    if stored.length:
        # Read, because a copy from mapped pages would take the memory twice.
        part.read_into(stored, numbers_of(tensor)[0])
    return tensor


def disguised(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous tensor, or its bytes if the format has no name for its dtype."""
    if str(tensor.dtype).removeprefix("torch.") in CODES:
        return tensor
    return tensor.unsqueeze(-1).view(torch.uint8)


def undisguised(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the tensor of bytes that :func:`disguised` made; any other tensor as it is."""
    is_bytes = tensor.dtype is torch.uint8 and tensor.shape[-1:] == (dtype.itemsize,)
    if str(dtype).removeprefix("torch.") in CODES or not is_bytes:
        return tensor
    # A copy, because the bytes in the file may not be aligned for the dtype.
    return tensor.clone().view(dtype).squeeze(-1)
