"""Limits of the search for reached objects: which code it reads, and which names in the code."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.code_owners import is_own_package
from layergraph.torch2ir.code_readings import by_identity

UNFOLLOWED = sys.stdlib_module_names | {"torch", "numpy"}
# The search enters objects of these modules of the standard library. Modules whose objects threads
# share are missing: another thread may change such an object.
OPEN = frozenset({"argparse", "collections", "types", "weakref"})

OF_TORCH = frozenset(vars(nn.Module()))
"""The attributes of every module."""

# Nearly all reached objects have one of these immutable types.
PLAIN: frozenset[type] = frozenset(
    {
        *(bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented)),
        *(torch.Tensor, nn.Parameter, torch.dtype, torch.device, torch.Size),
        *(types.GetSetDescriptorType, types.MemberDescriptorType),
        *(types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType),
    }
)


def own_attributes(module: nn.Module, without: Collection[type]) -> list[tuple[str, Any]]:
    """Return the attributes that a module has in addition to those of every module, by name.

    Args:
        module: the module.
        without: the types of values to leave out.
    """
    members = vars(module)
    names = sorted(members.keys() - OF_TORCH)
    return [(name, members[name]) for name in names if type(members[name]) not in without]


_STORE_DEREF = dis.opmap["STORE_DEREF"]
_ASSIGNING = frozenset(
    dis.opmap[name] for name in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR")
)
_BY_NAME = frozenset({"__dict__", "__setattr__", "delattr", "exec", "globals", "setattr", "vars"})


@by_identity
def read_names(code: types.CodeType) -> tuple[frozenset[str], bool, bool]:
    """Return the names that code mentions, and whether it assigns to names, and to closures."""
    names = frozenset((*code.co_names, code.co_name))
    does = frozenset(code.co_code[::2])
    assigns = not _ASSIGNING.isdisjoint(does) or not _BY_NAME.isdisjoint(names)
    return names, assigns, _STORE_DEREF in does


@functools.lru_cache(maxsize=4096)
def followed_bases(cls: Any) -> tuple[type, ...]:
    """Return the classes among a class and its bases whose code the search reads."""
    return tuple(base for base in cls.__mro__ if is_followed(base.__module__))


def is_followed(module: object) -> bool:
    """Return whether the search reads the code of a module with this name."""
    return isinstance(module, str) and _is_followed(module)


@functools.lru_cache(maxsize=4096)
def _is_followed(module: str) -> bool:
    return module.partition(".")[0] not in UNFOLLOWED and not is_own_package(module)
