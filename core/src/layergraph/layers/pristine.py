"""Whether a layer still is what its constructor made of its arguments."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn

# What a module holds is compared by itself, and its mode with that of the module around it. The
# builder registers hooks on loading; without hooks on gradients it says nothing what they would be.
NOT_COMPARED = frozenset(
    {
        "training",
        "_parameters",
        "_buffers",
        "_modules",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
        "_is_full_backward_hook",
    }
)


class PristineLayer:
    """A new layer, to which others of its class are compared."""

    def __init__(self, made: nn.Module, not_compared: Collection[str]) -> None:
        self._parts = [
            (
                part,
                _outline(part, children),
                vars(part).keys(),
                [item for item in vars(part).items() if item[0] not in not_compared],
            )
            for part, children in _walk(made)
        ]
        self._ties = _ties(made)

    def matches(self, module: nn.Module) -> bool:
        """Whether all of a module is set as in the new one, but for the values of its tensors."""
        # Where the numbers differ, so do the children of one before.
        for (part, children), made in zip(_walk(module), self._parts, strict=True):
            new, outline, names, values = made
            own = vars(part)
            if _outline(part, children) != outline or part.training != module.training:
                return False
            if not own.keys() <= names and any(hasattr(new, name) for name in own.keys() - names):
                return False  # it is hidden
            for name, value in values:
                mine = own.get(name, _ABSENT)
                # Nearly all that are other objects are the hooks of a module, of which it has none.
                are_empty = type(mine) is OrderedDict is type(value) and not (mine or value)
                if mine is not value and not are_empty and not _same(mine, value):
                    return False
        # Ties of its own, the core knows about; those that the constructor makes, it cannot undo.
        return self._ties <= _ties(module) if self._ties else True


_ABSENT = object()
Children = list[tuple[str, int | None]]


def _walk(module: nn.Module) -> Iterator[tuple[nn.Module, Children]]:
    """A module and all inside it, each once, with the numbers of its children in this order."""
    found = [module]
    numbers = {id(module): 0}
    for part in found:
        children: Children = []
        for name, child in part._modules.items():
            if child is None:
                children.append((name, None))
                continue
            number = numbers.setdefault(id(child), len(found))
            if number == len(found):
                found.append(child)
            children.append((name, number))
        yield part, children


def _outline(part: nn.Module, children: Children) -> tuple[object, ...]:
    """What a module has inside that its arguments decide: other modules, and tensors."""
    return (
        type(part),
        children,
        [(name, _kind(tensor)) for name, tensor in part._parameters.items()],
        [(name, _kind(tensor)) for name, tensor in part._buffers.items()],
    )


def _kind(tensor: torch.Tensor | None) -> tuple[object, ...] | None:
    if tensor is None:
        return None
    dtype = tensor.dtype
    is_number = dtype.is_floating_point or dtype.is_complex
    return tensor.shape, isinstance(tensor, nn.Parameter), is_number


def _ties(module: nn.Module) -> set[tuple[int, int]]:
    """The pairs of tensors inside a module that are one, by their places."""
    first: dict[int, int] = {}
    listed = [
        tensor
        for part, _ in _walk(module)
        for tensor in (*part._parameters.values(), *part._buffers.values())
        if tensor is not None
    ]
    places = [first.setdefault(id(tensor), place) for place, tensor in enumerate(listed)]
    return {(place, mine) for mine, place in enumerate(places) if place != mine}


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    if isinstance(one, float) and isinstance(other, float) and one != one:
        return other != other
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    try:
        return bool(one == other)
    except Exception:  # it is no plain value: arrays have no truth
        return False
