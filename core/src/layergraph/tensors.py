"""Which tensors have memory of their own, and where it is: the one place that looks there.

Many tensors have none that could be read: a sparse tensor has several, a DTensor has that of
another tensor, a fake tensor has none. Asking such a tensor for its memory ends in an exception of
torch, or in a dead process. So every look at memory in layergraph is made by a function of this
module, and each of them asks first for which dispatch keys torch handles the tensor. The keys are
those of C++: no code of a tensor's class runs.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
T = TypeVar("T")

PLAIN_CLASSES = frozenset({torch.Tensor, nn.Parameter})

# The back ends whose dense tensors are a block of memory, and what torch does around them.
_DENSE = frozenset("CPU CUDA HIP XPU MPS HPU MTIA IPU VE PrivateUse1 Meta".split())
_AROUND = frozenset("ADInplaceOrView Conjugate Negative".split())
_AROUND_A_BACKEND = ("Autograd", "Autocast")

# By the beginning of a dispatch key: the kind of tensor, and what to use in its place.
_KINDS = {
    "Sparse": ("a sparse tensor", "its to_dense()"),
    "Quantized": ("a quantized tensor", "its dequantize()"),
    "Mkldnn": ("a tensor of oneDNN", "its to_dense()"),
    "NestedTensor": ("a nested tensor", "torch.nested.to_padded_tensor"),
    "ZeroTensor": ("a tensor of zeros without memory", "torch.zeros"),
    "Functionalize": ("a functional tensor", "the tensor that it wraps"),
    "FuncTorch": ("a tensor inside a transform of torch.func", "a tensor from outside of it"),
}
_USE_PLAIN = "a plain torch.Tensor"
_BY_CLASS = {
    "DTensor": "its full_tensor()",
    "FakeTensor": "a tensor made outside of the FakeTensorMode",
    "FunctionalTensor": "the tensor that it wraps",
}


def _directly(look: Callable[P, T]) -> Callable[P, T]:
    """Look at a tensor past the modes that are on, and past the functions of its class."""

    @functools.wraps(look)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch._C.DisableTorchFunction():
            return look(*args, **kwargs)

    return call


@_directly
def unsuitable(tensor: torch.Tensor) -> str | None:
    """Why a tensor is no block of numbers in memory, and what to use instead.

    Args:
        tensor: any tensor.

    Returns:
        The rest of a sentence that begins with the name of the tensor; None for a dense tensor,
        also of a class that is derived from torch.Tensor and keeps its numbers like that.
    """
    if is_plain(tensor):
        return None
    cls = type(tensor)
    if nn.parameter.is_lazy(tensor):
        return (
            f"has no shape yet (it is of class {cls.__name__}); run the lazy module once, so that "
            "it makes its parameters"
        )
    foreign = _foreign_keys(_keys(tensor))
    kind, instead = f"a {cls.__name__} of {cls.__module__}", _USE_PLAIN
    if "Python" in foreign:
        instead = next(
            (_BY_CLASS[each.__name__] for each in cls.__mro__ if _is_ours(each)), instead
        )
    else:
        for start, known in _KINDS.items():
            if any(key.startswith(start) for key in foreign):
                kind, instead = known
        kind += f" (class {cls.__name__}, layout {tensor.layout})"
    return f"is {kind}, not a block of numbers in memory; use {instead}"


def _is_ours(cls: type) -> bool:
    return cls.__name__ in _BY_CLASS and cls.__module__.startswith("torch.")


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one block of memory, strided and dense; on meta, one without numbers."""
    is_dense = _is_dense(_keys(tensor))
    return is_dense and (type(tensor) in PLAIN_CLASSES or not nn.parameter.is_lazy(tensor))


def _keys(tensor: torch.Tensor) -> int:
    keys: int = torch._C._dispatch_keys(tensor).raw_repr()
    return keys


