"""Modules of the library under its tensor parallelism (``tp_plan``), which replaces ``forward``."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from layergraph.hook_types.wrapping import Unwrapped

_HOME = "transformers.distributed.tensor_parallel"
_MARK = "_is_hooked"


def without_plan(module: nn.Module) -> Unwrapped | None:
    """Return a module with the ``forward`` that it had before a plan was applied; None without one.

    Its tensors stay as they are: another plugin takes DTensors.
    """
    attributes = dict(vars(module))
    forward: Any = attributes.get("forward")
    if getattr(forward, "__globals__", {}).get("__name__") == _HOME:
        original: Any = inspect.getclosurevars(forward).nonlocals["original_forward"]
        # One style replaced the method of the class; several, or the user, replace another.
        del attributes["forward"]
        if getattr(original, "__func__", None) is not type(module).forward:
            attributes["forward"] = original
    elif attributes.pop(_MARK, None) is None:
        return None
    return Unwrapped(module, attributes=attributes)
