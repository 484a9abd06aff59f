"""Modules with split tensors: ``fully_shard``, ``replicate``, ``parallelize_module``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from layergraph.hook_types.wrapping import Unwrapped
from layergraph.tensors.state import own_tensors
from layergraph_wrappers.hooks import attributes_without_hooks, is_marked


def unsharded(module: nn.Module, *, needs_numbers: bool) -> Unwrapped | None:
    """Return the original of a module with split tensors; None if its tensors are not split.

    Args:
        module: the module.
        needs_numbers: whether to gather the tensors. Then all processes must call this function
            for the same modules in the same order.
    """
    cls = _class_before(type(module))
    split = dict(_split_tensors(module))
    if cls is None and not split and not is_marked(vars(module)):
        return None
    annotations: dict[str, Any] = {}
    if cls is not None:
        annotations["distributed.wrapper"] = _function_of(type(module))
    reshard = None if cls is None else getattr(module, "reshard", None)
    if reshard is not None:
        # A call may have left the parameters gathered, in another dtype. state_dict() reshards
        # too.
        reshard()
        split = dict(_split_tensors(module))
        annotations |= _precision(module)
    annotations |= _placements(split)
    attributes = attributes_without_hooks(vars(module))
    is_same = attributes.keys() == vars(module).keys() and all(
        value is vars(module)[name] for name, value in attributes.items()
    )
    if cls is None and is_same and not split:
        return None
    made: dict[str, Callable[[], torch.Tensor]] = {
        name: partial(_plain, tensor, needs_numbers=needs_numbers) for name, tensor in split.items()
    }
    return Unwrapped(module, cls, None if is_same else attributes, made, annotations)


def _dtensor() -> Any:
    return getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)


# torch makes a subclass of the class of a module and of one of these classes.
_BEFORE = {
    ("torch.distributed.fsdp", "FSDPModule"),
    ("torch.distributed._composable.replicate", "DDP"),
}


def _class_before(cls: type) -> type | None:
    """Return the class of a module before ``fully_shard`` or ``replicate`` made a subclass."""
    bases = cls.__bases__
    if len(bases) != 2:
        return None
    known = any(
        getattr(sys.modules.get(home), name, None) in bases[0].__mro__ for home, name in _BEFORE
    )
    return bases[1] if known else None


def _function_of(cls: type) -> str:
    """Return the name of the function that made a class."""
    own = cls.__bases__[0]
    return "fully_shard" if own.__name__ == "FSDPModule" else "replicate"


def _split_tensors(module: nn.Module) -> Iterator[tuple[str, Any]]:
    cls = _dtensor()
    if cls is not None:
        for name, tensor, _ in own_tensors(module):
            if isinstance(tensor, cls):
                yield name, tensor


def _plain(tensor: Any, *, needs_numbers: bool) -> torch.Tensor:
    local = tensor.to_local()
    if needs_numbers and not local.is_meta:
        with torch.no_grad():
            whole: torch.Tensor = tensor.full_tensor()
        return whole.detach()
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _placements(split: Mapping[str, Any]) -> dict[str, Any]:
    if not split:
        return {}
    # A module's tensors are on one mesh, or on a mesh and a part of it.
    mesh = max((each.device_mesh for each in split.values()), key=lambda each: each.ndim)
    names = mesh.mesh_dim_names
    return {
        "distributed.mesh": {
            "shape": tuple(mesh.mesh.shape),
            "dim_names": None if names is None else tuple(names),
        },
        "distributed.placements": {
            name: tuple(map(repr, each.placements)) for name, each in split.items()
        },
    }


def _precision(module: Any) -> dict[str, Any]:
    """Return the dtypes that the policy of ``fully_shard`` sets for a module."""
    policy = getattr(module._get_fsdp_state(), "_mp_policy", None)
    dtypes = {name: getattr(policy, name, None) for name in ("param_dtype", "output_dtype")}
    said = {name: str(dtype) for name, dtype in dtypes.items() if dtype is not None}
    return {"distributed.mixed_precision": said} if said else {}
