"""Operations of ``torch.ops``: all that torch's functions consist of, and those of extensions."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any

import torch

# They read files, or memory that is none of the model's: without looking where it ends, or before
# anything was written there.
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

# They give, or take, an address in memory as the numbers of a tensor.
REFUSED_FAMILY = "fbgemm_"

# The namespaces of operations that are torch's own, and what has to be imported to have them.
_HOMES = {
    "aten": "torch",
    "prims": "torch._prims",
    "quantized_decomposed": "torch.ao.quantization.fx._decomposed",
}

OPERATIONS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)
"""The classes of what :data:`torch.ops` holds: operations, and packets of one name."""

OPS = "torch.ops."


@functools.lru_cache(maxsize=4096)
def own_operation(name: str) -> Callable[..., Any] | None:
    """One of torch's own operations that gives tensors, by its full name; None if there is none.

    Those of extensions are for plugins to name: only their authors know what they do.
    """
    if not name.startswith(OPS):
        return None
    namespace, _, last = name.removeprefix(OPS).partition(".")
    if namespace not in _HOMES or is_refused(last.partition(".")[0]):
        return None
    with contextlib.suppress(ImportError):  # Not every version of torch has them all.
        importlib.import_module(_HOMES[namespace])
    operation = registered(name)
    if operation is None or not gives_tensors(operation):
        return None
    return operation


def is_refused(name: str) -> bool:
    """Return whether operators of a name may do what they should not."""
    return name in REFUSED or name.startswith(REFUSED_FAMILY)


def registered(name: str) -> Callable[..., Any] | None:
    """An operation, or a packet of some, by its full name; None if none is registered so."""
    operation: Any = torch.ops
    for part in name.removeprefix(OPS).split("."):
        operation = getattr(operation, part, None)
    return operation if isinstance(operation, OPERATIONS) else None


def overloads(operation: Any) -> list[Any]:
    """The operations of a packet, or the operation itself."""
    if isinstance(operation, torch._ops.OpOverload):
        return [operation]
    return [getattr(operation, each or "default") for each in operation._overload_names]


def gives_tensors(operation: Any) -> bool:
    """Return whether an operation, or one of a packet, gives tensors."""
    return give_tensors(_schemas(operation))


def _schemas(operation: Any) -> list[Any]:
    return [each._schema for each in overloads(operation)]


def give_tensors(schemas: Iterable[Any]) -> bool:
    """Return whether what has one of the schemas gives tensors."""
    return any("Tensor" in str(each.type) for schema in schemas for each in schema.returns)


def changes_arguments(operation: Any) -> bool:
    """Return whether an operation of :data:`torch.ops` changes what it is given."""
    return any(schema.is_mutable for schema in _schemas(operation))


def is_composite(operation: Any) -> bool:
    """Return whether an operation consists of others, which are seen when it runs."""
    key = "CompositeImplicitAutograd"
    return any(
        torch._C._dispatch_has_kernel_for_dispatch_key(each.name(), key)
        for each in overloads(operation)
    )


def computes(operation: Any) -> bool:
    """Return whether an operation does more than mark regions of a profile."""
    return not isinstance(operation, OPERATIONS) or str(operation).partition(".")[0] != "profiler"
