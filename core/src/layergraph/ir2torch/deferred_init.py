"""Initial weights that nobody reads, because a state dict is about to overwrite them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from layergraph.tensors import fills_its_storage, start_of_storage

# What torch.nn.init is made of: in-place functions whose result does not depend on what was there.
_FILLS = frozenset(
    [getattr(nn.init, name) for name in "uniform_ normal_ constant_ kaiming_uniform_".split()]
    + [
        getattr(torch.Tensor, name)
        for name in (
            "bernoulli_ cauchy_ exponential_ fill_ geometric_ log_normal_ normal_ random_ "
            "uniform_ zero_"
        ).split()
    ]
)

BLIND = frozenset(
    [
        getattr(torch.Tensor, name)
        for name in (
            "__hash__ dim element_size is_complex is_contiguous is_floating_point ndimension "
            "nelement numel requires_grad_ size stride"
        ).split()
    ]
    + [
        getattr(torch.Tensor, name).__get__
        for name in (
            "device dtype grad grad_fn is_cpu is_cuda is_leaf is_meta layout ndim requires_grad "
            "shape"
        ).split()
    ]
)
"""They tell something of a tensor, but nothing of what is in it."""

# Tensors that share the memory of the one they are made of, but for some indices.
_VIEWS = frozenset(
    [torch.Tensor.__getitem__, torch.Tensor.detach, torch.Tensor.data.__get__]  # type: ignore[attr-defined]
)

# Filling fewer numbers than that takes less time than putting it off.
_WORTH_IT = 4096


@dataclass(frozen=True, slots=True)
class _Fill:
    """A call that was put off."""

    tensor: torch.Tensor
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class DeferredInit(TorchFunctionMode):
    """While it is on, filling a parameter waits until somebody reads the parameter.

    Most never are read before a state dict overwrites them, and drawing random numbers is nearly
    all of the time that a constructor takes. Nothing else is changed: whoever reads a parameter, or
    memory that it shares, finds it filled. Only the order in which random numbers are drawn is
    another one.
    """

    def __init__(self) -> None:
        super().__init__()
        # By the memory that waits, as more than one tensor may lie there. They are kept alive, so
        # that nobody else comes to lie there.
        self._waiting: dict[int, list[_Fill]] = {}
        self._layer: object = None
        self._without: set[object] = set()
        self._has_put_off = False
        self._tried: set[tuple[object, ...]] = set()

    def around(self, layer: object) -> DeferredInit | None:
        """Itself, or None for a layer like one before of which nothing was put off."""
        if layer in self._without and not self._waiting:
            return None
        self._layer, self._has_put_off = layer, False
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        if self._layer is not None and not self._has_put_off:
            self._without.add(self._layer)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, put it off, or run first what it must not overtake."""
        kwargs = kwargs or {}
        fills = func in _FILLS
        if not fills and (func in BLIND or not self._waiting):
            return func(*args, **kwargs)
        tensors = _tensors(args, kwargs)
        if fills and self._may_wait(tensors, kwargs):
            self._try(func, args, kwargs)
            self._has_put_off = True
            # Without memory there is nothing to fill.
            if not tensors[0].is_meta:
                fill = _Fill(tensors[0], func, args, kwargs)
                self._waiting.setdefault(_memory(tensors[0]), []).append(fill)
            return tensors[0]
        if func in _VIEWS and self.waits(tensors[0]):
            view = func(*args, **kwargs)
            if _memory(view) == _memory(tensors[0]):
                return view
        self.run(tensors)
        return func(*args, **kwargs)

    def _may_wait(self, tensors: list[torch.Tensor], kwargs: dict[str, Any]) -> bool:
        # Numbers that depend on another tensor or on a generator depend on when they are asked for.
        if len(tensors) != 1 or kwargs.get("generator") is not None:
            return False
        tensor = tensors[0]
        if type(tensor) is nn.Parameter and (tensor.is_meta or tensor.numel() >= _WORTH_IT):
            return tensor.is_meta or _memory(tensor) != 0
        return self.waits(tensor)

    def waits(self, tensor: torch.Tensor) -> bool:
        """Whether there is something to be filled into the memory of a tensor."""
        return bool(self._waiting) and _memory(tensor) in self._waiting

    def run(self, tensors: Iterable[torch.Tensor]) -> None:
        """Fill what waits of these."""
        for tensor in tensors:
            if self._waiting:
                self._run(_memory(tensor))

    def forget(self, tensors: Iterable[torch.Tensor]) -> None:
        """Do not fill these any more: they are about to be overwritten, or not needed."""
        for tensor in tensors:
            # Others may lie in the rest of the memory.
            if self.waits(tensor) and fills_its_storage(tensor):
                del self._waiting[_memory(tensor)]

    def run_all(self) -> None:
        """Fill what still waits."""
        for memory in list(self._waiting):
            self._run(memory)

    def convert(self, tensor: torch.Tensor, dtype: torch.dtype) -> None:
        """Give a tensor another dtype; it remains the same object."""
        fills = self._waiting.get(_memory(tensor), [])
        if not fills or any(fill.tensor is not tensor for fill in fills):
            self.run([tensor])
            tensor.data = tensor.data.to(dtype)
            return
        del self._waiting[_memory(tensor)]
        tensor.data = torch.empty_like(tensor.data, dtype=dtype)
        self._waiting[_memory(tensor)] = fills

    def _run(self, memory: int) -> None:
        fills = self._waiting.pop(memory, ())
        if fills:
            with torch.no_grad():
                for fill in fills:
                    fill.function(*fill.args, **fill.kwargs)

    def _try(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Raise now what the function would raise, for numbers that cannot be."""

        def said(value: Any) -> object:
            is_tensor = isinstance(value, torch.Tensor)
            return (value.ndim, value.dtype) if is_tensor else repr(value)

        def small(value: Any) -> Any:
            is_tensor = isinstance(value, torch.Tensor)
            return value.new_empty((1,) * value.ndim) if is_tensor else value

        told = (
            function,
            *map(said, args),
            *((key, said(value)) for key, value in kwargs.items()),
        )
        # Layers of one kind and size are filled alike.
        if told not in self._tried:
            args = tuple(map(small, args))
            function(*args, **{key: small(value) for key, value in kwargs.items()})
            self._tried.add(told)


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors among arguments, in whatever they are nested."""
    nested = not all(type(each) in _FLAT for each in (*args, *kwargs.values()))
    listed = pytree.tree_leaves((args, kwargs)) if nested else (*args, *kwargs.values())
    return [each for each in listed if isinstance(each, torch.Tensor)]


_FLAT = frozenset({nn.Parameter, torch.Tensor, bool, int, float, str, type(None)})


def _memory(tensor: torch.Tensor) -> int:
    """Where the memory of a tensor begins; zero for none, and for what is no plain tensor."""
    return start_of_storage(tensor)
