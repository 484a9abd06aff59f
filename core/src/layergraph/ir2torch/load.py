"""Weights into a rebuilt model, under the keys of the original."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn

from layergraph.errors import StateError
from layergraph.ir import Ir
from layergraph.state import all_tensors, own_tensors

Key = tuple[str, torch.Tensor, str]
"""A state-dict key, its tensor, and the first key of that tensor."""


def keys(ir: Ir, modules: Mapping[str, nn.Module]) -> Iterator[Key]:
    """Every state-dict key of a model that was built, in order.

    Unlike :meth:`torch.nn.Module.state_dict` it does not recurse over the model.
    """
    first: dict[int, str] = {}
    stack = [("", ir.root)]
    while stack:
        path, name = stack.pop()
        module = modules[name]
        children = ir[name].children
        for tensor_name, tensor, persistent in (
            all_tensors(module) if children is None else own_tensors(module)
        ):
            if persistent:
                key = f"{path}.{tensor_name}" if path else tensor_name
                yield key, tensor, first.setdefault(id(tensor), key)
        for child, target in reversed((children or {}).items()):
            stack.append((f"{path}.{child}" if path else child, target))


def load(wanted: Collection[Key], state_dict: Mapping[str, torch.Tensor]) -> None:
    """Copy a state dict into the tensors of a model: see :func:`keys`.

    The keys of one tensor under several names may be missing but for one.

    Raises:
        StateError: it is no mapping, keys are missing or superfluous, or shapes differ; nothing was
            copied then.
    """
    if not isinstance(state_dict, Mapping):
        raise StateError(f"{state_dict!r} is no state dict; give a mapping from key to tensor")
    by_first: dict[str, list[str]] = {}
    for key, _, first in wanted:
        by_first.setdefault(first, []).append(key)
    problems = [
        f"{key!r} is missing"
        for key, names in by_first.items()
        if not any(name in state_dict for name in names)
    ]
    known = {key for key, _, _ in wanted}
    problems += [f"{key!r} is not one of the model" for key in state_dict if key not in known]
    for key, tensor, _ in wanted:
        given = state_dict.get(key)
        if given is None:
            continue
        if not isinstance(given, torch.Tensor):
            problems.append(f"{key!r} is {given!r}, no tensor")
        elif given.shape != tensor.shape:
            problems.append(
                f"{key!r} has shape {tuple(given.shape)} where {tuple(tensor.shape)} is wanted"
            )
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" * (len(problems) > 8))
        raise StateError(f"the state dict does not fit the model: {shown}")
    with torch.no_grad():
        for key, tensor, _ in wanted:
            if key in state_dict:
                tensor.copy_(state_dict[key])


def accept_missing_duplicates(model: nn.Module, wanted: Collection[Key]) -> None:
    """Let a model's own ``load_state_dict`` do without the further names of a tensor."""
    duplicates = {key: first for key, _, first in wanted if key != first}
    if duplicates:
        root: Any = model
        root.register_load_state_dict_pre_hook(functools.partial(_fill_in, duplicates))


def _fill_in(
    duplicates: Mapping[str, str],
    _module: nn.Module,
    state_dict: MutableMapping[str, Any],
    prefix: str,
    *_: object,
) -> None:
    """Give a state dict the keys that it lacks only because another key has the same tensor."""
    for key, first in duplicates.items():
        if prefix + key not in state_dict and prefix + first in state_dict:
            state_dict[prefix + key] = state_dict[prefix + first]
