"""Loading weights into a rebuilt model, under the keys of the original."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn

from layergraph.errors import BuildError, StateError, first_line
from layergraph.ir import Ir
from layergraph.ir2torch.paths import descend, find
from layergraph.tensors.kinds import Packed, TensorKinds
from layergraph.tensors.memory import (
    PLAIN_CLASSES,
    is_plain,
    lie_alike,
    same_bytes,
    unsuitable,
    without_class,
)
from layergraph.tensors.state import all_tensors, as_parameter, own_tensors, replace

Key = tuple[str, torch.Tensor, bool]
"""The path of a tensor in a model, the tensor, and True if state dicts hold it under this path."""


def keys(ir: Ir, modules: Mapping[str, nn.Module]) -> Iterator[Key]:
    """Yield each tensor of a built model, under all its names, in the order of a state dict.

    Unlike :meth:`torch.nn.Module.state_dict`, this does not recurse, so that a deep model does not
    overflow the stack.
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


def load(
    model: nn.Module,
    wanted: Collection[Key],
    state_dict: Mapping[str, torch.Tensor],
    kinds: TensorKinds,
    device: torch.device,
) -> bool:
    """Copy a state dict into the tensors of a model: see :func:`keys`.

    If a tensor has several keys, one of them is enough.

    Args:
        model: the model.
        wanted: its tensors.
        state_dict: the state dict.
        kinds: the kinds of tensors that consist of parts. Such a tensor of the model is replaced.
        device: the device of such tensors.

    Returns:
        True if new tensors replace some of the model's, which happens to tensors of parts.

    Raises:
        StateError: the state dict is not a mapping, lacks keys, has unknown keys, or a tensor does
            not fit. Then no tensor was copied.
    """
    packed = packed_in(wanted, kinds)
    listed, parts = flat(wanted, state_dict, kinds, packed)
    tensors = fitting(listed, parts)
    whole = {key: tensor for key, tensor, persists in wanted if persists}
    key = ""
    try:
        with torch.no_grad():
            for key in [key for key in tensors if key in whole]:
                tensor = tensors[key]
                if key in parts:
                    given = parts[key]
                    is_plain = type(given) in PLAIN_CLASSES
                    tensor.copy_(given if is_plain else without_class(given))
    except Exception as error:
        raise StateError(
            f"torch cannot copy {key!r} into the model: {type(error).__name__}: "
            f"{first_line(error)}; give a plain tensor that it can copy"
        ) from error
    is_replaced = False
    for names in names_of(whole).values():
        apart = packed.get(id(whole[names[0]]))
        if apart is not None:
            is_replaced = True
            given_parts = {}
            for part, like in apart.parts.items():
                each = given_part(parts, names, part, like.dtype)
                if each.is_meta and device.type != "meta":
                    raise StateError(f"{names[0]!r} is on the meta device and has no values")
                given_parts[part] = each.to(device=device, copy=True)
            put(model, names, kinds.unflatten(apart.kind, given_parts, apart.data))
    return is_replaced


def given_part(
    parts: Mapping[str, torch.Tensor], names: Iterable[str], part: str, dtype: torch.dtype
) -> torch.Tensor:
    """Return a part of a tensor with several keys: under the last of them, as for other tensors.

    Raises:
        BuildError: no key has the part.
        StateError: the part has another dtype. A cast would change the meaning of its numbers.
    """
    keys = [f"{name}.{part}" for name in names]
    given = [parts[key] for key in keys if key in parts]
    if not given:
        raise BuildError(
            f"{keys[0]!r} is in no state dict, and the IR does not say its value; say it"
        )
    if given[-1].dtype is not dtype:
        raise StateError(f"{keys[0]!r} is of {given[-1].dtype} where {dtype} is wanted")
    return given[-1]


def put(model: nn.Module, names: Iterable[str], tensor: torch.Tensor) -> None:
    """Replace a tensor of a model under all its names; a parameter stays a parameter."""
    places = [place_of(model, name) for name in names]
    first = getattr(*places[0])
    if isinstance(first, nn.Parameter):
        tensor = as_parameter(tensor, requires_grad=first.requires_grad)
    for owner, name in places:
        replace(owner, name, tensor)


def place_of(model: nn.Module, key: str) -> tuple[nn.Module, str]:
    """Return the module that holds a tensor, and the name of the tensor there."""
    *way, last = key.split(".")
    owner = descend(model, way)
    return model if owner is None else owner, last


def packed_in(listed: Iterable[Key], kinds: TensorKinds) -> dict[int, Packed]:
    """Return the parts of each tensor that consists of parts, by the ``id`` of the tensor."""
    found = {id(tensor): kinds.flatten(tensor) for _, tensor, _ in listed}
    return {number: packed for number, packed in found.items() if packed is not None}


