"""The message for a parameter that no module has registered: its place, and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from layergraph.torch2ir.indexing.module_index import ModuleIndex

_REMEDIES = {
    list: ("torch.nn.ModuleList", "torch.nn.ParameterList"),
    tuple: ("torch.nn.ModuleList", "torch.nn.ParameterList"),
    dict: ("torch.nn.ModuleDict", "torch.nn.ParameterDict"),
}


def unregistered(module_index: ModuleIndex, parameter: object) -> str:
    """Return the message for an unregistered parameter that the model's code reads."""
    said = "a parameter that is not registered in the model, so that no state dict has it"
    for module_info in module_index:
        for name, value in vars(module_info.module).items():
            kind = next((kind for kind in _REMEDIES if isinstance(value, kind)), None)
            if kind is None or name in ("_parameters", "_buffers", "_modules"):
                continue
            for item in _items(value):
                of_modules, of_parameters = _REMEDIES[kind]
                place = f"it is in the {type(value).__name__} {module_info.key(name)!r}"
                if item is parameter:
                    return f"{said}: {place}; make that a {of_parameters}"
                if isinstance(item, nn.Module) and _has(item, parameter):
                    inside = f"{place}, in a {type(item).__name__}"
                    return f"{said}: {inside}; make that a {of_modules}"
    return (
        f"{said}; make it, or the module that it is in, an attribute of a module; if the first "
        "call does that, call the model once before you convert it"
    )


def _items(container: Any) -> Iterator[Any]:
    if isinstance(container, dict):
        return iter(dict.values(container))
    return list.__iter__(container) if isinstance(container, list) else tuple.__iter__(container)


def _has(module: nn.Module, parameter: object) -> bool:
    return any(each is parameter for each in module.parameters())
