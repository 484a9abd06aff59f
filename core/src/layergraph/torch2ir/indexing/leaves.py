"""State of the leaves: recorded before the model runs, and compared at each call."""

from __future__ import annotations

import operator
from typing import Any

import torch

from layergraph.tensors.hidden_states import hidden_states
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.state.same_objects import are_all_the_same, are_one


def note_leaves(module_index: ModuleIndex) -> dict[ModuleInfo, bool]:
    """Record the state of each leaf, and return the mode of each module."""
    for each in module_index:
        if each.is_leaf:
            each.as_found = each.as_found or _noted(_members(each))
            each.as_left = each.as_left or each.as_found
    return {each: each.module.training for each in module_index}


def is_changed(module_info: ModuleInfo, trains: dict[ModuleInfo, bool]) -> bool:
    """Return whether code has changed the mode or the attributes of a leaf."""
    return vars(module_info.module)["training"] != trains[module_info] or not is_as_found(
        module_info
    )


def is_as_found(module_info: ModuleInfo) -> bool:
    """Return whether only the leaf itself has changed its state, apart from its mode."""
    if is_untouched(module_info) and module_info.as_left is module_info.as_found:
        return True
    return are_one(_members(module_info), module_info.as_left)


def may_trace_into(module_info: ModuleInfo) -> bool:
    """Return whether only the mode or the tensors of a leaf differ, as in ``functional_call``."""
    step = len(_REGISTERED) + 1
    return all(
        now.keys() == was.keys() if 0 < place % step <= _OF_TENSORS else are_one(now, was)
        for place, (now, was) in enumerate(
            zip(_members(module_info), module_info.as_found, strict=True)
        )
    )


def is_untouched(module_info: ModuleInfo) -> bool:
    """Return whether a leaf still holds the objects of the index; a quick check for most leaves."""
    return are_all_the_same(_members(module_info), module_info.as_found)


def note_left(module_info: ModuleInfo) -> None:
    """Record the attributes that a leaf has set in its own call.

    They are allowed if the handler still gives the same answer: the rebuilt leaf sets them too.
    """
    now, before = _members(module_info), module_info.as_found
    if are_one(now, before):
        module_info.as_left = before
    elif are_one(_registered(now), _registered(before)) and module_info.is_still_answered():
        module_info.as_left = _noted(now)


def begin_runs(module_index: ModuleIndex) -> dict[int, str]:
    """Record the state of each leaf at the start of a run.

    Returns:
        The keys of the hidden states that the leaves hold, by ``id`` of the tensor.
    """
    keys = {}
    for each in module_index:
        if each.is_leaf:
            _begin_run(each)
            for name, tensor in each.hidden.items():
                if tensor is not None:
                    keys[id(tensor)] = each.key(name)
    return keys


def _begin_run(module_info: ModuleInfo) -> None:
    # The state is that which an earlier run left, or that of the index.
    if module_info.as_left is not module_info.as_found:
        module_info.left_before.append(module_info.as_left)
    module_info.as_left = module_info.as_found
    if module_info.left_before:
        now = _members(module_info)
        left = (each for each in module_info.left_before if are_one(now, each))
        module_info.as_left = next(left, module_info.as_found)
    note_hidden(module_info)


def note_hidden(module_info: ModuleInfo) -> None:
    """Record the current hidden state of a leaf."""
    module_info.hidden = _hidden(module_info)


def assigned_states(module_info: ModuleInfo) -> dict[str, torch.Tensor | None]:
    """Return the hidden states that code has assigned since the last call of the leaf."""
    now = module_info.module._buffers
    found = module_info.hidden.items()
    return {name: now.get(name) for name, was in found if now.get(name) is not was}


def _hidden(module_info: ModuleInfo) -> dict[str, torch.Tensor | None]:
    names = hidden_states(module_info.module) if module_info.is_leaf else ()
    return {name: module_info.module._buffers.get(name) for name in names}


def _noted(members: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    return tuple(map(_copied, members))


def _registered(members: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the parts of a leaf's state other than plain attributes."""
    step = len(_REGISTERED) + 1
    return tuple(each for place, each in enumerate(members) if place % step)


def _members(module_info: ModuleInfo) -> tuple[dict[str, Any], ...]:
    """Return the state of a leaf, without its mode."""
    found: list[dict[str, Any]] = []
    for each in module_info.inside:
        members = vars(each)
        found += [members | _ANY_MODE, *_registries(members)]
    hidden = hidden_states(module_info.module)
    if hidden:
        # The first module is the leaf itself.
        found[_BUFFERS] = found[_BUFFERS] | dict.fromkeys(hidden)
        found[0] = found[0] | {"_buffers": None}
    return tuple(found)


_ANY_MODE = {"training": None}
_REGISTERED = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
# The first of these hold tensors.
_OF_TENSORS = 2
_BUFFERS = 1 + _REGISTERED.index("_buffers")
_registries = operator.itemgetter(*_REGISTERED)
_copied = operator.methodcaller("copy")
