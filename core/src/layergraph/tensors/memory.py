"""The memory of tensors. No other module of layergraph reads the storage of a tensor.

Many tensors are not one block of memory: a sparse tensor has several, a DTensor wraps another
tensor, a fake tensor has none. A process that asks such a tensor for its storage gets an exception
of torch, or crashes. So each function here checks the dispatch keys of the tensor first. torch
answers this in C++, and runs no code of the tensor's class.
"""

from __future__ import annotations

import ctypes
import functools
import operator
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
T = TypeVar("T")

PLAIN_CLASSES = frozenset({torch.Tensor, nn.Parameter})

# The dispatch keys of back ends whose dense tensors are one block of memory, and the keys of
# functionality that torch adds to such tensors.
_DENSE = frozenset("CPU CUDA HIP XPU MPS HPU MTIA IPU VE PrivateUse1 Meta".split())
_AROUND = frozenset("ADInplaceOrView Conjugate Negative".split())
_AROUND_A_BACKEND = ("Autograd", "Autocast")

# By prefix of a dispatch key: the kind of tensor, and the remedy.
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
    "NestedTensor": "torch.nested.to_padded_tensor",
}


def _directly(look: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that it bypasses function modes and the tensor's class."""

    @functools.wraps(look)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch._C.DisableTorchFunction():
            return look(*args, **kwargs)

    return call


def unsuitable(tensor: torch.Tensor) -> str | None:
    """Return why a tensor is not a block of numbers in memory, and what to use instead.

    Returns:
        The predicate of a sentence about the tensor; None for a dense tensor, which may be of a
        subclass of torch.Tensor.
    """
    return without_numbers_to_read(tensor) if is_plain(tensor) else _reason(tensor)


# Dtypes of 1 to 7 bits, for which torch has few operations.
_WITHOUT_KERNELS = frozenset(
    getattr(torch, f"{sign}int{bits}")
    for sign in ("", "u")
    for bits in range(1, 8)
    if hasattr(torch, f"{sign}int{bits}")
)


@_directly
def without_numbers_to_read(tensor: torch.Tensor) -> str | None:
    """Return why the numbers of a plain tensor cannot be read; None if they can.

    Libraries that split a model over devices (FSDP) free the memory of its parameters.
    """
    if tensor.dtype in _WITHOUT_KERNELS:
        return f"is of {tensor.dtype}, which torch cannot copy; use its bytes, as torch.uint8"
    there = tensor.untyped_storage().nbytes()
    # The common case. An expanded tensor may be larger than its memory.
    if there and tensor.is_contiguous() and not tensor.storage_offset() and tensor.nbytes <= there:
        return None
    if not tensor.numel():
        return None
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((n - 1) * step for n, step in steps) + 1
    if last * tensor.element_size() <= there:
        return None
    return (
        f"has {there} bytes of memory, fewer than its shape {tuple(tensor.shape)} needs: they were "
        "freed; gather the model's parameters before"
    )


@_directly
def _reason(tensor: torch.Tensor) -> str:
    cls = type(tensor)
    if nn.parameter.is_lazy(tensor):
        return (
            f"has no shape yet (it is of class {cls.__name__}); run the lazy module once, so that "
            "it makes its parameters"
        )
    foreign = _foreign_keys(torch._C._dispatch_keys(tensor))
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


def is_block(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is plain and of a class of torch, as nearly all tensors are."""
    return type(tensor) in PLAIN_CLASSES and is_plain(tensor)


def are_blocks(tensors: Sequence[torch.Tensor]) -> bool:
    """Return whether :func:`is_block` holds for all of many tensors; False if it is unknown."""
    keys = map(torch._C.DispatchKeySet.raw_repr, map(torch._C._dispatch_keys, tensors))
    return PLAIN_CLASSES.issuperset(map(type, tensors)) and _dense.issuperset(keys)


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is one strided, dense block of memory, or is so on meta."""
    keys = torch._C._dispatch_keys(tensor)
    return (keys.raw_repr() in _dense or _are_dense(keys)) and (
        type(tensor) in PLAIN_CLASSES or not nn.parameter.is_lazy(tensor)
    )


_dense: set[int] = set()  # the sets of dispatch keys of dense tensors seen so far, as bits


def _are_dense(keys: torch._C.DispatchKeySet) -> bool:
    are_dense = not _foreign_keys(keys) and any(name in _DENSE for name in _names(keys))
    if are_dense:
        _dense.add(keys.raw_repr())
    return are_dense


def _foreign_keys(keys: torch._C.DispatchKeySet) -> frozenset[str]:
    return frozenset(
        name
        for name in _names(keys)
        if name not in _DENSE and name not in _AROUND and not name.startswith(_AROUND_A_BACKEND)
    )


def _names(keys: torch._C.DispatchKeySet) -> list[str]:
    """Return the names of dispatch keys, parsed from the text that torch prints."""
    return str(keys).rpartition("(")[2].rstrip(")").split(", ")


# --- storage ---


def storage_of(tensor: torch.Tensor) -> int | None:
    """Return the identity of a tensor's storage; None if the tensor is not plain."""
    if not is_plain(tensor):
        return None
    if type(tensor) in PLAIN_CLASSES:
        return int(tensor.untyped_storage()._cdata)
    with torch._C.DisableTorchFunctionSubclass():
        return int(tensor.untyped_storage()._cdata)


def start_of_storage(tensor: torch.Tensor) -> int:
    """Return the address at which the storage of a tensor begins; zero if there is none.

    The build calls this for each tensor of each new layer. So it checks class and layout only,
    which is faster than the dispatch keys.
    """
    if type(tensor) not in PLAIN_CLASSES or tensor.layout is not torch.strided:
        return 0
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:  # a ZeroTensor has no storage
        return 0


@_directly
def fills_its_storage(tensor: torch.Tensor) -> bool:
    """Return whether a tensor occupies all of its storage."""
    return is_plain(tensor) and tensor.nbytes == tensor.untyped_storage().nbytes()


@_directly
def owns_its_storage(tensor: torch.Tensor) -> bool:
    """Return whether torch allocated a tensor's storage; other owners (numpy) may change it."""
    return is_plain(tensor) and bool(tensor.untyped_storage().resizable())


def extent(tensor: torch.Tensor) -> tuple[int, int, int] | None:
    """Return the address of a tensor's storage, and the first and last address of its numbers.

    The last address is the one after the last byte. None for a tensor without numbers in memory.
    """
    return extent_of_plain(tensor) if is_plain(tensor) else None


@_directly
def extent_of_plain(tensor: torch.Tensor) -> tuple[int, int, int] | None:
    """Return :func:`extent` of a tensor that is known to be plain."""
    if tensor.is_meta or not tensor.numel():
        return None
    start, size = tensor.data_ptr(), tensor.nbytes
    if not tensor.is_contiguous():
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        size = (sum((n - 1) * step for n, step in steps) + 1) * tensor.element_size()
    return tensor.untyped_storage().data_ptr(), start, start + size


def places_of(tensors: Sequence[torch.Tensor]) -> list[object]:
    """Return storage, offset, shape, strides and dtype of each tensor, to compare them later.

    The entry of a tensor that is not plain equals no other entry.
    """
    with torch._C.DisableTorchFunction():
        if not are_blocks(tensors):
            return [_place(each) if is_plain(each) else object() for each in tensors]
        # A model has many tensors, so the loop over them runs in C.
        storages = map(_identity, map(torch.Tensor.untyped_storage, tensors))
        offsets, strides = (map(look, tensors) for look in _OFFSET_AND_STRIDE)
        return [*zip(storages, offsets, strides, map(_shape_and_dtype, tensors), strict=True)]


_identity = operator.attrgetter("_cdata")
_OFFSET_AND_STRIDE = (torch.Tensor.storage_offset, torch.Tensor.stride)
_shape_and_dtype = operator.attrgetter("shape", "dtype")


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


@_directly
def lie_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors have one dtype, and the same numbers at the same addresses."""
    if one is other:
        return True
    if one.dtype is not other.dtype or not is_plain(one) or not is_plain(other):
        return False
    return _place(one) == _place(other)


@_directly
def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two plain tensors have one dtype and shape, and equal bytes."""
    if not is_plain(one) or not is_plain(other) or one.is_meta or other.is_meta:
        return False
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return same_bytes(numbers_of(one)[1], numbers_of(other)[1])


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two contiguous tensors of one dtype and shape have equal bytes."""
    # Not flatten(): a tensor of one number is contiguous at any stride, and keeps that stride.
    flat = [each.as_strided((each.numel(),), (1,)).view(torch.uint8) for each in (one, other)]
    size = flat[0].numel()
    if size < _LARGE or any(each.storage_offset() % 8 for each in flat):
        return torch.equal(*flat)
    # torch.equal compares number by number: int64 takes an eighth of the time of uint8.
    whole = [each[: size // 8 * 8].view(torch.int64) for each in flat]
    return torch.equal(*whole) and torch.equal(*[each[size // 8 * 8 :] for each in flat])


_LARGE = 4096


def version(tensor: torch.Tensor) -> int:
    """Return torch's count of in-place changes of a tensor; -1 for an inference tensor."""
    return -1 if tensor.is_inference() else tensor._version


@_directly
def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor with its own memory, a leaf of autograd if the original is one."""
    copied = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    # autograd refuses in-place changes of a leaf, and allows those of its clone.
    return copied if tensor.is_leaf else copied.clone()


def without_class(tensor: torch.Tensor) -> torch.Tensor:
    """Return a detached alias of a tensor, of the class torch.Tensor."""
    if type(tensor) in PLAIN_CLASSES:
        return tensor.detach()
    with torch._C.DisableTorchFunction():
        return tensor.detach().as_subclass(torch.Tensor)


def without_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor like another one on the meta device."""
    if is_plain(tensor):
        return torch.empty_like(tensor, device="meta")
    # Few tensor subclasses implement empty_like.
    return tensor.detach().to("meta")


@_directly
def numbers_of(tensor: torch.Tensor) -> tuple[memoryview, torch.Tensor]:
    """Return the bytes of a plain tensor in the order of its numbers, on the CPU.

    Returns:
        The bytes, and a tensor that owns them. Keep it alive while you read them.
    """
    held = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    size = held.numel() * held.element_size()
    if not size:
        return memoryview(b""), held
    return memoryview((ctypes.c_char * size).from_address(held.data_ptr())), held
