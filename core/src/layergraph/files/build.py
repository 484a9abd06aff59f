"""From open files to a model, within limits."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from layergraph.convert import default_ir2torch
from layergraph.errors import BuildError, FileError, PluginError, StateError
from layergraph.files.container import CODES, Stored
from layergraph.files.limits import Limits
from layergraph.files.opening import Opened, Part
from layergraph.functions import FACTORIES, Functions
from layergraph.ir import FUNCTION, Ir
from layergraph.ir2torch.converter import device_of
from layergraph.ir2torch.load import Key
from layergraph.ir2torch.skeleton import Skeleton
from layergraph.ir2torch.tree import post_order


def build(
    model: Opened,
    device: torch.device | str | int | None,
    dtype: torch.dtype | None,
    limits: Limits,
) -> nn.Module:
    """Build the model that open files hold: see :func:`layergraph.load_model`."""
    with _in_file(model):
        if dtype is not None and not dtype.is_floating_point:
            raise StateError(f"{dtype} is no floating dtype; give one, or none")
        target = device_of(device)
        skeleton = _skeleton(model, limits)
        return skeleton.fill(_weights(model, skeleton.listed), target, dtype)


def build_skeleton(model: Opened, limits: Limits) -> Skeleton:
    """Build the structure that open files hold, whether or not they hold weights.

    Raises:
        FileError, BuildError, PluginError: as for :func:`layergraph.load_model`.
    """
    with _in_file(model):
        return _skeleton(model, limits)


def _skeleton(model: Opened, limits: Limits) -> Skeleton:
    converter = default_ir2torch()
    _check_paths(model.ir, limits)
    _check_functions(model, Functions(converter.hooks.named_functions()))
    largest = max((stored.numbers for _, stored in model.weights.values()), default=0)
    values = [spec.value for each in model.ir.values() for spec in each.tensors.values()]
    largest = max(largest, *(len(value or b"") for value in values), limits.tensor_numbers)
    most = max(limits.tensors, 4 * (len(model.weights) + len(values)))
    return converter.skeleton(model.ir, _Budget(limits, largest, most))


@contextmanager
def _in_file(model: Opened) -> Iterator[None]:
    """Say which file it was that no model could be made of."""
    try:
        yield
    except (BuildError, StateError, PluginError, FileError) as error:
        raise type(error)(f"{model.path}: {error}") from error.__cause__


# --- what a file may ask for ---


class _Budget(TorchFunctionMode):
    """While it is on, no more memory is taken for tensors than the limits allow.

    What makes tensors from nothing is asked on the meta device first how large they would be.

    Args:
        limits: how much may be taken.
        largest: how many numbers one tensor may have.
        most: how many tensors there may be.
    """

    def __init__(self, limits: Limits, largest: int, most: int) -> None:
        super().__init__()
        self._most = most
        self._limits = limits
        self._largest = largest
        self._tensors = 0
        self._bytes = 0
        self._layer: object = None
        self._before = (0, 0)
        self._wanted: dict[object, tuple[int, int]] = {}

    def around(self, layer: object) -> _Budget | None:
        """Itself, or None for a layer like one before, whose tensors are counted without a look."""
        if layer in self._wanted:
            self._take(*self._wanted[layer])
            return None
        self._layer, self._before = layer, (self._tensors, self._bytes)
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        if self._layer is not None:
            tensors, bytes_ = self._before
            self._wanted[self._layer] = self._tensors - tensors, self._bytes - bytes_

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, if what it gives is not too large."""
        kwargs = kwargs or {}
        if func in _FACTORIES:
            self._count(func(*args, **{**kwargs, "device": "meta"}))
            return func(*args, **kwargs)
        if func in _ENLARGING and args and isinstance(args[0], torch.Tensor):
            self._count(func(args[0].detach().to("meta"), *args[1:], **kwargs))
        return func(*args, **kwargs)

    def _count(self, made: object) -> None:
        if isinstance(made, torch.Tensor):
            self._allow("numbers in one tensor", made.numel(), "tensor_numbers", self._largest)
            self._take(1, made.nbytes)

    def _take(self, tensors: int, bytes_: int) -> None:
        self._tensors += tensors
        self._bytes += bytes_
        self._allow("tensors", self._tensors, "tensors", self._most)
        self._allow("bytes in tensors", self._bytes, "tensor_bytes", self._limits.tensor_bytes)

    def _allow(self, what: str, count: int, name: str, most: int) -> None:
        if count > most:
            raise FileError(
                f"its layers want {count} {what}, more than {most}; if you trust the file, "
                f"give Limits({name}=…)"
            )


