"""Changes to a layer after its construction, and detection of changed and shared objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Change:
    """A change to a layer after its construction.

    Attributes:
        what: the change, as a part of a sentence.
        advice: the remedy for a handler that loses the change.
        is_in: returns whether a module has the change.
    """

    what: str
    advice: str
    is_in: Callable[[nn.Module], bool]


def changes(module: nn.Module, *, but: Collection[str] = ()) -> Iterator[Change]:
    """Change a layer in one way after another, and yield each change. The next one undoes it.

    Plain public attributes get another value, parameters and buffers are removed, and a parameter
    and a child are added.

    Args:
        module: the layer.
        but: the attributes to leave unchanged.
    """
    for name, value in list(vars(module).items()):
        other = _another(value)
        if other is None or name.startswith("_") or name == "training" or name in but:
            continue
        vars(module)[name] = other
        yield _of_an_attribute(name, other)
        vars(module)[name] = value
    tensors: list[dict[str, Any]] = [module._parameters, module._buffers]
    for members in tensors:
        for name, tensor in list(members.items()):
            if tensor is not None:
                members[name] = None
                yield _of_structure(module, f"its {name!r} set to None")
                members[name] = tensor
    module.register_parameter(_ADDED, nn.Parameter(torch.zeros(1)))
    yield _of_structure(module, "a parameter added to it")
    del module._parameters[_ADDED]
    module.add_module(_ADDED, nn.Identity())
    yield _of_structure(module, "a module added to it")
    del module._modules[_ADDED]


_ADDED = "added_by_layergraph_testing"


def _of_an_attribute(name: str, value: object) -> Change:
    advice = (
        f"say {name!r} in the data, decline where it is not what the constructor makes of the data "
        "(as layergraph.layers.Layer does), or list it in `derived` if it does not matter"
    )
    what = f"its attribute {name!r} set to {value!r}"
    return Change(what, advice, lambda rebuilt: vars(rebuilt).get(name) == value)


def _of_structure(module: nn.Module, what: str) -> Change:
    outline = _outline(module)
    advice = "decline such a module (as layergraph.layers.Layer does): it is another layer"
    return Change(what, advice, lambda rebuilt: _outline(rebuilt) == outline)


def _outline(module: nn.Module) -> list[list[str]]:
    return [list(module.state_dict()), [name for name, _ in module.named_modules()]]


def _another(value: object) -> object:
    """Return another value of the same type; None if no other value is valid."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 + 0.25
    if isinstance(value, str):
        return f"{value}_"
    if type(value) is tuple and value:
        first = _another(value[0])
        return None if first is None else (first, *value[1:])
    return None


def snapshot(module: nn.Module) -> dict[str, tuple[Any, object]]:
    """Return the objects of a module by name, each with a copy of its mutable content."""
    seen: dict[str, tuple[Any, object]] = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            place = f"{path}.{name}" if path else name
            seen[place] = (value, repr(value) if isinstance(value, list | set | bool) else None)
            if isinstance(value, dict):
                seen |= {f"{place}[{key!r}]": (each, None) for key, each in value.items()}
        for name, tensor in [*part.named_parameters(path), *part.named_buffers(path)]:
            seen[name] = (tensor, tensor._version)
    return seen


def differing(
    before: dict[str, tuple[Any, object]], after: dict[str, tuple[Any, object]]
) -> list[str]:
    """Return the names of the objects that differ between two snapshots."""
    return [
        name
        for name in before | after
        if name not in before
        or name not in after
        or before[name][0] is not after[name][0]
        or before[name][1] != after[name][1]
    ]


def shared(one: nn.Module, other: nn.Module) -> list[str]:
    """Return the names of mutable objects (modules, tensors, lists) that two modules share."""
    ours = {id(value) for _, value in _changeable(one)}
    return [name for name, value in _changeable(other) if id(value) in ours]


def _changeable(module: nn.Module) -> Iterator[tuple[str, object]]:
    for path, part in module.named_modules():
        yield path or "the module itself", part
        for name, value in vars(part).items():
            if isinstance(value, list | dict | set | torch.Tensor):
                yield f"{path}.{name}" if path else name, value
    yield from module.named_parameters()
    yield from module.named_buffers()
