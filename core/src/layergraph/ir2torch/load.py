"""Weights into a rebuilt model, under the keys of the original."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn

from layergraph.errors import StateError, first_line
from layergraph.ir import Ir
from layergraph.ir2torch.composite import descend, find
from layergraph.state import all_tensors, own_tensors
from layergraph.tensors import PLAIN_CLASSES, lie_alike, unsuitable, without_class

Key = tuple[str, torch.Tensor, bool]
"""Where a tensor is in a model, the tensor, and whether state dicts have it under this key."""


def keys(ir: Ir, modules: Mapping[str, nn.Module]) -> Iterator[Key]:
    """Every tensor of a model that was built, under all its names, in the order of a state dict.

    Unlike :meth:`torch.nn.Module.state_dict` it does not recurse over the model.
    """
    stack = [("", ir.root)]
    while stack:
        path, name = stack.pop()
        module = modules[name]
        children = ir[name].children
        for tensor_name, tensor, persistent in (
            all_tensors(module) if children is None else own_tensors(module)
        ):
            yield f"{path}.{tensor_name}" if path else tensor_name, tensor, persistent
        for child, target in reversed((children or {}).items()):
            stack.append((f"{path}.{child}" if path else child, target))


def load(wanted: Collection[Key], state_dict: Mapping[str, torch.Tensor]) -> None:
    """Copy a state dict into the tensors of a model: see :func:`keys`.

    The keys of one tensor under several names may be missing but for one.

    Raises:
        StateError: it is no mapping, keys are missing or superfluous, or a tensor does not fit;
            nothing was copied then.
    """
    tensors = fitting(wanted, state_dict)
    key = ""
    try:
        with torch.no_grad():
            for key, tensor in tensors.items():
                if key in state_dict:
                    given = state_dict[key]
                    is_plain = type(given) in PLAIN_CLASSES
                    tensor.copy_(given if is_plain else without_class(given))
    except Exception as error:
        raise StateError(
            f"torch cannot copy {key!r} into the model: {type(error).__name__}: "
            f"{first_line(error)}; give a plain tensor that it can copy"
        ) from error


def fitting(
    wanted: Collection[Key], state_dict: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors of a model that a state dict is for, by key, if it fits.

    Raises:
        StateError: as for :func:`load`.
    """
    if not isinstance(state_dict, Mapping):
        raise StateError(f"{state_dict!r} is no state dict; give a mapping from key to tensor")
    tensors = {key: tensor for key, tensor, persistent in wanted if persistent}
    named = names_of(tensors).values()
    problems = [
        f"{names[0]!r} is missing"
        for names in named
        if not any(name in state_dict for name in names)
    ]
    problems += [f"{key!r} is not one of the model" for key in state_dict if key not in tensors]
    problems += [
        f"{key!r} {misfit}"
        for key, tensor in tensors.items()
        if key in state_dict and (misfit := _misfit(state_dict[key], tensor))
    ]
    problems = problems or list(_contradictions(named, tensors, state_dict))
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" * (len(problems) > 8))
        raise StateError(f"the state dict does not fit the model: {shown}")
    return tensors


def _misfit(given: object, tensor: torch.Tensor) -> str | None:
    if not isinstance(given, torch.Tensor):
        return f"is {given!r:.60}, no tensor"
    reason = unsuitable(given)
    if reason is not None:
        return reason
    if type(given) not in PLAIN_CLASSES:
        given = without_class(given)
    if given.shape != tensor.shape:
        return f"has shape {tuple(given.shape)} where {tuple(tensor.shape)} is wanted"
    if given.is_complex() and not tensor.is_complex():
        return f"is complex where {tensor.dtype} is wanted"
    if given.is_meta and not tensor.is_meta:
        return "is on the meta device and has no values"
    return None


def _contradictions(
    named: Collection[list[str]],
    tensors: Mapping[str, torch.Tensor],
    state_dict: Mapping[str, torch.Tensor],
) -> Iterator[str]:
    """The keys that are one tensor of the model and have several values in a state dict."""
    for names in named:
        if len(names) == 1:
            continue
        first, *others = [name for name in names if name in state_dict] or [""]
        for name in others:
            if not _says_the_same(state_dict[first], state_dict[name], tensors[first].dtype):
                yield (
                    f"{first!r} and {name!r} are one tensor of the model, but have other values; "
                    "give one of them"
                )


