"""Checks of methods of ``torch.nn.Module`` that a class overrides.

A rebuilt module has torch's methods. So we call each overridden method on the module, or on a copy
on the meta device, and compare its effect with that of torch's method. Modes that ``train()`` fixes
go into the IR; any other difference is refused.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from layergraph.errors import CaptureError, first_line
from layergraph.tensors.memory import without_numbers
from layergraph.tensors.state import all_tensors, own_tensors
from layergraph.torch2ir.indexing.kept_modes import (
    Modes,
    NothingChanged,
    modules_in,
    refusal,
    takes,
    tried_modes,
    unchanged_but_modes,
)
from layergraph.torch2ir.state.same_objects import fill

_CASTS = {
    "bfloat16": torch.bfloat16,
    "double": torch.float64,
    "float": torch.float32,
    "half": torch.float16,
    "to": torch.float64,
    "type": torch.float64,
}
_LISTS = ("parameters", "named_parameters", "buffers", "named_buffers")
_MODULES = ("children", "named_children", "modules", "named_modules")
_LOADS = ("load_state_dict", "_load_from_state_dict")
_TRIED = frozenset(
    {
        "__call__",
        "_apply",
        "eval",
        "requires_grad_",
        "train",
        "zero_grad",
        *_CASTS,
        *_LISTS,
        *_LOADS,
        *_MODULES,
    }
)
_OWN: Any = {name: inspect.getattr_static(nn.Module, name) for name in _TRIED}


def overridden(module: nn.Module) -> frozenset[str]:
    """Return the methods that a module overrides, by its class or by assignment."""
    cls: Any = type(module)
    of_class = _of_class(cls)
    # For a rebuilt model, the IR already holds the effects of these methods.
    return (of_class | assigned(module)) - getattr(cls, "_held_by_ir", frozenset())


def assigned(module: nn.Module) -> set[str]:
    """Return the methods that are assigned on the module itself."""
    # An attribute may have the name of a method without being one, such as ``type``.
    members = vars(module)
    # A quick check: nearly all modules have none.
    if _TRIED.isdisjoint(members):
        return set()
    return {name for name in members.keys() & _TRIED if callable(members[name])}


def runs_around_forward(module: nn.Module) -> bool:
    """Return whether the class of a module runs code of its own around ``forward``."""
    return "__call__" in overridden(module)


def call_signature(module: nn.Module) -> inspect.Signature:
    """Return the signature of a module's call: that of ``forward``, if its class names no other.

    Raises:
        TypeError: there is none.
    """
    if runs_around_forward(module):
        own = inspect.signature(module.__call__)
        kinds = {each.kind for each in own.parameters.values()}
        if not {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds:
            return own
    return inspect.signature(module.forward)


def changes_its_call(module: nn.Module) -> bool:
    """Return whether methods assigned on a module change its call."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or "forward" in vars(module)
        or assigned(module)
    )


@functools.lru_cache(maxsize=4096)
def _of_class(cls: type) -> frozenset[str]:
    return frozenset(name for name in _TRIED if _method(cls, name) is not _OWN[name])


def _method(cls: type, name: str) -> Any:
    """Return a method of a class, without the ``__call__`` that torch.fx adds.

    torch.fx gives the class of each GraphModule a ``__call__`` that adds the code to error messages
    and then calls the ``__call__`` of the next class.
    """
    for base in cls.__mro__:
        method = vars(base).get(name, _FX)
        if method is not _FX and getattr(method, "__module__", None) != _FX:
            return method
    return None


_FX = torch.fx.graph_module.__name__


def kept_dtypes(module: nn.Module, *, is_leaf: bool) -> Collection[str]:
    """Return the names of buffers that keep dtype and numbers in casts to narrower dtypes.

    Example: frequencies of position embeddings, which their class computes again after a cast.

    Args:
        module: any module.
        is_leaf: whether a handler describes it as one layer; such a layer keeps its own dtypes.
    """
    if is_leaf:
        return ()
    if "_apply" not in overridden(module):
        return getattr(module, "_unnarrowed", ())
    wide = {
        name: buffer
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.is_floating_point() and buffer.itemsize > _NARROW
    }
    for cast in (_to_bfloat16, torch.Tensor.half) if wide else ():
        try:
            copied = without_memory(module, {id(each): each.clone() for each in wide.values()})
            copied._apply(cast)  # type: ignore[no-untyped-call]
        except Exception:  # the comparison with torch's method reports this error
            return ()
        left = copied._buffers
        wide = {name: each for name, each in wide.items() if _is_as(each, left.get(name))}
    return wide.keys()


