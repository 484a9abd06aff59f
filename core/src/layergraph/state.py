"""Tensors and what an IR says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from layergraph.errors import BuildError, CaptureError
from layergraph.ir import Symbol, TensorSpec
from layergraph.literals import UnknownValueError, torch_value
from layergraph.tensors import PLAIN_CLASSES, extent, numbers_of, unsuitable

_USUAL_FLOAT = torch.float32


def usual_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that goes without saying where a layer makes a tensor of the given one."""
    if dtype.is_floating_point:
        return _USUAL_FLOAT
    # A layer that is made with numbers of one kind may have been given complex ones.
    return dtype if dtype.is_complex or dtype is torch.bool else torch.int64


def own_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """The parameters and buffers of a module itself: name, tensor, whether it persists.

    Parameters come first, as in a state dict.
    """
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter, True
    for name, buffer in module._buffers.items():
        if buffer is not None:
            yield name, buffer, name not in module._non_persistent_buffers_set


def all_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """The same, of a module and all that is inside it, under every name."""
    if not module._modules:
        yield from own_tensors(module)
        return
    for path, inner in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, tensor, persistent in own_tensors(inner):
            yield prefix + name, tensor, persistent


def with_tensors_like(module: nn.Module, known: dict[int, Any] | None = None) -> nn.Module:
    """A module that holds tensors of its own like those of another one, and does nothing.

    They lie in the same memory, so that this is for the meta device.

    Args:
        module: the other one.
        known: what became of its tensors and of the modules inside, by ``id``.
    """
    known = {} if known is None else known
    alike = nn.Module()
    known[id(module)] = alike
    alike._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    for held in ("_parameters", "_buffers"):
        mine = vars(alike)[held]
        for name, tensor in vars(module)[held].items():
            if tensor is not None and id(tensor) not in known:
                own = tensor.detach()
                is_parameter = isinstance(tensor, nn.Parameter)
                known[id(tensor)] = nn.Parameter(own, tensor.requires_grad) if is_parameter else own
            mine[name] = None if tensor is None else known[id(tensor)]
    for name, inner in module._modules.items():
        if inner is not None and id(inner) not in known:
            with_tensors_like(inner, known)
        alike._modules[name] = None if inner is None else known[id(inner)]
    return alike


def replace(owner: Any, name: str, tensor: torch.Tensor) -> None:
    """Put a tensor in the place of one of the same kind."""
    setter: Any = nn.Module.__setattr__
    if type(owner).__setattr__ is setter:
        # What that would do, after finding out what the tensor and its place are.
        members = owner._parameters if name in owner._parameters else owner._buffers
        members[name] = tensor
    else:
        setattr(owner, name, tensor)


class Memory:
    """Which tensor of a model lies where, so that none is taken for two."""

    def __init__(self) -> None:
        self._taken: dict[int, list[tuple[int, int, int, str]]] = {}

    def claim(self, tensor: torch.Tensor, key: str) -> None:
        """Note where a tensor lies. It has to stay alive as long as others are noted.

        Raises:
            CaptureError: it shares memory with another one: a change of one would change the other,
                but in a rebuilt model they would be two.
        """
        lies = extent(tensor)
        if lies is None:
            return
        storage, start, end = lies
        taken = self._taken.setdefault(storage, [])
        for other_start, other_end, identity, other in taken:
            if identity == id(tensor):
                return
            if start < other_end and other_start < end:
                raise CaptureError(
                    f"{key} shares memory with {other}, but is another tensor; register one tensor "
                    "under both names, or copy it"
                )
        taken.append((start, end, id(tensor), key))


def describe(tensor: torch.Tensor, key: str, *, persistent: bool, whole: bool) -> TensorSpec:
    """What an IR has to say of a tensor.

    Args:
        tensor: a parameter or buffer.
        key: its state-dict key, for errors.
        persistent: whether state dicts hold it.
        whole: whether to say all, because no constructor makes the tensor.

    Raises:
        UnrunnableError: the tensor is of a kind that an IR cannot describe.
        CaptureError: it is a buffer that wants gradients.
    """
    _refuse_unsuitable(tensor, repr(key))
    is_parameter = isinstance(tensor, nn.Parameter)
    if tensor.requires_grad and not is_parameter:
        raise CaptureError(
            f"{key} wants gradients, but is a buffer; register it as a parameter, or detach it"
        )
    spec = TensorSpec()
    if whole:
        spec.kind = "parameter" if is_parameter else "buffer"
        spec.shape = tuple(tensor.shape)
    said = whole or tensor.dtype.is_complex
    spec.dtype = _unusual(tensor.dtype, _USUAL_FLOAT if said else usual_dtype(tensor.dtype))
    spec.stride = _unusual_stride(tensor)
    if is_parameter and not tensor.requires_grad:
        spec.requires_grad = False
    if not persistent:
        spec.persistent = False
        spec.value = to_bytes(tensor, key)
    return spec


