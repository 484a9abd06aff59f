"""Comparison of a layer with a new one that its constructor makes from the same arguments."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from types import MethodType
from typing import Any

import torch
from torch import nn

from layergraph.tensors.hidden_states import hidden_states

# We compare tensors and submodules separately, and the mode with the mode of the outer module. The
# builder registers hooks on loading. `_is_full_backward_hook` says nothing if there are no hooks.
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
    """A new layer that other layers of its class are compared with.

    Args:
        made: the new layer, on the meta device if its constructor reads no numbers.
        not_compared: names of attributes to ignore.
    """

    def __init__(self, made: nn.Module, not_compared: Collection[str]) -> None:
        self._parts = [
            (
                part,
                _outline(part, children),
                vars(part).keys(),
                *_split(item for item in vars(part).items() if item[0] not in not_compared),
            )
            for part, children in _walk(made)
        ]
        self._ties = _ties(made)

    def matches(self, module: nn.Module) -> bool:
        """Return whether a module is the same as the new one, except for the values of tensors."""
        # The two walks have one length; otherwise an earlier outline differs, and we have returned.
        for (part, children), made in zip(_walk(module), self._parts, strict=True):
            new, outline, names, empty, values = made
            own = vars(part)
            if _outline(part, children) != outline or part.training != module.training:
                return False
            added = own.keys() - names
            if any(hasattr(new, name) for name in added if name not in _OF_REPR):
                return False  # the attribute hides one of the class
            hooks = [*map(own.get, empty)]
            are_empty = _ORDERED.issuperset(map(type, hooks)) and not any(hooks)
            if not are_empty and not all(_same(each, _EMPTY) for each in hooks):
                return False
            for name, value in values:
                mine = own.get(name, _ABSENT)
                if mine is value:
                    continue
                is_method = _is_method_of(value, new) and _is_method_of(mine, part)
                is_same = mine.__func__ is value.__func__ if is_method else _same(mine, value)
                if not is_same:
                    return False
        # The core records ties that the user made. It cannot undo a tie that the constructor makes.
        return self._ties <= _ties(module) if self._ties else True


_ABSENT = object()
_EMPTY: OrderedDict[object, object] = OrderedDict()
_ORDERED = frozenset({OrderedDict})


def _split(items: Iterable[tuple[str, Any]]) -> tuple[list[str], list[tuple[str, Any]]]:
    """Return the names of empty dicts, such as the hooks of each module, and the other items."""
    empty: list[str] = []
    others: list[tuple[str, Any]] = []
    for name, value in items:
        if type(value) is OrderedDict and not value:
            empty.append(name)
        else:
            others.append((name, value))
    return empty, others


# Only repr() calls this method. Quantization libraries assign one that describes the weight.
_OF_REPR = frozenset({"extra_repr"})
Children = list[tuple[str, int | None]]


def _walk(module: nn.Module) -> Iterator[tuple[nn.Module, Children]]:
    """Yield a module and each module inside it once, breadth first, with the numbers of children.

    The number of a module is its place in this order.
    """
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


def _is_method_of(value: object, part: nn.Module) -> bool:
    return isinstance(value, MethodType) and value.__self__ is part


def _outline(part: nn.Module, children: Children) -> tuple[object, ...]:
    """Return the structure of a module: its class, submodules, and the shapes of its tensors."""
    hidden = hidden_states(part)
    return (
        type(part),
        children,
        [(name, _kind(tensor)) for name, tensor in part._parameters.items()],
        [
            # The shape of a hidden state is that of the last inputs.
            (name, None if name in hidden else _kind(tensor))
            for name, tensor in part._buffers.items()
        ],
    )


def _kind(tensor: torch.Tensor | None) -> tuple[object, ...] | None:
    if tensor is None:
        return None
    dtype = tensor.dtype
    is_number = dtype.is_floating_point or dtype.is_complex
    return tensor.shape, isinstance(tensor, nn.Parameter), is_number


def _ties(module: nn.Module) -> set[tuple[int, int]]:
    """Return the ties inside a module: pairs of places that hold one tensor."""
    first: dict[int, int] = {}
    listed = [
        tensor
        for part, _ in _walk(module)
        for tensor in (*part._parameters.values(), *part._buffers.values())
        if tensor is not None
    ]
    places = [first.setdefault(id(tensor), place) for place, tensor in enumerate(listed)]
    return {(place, mine) for mine, place in enumerate(places) if place != mine}


# Nearly all tuples hold such values only, such as the size of a kernel.
_SIMPLE = frozenset({bool, int, str, type(None)})


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is tuple and type(other) is tuple and _SIMPLE.issuperset(map(type, one + other)):
        return one == other
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    if isinstance(one, float) and isinstance(other, float) and one != one:
        return other != other
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    try:
        return bool(one == other)
    except Exception:  # not a plain value: the comparison of two arrays has no truth value
        return False
