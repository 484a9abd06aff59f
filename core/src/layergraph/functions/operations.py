"""The operations of ``torch.ops`` that a graph may call."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any

import torch

# These operations read files, memory out of bounds, or memory that is not initialised.
REFUSED = frozenset(
    (
        "from_file set_ set _cudnn_init_dropout_state resize resize_ resize_as resize_as_ "
        "_resize_output _resize_output_ _copy_from_and_resize _reshape_alias _reshape_alias_copy "
        "_nested_view_from_buffer _nested_view_from_buffer_copy _nested_view_from_jagged "
        "_nested_view_from_jagged_copy _sparse_coo_tensor_unsafe _sparse_compressed_tensor_unsafe "
        "_sparse_csr_tensor_unsafe _sparse_csc_tensor_unsafe _sparse_bsr_tensor_unsafe "
        "_sparse_bsc_tensor_unsafe"
    ).split()
)

# These operations take or return addresses in memory as the numbers of a tensor.
REFUSED_FAMILY = "fbgemm_"

# The namespaces of torch's own operations, and the module whose import registers them.
_HOMES = {
    "aten": "torch",
    "prims": "torch._prims",
    "quantized_decomposed": "torch.ao.quantization.fx._decomposed",
}

OPERATIONS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)
"""The classes of the objects in :data:`torch.ops`: overloads, and packets of overloads."""

OPS = "torch.ops."


@functools.lru_cache(maxsize=4096)
def own_operation(name: str) -> Callable[..., Any] | None:
    """Return one of torch's own operations by its full name; None if a graph may not call it.

    A graph may call an operation of torch that returns tensors and does not access memory out of
    bounds. Operations of extensions are named by plugins, because only their authors know them.
    """
    if not name.startswith(OPS):
        return None
    namespace, _, last = name.removeprefix(OPS).partition(".")
    if namespace not in _HOMES or is_refused(last.partition(".")[0]):
        return None
    with contextlib.suppress(ImportError):  # some versions of torch lack one of the modules
        importlib.import_module(_HOMES[namespace])
    operation = registered(name)
    if operation is None or not gives_tensors(operation):
        return None
    return operation


def is_of_torch(operation: Any) -> bool:
    """Return whether an operation is in one of the namespaces of torch's own operations."""
    return str(operation).partition(".")[0] in _HOMES


def is_refused(name: str) -> bool:
    """Return whether operations of this name access files or memory out of bounds."""
    return name in REFUSED or name.startswith(REFUSED_FAMILY)


def registered(name: str) -> Callable[..., Any] | None:
    """Return an overload or a packet by its full name; None if torch has none registered."""
    operation: Any = torch.ops
    for part in name.removeprefix(OPS).split("."):
        operation = getattr(operation, part, None)
    return operation if isinstance(operation, OPERATIONS) else None


def overloads(operation: Any) -> list[Any]:
    """Return the overloads of a packet; for an overload, itself."""
    if isinstance(operation, torch._ops.OpOverload):
        return [operation]
    return [getattr(operation, each or "default") for each in operation._overload_names]


def gives_tensors(operation: Any) -> bool:
    """Return whether an overload, or any overload of a packet, returns tensors."""
    return give_tensors(_schemas(operation))


def _schemas(operation: Any) -> list[Any]:
    return [each._schema for each in overloads(operation)]


def give_tensors(schemas: Iterable[Any]) -> bool:
    """Return whether any of the schemas returns tensors."""
    return any("Tensor" in str(each.type) for schema in schemas for each in schema.returns)


def changes_arguments(operation: Any) -> bool:
    """Return whether an operation of :data:`torch.ops` changes its arguments in place."""
    return any(schema.is_mutable for schema in _schemas(operation))


def is_composite(operation: Any) -> bool:
    """Return whether an operation is a composition of others, which a dispatch mode sees."""
    key = "CompositeImplicitAutograd"
    return any(
        torch._C._dispatch_has_kernel_for_dispatch_key(each.name(), key)
        for each in overloads(operation)
    )


def computes(operation: Any) -> bool:
    """Return whether an operation computes something; those of the profiler do not."""
    return not isinstance(operation, OPERATIONS) or str(operation).partition(".")[0] != "profiler"
