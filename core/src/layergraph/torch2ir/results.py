"""Conversion of a model's result to containers, records and outputs."""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from numbers import Number
from types import CodeType
from typing import Any

import torch

from layergraph.errors import CaptureError
from layergraph.ir import Record
from layergraph.ir.names import is_argument_name
from layergraph.known_objects import parts_of
from layergraph.outputs import ATTRIBUTE, TO_TUPLE, Output, output_class
from layergraph.torch2ir.tracing.stand_ins import StandIn

_ATOMS = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, slice, type(...)),
        *(torch.device, torch.dtype, torch.layout, torch.memory_format),
    }
)
_LIKE_ATOMS = (str, bytes, type, Number)
# What a class defines itself, an output must not define otherwise.
_OF_OUTPUTS = frozenset(vars(dict)) - {*vars(object), "__class_getitem__", "copy"}


def _unknown(_: object) -> None:
    """Return None: no object has a value in the graph."""


def opened(
    result: Any, value_of: Callable[[Any], Any] = _unknown, around: tuple[int, ...] = ()
) -> Any:
    """Return a result with records and outputs in place of objects.

    A record stands for an object of the table of :mod:`layergraph.known_objects`, an output for
    another object with attributes.

    Args:
        result: what the model returns.
        value_of: returns the replacement of an object; None to use the object's parts. Without
            this function, objects that a graph cannot hold stay, or become plain containers.
        around: the ids of the containers and objects around the result.

    Raises:
        CaptureError: an object contains itself, or no graph can make an object like it.
    """
    if _is_leaf(result):
        return result
    if id(result) in around:
        raise CaptureError(f"the model returns a {type(result).__name__} that holds itself")
    known = value_of(result)
    if known is not None:
        return known
    inner = (*around, id(result))

    def inside(value: Any) -> Any:
        return opened(value, value_of, inner)

    apart = parts_of(result)
    if apart is not None:
        name, fields = apart
        return Record(name, {field: inside(part) for field, part in fields.items()})
    if type(result) is dict:
        return {key: inside(value) for key, value in result.items()}
    if isinstance(result, Output):  # of a rebuilt model
        return type(result)({key: inside(value) for key, value in dict.items(result)})
    make = _maker_of_tuples(type(result))
    return _of_own_class(result, inside, value_of) if make is None else make(map(inside, result))


def _is_leaf(value: Any) -> bool:
    """Return whether a graph holds a value as it is; a stand-in becomes plain when it is read."""
    is_number = isinstance(value, StandIn) and not isinstance(value, tuple | list)
    return is_number or isinstance(value, torch.Tensor) or type(value) in _ATOMS


def _maker_of_tuples(cls: type) -> Callable[[Iterable[Any]], Any] | None:
    """Return a function that makes a list or tuple of a class of items; None for other classes."""
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return lambda items: cls(*items)
    if cls is torch.Size or cls.__module__ == torch.return_types.__name__:
        return lambda items: cls(list(items))
    is_plain = cls in (tuple, list) or issubclass(cls, StandIn)
    return next(each for each in (tuple, list) if issubclass(cls, each)) if is_plain else None


def _of_own_class(result: Any, inside: Callable[[Any], Any], value_of: Callable[[Any], Any]) -> Any:
    """Return what stands for an object whose class is in no table.

    Raises:
        CaptureError: this is a result, and no graph can make an object like it.
    """
    is_result = value_of is not _unknown
    if isinstance(result, Mapping):
        found = {key: inside(value) for key, value in result.items()}
        output = _with_fields(result, found) if _reads_like_its_keys(result) else None
        base: Any = found if output is None else output
    elif isinstance(result, tuple | list):
        base = (tuple if isinstance(result, tuple) else list)(map(inside, result))
    elif isinstance(result, _LIKE_ATOMS):
        base = result
    else:
        return _attributes(result, inside, value_of)
    if is_result and not isinstance(base, Output):
        cls = type(result)
        kind = (
            f"the class {result.__name__}"
            if isinstance(result, type)
            else f"a {cls.__name__}, of a class derived from {cls.__mro__[1].__name__}"
        )
        raise CaptureError(
            f"the model returns {kind}, which a graph cannot make; return a plain tensor, number, "
            "text, list, tuple or dict, or a dataclass"
        )
    return base


def _attributes(result: Any, inside: Callable[[Any], Any], value_of: Callable[[Any], Any]) -> Any:
    """Return an output with the attributes of an object; others unchanged.

    Raises:
        CaptureError: this is a result, and its class reads otherwise than an output.
    """
    is_one = dataclasses.is_dataclass(result) or not callable(result)
    if not is_one or isinstance(result, enum.Enum) or not _is_of_python(type(result)):
        return result
    held = {
        name: inside(value)
        for name, value in _held(result).items()
        if value_of(value) is not None or not (isinstance(value, type) or callable(value))
    }
    output = _with_fields(result, held)
    if value_of is _unknown:
        return held if output is None else output
    members = {*itertools.chain(*map(vars, type(result).__mro__))} - held.keys()
    own = sorted(_OF_OUTPUTS & members)
    if output is None or own:
        what = f"defines {own[0]}" if own else "has other attributes than names of fields"
        raise CaptureError(
            f"the model returns a {type(result).__name__}, whose class {what}, which a graph "
            "cannot hold; return a tuple, a dict or a dataclass without it"
        )
    return output


def _is_of_python(cls: type) -> bool:
    """Return whether the attributes of its instances are all that they hold."""
    return all(each is object or each.__flags__ & _HEAP_TYPE for each in cls.__mro__)


# A flag of classes that a class statement made: those of C may hold more than attributes.
_HEAP_TYPE = 1 << 9


def _held(value: Any) -> dict[str, Any]:
    """Return the attributes of an object: its fields in order, its slots, and the others."""
    fields = (
        [each.name for each in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    )
    slots: list[str] = []
    for cls in reversed(type(value).__mro__):
        own = vars(cls).get("__slots__", ())
        slots += [own] if isinstance(own, str) else own
    names = dict.fromkeys((*fields, *slots, *getattr(value, "__dict__", ())))
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _reads_like_its_keys(result: Mapping[Any, Any]) -> bool:
    """Return whether an output reads as a mapping does: by its keys, and by its attributes."""
    if not type(result).__flags__ & _HEAP_TYPE:
        return False
    is_plain = isinstance(result, dict) and all(
        not _home(type(result), name).__flags__ & _HEAP_TYPE for name in _READING
    )
    return all(
        value is not None
        and isinstance(key, str)
        and (is_plain or getattr(result, key, None) is value)
        for key, value in result.items()
    )


def _home(cls: type, name: str) -> type:
    """Return the class that defines a member."""
    return next(each for each in cls.__mro__ if name in vars(each))


_READING = "__getitem__ __iter__ __len__ __contains__ __eq__ keys values items get copy".split()


def _with_fields(result: Any, found: dict[Any, Any]) -> Output | None:
    """Return an output with the fields of an object; None if their names allow none."""
    names: list[Any] = [*found]
    cls: Any = type(result)
    if isinstance(result, dict) and dataclasses.is_dataclass(result):
        fields = [field.name for field in dataclasses.fields(result)]
        absent = [each for each in fields if each not in found]
        if any(getattr(result, each, None) is not None for each in absent):
            return None
        # Those that are None stand where the class has them, unless others are in another order.
        is_in_order = [each for each in fields if each in found] == names
        names = fields if is_in_order else [*names, *absent]
    is_named = all(is_argument_name(each) for each in (cls.__name__, *names))
    if not is_named or any(each.startswith("__") for each in names):
        return None
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
