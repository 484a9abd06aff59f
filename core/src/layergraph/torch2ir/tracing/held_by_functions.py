"""Tensors and modules of a model that a function reaches without taking them as arguments."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.indexing.followed import is_followed
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.opaque import held_by_function, home_of, is_of


def held(cls: type, module_index: ModuleIndex, keys: Mapping[int, str]) -> str | None:
    """Return the path of a module or tensor of the model that the code of a class holds.

    The methods of a :class:`torch.autograd.Function` reach it by a closure, a default, a global or
    an attribute of the class. The rebuilt model would compute with the tensor of the original
    model.

    Args:
        cls: the class.
        module_index: the model.
        keys: the state-dict key of each of its tensors, by ``id``.
    """
    for value in _reached(cls):
        if is_of(value, torch.Tensor) and id(value) in keys:
            return keys[id(value)]
        module_info = module_index.get(value) if is_of(value, nn.Module) else None
        if module_info is not None:
            return module_info.path or "the model"
    return None


def _reached(cls: type) -> Iterator[object]:
    bases = [base for base in cls.__mro__ if is_followed(home_of(base))]
    pending: list[Any] = [value for base in bases for value in vars(base).values()]
    seen: dict[int, Any] = {}
    while pending:
        value = pending.pop()
        if id(value) not in seen:
            seen[id(value)] = value
            pending += _inside(value)
            yield value


def _inside(value: Any) -> list[Any]:
    kind = type(value)
    if kind is types.FunctionType:
        return _of_function(value) if is_followed(value.__module__) else []
    if kind in (staticmethod, classmethod):
        return [value.__func__]
    if kind is property:
        return [value.fget]
    if issubclass(kind, dict):
        return [*dict.values(value)]
    if issubclass(kind, list | tuple | set | frozenset):
        return [*value]
    return held_by_function(value)


def _of_function(function: types.FunctionType) -> list[Any]:
    members = function.__globals__
    named = [members[name] for name in _names(function.__code__) if name in members]
    return held_by_function(function) + named


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> frozenset[str]:
    """Return the names of the globals that code reads, also in functions nested in it."""
    inner = [_names(each) for each in code.co_consts if isinstance(each, types.CodeType)]
    own = [each.argval for each in dis.get_instructions(code) if each.opname in _READING]
    return frozenset(own).union(*inner)


_READING = ("LOAD_GLOBAL", "LOAD_NAME")
