"""The hooks and attributes that torch.distributed leaves in a module."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

_TORCHS = "torch.distributed."
_MARKS = frozenset(
    {"_distribute_module_applied", "_fsdp_use_orig_params", "_is_fsdp_managed_module"}
)
_STATES = "__composable_api_state_key"
_OF_CALLS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _home(function: Any) -> str:
    """Return the name of the Python module that holds the code of a function."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif type(function).__name__ == "_WrappedHook":
            function = function.hook
        elif isinstance(function, FunctionType):
            # Not __module__, which a decorator may have copied from another function.
            return str(function.__globals__.get("__name__"))
        else:
            return type(function).__module__


def _is_torchs(function: Any) -> bool:
    return _home(function).startswith(_TORCHS)


def has_hooks_of_others(wrapper: Any) -> bool:
    """Return whether a call of a module runs hooks that do not belong to torch.distributed."""
    registries = (vars(wrapper).get(name) for name in _OF_CALLS)
    return any(not _is_torchs(hook) for held in registries if held for hook in held.values())


def is_marked(attributes: Mapping[str, Any]) -> bool:
    """Return whether torch.distributed may have changed a module, given its ``__dict__``."""
    return not _MARKS.isdisjoint(attributes) or any(attributes.get(each) for each in _OF_CALLS)


def attributes_without_hooks(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a module without those of torch.distributed.

    Args:
        attributes: the ``__dict__`` of the module.

    Returns:
        A new dict. An inner dict is also new if it has fewer entries than before.
    """
    kept = {
        name: value
        for name, value in attributes.items()
        if name not in _MARKS
        and not name.startswith(_STATES)
        and not (isinstance(value, FunctionType | MethodType) and _is_torchs(value))
    }
    # Each hook has a number, under which other dicts store the options of its call.
    numbers = {
        number
        for name, held in kept.items()
        if name.endswith("_hooks") and isinstance(held, dict)
        for number, hook in held.items()
        if _is_torchs(hook)
    }
    if numbers:
        for name, held in kept.items():
            if "_hooks" in name and isinstance(held, dict) and not numbers.isdisjoint(held):
                kept[name] = type(held)(
                    (number, hook) for number, hook in held.items() if number not in numbers
                )
    return kept
