"""Modes that an overridden ``train()`` or ``eval()`` sets, such as a frozen BatchNorm's."""

from __future__ import annotations

import inspect
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, repeat
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from layergraph.errors import CaptureError
from layergraph.tensors.memory import is_plain, places_of
from layergraph.torch2ir.state.same_objects import are_one, are_the_same, fill

Modes = dict[str, bool | None]
"""From the path of a module to the mode that ``train()`` sets; None: it leaves the mode."""


def tried_modes(module: nn.Module, names: frozenset[str], modules: list[nn.Module]) -> Modes:
    """Return the modes that ``train()`` and ``eval()`` set differently from torch's.

    Args:
        module: the module.
        names: the methods that it overrides.
        modules: the module and all modules inside it.

    Raises:
        CaptureError: a method does more than to fix the modes of some modules.
    """
    if _only_passes_on(module, names, modules):
        return {}
    inside = {path: each for path, each in module.named_modules() if "training" in vars(each)}
    seen = [
        (start, *_tried(module, names, inside, start, mode))
        for start in (True, False)
        for mode in (True, False)
    ]
    kept: Modes = {}
    for path in inside:
        if all(torchs[path] == theirs[path] for _, torchs, theirs in seen):
            continue
        results = {theirs[path] for _, _, theirs in seen}
        if len(results) == 1:
            kept[path] = results.pop()
        elif all(theirs[path] == start for start, _, theirs in seen):
            kept[path] = None
        else:
            what = f"gives {path or 'itself'!r} a mode that depends on the one before"
            raise refusal("train", what)
    return kept


def _only_passes_on(module: nn.Module, names: frozenset[str], modules: list[nn.Module]) -> bool:
    """Return whether ``train()`` and ``eval()`` have the effect of torch's, as most overrides do.

    A stand-in switches the children, because one call for each child would be slow.
    """
    children = list(module.children())
    members = [*map(vars, modules)]
    # A scripted module inside has its mode elsewhere.
    if any("train" in vars(each) for each in children) or not all(map(_has_mode, members)):
        return False
    parameters = [each for own in modules for each in own._parameters.values() if each is not None]
    wants = [*map(_wants_gradient, parameters)]
    plain = [*filter(is_plain, parameters)]
    data = [*map(torch.Tensor.detach, plain)]
    places = places_of(plain)
    before = [*map(dict.copy, members)]
    keys = list(chain.from_iterable(before))
    values = list(chain.from_iterable(map(dict.values, before)))
    modes = [*map(_mode, before)]
    inside = [(each, [*map(vars, modules_in(each))]) for each in children]

    def is_as_before() -> bool:
        for each in children:
            vars(each).pop("train", None)
        _set_modes(members, modes)
        return (
            list(chain.from_iterable(members)) == keys
            and all(map(operator.is_, chain.from_iterable(map(dict.values, members)), values))
            and [*map(_wants_gradient, parameters)] == wants
            and places_of(plain) == places
        )

    try:
        return all(
            _passes_on(members, inside, mode, switch) and is_as_before()
            for mode in (True, False)
            for switch in _switches(module, names, mode)
        )
    except (Exception, SystemExit):
        return False
    finally:
        if not is_as_before():
            for holder, was in zip(members, before, strict=True):
                fill(holder, was)
            for parameter, wanted in zip(parameters, wants, strict=True):
                parameter.requires_grad_(wanted)
            for parameter, its in zip(plain, data, strict=True):
                parameter.data = its


def _switches(
    module: nn.Module, names: frozenset[str], mode: bool
) -> Iterator[Callable[[], object]]:
    """Yield functions that call the overridden ``train(mode)`` and ``eval()``."""
    if "train" in names:
        yield partial(module.train, mode)
    if "eval" in names and not mode:
        yield module.eval


def _passes_on(
    members: list[dict[str, Any]],
    inside: list[tuple[nn.Module, list[dict[str, Any]]]],
    mode: bool,
    switch: Callable[[], object],
) -> bool:
    asked: list[tuple[nn.Module, bool]] = []
    _set_modes(members, repeat(not mode))
    for child, own in inside:
        vars(child)["train"] = partial(_switched, asked, child, own)
    with NothingChanged("train"):
        switch()
    all_switched = all(map(operator.is_, map(_mode, members), repeat(mode)))
    return all_switched and asked == [(child, mode) for child, _ in inside]


def _switched(
    asked: list[tuple[nn.Module, bool]],
    child: nn.Module,
    members: list[dict[str, Any]],
    mode: bool = True,
) -> nn.Module:
    asked.append((child, mode))
    _set_modes(members, repeat(mode))
    return child


def _set_modes(members: list[dict[str, Any]], modes: Iterable[bool]) -> None:
    # A model has many modules, so the loops of this trial run in C.
    deque(map(operator.setitem, members, repeat("training"), modes), maxlen=0)


_mode = operator.itemgetter("training")
_has_mode = operator.methodcaller("__contains__", "training")
_wants_gradient = operator.attrgetter("requires_grad")


