"""Expressions that read the children and tensors of a module."""

from __future__ import annotations

import keyword

from torch import nn

from layergraph.ir2torch.paths import descend
from layergraph_source.literals import quoted


def is_attribute(name: str) -> bool:
    """Return whether code can read a child or tensor of this name as an attribute."""
    is_name = name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
    return is_name and (name == "training" or not hasattr(nn.Module, name))


def reading(text: str, module: nn.Module, path: str) -> str:
    """Return the expression that reads the child, tensor or mode at a path.

    Args:
        text: the expression of the module.
        module: the module, as it is built.
        path: the path of names; empty for the module itself.
    """
    for name in path.split(".") if path else ():
        if isinstance(module, nn.Sequential | nn.ModuleList) and _is_number_in(module, name):
            text = f"{text}[{name}]"
        elif isinstance(module, nn.ModuleDict) and name in module._modules:
            text = f"{text}[{quoted(name)}]"
        elif isinstance(module, nn.ParameterList | nn.ParameterDict):
            text = f"{text}[{name if isinstance(module, nn.ParameterList) else quoted(name)}]"
        elif is_attribute(name):
            text = f"{text}.{name}"
        else:
            text = f"{text}.{_registry(module, name)}[{quoted(name)}]"
        inner = descend(module, [name])
        if inner is None:
            continue
        module = inner
    return text


def _is_number_in(module: nn.Module, name: str) -> bool:
    keys = list(module._modules)
    return name.isdigit() and int(name) < len(keys) and keys[int(name)] == name


def _registry(module: nn.Module, name: str) -> str:
    for registry in ("_modules", "_parameters", "_buffers"):
        if name in getattr(module, registry):
            return registry
    return "_modules"
