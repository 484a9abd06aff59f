"""Parameters, buffers and constants, and their descriptions in an IR."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from layergraph.errors import BuildError, CaptureError
from layergraph.ir import Packing, Symbol, TensorSpec
from layergraph.literals import UnknownValueError, torch_value
from layergraph.tensors.kinds import Packed, TensorKinds
from layergraph.tensors.memory import (
    PLAIN_CLASSES,
    extent,
    extent_of_plain,
    is_block,
    numbers_of,
    unsuitable,
    without_numbers_to_read,
)

_USUAL_FLOAT = torch.float32


def usual_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the default dtype of the same kind, which an IR leaves out for a layer's tensors."""
    if dtype.is_floating_point:
        return _USUAL_FLOAT
    # Complex numbers are a kind of their own, because a user may cast a real layer to complex.
    return dtype if dtype.is_complex or dtype is torch.bool else torch.int64


def own_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Yield name, tensor and persistence of each parameter and buffer of a module itself.

    Parameters come first, as in a state dict. Tensors of children are not among them.
    """
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter, True
    for name, buffer in module._buffers.items():
        if buffer is not None:
            yield name, buffer, name not in module._non_persistent_buffers_set


def all_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Yield name, tensor and persistence of each tensor of a module and its children.

    A tensor with several names comes once for each.
    """
    if not module._modules:
        yield from own_tensors(module)
        return
    for path, inner in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, tensor, persistent in own_tensors(inner):
            yield prefix + name, tensor, persistent


def with_tensors_like(module: nn.Module, known: dict[int, Any] | None = None) -> nn.Module:
    """Return a plain module tree with detached copies of a module's tensors, under the same names.

    The copies share memory with the originals, so that this suits the meta device only.

    Args:
        module: the original.
        known: the copies made so far, by the ``id`` of the original tensor or module.
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


def as_parameter(tensor: torch.Tensor, *, requires_grad: bool) -> nn.Parameter:
    """Return a tensor as a parameter. A parameter of a class of a library keeps its class."""
    if isinstance(tensor, nn.Parameter) and type(tensor) is not nn.Parameter:
        tensor.requires_grad_(requires_grad)
        return tensor
    return nn.Parameter(tensor, requires_grad=requires_grad)


def replace(owner: Any, name: str, tensor: torch.Tensor) -> None:
    """Replace a parameter by a parameter, or a buffer by a buffer."""
    setter: Any = nn.Module.__setattr__
    if type(owner).__setattr__ is setter:
        # nn.Module.__setattr__ does the same, after checks of the tensor and the name.
        members = owner._parameters if name in owner._parameters else owner._buffers
        members[name] = tensor
    else:
        setattr(owner, name, tensor)


class Memory:
    """The memory that the tensors of a model occupy, to refuse tensors that overlap.

    Args:
        kinds: the kinds of tensors whose parts occupy memory.
    """

    def __init__(self, kinds: TensorKinds | None = None) -> None:
        self._kinds = TensorKinds() if kinds is None else kinds
        self._taken: dict[int, list[tuple[int, int, int, str]]] = {}

    def claim(self, tensor: torch.Tensor, key: str) -> None:
        """Record the memory of a tensor. The caller keeps the tensor alive.

        Raises:
            CaptureError: the tensor shares memory with another one. In a rebuilt model the two
                would be separate, and a change of one would not change the other.
        """
        is_one = is_block(tensor)
        found = [extent_of_plain(tensor)] if is_one else map(extent, self._kinds.blocks(tensor))
        for lies in found:
            self._claim(lies, id(tensor), key)

    def _claim(self, lies: tuple[int, int, int] | None, owner: int, key: str) -> None:
        if lies is None:
            return
        storage, start, end = lies
        taken = self._taken.setdefault(storage, [])
        for other_start, other_end, identity, other in taken:
            if identity == owner:
                return
            if start < other_end and other_start < end:
                raise CaptureError(
                    f"{key} shares memory with {other}, but is another tensor; register one tensor "
                    "under both names, or copy it"
                )
        taken.append((start, end, owner, key))


def describe(
    tensor: torch.Tensor,
    key: str,
    *,
    persistent: bool,
    whole: bool,
    hidden: bool = False,
    kinds: TensorKinds | None = None,
) -> TensorSpec:
    """Return the spec of a parameter or buffer, without default values.

    Args:
        tensor: a parameter or buffer.
        key: its state-dict key, for errors.
        persistent: True if state dicts hold it.
        whole: True to include kind and shape, because no constructor makes the tensor.
        hidden: True for a hidden state of a layer, whose shape is that of the last inputs, and
            which may be part of a graph of gradients.
        kinds: the kinds of tensors that are described by their parts.

    Raises:
        UnrunnableError: an IR cannot describe tensors of this kind.
        CaptureError: the tensor is a buffer that requires gradients.
    """
    packed = _described(tensor, repr(key), kinds)
    is_parameter = isinstance(tensor, nn.Parameter)
    if tensor.requires_grad and not (is_parameter or hidden):
        raise CaptureError(
            f"{key} wants gradients, but is a buffer; register it as a parameter, or detach it"
        )
    spec = TensorSpec()
    if whole:
        spec.kind = "parameter" if is_parameter else "buffer"
        spec.shape = tuple(tensor.shape)
    elif hidden:
        spec.shape = tuple(tensor.shape)
    is_explicit = whole or tensor.dtype.is_complex
    usual = _USUAL_FLOAT if is_explicit else usual_dtype(tensor.dtype)
    spec.dtype = _unusual(tensor.dtype, usual)
    if is_parameter and not tensor.requires_grad:
        spec.requires_grad = False
    if not persistent:
        spec.persistent = False
    _describe_numbers(spec, tensor, packed, key, has_value=not persistent)
    return spec


def _describe_numbers(
    spec: TensorSpec, tensor: torch.Tensor, packed: Packed | None, key: str, *, has_value: bool
) -> None:
    """Add strides, dtype and, if wanted, the value of a tensor or of its parts to a spec."""
    if packed is None:
        spec.stride = _unusual_stride(tensor)
        spec.value = to_bytes(tensor, key) if has_value else None
        return
    spec.packed = Packing(packed.kind, {}, packed.data)
    for name, part in packed.parts.items():
        each = spec.packed.parts[name] = TensorSpec(shape=tuple(part.shape))
        each.dtype = _unusual(part.dtype, _USUAL_FLOAT)
        _describe_numbers(each, part, None, f"{key}, part {name!r}", has_value=has_value)


def describe_constant(
    tensor: torch.Tensor, key: str, kinds: TensorKinds | None = None
) -> TensorSpec:
    """Return the spec of a constant: a tensor that the model reads and does not register.

    Args:
        tensor: the constant.
        key: its place, for errors.
        kinds: the kinds of tensors that are described by their parts.

    Raises:
        UnrunnableError: an IR cannot describe tensors of this kind.
        CaptureError: the tensor requires gradients.
    """
    packed = _described(tensor, key, kinds)
    if tensor.requires_grad:
        raise CaptureError(f"{key} wants gradients, but is no parameter; register it as one")
    spec = TensorSpec(kind="constant", shape=tuple(tensor.shape))
    spec.dtype = _unusual(tensor.dtype, _USUAL_FLOAT)
    _describe_numbers(spec, tensor, packed, key, has_value=True)
    return spec


def _unusual(dtype: torch.dtype, usual: torch.dtype) -> str | None:
    return None if dtype is usual else str(dtype).removeprefix("torch.")


def _unusual_stride(tensor: torch.Tensor) -> tuple[int, ...] | None:
    is_usual = tensor.is_contiguous() and not is_channels_last(tensor)
    if is_usual or not _is_dense(tuple(tensor.shape), tensor.stride()):
        return None
    return tensor.stride()


def is_channels_last(tensor: torch.Tensor) -> bool:
    """Return whether a tensor has the strides of a channels-last format.

    torch chooses kernels by strides. With an axis of size 1, a tensor can be both contiguous and
    channels last.
    """
    format_ = _CHANNELS_LAST.get(tensor.ndim)
    if format_ is None or 1 not in tensor.shape or not tensor.is_contiguous(memory_format=format_):
        return False
    flat, last = _strides(tuple(tensor.shape), format_)
    return tensor.stride() == last != flat


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@functools.lru_cache(maxsize=1024)
def _strides(
    shape: tuple[int, ...], format_: torch.memory_format
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the strides of torch for a shape: of a contiguous tensor, and in another format."""
    flat = torch.empty(shape, device="meta")
    return flat.stride(), flat.to(memory_format=format_).stride()


