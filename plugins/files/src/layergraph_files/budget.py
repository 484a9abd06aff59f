"""A memory budget for building layers. Tensors that the file holds are built without memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from layergraph.errors import FileError
from layergraph.functions.table import FACTORIES
from layergraph.ir2torch.deferred_init import DeferredInit
from layergraph.tensors.state import all_tensors


@dataclass(frozen=True, slots=True)
class Allowance:
    """The bounds of a :class:`Budget`.

    Attributes:
        numbers: the most numbers in one tensor.
        tensors: the most tensors.
        bytes: the most bytes of all tensors together.
        memory: the most bytes of the tensors that take memory.
    """

    numbers: int
    tensors: int
    bytes: int
    memory: int


class Budget(DeferredInit):
    """A deferred initialisation that limits the memory of the tensors that constructors make.

    The mode makes a large tensor on the meta device, because the file probably holds its values. If
    the layer keeps such a tensor where the file has no value for it, for example in a buffer that
    does not persist, the handler runs once more with memory. Before each function of torch in that
    run, the mode computes on the meta device how much memory the result takes.

    Args:
        allowance: the bounds.
    """

    def __init__(self, allowance: Allowance) -> None:
        super().__init__()
        self._allowance = allowance
        self._tensors = 0
        self._bytes = 0
        self._memory = 0
        self._before = (0, 0, 0)
        # Equal layers are built alike, so record by layer the cost of a small one, and that a layer
        # needs memory.
        self._small: dict[object, tuple[int, int, int]] = {}
        self._filled: set[object] = set()
        self._counts = False
        self._defers = False
        self._deferred: list[weakref.ref[torch.Tensor]] = []

    def around(self, layer: object) -> DeferredInit | None:
        """Return this mode; None for a layer equal to an earlier small one: its cost is known."""
        deferring = super().around(layer)
        self._counts = layer not in self._small
        self._defers = self._counts and layer is not None and layer not in self._filled
        self._deferred = []
        if not self._counts:
            self._take(*self._small[layer])
            return deferring
        self._before = (self._tensors, self._bytes, self._memory)
        return self

    def accepts(self, module: object) -> bool:
        """Return whether to keep a layer. If not, the handler runs once more, with memory.

        Args:
            module: the layer; None if the handler failed.
        """
        if not self._deferred:
            taken = self._tensors, self._bytes, self._memory
            spent = [now - before for now, before in zip(taken, self._before, strict=True)]
            if self._defers:
                self._small.setdefault(self._layer, (spent[0], spent[1], spent[2]))
            return True
        held = (
            {id(tensor) for _, tensor, persists in all_tensors(module) if persists}
            if isinstance(module, nn.Module)
            else set()
        )
        left = [each for ref in self._deferred if (each := ref()) is not None]
        self._deferred = []
        if isinstance(module, nn.Module) and all(id(each) in held for each in left):
            return True
        self._filled.add(self._layer)
        self._tensors, self._bytes, self._memory = self._before
        return False

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function of torch, if its result is not too large."""
        if not self._counts:
            return func(*args, **kwargs)
        if func in _FACTORIES:
            made = func(*args, **{**kwargs, "device": "meta"})
            is_deferred = self._defers and isinstance(made, torch.Tensor) and _is_large(made)
            self._count(made, in_memory=not is_deferred)
            return self._noted(made) if is_deferred else func(*args, **kwargs)
        if func in _ENLARGING or any(map(_takes_memory, args)):
            self._ask(func, args, kwargs)
        return self._noted(func(*args, **kwargs))

    def _noted(self, result: Any) -> Any:
        """Record the meta tensors in a function's result, and return the result."""
        if self._defers:
            several = result if isinstance(result, tuple | list) else (result,)
            for each in several:
                # accepts() finds parameters in the layer.
                if type(each) is torch.Tensor and each.is_meta:
                    self._deferred.append(weakref.ref(each))
        return result

    def _ask(self, func: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Run a function on meta tensors, and count the memory of its result."""
        try:
            args, kwargs = pytree.tree_map_only(
                torch.Tensor, lambda tensor: tensor.detach().to("meta"), (args, kwargs)
            )
            made = func(*args, **kwargs)
        except Exception:  # the function runs next, and raises by itself
            return
        for each in made if isinstance(made, tuple | list) else (made,):
            is_new = isinstance(each, torch.Tensor) and not each._is_view()
            if is_new and not any(each is arg for arg in args):
                self._count(each, in_memory=True)

    def _count(self, made: object, *, in_memory: bool) -> None:
        if isinstance(made, torch.Tensor):
            most = self._allowance.numbers
            _allow("numbers in one tensor", made.numel(), "tensor_numbers", most)
            self._take(1, made.nbytes, made.nbytes if in_memory else 0)

    def _take(self, tensors: int, bytes_: int, memory: int) -> None:
        allowance = self._allowance
        self._tensors += tensors
        self._bytes += bytes_
        self._memory += memory
        _allow("tensors", self._tensors, "tensors", allowance.tensors)
        _allow("bytes in tensors", self._bytes, "tensor_bytes", allowance.bytes)
        _allow("bytes of memory", self._memory, "tensor_bytes", allowance.memory)


def _allow(what: str, count: int, name: str, most: int) -> None:
    if count > most:
        raise FileError(
            f"its layers create {count} {what}, more than {most}; if you trust the file, "
            f"give Limits({name}=…)"
        )


# Making a smaller tensor takes less time than deferring it.
_LARGE = 1024


def _is_large(tensor: torch.Tensor) -> bool:
    return tensor.numel() >= _LARGE


def _takes_memory(value: Any) -> bool:
    """Return whether a function's result may take much memory because an argument does."""
    if isinstance(value, tuple | list):
        return any(map(_takes_memory, value))
    return isinstance(value, torch.Tensor) and _is_large(value) and not value.is_meta


def _functions(home: Any, names: str) -> Iterator[Callable[..., Any]]:
    return (getattr(home, name) for name in names.split())


_FACTORIES = frozenset(
    getattr(torch, name) for name in FACTORIES if name not in ("as_tensor", "asarray", "tensor")
)
_ENLARGING = frozenset(
    _functions(
        torch.Tensor,
        "clone repeat new_empty new_full new_ones new_zeros tile repeat_interleave",
    )
)