def modules_in(module: nn.Module) -> list[nn.Module]:
    """Return a module and all modules inside it, each once."""
    found: dict[int, nn.Module] = {}
    level = {id(module): module}
    while level:
        found |= level
        below = chain.from_iterable([each._modules.values() for each in level.values()])
        level = {id(each): each for each in below if each is not None and id(each) not in found}
    return list(found.values())


def _tried(
    module: nn.Module, names: frozenset[str], inside: dict[str, nn.Module], start: bool, mode: bool
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Return the modes of all modules after torch's ``train(mode)``, and after the class's."""
    torchs = _modes_after(inside, partial(nn.Module.train, module, mode), start) or {}
    theirs = None
    if "train" in names and takes(module.train, mode):
        theirs = _modes_after(inside, partial(module.train, mode), start, "train")
    theirs = theirs or torchs
    if "eval" in names and not mode and takes(module.eval):
        evaluating = _modes_after(inside, module.eval, start, "eval")
        if evaluating not in (None, theirs):
            raise refusal("eval", "differs from train(False)")
    return torchs, theirs


def takes(method: Callable[..., Any], *args: Any) -> bool:
    """Return whether a method accepts the arguments: a class may have another one of that name."""
    try:
        inspect.signature(method).bind(*args)
    except (TypeError, ValueError):
        return False
    return True


def _modes_after(
    inside: dict[str, nn.Module], switch: Callable[[], object], start: bool, name: str = ""
) -> dict[str, bool] | None:
    """Return the modes after a call that starts with all modules in one mode, and undo the call.

    None if the call fails: it fails for users too.
    """
    with unchanged_but_modes(inside, name):
        for each in inside.values():
            vars(each)["training"] = start
        try:
            with NothingChanged(name):
                switch()
        except (Exception, SystemExit) as error:
            if name and isinstance(error, CaptureError):
                raise
            return None
        return {path: vars(each)["training"] for path, each in inside.items()}


@contextmanager
def unchanged_but_modes(inside: dict[str, nn.Module], name: str) -> Iterator[None]:
    """Undo the assignments of a method, and refuse changes other than modes."""
    members = {path: vars(each) for path, each in inside.items()}
    holders = [
        (path, holder, holder.copy())
        for path, own in members.items()
        for holder in (own, *(value for value in own.values() if type(value) is dict))
    ]
    listed = [
        (path, each)
        for path, own in members.items()
        for each in own["_parameters"].values()
        if each is not None
    ]
    trained = [(each, each.requires_grad, each.detach()) for _, each in listed if is_plain(each)]
    # A tensor subclass keeps its parts in attributes.
    holders += [
        (path, vars(each), vars(each).copy()) for path, each in listed if not is_plain(each)
    ]
    changed = ""
    try:
        yield
    finally:
        for path, holder, before in holders:
            if "training" in before:
                holder["training"] = before["training"]
            if are_the_same(holder, before):
                continue
            for key in holder.keys() | before.keys():
                now, was = holder.get(key), before.get(key)
                if not (_is_one(now, was) or _drops_tensors(key, now, was)):
                    changed = changed or f"assigns {key!r} in {path or 'itself'!r}"
            fill(holder, before)
        for parameter, requires_grad, data in trained:
            if not are_one(parameter.detach(), data):
                parameter.data = data
                changed = changed or "changes parameters"
            if parameter.requires_grad is not requires_grad:
                parameter.requires_grad_(requires_grad)
                changed = changed or "changes which parameters want gradients; call it before"
    if changed and name:
        raise refusal(name, changed)


def _is_one(now: Any, before: Any) -> bool:
    plain = type(now) is type(before) and type(now) in (bool, int, float, str, tuple)
    return are_one(now, before) or (plain and repr(now) == repr(before))


def _drops_tensors(key: str, now: Any, before: Any) -> bool:
    """Return whether the method only clears a cached tensor, which the module computes again."""
    return (
        key not in _REGISTRIES
        and type(now) is type(before) is dict
        and not now
        and all(type(each) is torch.Tensor for each in before.values())
    )


def clears_tensors(module: nn.Module) -> bool:
    """Return whether ``train()`` clears tensors that a module has cached.

    The module computes them again after training. A graph in which they are constants would not.
    """
    if type(module).train is nn.Module.train:
        return False
    members = vars(module)
    cached = {name: each.copy() for name, each in members.items() if type(each) is dict and each}
    with unchanged_but_modes(dict(module.named_modules()), ""), suppress(Exception):
        module.train()
        return any(_drops_tensors(name, members.get(name), was) for name, was in cached.items())
    return False


_REGISTRIES = vars(nn.Module()).keys()


class NothingChanged(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is untyped
    """Refuses in-place operations of a method before they run."""

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            raise refusal(self._name, f"changes tensors ({func})")
        return func(*args, **(kwargs or {}))


def refusal(name: str, what: str) -> CaptureError:
    """Return the error for a method override that an IR cannot hold."""
    shown = name if name.startswith("__") else f"{name}()"
    return CaptureError(
        f"its class overrides {shown}, which {what}; a handler for the class can keep it whole"
    )