_NARROW = 2
"""The bytes per number of the narrow dtypes, such as bfloat16."""


def _is_as(buffer: torch.Tensor, left: torch.Tensor | None) -> bool:
    if left is None or left.dtype != buffer.dtype or buffer.is_meta:
        return False
    return torch.equal(buffer, left)


def kept_modes(module: nn.Module, *, kept_dtypes: Collection[str] = ()) -> Modes:
    """Return the modes that ``train()`` fixes; check the other overrides too.

    Args:
        module: a composite.
        kept_dtypes: the buffers that the IR marks as keeping their dtype.

    Raises:
        CaptureError: a method differs from torch's in a way that an IR cannot hold.
    """
    names = overridden(module)
    if module._load_state_dict_pre_hooks:
        names |= {"_load_from_state_dict"}
    if not names or "training" not in vars(module):
        return {}
    inside = modules_in(module)
    casts = sorted(names & _CASTS.keys())
    # Without a floating-point tensor, a cast has no effect.
    if casts and any(_is_cast(tensor) for _, tensor, _ in all_tensors(module)):
        _try_casts(module, casts, inside)
    for name in sorted(names & _ON_COPY.keys()):
        for args in _ON_COPY[name]:
            _compare_after(module, name, args, kept_dtypes if args == (_to_bfloat16,) else ())
    for name in sorted(names & {*_LISTS}):
        _compare_list(module, name)
    for name in sorted(names & {*_MODULES}):
        _compare_modules(module, name)
    for name in sorted(names & {*_LOADS}):
        _try_load(module, name)
    return tried_modes(module, names, inside) if names & {"train", "eval"} else {}


# --- casts and gradients ---