def describe_constant(tensor: torch.Tensor, key: str) -> TensorSpec:
    """What an IR has to say of a tensor that the model reads and has not registered.

    Raises:
        UnrunnableError: the tensor is of a kind that an IR cannot describe.
        CaptureError: it wants gradients.
    """
    _refuse_unsuitable(tensor, key)
    if tensor.requires_grad:
        raise CaptureError(f"{key} wants gradients, but is no parameter; register it as one")
    spec = TensorSpec(kind="constant", shape=tuple(tensor.shape), value=to_bytes(tensor, key))
    spec.dtype = _unusual(tensor.dtype, _USUAL_FLOAT)
    spec.stride = _unusual_stride(tensor)
    return spec


def _unusual(dtype: torch.dtype, usual: torch.dtype) -> str | None:
    return None if dtype is usual else str(dtype).removeprefix("torch.")


def _unusual_stride(tensor: torch.Tensor) -> tuple[int, ...] | None:
    is_usual = tensor.is_contiguous() and not is_channels_last(tensor)
    if is_usual or not _is_dense(tuple(tensor.shape), tensor.stride()):
        return None
    return tensor.stride()


def is_channels_last(tensor: torch.Tensor) -> bool:
    """Return whether its strides say so: torch chooses kernels by them, also for equal numbers."""
    format_ = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
    if format_ is None or 1 not in tensor.shape or not tensor.is_contiguous(memory_format=format_):
        return False
    flat = torch.empty(tensor.shape, device="meta")
    return tensor.stride() == flat.to(memory_format=format_).stride() != flat.stride()


def _is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether a tensor lies in memory without gaps or overlaps, its dimensions in some order."""
    if len(shape) != len(stride):
        return False
    expected = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


class UnrunnableError(CaptureError):
    """Something in a model is such that the model must not be run to be captured."""


def _refuse_unsuitable(tensor: torch.Tensor, key: str) -> None:
    reason = unsuitable(tensor)
    if reason is None and type(tensor) not in PLAIN_CLASSES:
        cls = type(tensor)
        reason = (
            f"is a {cls.__name__} of {cls.__module__}, a class that an IR cannot describe; use a "
            "plain torch.Tensor or torch.nn.Parameter"
        )
    if reason is not None:
        raise UnrunnableError(f"{key} {reason}")


def to_bytes(tensor: torch.Tensor, key: str) -> bytes:
    """The numbers of a tensor, contiguous.

    Raises:
        CaptureError: the tensor has none, being on the meta device.
    """
    if tensor.is_meta:
        raise CaptureError(f"{key} is on the meta device, but its value belongs to the model")
    numbers, _held = numbers_of(tensor)
    return bytes(numbers)


def from_spec(spec: TensorSpec, where: object, device: torch.device) -> torch.Tensor:
    """The tensor that a spec describes; without a value in it, one of zeros.

    Args:
        spec: what it is to be.
        where: whose it is, for errors.
        device: where it is to be. With a value in the spec it is on the CPU, whatever that says: on
            the meta device the value would be lost.

    Raises:
        BuildError: the spec does not describe a tensor.
    """
    dtype = dtype_of(spec, where) or _USUAL_FLOAT
    if spec.shape is None:
        raise BuildError(f"{where}: it has no shape; say it in its spec")
    if spec.value is None:
        tensor = torch.zeros(spec.shape, dtype=dtype, device=device)
    else:
        wanted = math.prod(spec.shape) * dtype.itemsize
        if len(spec.value) != wanted:
            raise BuildError(
                f"{where}: its value has {len(spec.value)} bytes, but its shape and dtype "
                f"need {wanted}; make them agree"
            )
        tensor = torch.empty(0, dtype=dtype, device="cpu")
        if wanted:
            # Memory of Python begins where kernels may round otherwise than in that of torch.
            tensor = torch.frombuffer(bytearray(spec.value), dtype=dtype).clone()
        tensor = tensor.reshape(spec.shape)
    tensor = restrided(tensor, spec, where)
    if spec.kind == "parameter":
        trainable = spec.requires_grad is not False
        if trainable and not (dtype.is_floating_point or dtype.is_complex):
            raise BuildError(
                f"{where}: a parameter of dtype {spec.dtype} has no gradients; "
                "say requires_grad False"
            )
        return nn.Parameter(tensor, requires_grad=trainable)
    return tensor


def restrided(tensor: torch.Tensor, spec: TensorSpec, where: object) -> torch.Tensor:
    """The tensor as it is to lie in memory.

    Raises:
        BuildError: no tensor of its shape lies so, without gaps and overlaps.
    """
    if spec.stride is None:
        return tensor
    if not _is_dense(tuple(tensor.shape), spec.stride):
        raise BuildError(
            f"{where}: its stride {spec.stride} does not fit its shape {tuple(tensor.shape)}; "
            "correct one of them"
        )
    shape = tuple(tensor.shape)
    laid = torch.empty_strided(shape, spec.stride, dtype=tensor.dtype, device=tensor.device)
    return laid.copy_(tensor)


def dtype_of(spec: TensorSpec, where: object) -> torch.dtype | None:
    """The dtype that a spec names; None if it names none.

    Raises:
        BuildError: there is no such dtype.
    """
    if spec.dtype is None:
        return None
    try:
        dtype = torch_value(Symbol(f"torch.{spec.dtype}"))
    except UnknownValueError:
        dtype = None
    if not isinstance(dtype, torch.dtype):
        raise BuildError(f"{where}: torch has no dtype {spec.dtype!r}")
    return dtype