@functools.cache
def _is_dense(keys: int) -> bool:
    names = _names(keys)
    return not _foreign_keys(keys) and any(name in _DENSE for name in names)


@functools.cache
def _foreign_keys(keys: int) -> frozenset[str]:
    return frozenset(
        name
        for name in _names(keys)
        if name not in _DENSE and name not in _AROUND and not name.startswith(_AROUND_A_BACKEND)
    )


def _names(keys: int) -> list[str]:
    """The names of dispatch keys, which torch shows in brackets and between commas."""
    shown = str(torch._C.DispatchKeySet.from_raw_repr(keys))
    return shown.rpartition("(")[2].rstrip(")").split(", ")


# --- where it is ---


def storage_of(tensor: torch.Tensor) -> int | None:
    """What tells the memory of tensors apart; None for a tensor that has none of its own."""
    if not is_plain(tensor):
        return None
    if type(tensor) in PLAIN_CLASSES:
        return int(tensor.untyped_storage()._cdata)
    with torch._C.DisableTorchFunctionSubclass():
        return int(tensor.untyped_storage()._cdata)


def start_of_storage(tensor: torch.Tensor) -> int:
    """The address at which the memory of a tensor begins; zero where there is none."""
    return tensor.untyped_storage().data_ptr() if is_plain(tensor) else 0


@_directly
def storage_size(tensor: torch.Tensor) -> int:
    """How many bytes are where a tensor lies; zero for a tensor that has no memory of its own."""
    return tensor.untyped_storage().nbytes() if is_plain(tensor) else 0


def resize_storage(tensor: torch.Tensor, size: int) -> None:
    """Make the memory of a plain tensor larger or smaller, where it is."""
    tensor.untyped_storage().resize_(size)


@_directly
def fills_its_storage(tensor: torch.Tensor) -> bool:
    """Whether nothing else than the tensor can lie in its memory."""
    return is_plain(tensor) and tensor.nbytes == tensor.untyped_storage().nbytes()


@_directly
def extent(tensor: torch.Tensor) -> tuple[int, int, int] | None:
    """The storage of a tensor, the address of its first byte, and that behind its last one.

    None for a tensor that has no numbers in memory of its own.
    """
    if not is_plain(tensor) or tensor.is_meta or not tensor.numel():
        return None
    span = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    end = start + (span + 1) * tensor.element_size()
    return tensor.untyped_storage().data_ptr(), start, end


@_directly
def lie_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same numbers at the same place."""
    if one is other:
        return True
    if not is_plain(one) or not is_plain(other) or one.dtype is not other.dtype:
        return False
    if storage_of(one) != storage_of(other) or one.storage_offset() != other.storage_offset():
        return False
    return one.shape == other.shape and one.stride() == other.stride()


@_directly
def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two plain tensors are of one dtype and shape and have equal bytes."""
    if not is_plain(one) or not is_plain(other) or one.is_meta or other.is_meta:
        return False
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return numbers_of(one)[0] == numbers_of(other)[0]


def version(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place, as far as torch counts that."""
    return -1 if tensor.is_inference() else tensor._version


@_directly
def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the same numbers and memory of its own, a leaf of autograd only as that is."""
    copied = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    # Nothing may be changed in place that is a leaf and has gradients.
    return copied if tensor.is_leaf else copied.clone()


@_directly
def without_class(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor that is plain but for its class, as a tensor without gradients."""
    plain = tensor.detach()
    return plain if type(plain) is torch.Tensor else plain.as_subclass(torch.Tensor)


@_directly
def numbers_of(tensor: torch.Tensor) -> tuple[memoryview, torch.Tensor]:
    """The bytes of a plain tensor in the order of its numbers, on the CPU.

    Returns:
        The bytes, and the tensor that has to live as long as they are read.
    """
    held = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    size = held.numel() * held.element_size()
    if not size:
        return memoryview(b""), held
    return memoryview((ctypes.c_char * size).from_address(held.data_ptr())), held
