"""Deferred initialisation: skip random weights that a state dict overwrites."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from layergraph.tensors.memory import fills_its_storage, start_of_storage

# The functions of torch.nn.init, and those that it calls: they fill a tensor in place, and do not
# read its old numbers.
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
"""Functions that read the metadata of a tensor, and not its numbers."""

# Functions that return a view, except __getitem__ with some indices.
_VIEWS = frozenset(
    [torch.Tensor.__getitem__, torch.Tensor.detach, torch.Tensor.data.__get__]  # type: ignore[attr-defined]
)

# For fewer numbers, filling takes less time than deferring.
_WORTH_IT = 4096


@dataclass(frozen=True, slots=True)
class _Fill:
    """A deferred call."""

    tensor: torch.Tensor
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class DeferredInit(TorchFunctionMode):
    """A function mode that defers the filling of a parameter until code reads the parameter.

    A state dict overwrites most parameters before any code reads them, and a constructor spends
    nearly all of its time on random numbers. Code that reads a parameter, or memory that the
    parameter shares, finds it filled. Only the order of random numbers differs.
    """

    def __init__(self) -> None:
        super().__init__()
        # By the address of the storage, because several tensors may share one. The tensors stay
        # alive, so that no new tensor gets the address.
        self._waiting: dict[int, list[_Fill]] = {}
        self._layer: object = None
        self._without: set[object] = set()
        self._has_put_off = False
        self._tried: set[tuple[object, ...]] = set()

    def around(self, layer: object) -> DeferredInit | None:
        """Return this mode; None for a layer like an earlier one that deferred nothing."""
        self._layer, self._has_put_off = layer, False
        return None if layer in self._without and not self._waiting else self

    def accepts(self, module: object) -> bool:  # noqa: ARG002
        """Return whether to keep a layer. If not, the handler runs once more.

        Args:
            module: the layer; None if the handler failed.
        """
        return True

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
        """Run a function of torch or defer it; first fill the tensors that it reads."""
        kwargs = kwargs or {}
        fills = func in _FILLS
        if not fills and func in BLIND:
            return func(*args, **kwargs)
        if not fills and not self._waiting:
            return self._call(func, args, kwargs)
        tensors = _tensors(args, kwargs)
        if fills and self._may_wait(tensors, kwargs):
            self._try(func, args, kwargs)
            self._has_put_off = True
            # A tensor on meta has no numbers to fill.
            if not tensors[0].is_meta:
                fill = _Fill(tensors[0], func, args, kwargs)
                self._waiting.setdefault(start_of_storage(tensors[0]), []).append(fill)
            return tensors[0]
        if func in _VIEWS and self.waits(tensors[0]):
            view = self._call(func, args, kwargs)
            if start_of_storage(view) == start_of_storage(tensors[0]):
                return view
        self.run(tensors)
        return self._call(func, args, kwargs)

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function of torch that is not deferred."""
        return func(*args, **kwargs)

    def _may_wait(self, tensors: list[torch.Tensor], kwargs: dict[str, Any]) -> bool:
        # Another tensor, or a generator, may change before the deferred call.
        if len(tensors) != 1 or kwargs.get("generator") is not None:
            return False
        tensor = tensors[0]
        if type(tensor) is nn.Parameter and (tensor.is_meta or tensor.numel() >= _WORTH_IT):
            return tensor.is_meta or start_of_storage(tensor) != 0
        return self.waits(tensor)

    def waits(self, tensor: torch.Tensor) -> bool:
        """Return whether a deferred call fills the memory of a tensor."""
        return bool(self._waiting) and start_of_storage(tensor) in self._waiting

    def run(self, tensors: Iterable[torch.Tensor]) -> None:
        """Run the deferred calls for some tensors."""
        for tensor in tensors:
            if self._waiting:
                self._run(start_of_storage(tensor))

    def forget(self, tensors: Iterable[torch.Tensor]) -> None:
        """Drop the deferred calls for some tensors, which the caller will overwrite or drop."""
        for tensor in tensors:
            # Another tensor may share the storage, and needs the calls.
            if self.waits(tensor) and fills_its_storage(tensor):
                del self._waiting[start_of_storage(tensor)]

    def run_all(self) -> None:
        """Run all deferred calls."""
        for memory in list(self._waiting):
            self._run(memory)

    def convert(self, tensor: torch.Tensor, dtype: torch.dtype) -> None:
        """Change the dtype of a tensor, which remains the same object."""
        fills = self._waiting.get(start_of_storage(tensor), [])
        if not fills or any(fill.tensor is not tensor for fill in fills):
            self.run([tensor])
            tensor.data = tensor.data.to(dtype)
            return
        del self._waiting[start_of_storage(tensor)]
        tensor.data = torch.empty_like(tensor.data, dtype=dtype)
        self._waiting[start_of_storage(tensor)] = fills

    def _run(self, memory: int) -> None:
        fills = self._waiting.pop(memory, ())
        if fills:
            with torch.no_grad():
                for fill in fills:
                    fill.function(*fill.args, **fill.kwargs)

    def _try(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Call the function on small tensors, so that it raises now for invalid arguments."""

        def described(value: Any) -> object:
            is_tensor = isinstance(value, torch.Tensor)
            return (value.ndim, value.dtype) if is_tensor else repr(value)

        def small(value: Any) -> Any:
            is_tensor = isinstance(value, torch.Tensor)
            return value.new_empty((1,) * value.ndim) if is_tensor else value

        call = (
            function,
            *map(described, args),
            *((key, described(value)) for key, value in kwargs.items()),
        )
        # Layers of one class and size make equal calls.
        if call not in self._tried:
            args = tuple(map(small, args))
            function(*args, **{key: small(value) for key, value in kwargs.items()})
            self._tried.add(call)


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """Return the tensors in nested arguments."""
    nested = not all(type(each) in _FLAT for each in (*args, *kwargs.values()))
    listed = pytree.tree_leaves((args, kwargs)) if nested else (*args, *kwargs.values())
    return [each for each in listed if isinstance(each, torch.Tensor)]


_FLAT = frozenset({nn.Parameter, torch.Tensor, bool, int, float, str, type(None)})