def _is_cast(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _try_casts(module: nn.Module, names: Collection[str], inside: list[nn.Module]) -> None:
    """Raise unless casts make the same calls of ``_apply`` as torch's."""
    asked: list[tuple[nn.Module, Any]] = []

    def note(of: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:  # noqa: ARG001
        asked.append((of, fn))
        return of

    before = [vars(each).get("_apply") for each in inside]
    for each in inside:
        vars(each)["_apply"] = functools.partial(note, each)
    try:
        for name in names:
            asked.clear()
            _try_cast(module, name, asked)
    finally:
        for each, own in zip(inside, before, strict=True):
            del vars(each)["_apply"]
            if own is not None:
                vars(each)["_apply"] = own


def _try_cast(module: nn.Module, name: str, asked: list[tuple[nn.Module, Any]]) -> None:
    dtype = _CASTS[name]
    mine = vars(module).copy()
    try:
        with NothingChanged(name):
            getattr(module, name)(*((dtype,) if name in ("to", "type") else ()))
        other = torch.float32 if name == "half" else torch.float16
        given = torch.empty(1, dtype=other, device="meta")
        made = [fn(given).dtype if of is module else None for of, fn in asked]
    except (Exception, SystemExit) as error:
        if isinstance(error, CaptureError):
            raise
        return  # This cast fails for the original model too.
    finally:
        fill(vars(module), mine)
    if made != [dtype]:
        raise refusal(name, "casts otherwise than torch's")


def without_memory(
    module: nn.Module, but: Mapping[int, torch.Tensor] = MappingProxyType({})
) -> nn.Module:
    """Return a copy whose parameters and buffers are on the meta device.

    Args:
        module: any module.
        but: tensors that replace tensors of the module, by the ``id`` of the replaced one.
    """
    memo: dict[int, Any] = {**but}
    for _, tensor, _ in all_tensors(module):
        if id(tensor) not in but:
            memo[id(tensor)] = twin_without_memory(tensor)
    return copy.deepcopy(module, memo)


def twin_without_memory(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor like another one on the meta device; a parameter for a parameter."""
    twin = without_numbers(tensor)
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin


def _compare_after(
    module: nn.Module, name: str, args: tuple[Any, ...], known: Collection[str]
) -> None:
    """Compare the tensors of two copies after torch's method and after the module's.

    The tensors in ``known`` are skipped: the IR describes their treatment.
    """
    told = []
    for own in (True, False):
        try:
            copied = without_memory(module)
        except Exception as error:
            raise refusal(name, f"cannot be tried on a copy: {first_line(error)}") from error
        for each in copied.parameters():
            each.grad = torch.zeros_like(each) if each.requires_grad else None
        method = getattr(nn.Module, name).__get__(copied) if own else getattr(copied, name)
        try:
            method(*args)
        except Exception:  # the call fails for the original model too
            return
        told.append(
            {
                key: (tensor.dtype, tensor.requires_grad, tensor.grad is None)
                for key, tensor, _ in all_tensors(copied)
            }
        )
    for key in (told[0].keys() & told[1].keys()) - {*known}:
        if told[0][key] != told[1][key]:
            raise refusal(name, f"treats {key!r} otherwise than torch's")


def _to_double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _to_bfloat16(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.bfloat16() if tensor.is_floating_point() else tensor


# The arguments of the trial calls, by method.
_ON_COPY: dict[str, list[tuple[Any, ...]]] = {
    "_apply": [(_to_double,), (_to_bfloat16,)],
    "requires_grad_": [(True,), (False,)],
    "zero_grad": [()],
}


def _compare_list(module: nn.Module, name: str) -> None:
    kind = nn.Parameter if "parameters" in name else torch.Tensor
    registered = {id(each) for _, each, _ in all_tensors(module) if isinstance(each, kind)}
    if kind is torch.Tensor:
        registered -= {id(each) for _, each, _ in all_tensors(module) if type(each) is nn.Parameter}
    method = getattr(module, name)
    if not takes(method):
        return
    listed = {id(each[1] if isinstance(each, tuple) else each) for each in method()}
    if listed != registered:
        raise refusal(name, "lists others than are registered")


def _compare_modules(module: nn.Module, name: str) -> None:
    # Through these, torch switches, casts and loads the modules inside.
    method = getattr(module, name)
    if not takes(method):
        return
    inside = [id(each) for each in vars(module)["_modules"].values() if each is not None]
    registered = modules_in(module) if name.endswith("modules") else None
    wanted = {*inside} if registered is None else {*map(id, registered)}
    if {id(each[1] if isinstance(each, tuple) else each) for each in method()} != wanted:
        raise refusal(name, "lists others than are registered")


# --- state dicts ---


class _Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records copies between tensors instead of making them, and refuses other changes."""

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name
        self.made: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default:
            self.made.append((id(args[0]), id(args[1])))
            return args[0]
        if func is torch.ops.aten.resize_.default and list(args[0].shape) == list(args[1]):
            return args[0]  # weights of the shape that the tensor has
        if func._schema.is_mutable:
            raise refusal(self._name, f"computes with what it loads ({func})")
        return func(*args, **(kwargs or {}))


def _try_load(module: nn.Module, name: str) -> None:
    """Raise unless loading a module's own weights only copies each to its place."""
    listed = list(all_tensors(module) if name == "load_state_dict" else own_tensors(module))
    places = {key: tensor for key, tensor, persists in listed if persists}
    weights = {key: tensor.detach() for key, tensor in places.items()}
    given: Any = {**weights}
    wanted = {(id(tensor), id(weights[key])) for key, tensor in places.items()}
    args: tuple[Any, ...] = (given,)
    if name != "load_state_dict":
        version = {"version": getattr(module, "_version", None)}
        args = (given, "", version, True, [], [], [])
    method = getattr(module, name)
    if not takes(method, *args):
        return
    inside = dict(module.named_modules())
    copies = _Copies(name)
    try:
        with unchanged_but_modes(inside, name), copies:
            method(*args)
    except CaptureError:
        raise
    except Exception:  # loading fails for the original model too
        return
    if set(copies.made) != wanted:
        raise refusal(name, "loads weights otherwise than torch's")
