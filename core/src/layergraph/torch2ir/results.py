"""Conversion of a model's result to standard containers."""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import inspect
from collections.abc import Callable, Mapping
from numbers import Number
from types import CodeType
from typing import Any

import torch

from layergraph.errors import CaptureError
from layergraph.ir.names import is_argument_name
from layergraph.outputs import ATTRIBUTE, TO_TUPLE, Output, output_class

_ATOMS = (
    *(type(None), str, bytes, slice, type, Number),
    *(torch.Tensor, torch.device, torch.dtype, torch.layout, torch.memory_format),
)


def _unknown(_: object) -> None:
    """Return None: no object has a value in the graph."""


def opened(
    result: Any, value_of: Callable[[Any], Any] = _unknown, around: tuple[int, ...] = ()
) -> Any:
    """Return a result with foreign objects replaced by outputs with their fields, or by dicts.

    Args:
        result: what the model returns.
        value_of: returns the replacement of an object; None to use the object's fields.
        around: the ids of the containers and objects around the result.

    Raises:
        CaptureError: an object contains itself.
    """
    if isinstance(result, _ATOMS) and not isinstance(result, enum.Enum):
        return result
    if id(result) in around:
        raise CaptureError(f"the model returns a {type(result).__name__} that holds itself")
    known = value_of(result)
    if known is not None:
        return known
    inner = (*around, id(result))

    def inside(value: Any) -> Any:
        return opened(value, value_of, inner)

    if isinstance(result, Output):  # of a rebuilt model
        found = {key: inside(value) for key, value in dict.items(result)}
        return type(result)(found)
    if isinstance(result, Mapping):
        found = {key: inside(value) for key, value in result.items()}
        return _with_fields(result, found) if _reads_like_its_keys(result) else found
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*map(inside, result))
    if type(result) is torch.Size or type(result).__module__ == torch.return_types.__name__:
        return type(result)(list(map(inside, result)))
    if isinstance(result, tuple | list):
        kind = tuple if isinstance(result, tuple) else list
        return kind(map(inside, result))
    return _attributes(result, inside, is_result=value_of is not _unknown)


def _check_items(result: Any) -> None:
    """Refuse an object whose class overrides the access to its items.

    Raises:
        CaptureError: the class does.
    """
    if hasattr(result, "__dict__") and not isinstance(result, type):
        for name in ("__iter__", "__getitem__"):
            if hasattr(type(result), name):
                raise CaptureError(
                    f"the model returns a {type(result).__name__}, whose class defines {name}, "
                    "which a graph cannot hold; return a tuple, a dict or a dataclass without it"
                )


def _attributes(result: Any, inside: Callable[[Any], Any], *, is_result: bool) -> Any:
    """Return an output with the attributes of an object; an object without attributes unchanged."""
    if isinstance(result, enum.Enum):
        return result
    if is_result:
        _check_items(result)
    if dataclasses.is_dataclass(result):
        fields = [field.name for field in dataclasses.fields(result)]
        held = {name: getattr(result, name) for name in fields if hasattr(result, name)}
        return _with_fields(result, {name: inside(each) for name, each in held.items()})
    if callable(result) or not hasattr(result, "__dict__"):
        return result
    held = {
        name: inside(value)
        for name, value in vars(result).items()
        if not isinstance(value, type) and not callable(value)
    }
    return _with_fields(result, held)


def _reads_like_its_keys(result: Mapping[Any, Any]) -> bool:
    """Return whether the attributes of an instance of a dict subclass equal its items."""
    return type(result) is not dict and all(
        value is not None and isinstance(key, str) and getattr(result, key, None) is value
        for key, value in result.items()
    )


def _with_fields(result: Any, found: dict[Any, Any]) -> dict[Any, Any]:
    """Return an output with the fields of an object; a dict if their names allow none."""
    names: list[Any] = [*found]
    cls: Any = type(result)
    if isinstance(result, dict) and dataclasses.is_dataclass(result):
        fields = [field.name for field in dataclasses.fields(result)]
        absent = [each for each in fields if each not in found]
        if any(getattr(result, each, None) is not None for each in absent):
            return found
        # Those that are None stand where the class has them, unless others are in another order.
        is_in_order = [each for each in fields if each in found] == names
        names = fields if is_in_order else [*names, *absent]
    is_named = all(is_argument_name(each) for each in (cls.__name__, *names))
    if not is_named or not found or any(each.startswith("_") for each in names):
        return found
    aliases = {ATTRIBUTE + name: field for name, field in _aliases(cls) if field in names}
    said = [*[(name, None) for name in names], *aliases.items()]
    nested = _nested(result, found)
    return output_class(cls.__name__, *said, *[(TO_TUPLE, nested)][: nested != ()])(found)


# A model returns objects of a few classes, and to read the code of all their properties is slow.
@functools.lru_cache(maxsize=256)
def _aliases(cls: type) -> list[tuple[str, str]]:
    """Return the properties of a class that give another attribute, with the name of that."""
    found = []
    for name in dir(cls):
        member = inspect.getattr_static(cls, name, None)
        if isinstance(member, property) and not name.startswith("_"):
            code = getattr(member.fget, "__code__", None)
            field = None if code is None else _attribute_given_by(code)
            if field is not None:
                found.append((name, field))
    return found


def _attribute_given_by(code: CodeType) -> str | None:
    """Return the attribute of its argument that a function returns on each of its ways.

    A function may also warn, and note that it did. One that assigns its result, or chooses between
    two results, has no such attribute.
    """
    steps = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
    returns = [n for n, each in enumerate(steps) if each.opname.startswith("RETURN")]
    if returns != [len(steps) - 1] or len(steps) < _RETURNED_ATTRIBUTE:
        return None
    loads_self, loads_attribute = steps[-3:-1]
    is_own = loads_self.opname.startswith("LOAD_FAST") and loads_self.argval == code.co_varnames[0]
    stored = [each.argval for each in steps if each.opname in ("STORE_FAST", "STORE_ATTR")]
    is_kept = {loads_self.argval, loads_attribute.argval}.isdisjoint(stored)
    is_attribute = loads_attribute.opname == "LOAD_ATTR"
    # In ``return self.a or self.b``, a jump goes from the first result to the end.
    is_only = all("JUMP" not in each.opname or each.argval != steps[-1].offset for each in steps)
    is_given = is_own and is_kept and is_attribute and is_only
    return str(loads_attribute.argval) if is_given else None


# An instruction that loads the argument, one that loads its attribute, and one that returns it.
_RETURNED_ATTRIBUTE = 3


def _nested(result: Any, found: dict[Any, Any]) -> tuple[str, ...] | None:
    """Return the fields that ``to_tuple()`` gives as tuples; None if it gives something else."""
    if not callable(getattr(type(result), "to_tuple", None)):
        return ()
    try:
        given = result.to_tuple()
    except Exception:
        return None
    held = {name: getattr(result, name, None) for name in found}
    held = {name: value for name, value in held.items() if value is not None}
    if not isinstance(given, tuple) or len(given) != len(held):
        return None
    pairs = list(zip(held.items(), given, strict=True))
    nested = tuple([name for (name, value), each in pairs if value is not each])
    is_known = all(isinstance(found[name], Output) for name in nested) and all(
        isinstance(each, tuple) for (name, _), each in pairs if name in nested
    )
    return nested if is_known else None