def _says_the_same(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether two tensors of one shape leave the same bits in a tensor of a dtype."""
    if one is other or one.is_meta or other.is_meta:
        return True
    if one.layout is other.layout is torch.strided and one.dtype is other.dtype:
        lies_alike = one.device == other.device and lie_alike(one, other)
    else:
        lies_alike = False
    if lies_alike:
        return True
    told = [
        each.detach().to(device="cpu", dtype=dtype).resolve_conj().resolve_neg().contiguous()
        for each in (one, other)
    ]
    bits = [each.flatten().view(torch.uint8) for each in told]
    return torch.equal(*bits)


def names_of(tensors: Mapping[str, torch.Tensor]) -> dict[int, list[str]]:
    """The keys of each tensor, by its ``id``."""
    names: dict[int, list[str]] = {}
    for key, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(key)
    return names


def keep_alike(
    model: nn.Module,
    listed: Collection[Key],
    values: Collection[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """Make a model's own ``load_state_dict`` do what :func:`load` does.

    A state dict may lack the further names of a tensor. What was one tensor before is one after,
    also with ``assign=True``. A model that was built on the meta device gets the values that no
    state dict has as soon as it has all its weights.

    Args:
        model: the model.
        listed: its tensors: see :func:`keys`.
        values: tensors on the meta device, with what is to be in them.
    """
    # Those that are loaded first, because the others follow them.
    ordered = sorted(listed, key=lambda each: not each[2])
    names = names_of({key: tensor for key, tensor, _ in ordered})
    persistent = [key for key, _, persists in listed if persists]
    first = {id(tensor): names[id(tensor)][0] for _, tensor, _ in listed}
    unloaded = {first[id(tensor)]: value for tensor, value in values if id(tensor) in first}
    for key in persistent:
        unloaded.pop(key, None)
    ties = [each for each in names.values() if len(each) > 1]
    if ties or unloaded:
        on_meta = any(tensor.is_meta for _, tensor, _ in listed)
        loading = _Loading(ties, persistent, unloaded, incomplete=on_meta)
        root: Any = model
        root.register_load_state_dict_pre_hook(loading.begin)
        root.register_load_state_dict_post_hook(loading.end)


class _Loading:
    """What happens around a model's own ``load_state_dict``.

    Args:
        ties: the keys of each tensor that has several.
        persistent: the keys of state dicts.
        values: by key, what is to be in tensors on the meta device, and in no state dict.
        incomplete: whether the model is on the meta device.
    """

    def __init__(
        self,
        ties: list[list[str]],
        persistent: list[str],
        values: dict[str, torch.Tensor],
        *,
        incomplete: bool,
    ) -> None:
        self._ties = ties
        self._persistent = frozenset(persistent)
        self._values = values
        self._incomplete = incomplete
        self._holding = ties

    def begin(
        self,
        module: nn.Module,
        state_dict: MutableMapping[str, Any],
        prefix: str,
        *_: object,
    ) -> None:
        """Give a state dict the keys that it lacks only because another has the same tensor."""
        for names in self._ties:
            wanted = [prefix + name for name in names if name in self._persistent]
            given = [state_dict[key] for key in wanted if key in state_dict]
            state_dict.update({key: given[0] for key in wanted if given and key not in state_dict})
        # Leaving the meta device unties tensors, but the user may have meant to, later.
        if not self._incomplete:
            self._holding = [
                names
                for names in self._ties
                if len({id(find(module, name)) for name in names}) == 1
            ]

    def end(self, module: nn.Module, _: object) -> None:
        """Tie again what was tied, and give the values that no state dict has."""
        if self._incomplete:
            found = [find(module, key) for key in self._persistent]
            loaded = [each for each in found if isinstance(each, torch.Tensor)]
            if any(tensor.is_meta for tensor in loaded):
                return
            self._incomplete = False
            device = next((tensor.device for tensor in loaded), torch.device("cpu"))
            for key, value in self._values.items():
                _give(module, key, value, device)
            self._values = {}
        for first, *others in self._holding:
            for key in others:
                *way, last = key.split(".")
                setattr(descend(module, way), last, find(module, first))


def _give(module: nn.Module, key: str, value: torch.Tensor, device: torch.device) -> None:
    tensor = find(module, key)
    if not isinstance(tensor, torch.Tensor):
        return
    if tensor.is_meta:
        tensor = torch.empty_like(tensor, device=device)
        *way, last = key.split(".")
        setattr(descend(module, way), last, tensor)
    with torch.no_grad():
        tensor.copy_(value)
