"""Builds layers without memory for what the file holds, and with a bound for the rest."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from layergraph.errors import FileError
from layergraph.function_table import FACTORIES
from layergraph.ir2torch.deferred_init import BLIND
from layergraph.state import all_tensors


@dataclass(frozen=True, slots=True)
class Allowance:
    """Bounds on the memory that building a model takes.

    Attributes:
        numbers: how many numbers one tensor may have.
        tensors: how many tensors there may be.
        bytes: how many bytes all of them would have.
        memory: how many bytes those may have that are made with memory.
    """

    numbers: int
    tensors: int
    bytes: int
    memory: int


class Budget(TorchFunctionMode):
    """While it is on, no more memory is taken for tensors than is allowed.

    A large tensor that a constructor makes is made on the meta device: the file is likely to hold
    its numbers. Where it turns out that something else needs them, a buffer that does not persist
    say, the layer is made once more, with memory, and every step is asked on the meta device first
    how much that is.

    Args:
        allowance: how much may be taken.
    """

    def __init__(self, allowance: Allowance) -> None:
        super().__init__()
        self._allowance = allowance
        self._tensors = 0
        self._bytes = 0
        self._memory = 0
        self._layer: object = None
        self._before = (0, 0, 0)
        # By layers that are made alike: what they take, and those that need the numbers.
        self._small: dict[object, tuple[int, int, int]] = {}
        self._filled: set[object] = set()
        self._defers = False
        self._deferred: list[weakref.ref[torch.Tensor]] = []

    def around(self, layer: object) -> Budget | None:
        """Itself, or None for a layer like one before that is small: it counts without a look."""
        if layer in self._small:
            self._defers = False
            self._take(*self._small[layer])
            return None
        self._layer = layer
        self._before = (self._tensors, self._bytes, self._memory)
        self._defers = layer is not None and layer not in self._filled
        self._deferred = []
        return self

    def accepts(self, module: object) -> bool:
        """Return whether a layer can stay as it was made; if not, it has to be made once more.

        Args:
            module: the layer; None if it could not be made.
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

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, if what it gives is not too large."""
        kwargs = kwargs or {}
        if func in BLIND:
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
        """Remember the tensors without memory in a function's result, and return the result."""
        if self._defers:
            several = result if isinstance(result, tuple | list) else (result,)
            for each in several:
                # Parameters are looked at in the layer.
                if type(each) is torch.Tensor and each.is_meta:
                    self._deferred.append(weakref.ref(each))
        return result

    def _ask(self, func: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Count what a function would make of tensors."""
        try:
            args, kwargs = pytree.tree_map_only(
                torch.Tensor, lambda tensor: tensor.detach().to("meta"), (args, kwargs)
            )
            made = func(*args, **kwargs)
        except Exception:  # It is about to be run, and raises by itself.
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
            f"its layers want {count} {what}, more than {most}; if you trust the file, "
            f"give Limits({name}=…)"
        )


# Tensors with less numbers are made in less time than it takes to put that off.
_LARGE = 1024


def _is_large(tensor: torch.Tensor) -> bool:
    return tensor.numel() >= _LARGE


def _takes_memory(value: Any) -> bool:
    """Return whether what is computed of a value may take much memory."""
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