_FACTORIES = frozenset(
    getattr(torch, name) for name in FACTORIES if name not in ("as_tensor", "asarray", "tensor")
)
_ENLARGING = frozenset(
    getattr(torch.Tensor, name)
    for name in "clone repeat new_empty new_full new_ones new_zeros tile repeat_interleave".split()
)


def _check_paths(ir: Ir, limits: Limits) -> None:
    """Refuse a model with too many paths: a few modules under two names each make millions."""
    counts: dict[str, int] = {}
    for name in post_order(ir):
        counts[name] = 1 + sum(counts[each] for each in (ir[name].children or {}).values())
        if counts[name] > limits.modules:
            raise FileError(
                f"implementation {name!r} holds more than {limits.modules} modules, by their "
                "paths; if you trust it, give Limits(modules=…)"
            )


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def _check_functions(model: Opened, known: Functions) -> None:
    """Name the plugin that is missing."""
    for each in model.ir.values():
        for graph in each.graphs:
            for node in graph.nodes.values():
                home = model.functions.get(node.implementation)
                if node.type != FUNCTION or home is None:
                    continue
                if known.target(node.implementation) is None:
                    said = home if _NAME.fullmatch(home) else repr(home)
                    raise FileError(
                        f"implementation {each.name!r}, node {node.name!r}: the function "
                        f"{node.implementation!r} is one that a plugin adds; the file says that "
                        f"it was {said}: install it if you trust it"
                    )


# --- the weights, where they lie in the file ---


def _weights(model: Opened, listed: Sequence[Key]) -> dict[str, torch.Tensor]:
    """The state dict that lies in the files, as far as can be without a copy."""
    wanted = {key: tensor for key, tensor, persists in listed if persists}
    if wanted and not model.weights:
        raise StateError(
            "it holds no weights; give them to layergraph.save, or build the model with weights "
            "of its own: layergraph.to_torch(layergraph.load(…))"
        )
    found = mapped(model.weights)
    for name, tensor in found.items():
        if name in wanted:
            found[name] = undisguised(tensor, wanted[name].dtype)
    return found


def mapped(stored: Mapping[str, tuple[Part, Stored]]) -> dict[str, torch.Tensor]:
    """The tensors of open files by name, as far as can be without a copy."""
    maps: dict[Path, mmap.mmap] = {}
    found = {}
    for name, (part, each) in stored.items():
        if part.path not in maps:
            maps[part.path] = mmap.mmap(part.file.fileno(), 0, access=mmap.ACCESS_COPY)
        found[name] = _tensor(maps[part.path], part.header.data, each)
    return found


def _tensor(mapped: mmap.mmap, data: int, stored: Stored) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, stored.dtype)
    if not stored.length:
        return torch.empty(stored.shape, dtype=dtype)
    offset = data + stored.start
    if offset % 64 == 0:
        count = stored.length // dtype.itemsize
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset).view(stored.shape)
    # Kernels round otherwise at other places than torch's own; a copy lies at such a one.
    raw = torch.frombuffer(mapped, dtype=torch.uint8, count=stored.length, offset=offset)
    return raw.clone().view(dtype).view(stored.shape)


def disguised(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor as files hold it: as bytes, if they have no name for its dtype."""
    if str(tensor.dtype).removeprefix("torch.") in CODES:
        return tensor
    return tensor.unsqueeze(-1).view(torch.uint8)


def undisguised(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of a file as it was, if it is one of a dtype that files have no name for."""
    is_bytes = tensor.dtype is torch.uint8 and tensor.shape[-1:] == (dtype.itemsize,)
    if str(dtype).removeprefix("torch.") in CODES or not is_bytes:
        return tensor
    # A copy lies where numbers of any dtype may lie; the bytes in the file need not.
    return tensor.clone().view(dtype).squeeze(-1)
