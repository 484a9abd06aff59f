"""Undo the tensor parallelism of the library (``tp_plan``), which replaces ``forward``."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from layergraph.hook_types.wrapping import Unwrapped

_HOME = "transformers.distributed.tensor_parallel"
_MARK = "_is_hooked"


def without_plan(module: nn.Module) -> Unwrapped | None:
    """Return a module with its ``forward`` from before the plan; None if it has no plan.

    The function leaves DTensors in the module: another plugin replaces them.
    """
    attributes = dict(vars(module))
    forward: Any = attributes.get("forward")
    if getattr(forward, "__globals__", {}).get("__name__") == _HOME:
        original: Any = inspect.getclosurevars(forward).nonlocals["original_forward"]
        # A single style replaced the method of the class. With several styles, or a forward of the
        # user, the original is an attribute of the instance.
        del attributes["forward"]
        if getattr(original, "__func__", None) is not type(module).forward:
            attributes["forward"] = original
    elif attributes.pop(_MARK, None) is None:
        return None
    return Unwrapped(module, attributes=attributes)
