"""Functions that a written module needs, copied into it as they stand here.

Each one may use torch, the standard library and the other functions of this module, and nothing of
layergraph: a written module runs without it.
"""

from __future__ import annotations

import base64
import enum
import os
import warnings
import zlib
from collections.abc import Sized
from typing import Any

import torch
from torch import nn


class AssumptionError(Exception):
    """An input or a state for which this model does not hold."""


class CaptureError(AssumptionError):
    """An input that cannot be taken apart."""


def _same(value: Any, expected: Any) -> bool:
    """Return whether two plain values are equal and of one type."""
    if isinstance(value, (torch.SymBool, torch.SymInt, torch.SymFloat)):
        return bool(value == expected)
    if isinstance(expected, (list, tuple)):
        kind = tuple if isinstance(expected, tuple) else list
        is_alike = isinstance(value, kind) and len(value) == len(expected)
        return is_alike and all(map(_same, value, expected))
    if isinstance(expected, dict):
        is_alike = isinstance(value, dict) and list(value) == list(expected)
        return is_alike and all(_same(value[key], expected[key]) for key in expected)
    if isinstance(value, torch.device) and isinstance(expected, str):
        return str(value) == expected
    if isinstance(expected, float):
        return type(value) is float and repr(value) == repr(expected)
    return value is expected or (type(value) is type(expected) and value == expected)


def _assume(value: Any, expected: Any, where: str) -> None:
    """Raise if a value that decided a branch is different now."""
    if not _same(value, expected):
        now = "a tensor" if isinstance(value, torch.Tensor) else repr(value)
        raise AssumptionError(f"{where} was {expected!r} at capture, and now it is {now}")


def _assume_truth(value: Any, expected: bool, where: str, otherwise: str = "") -> None:
    """Raise if a tensor that decided a branch has another truth value now."""
    message = f"{where}: {otherwise}" if otherwise else f"{where} was {expected!r} at capture"
    if isinstance(value, torch.Tensor) and torch.compiler.is_compiling():
        torch._assert_async((value != 0) if expected else (value == 0), message)
    elif bool(value) is not expected:
        raise AssumptionError(message)


def _assume_device(value: Any, kind: str, expected: bool, where: str) -> None:
    """Warn if a tensor that decided a branch is on another kind of device than at capture."""
    if (value.device.type == kind) is not expected:
        warnings.warn(
            f"{where}: the input is on {value.device} now, not as at capture", stacklevel=2
        )


def _assume_environment(name: str, expected: str | None, where: str) -> None:
    """Raise if an environment variable has another value than at capture."""
    _assume(os.environ.get(name), expected, f"the environment's {name}, read in {where},")


def _assume_length(value: Any, expected: int, where: str) -> None:
    """Raise if a value that is unpacked has another length than at capture."""
    if len(value) != expected:
        raise AssumptionError(f"{where} takes {expected} parts, and here are {len(value)}")


def _assume_container(value: Any, kind: str, keys: Any, where: str) -> None:
    """Raise if a container has another class, keys or length than at capture."""
    _assume(type(value).__name__, kind, f"the class of {where}")
    if isinstance(value, dict):
        _assume(list(value), keys, f"the keys of {where}")
    elif isinstance(value, Sized):
        _assume(len(value), keys, f"the number of items of {where}")


def _assume_distinct(values: Any, where: str) -> None:
    """Raise if two inputs are one object, which they were not at capture."""
    if len({id(each) for each in values}) < len(values):
        raise AssumptionError(f"one object is twice among the inputs, and {where}")


def _assume_named(value: Any, kind: str, name: str, where: str) -> None:
    """Raise if an input is another member of an enumeration or function than at capture."""
    home = f"{value.__module__}." if getattr(value, "__module__", None) else ""
    now = f"{home}{getattr(value, '__qualname__', None)}"
    if isinstance(value, enum.Enum):
        now = f"{type(value).__qualname__}.{value.name}"
    _assume((type(value).__name__, now), (kind, name), where)