def flat(
    listed: Collection[Key],
    state_dict: Mapping[str, torch.Tensor],
    kinds: TensorKinds,
    packed: Mapping[int, Packed],
) -> tuple[Collection[Key], Mapping[str, torch.Tensor]]:
    """Return the tensors of a model and of a state dict, with parts in place of tensors of parts.

    Args:
        listed: the tensors of the model: see :func:`keys`.
        state_dict: the state dict. It may have the parts already, under ``KEY.PART``.
        kinds: the kinds of tensors.
        packed: the tensors of the model that consist of parts: see :func:`packed_in`.

    Raises:
        StateError: the state dict is not a mapping, a tensor of it is of another kind than that of
            the model, or two tensors have one key.
    """
    if not isinstance(state_dict, Mapping):
        raise StateError(f"{state_dict!r} is no state dict; give a mapping from key to tensor")
    if not packed:
        return listed, state_dict
    whole = {key: tensor for key, tensor, _ in listed if id(tensor) in packed}
    given = {key: state_dict[key] for key in whole if key in state_dict}
    misfits = [
        f"{key!r} {reason}"
        for key, each in given.items()
        if isinstance(each, torch.Tensor) and (reason := kinds.misfit(each, whole[key]))
    ]
    if misfits:
        raise StateError(f"the state dict does not fit the model: {'; '.join(misfits[:8])}")
    parts: list[Key] = []
    for key, tensor, persists in listed:
        apart = packed.get(id(tensor))
        named = {"": tensor} if apart is None else apart.parts
        parts += [
            (f"{key}.{name}" if name else key, part, persists) for name, part in named.items()
        ]
    if len({key for key, _, _ in parts}) < len(parts):
        twice = next(key for key, _, _ in parts if [each[0] for each in parts].count(key) > 1)
        raise StateError(f"two tensors have the key {twice!r}; rename one of them")
    others = {key: state_dict[key] for key in state_dict if key not in given}
    return parts, others | kinds.expanded(given)


def fitting(
    wanted: Collection[Key], state_dict: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Check a state dict, and return the tensors of the model that it sets, by key.

    Args:
        wanted: the tensors of the model, as :func:`flat` returns them.
        state_dict: the state dict, as :func:`flat` returns it.

    Raises:
        StateError: as for :func:`load`.
    """
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
    """Yield a message for each tied tensor that has different values in the state dict."""
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
    """Return whether two tensors of one shape have equal bits after a cast to a dtype."""
    if one.is_meta or other.is_meta or lie_alike(one, other):
        return True
    cast = [
        each.detach().to(device="cpu", dtype=dtype).resolve_conj().resolve_neg().contiguous()
        for each in (one, other)
    ]
    return same_bytes(*cast)


def names_of(tensors: Mapping[str, torch.Tensor]) -> dict[int, list[str]]:
    """Return the keys of each tensor, by its ``id``."""
    names: dict[int, list[str]] = {}
    for key, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(key)
    return names


def keep_alike(
    model: nn.Module,
    listed: Collection[Key],
    values: Collection[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """Make ``load_state_dict`` of a model treat ties and constants as :func:`load` does.

    A state dict may lack all keys but one of a tied tensor. Ties survive, also with
    ``assign=True``. A model on the meta device gets its constants, and its buffers that do not
    persist, as soon as it has all its weights.

    Args:
        model: the model.
        listed: the tensors of the model: see :func:`keys`.
        values: tensors whose values the IR holds, each with its value.
    """
    # Persistent keys come first: load_state_dict sets these, and the other keys follow.
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
    """The hooks that run before and after ``load_state_dict`` of a model.

    Args:
        ties: for each tied tensor, its keys.
        persistent: the keys of state dicts.
        values: by key, the values that the IR holds for tensors on the meta device.
        incomplete: True if the model is on the meta device.
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
        """Add the missing keys of tied tensors to a state dict, if it has one of their keys."""
        for names in self._ties:
            wanted = [prefix + name for name in names if name in self._persistent]
            given = [state_dict[key] for key in wanted if key in state_dict]
            state_dict.update({key: given[0] for key in wanted if given and key not in state_dict})
        # to_empty() unties the tensors of a meta model, and we tie them again. If the user unties
        # tensors of a loaded model, they stay so.
        if not self._incomplete:
            self._holding = [
                names
                for names in self._ties
                if len({id(find(module, name)) for name in names}) == 1
            ]

    def end(self, module: nn.Module, _: object) -> None:
        """Restore ties, and fill the tensors whose values the IR holds."""
        if self._incomplete:
            found = [find(module, key) for key in self._persistent]
            loaded = [each for each in found if isinstance(each, torch.Tensor)]
            if any(tensor.is_meta for tensor in loaded):
                return
            self._incomplete = False
            device = next((tensor.device for tensor in loaded), torch.device("cpu"))
            for key, value in self._values.items():
                _fill(module, key, value, device)
            self._values = {}
        for first, *others in self._holding:
            for key in others:
                *way, last = key.split(".")
                setattr(descend(module, way), last, find(module, first))


def _fill(module: nn.Module, key: str, value: torch.Tensor, device: torch.device) -> None:
    tensor = find(module, key)
    if not isinstance(tensor, torch.Tensor):
        return
    if type(value) not in PLAIN_CLASSES or not is_plain(value):
        put(module, [key], value.to(device))
        return
    if tensor.is_meta:
        tensor = torch.empty_like(tensor, device=device)
        *way, last = key.split(".")
        setattr(descend(module, way), last, tensor)
    with torch.no_grad():
        tensor.copy_(value)