def _is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Return whether the strides leave no gaps and no overlaps, with the axes in any order."""
    if len(shape) != len(stride):
        return False
    expected = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


class UnrunnableError(CaptureError):
    """A tensor in a model that makes it unsafe to run the model for a capture."""


def indescribable(tensor: torch.Tensor) -> str | None:
    """Return why an IR cannot describe a tensor, and what to use instead; None if it can."""
    reason = unsuitable(tensor)
    if reason is not None or type(tensor) in PLAIN_CLASSES:
        return reason
    cls = type(tensor)
    return (
        f"is a {cls.__name__} of {cls.__module__}, a class that an IR cannot describe; use a "
        "plain torch.Tensor or torch.nn.Parameter"
    )


def _described(tensor: torch.Tensor, key: str, kinds: TensorKinds | None) -> Packed | None:
    """Return the parts of a tensor of a known kind, or None; refuse other special tensors."""
    if is_block(tensor):
        reason = without_numbers_to_read(tensor)
    else:
        packed = None if kinds is None else kinds.described(tensor)
        if packed is not None:
            return packed
        reason = indescribable(tensor)
    if reason is not None:
        raise UnrunnableError(f"{key} {reason}")
    return None


def to_bytes(tensor: torch.Tensor, key: str) -> bytes:
    """Return the numbers of a tensor as contiguous bytes.

    Raises:
        CaptureError: the tensor is on the meta device, and has no numbers.
    """
    if tensor.is_meta:
        raise CaptureError(f"{key} is on the meta device, but its value belongs to the model")
    numbers, _held = numbers_of(tensor)
    return bytes(numbers)


def from_spec(spec: TensorSpec, where: object, device: torch.device) -> torch.Tensor:
    """Make the tensor that a spec describes, of zeros if the spec has no value.

    Args:
        spec: the description.
        where: the place of the tensor in the IR, for errors.
        device: the device of a tensor of zeros. A tensor with a value is on the CPU, because the
            meta device would lose the value.

    Raises:
        BuildError: the spec does not describe a tensor.
    """
    dtype = dtype_of(spec, where) or _USUAL_FLOAT
    if spec.shape is None:
        raise BuildError(f"{where}: it has no shape; state the shape in its spec")
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
            # A copy, because torch aligns its memory to more bytes than Python does, and kernels
            # may round differently by alignment.
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
    """Return the tensor with the strides of a spec.

    Raises:
        BuildError: the strides would leave gaps or overlaps for the tensor's shape.
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
    """Return the dtype of a spec; None if the spec names none.

    Raises:
        BuildError: torch has no such dtype.
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