def _assume_tensor(value: Any, name: str, rank: Any = None, dtype: Any = None) -> None:
    """Raise if an input is not a tensor, or has another rank or dtype than at capture."""
    if not isinstance(value, torch.Tensor):
        raise AssumptionError(
            f"the input {name!r} was a tensor at capture, and now it is {value!r}"
        )
    if rank is not None and value.dim() != rank:
        raise AssumptionError(f"the input {name!r} had {rank} dimensions, and now {value.dim()}")
    if dtype is not None and value.dtype is not dtype:
        raise AssumptionError(f"the input {name!r} was of {dtype}, and now of {value.dtype}")


def _holds(check: Any, value: Any, *given: Any) -> bool:
    """Return whether a check lets a value pass."""
    try:
        check(value, *given)
    except AssumptionError:
        return False
    return True


def _choose(condition: Any, if_true: Any, if_false: Any) -> Any:
    """Return one of two values; None for a decision that the code has not come to."""
    if condition is None:
        return None
    return if_true if condition else if_false


def _loop(body: Any, turns: int, carried: Any = (), given: Any = (), collected: int = 0) -> Any:
    """Run a body in turns, each on the values that the turn before returned."""
    if turns < 0:
        raise AssumptionError(f"a loop has {turns} turns: the model was captured with more")
    lists: list[list[Any]] = [[] for _ in range(collected)]
    kept = len(carried)
    for turn in range(turns):
        values = body(turn, *carried, *given)
        carried = values[:kept]
        for each, value in zip(lists, values[kept:], strict=True):
            each.append(value)
    return (*carried, *lists)


def _bound(body: Any, *values: Any) -> Any:
    """Return a function that calls a body with more arguments."""

    def function(*args: Any) -> Any:
        return body(*args, *values)

    return function


def _vmap(
    body: Any, in_dims: Any, out_dims: Any, randomness: str, chunk_size: int | None, args: Any
) -> Any:
    """Call torch.vmap of a body."""
    return torch.vmap(body, in_dims, out_dims, randomness, chunk_size=chunk_size)(*args)


def _grad(body: Any, argnums: Any, has_aux: bool, args: Any) -> Any:
    """Call torch.func.grad of a body."""
    return torch.func.grad(body, argnums, has_aux)(*args)


def _grad_and_value(body: Any, argnums: Any, has_aux: bool, args: Any) -> Any:
    """Call torch.func.grad_and_value of a body."""
    return torch.func.grad_and_value(body, argnums, has_aux)(*args)


def _jvp(
    body: Any, primals: Any, tangents: Any, strict: bool = False, has_aux: bool = False
) -> Any:
    """Call torch.func.jvp of a body."""
    return torch.func.jvp(body, primals, tangents, strict=strict, has_aux=has_aux)


def _decoded(data: str, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a tensor of compressed bytes."""
    raw = bytearray(zlib.decompress(base64.b85decode(data)))
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(raw, dtype=torch.uint8).clone().view(dtype).reshape(shape)


def _strided(tensor: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """Return a copy of a tensor with other strides."""
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor.detach())


def _filled(container: nn.Module, children: dict[str, nn.Module | None]) -> nn.Module:
    """Return a container with children of any names."""
    for name, child in children.items():
        container.add_module(name, child)
    return container


class _WithConstants(nn.Module):
    """A module whose constants move with it, and keep their dtype in a cast.

    Some buffers do so in a cast to a narrower dtype.
    """

    _constants: tuple[str, ...] = ()
    _wide: tuple[tuple[str, torch.dtype], ...] = ()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        buffers: dict[str, Any] = self._buffers
        wide = dict(self._wide)
        before = {name: buffers[name] for name in (*self._constants, *wide)}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in before.items():
            now, dtype = buffers[name], wide.get(name)
            if dtype is None:
                buffers[name] = tensor.to(now.device)
            elif now.itemsize < dtype.itemsize:
                buffers[name] = tensor.to(now.device, dtype)
        return self
