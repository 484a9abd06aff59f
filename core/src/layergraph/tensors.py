"""Which tensors have memory of their own, and where it is: the one place that looks there.

Many tensors have none that could be read: a sparse tensor has several, a DTensor has that of
another tensor, a fake tensor has none. Asking such a tensor for its memory ends in an exception of
torch, or in a dead process. So every look at memory in layergraph is made by a function of this
module, and each of them asks first for which dispatch keys torch handles the tensor. The keys are
those of C++: no code of a tensor's class runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Sequence
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


def unsuitable(tensor: torch.Tensor) -> str | None:
    """Why a tensor is no block of numbers in memory, and what to use instead.

    Args:
        tensor: any tensor.

    Returns:
        The rest of a sentence that begins with the name of the tensor; None for a dense tensor,
        also of a class that is derived from torch.Tensor and keeps its numbers like that.
    """
    if not is_plain(tensor):
        return _reason(tensor)
    return _missing_memory(tensor)


@_directly
def _missing_memory(tensor: torch.Tensor) -> str | None:
    """Why a plain tensor cannot be read: what splits models over devices frees their memory."""
    there = tensor.untyped_storage().nbytes()
    # Mostly a tensor is not larger than its memory; one that repeats its numbers may be.
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


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is one strided, dense block of memory; on meta, without numbers."""
    keys = torch._C._dispatch_keys(tensor)
    is_dense = _dense.get(keys.raw_repr())
    if is_dense is None:
        is_dense = _dense[keys.raw_repr()] = _is_dense(keys)
    return is_dense and (type(tensor) in PLAIN_CLASSES or not nn.parameter.is_lazy(tensor))


# By the bits of a set of dispatch keys: most tensors have one of a few.
_dense: dict[int, bool] = {}


def _is_dense(keys: torch._C.DispatchKeySet) -> bool:
    return not _foreign_keys(keys) and any(name in _DENSE for name in _names(keys))


def _foreign_keys(keys: torch._C.DispatchKeySet) -> frozenset[str]:
    return frozenset(
        name
        for name in _names(keys)
        if name not in _DENSE and name not in _AROUND and not name.startswith(_AROUND_A_BACKEND)
    )


def _names(keys: torch._C.DispatchKeySet) -> list[str]:
    """The names of dispatch keys, which torch shows in brackets and between commas."""
    return str(keys).rpartition("(")[2].rstrip(")").split(", ")


# --- where it is ---


def storage_of(tensor: torch.Tensor) -> int | None:
    """The identity of a tensor's memory; None for a tensor that has none of its own."""
    if not is_plain(tensor):
        return None
    if type(tensor) in PLAIN_CLASSES:
        return int(tensor.untyped_storage()._cdata)
    with torch._C.DisableTorchFunctionSubclass():
        return int(tensor.untyped_storage()._cdata)


def start_of_storage(tensor: torch.Tensor) -> int:
    """The address at which the memory of a tensor begins; zero where there is none.

    It is asked of every tensor of a layer that is being made, so that only what could not be asked
    for it is left out: what is not of torch's own classes, or is no strided tensor.
    """
    if type(tensor) not in PLAIN_CLASSES or tensor.layout is not torch.strided:
        return 0
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:  # A tensor of zeros has none.
        return 0


@_directly
def fills_its_storage(tensor: torch.Tensor) -> bool:
    """Return whether nothing else than the tensor can lie in its memory."""
    return is_plain(tensor) and tensor.nbytes == tensor.untyped_storage().nbytes()


@_directly
def owns_its_storage(tensor: torch.Tensor) -> bool:
    """Return whether torch made a tensor's memory: that of others, as numpy, may change unseen."""
    return is_plain(tensor) and bool(tensor.untyped_storage().resizable())


