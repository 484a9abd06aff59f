"""Take tensordicts apart, and make them of parts."""

from __future__ import annotations

import sys
from typing import Any

import torch

from layergraph.errors import AssumptionError


def flatten_tensordict(tensors: Any) -> dict[str, Any]:
    """Return the parts of a tensordict: its batch size, and its entries by key.

    Args:
        tensors: the tensordict.

    Raises:
        AssumptionError: the object is not a tensordict.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from layergraph_data.tensordicts import flatten_tensordict
        >>> flatten_tensordict(TensorDict({"x": torch.ones(1)}, batch_size=[1]))["entries"]
        {'x': tensor([1.])}
    """
    if type(tensors) is not _class():
        raise AssumptionError(f"a {type(tensors).__name__} is not a TensorDict; pass one")
    size = tensors.__dict__["_batch_size"]
    return {
        "batch_size": torch.Size(size) if type(size) is torch.Size else tuple(size),
        "names": list(tensors.names) if tensors._has_names() else None,
        "on_device": tensors.device is not None,
        "is_locked": bool(tensors.is_locked),
        "entries": dict(tensors.items()),
    }


def unflatten_tensordict(parts: dict[str, Any], into: Any = None) -> Any:
    """Return a tensordict made of parts.

    Args:
        parts: the result of :func:`flatten_tensordict`, with the batch size in a tuple.
        into: a tensordict to change; None to make a new one.

    Raises:
        AssumptionError: ``into`` is not a tensordict.
    """
    cls = _class()
    if not (into is None or type(into) is cls):
        raise AssumptionError(f"a {type(into).__name__} is not a TensorDict; pass one")
    made = cls({}, batch_size=[]) if into is None else into
    held = vars(made)
    entries = held["_tensordict"]
    for key in entries.keys() - parts["entries"].keys():
        del entries[key]
    # No checks: the parts come from a tensordict. A batch size of symbolic ints stays a tuple.
    entries.update(parts["entries"])
    size = tuple(parts["batch_size"])
    held["_batch_size"] = torch.Size(size) if all(type(each) is int for each in size) else size
    held["_td_dim_names"] = parts["names"]
    tensors = [each for each in entries.values() if isinstance(each, torch.Tensor)]
    device = tensors[0].device if tensors and parts["on_device"] else None
    held["_device"] = device if into is None else held["_device"]
    if into is None and parts["is_locked"]:
        made.lock_()
    return made


def _class() -> Any:
    library: Any = sys.modules.get("tensordict")
    if library is None:
        raise AssumptionError("the program has not imported tensordict; import it")
    return library.TensorDict