@_directly
def extent(tensor: torch.Tensor) -> tuple[int, int, int] | None:
    """The storage of a tensor, the address of its first byte, and that behind its last one.

    None for a tensor that has no numbers in memory of its own.
    """
    if not is_plain(tensor) or tensor.is_meta or not tensor.numel():
        return None
    start, size = tensor.data_ptr(), tensor.nbytes
    if not tensor.is_contiguous():
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        size = (sum((n - 1) * step for n, step in steps) + 1) * tensor.element_size()
    return tensor.untyped_storage().data_ptr(), start, start + size


def places_of(tensors: Sequence[torch.Tensor]) -> list[object]:
    """Where the numbers of tensors lie, and how; an odd tensor is never where it was."""
    with torch._C.DisableTorchFunction():
        return [_place(each) if is_plain(each) else object() for each in tensors]


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


@_directly
def lie_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors are the same numbers at the same place."""
    if one is other:
        return True
    if one.dtype is not other.dtype or not is_plain(one) or not is_plain(other):
        return False
    return _place(one) == _place(other)


@_directly
def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two plain tensors are of one dtype and shape and have equal bytes."""
    if not is_plain(one) or not is_plain(other) or one.is_meta or other.is_meta:
        return False
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return same_bytes(numbers_of(one)[1], numbers_of(other)[1])


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two contiguous tensors of one dtype and shape have equal bytes."""
    flat = [each.flatten().view(torch.uint8) for each in (one, other)]
    size = flat[0].numel()
    if size < _LARGE or any(each.storage_offset() % 8 for each in flat):
        return torch.equal(*flat)
    # Torch compares number by number: eight bytes at once take an eighth of the time.
    whole = [each[: size // 8 * 8].view(torch.int64) for each in flat]
    return torch.equal(*whole) and torch.equal(*[each[size // 8 * 8 :] for each in flat])


_LARGE = 4096


def version(tensor: torch.Tensor) -> int:
    """Torch's count of the changes of a tensor in place; -1 where torch keeps none."""
    return -1 if tensor.is_inference() else tensor._version


@_directly
def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the same numbers and memory of its own, a leaf of autograd only as that is."""
    copied = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    # Nothing may be changed in place that is a leaf and has gradients.
    return copied if tensor.is_leaf else copied.clone()


def without_class(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that is plain but for its class, of torch's own class and without gradients."""
    if type(tensor) in PLAIN_CLASSES:
        return tensor.detach()
    with torch._C.DisableTorchFunction():
        return tensor.detach().as_subclass(torch.Tensor)


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


class Placement:
    """The place of a plain tensor in memory, its shape, and whether it has gradients.

    Args:
        tensor: the tensor. What is asked of it takes no detours: it is asked of each tensor of a
            model.
    """

    __slots__ = ("_alias", "_is_leaf", "_requires_grad", "_size", "_storage")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._alias = tensor.detach()
        self._storage = self._alias.untyped_storage()
        self._size = self._storage.nbytes()
        self._is_leaf = tensor.is_leaf
        self._requires_grad = tensor.requires_grad

    def put_back(self, tensor: torch.Tensor) -> bool:
        """Make the tensor lie there again; give whether it did not."""
        if self._is_leaf and not tensor.is_leaf:
            with contextlib.suppress(RuntimeError):  # A view keeps what it is computed from.
                tensor.detach_()
        if tensor.requires_grad is not self._requires_grad and tensor.is_leaf:
            tensor.requires_grad_(self._requires_grad)
        is_resized = self._storage.nbytes() != self._size
        if is_resized:
            self._storage.resize_(self._size)
        if tensor.dtype is self._alias.dtype and _is_set_to(tensor, self._alias):
            return is_resized
        tensor.data = self._alias
        return True


def _is_set_to(one: torch.Tensor, other: torch.Tensor) -> bool:
    # Torch cannot tell on the meta device, and asks copies of tensors that are lazily turned.
    is_usual = not (other.is_meta or other.is_conj() or other.is_neg())
    return one.is_set_to(other) if is_usual else lie_alike(one, other)
