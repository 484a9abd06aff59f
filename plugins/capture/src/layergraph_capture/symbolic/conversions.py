"""Stand-ins for ``int()`` and ``float()``, which would turn a symbolic number into a plain one.

The code of the model finds the stand-ins in its globals. A stand-in is no type, so a module that
uses ``int`` as a type, as in ``type(x) is int`` or ``dtype=int``, keeps the real one. The stand-in
for ``type()`` returns ``int`` and ``float`` for symbolic numbers.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

from layergraph.torch2ir.code_readings import by_identity
from layergraph.torch2ir.indexing.followed import PLAIN
from layergraph.torch2ir.indexing.opaque import attribute, home_of, is_of, members_of
from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.symbolic.symbolic_int import (
    SizeListener,
    SymbolicFloat,
    SymbolicInt,
    SymbolicNumber,
    symbolic,
)

# Functions that may take the stand-in: the first two call its metaclass, the last one calls it.
_TAKE_TYPES = frozenset({"isinstance", "issubclass", "map"})


@dataclass
class Conversions:
    """The settings of conversions, for all runs of a model.

    Attributes:
        keep_origins: whether conversions return symbolic numbers.
        have_kept: whether a conversion has returned one so far.
    """

    keep_origins: bool = True
    have_kept: bool = False


class ConversionPatches:
    """Makes the patches of ``int`` and ``float`` in the globals of code that runs.

    Args:
        listener: records the uses of the numbers.
        conversions: the settings.
    """

    def __init__(self, listener: SizeListener, conversions: Conversions) -> None:
        self._listener = listener
        self._conversions = conversions
        self._stand_ins = {
            "int": (int, _stand_in(int, self._to_int)),
            "float": (float, _stand_in(float, self._to_float)),
            "type": (type, _stand_in(type, _type)),
        }

    def of(self, members: dict[str, Any], names: Collection[str]) -> Iterator[Patch]:
        """Yield the patches of the globals of a module that code names for the first time."""
        wanted = _NUMBERS.intersection(names)
        if not wanted:
            return
        uses = [found for code in _codes_of(members) if (found := _uses(code))]
        for name in wanted:
            original, new = self._stand_ins[name]
            of_name = [each[name] for each in uses if name in each]
            # A lost origin leads to a guard, but a wrong type to another way of the code. So any
            # code gets this one, also code inside functions, which is not among ``uses``.
            is_wanted = original is type or (of_name and self._conversions.keep_origins)
            if is_wanted and all(of_name) and members.get(name, original) is original:
                yield members, name, new

    def _to_int(self, *args: Any, **kwargs: Any) -> Any:
        number = self._number(args, kwargs)
        if isinstance(number, SymbolicFloat):
            return symbolic(int(number.value), ("math.trunc", number), self._listener)
        return int(*args, **kwargs) if number is None else number

    def _to_float(self, *args: Any, **kwargs: Any) -> Any:
        number = self._number(args, kwargs)
        if isinstance(number, SymbolicInt):
            origin = ("operator.truediv", number, 1)
            return symbolic(float(number.value), origin, self._listener)
        return float(*args, **kwargs) if number is None else number

    def _number(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SymbolicNumber | None:
        """Return the symbolic number to convert; None if there is none."""
        if len(args) != 1 or kwargs or not self._listener.is_recording():
            return None
        number = args[0]
        if isinstance(number, torch.Tensor) and _is_real_number(number):
            number = number.item()
        if not isinstance(number, SymbolicNumber):
            return None
        self._conversions.have_kept = True
        return number


def _type(*args: Any, **kwargs: Any) -> Any:
    """Return the type of a number for a symbolic one, else what ``type`` returns."""
    if len(args) == 1 and isinstance(args[0], SymbolicNumber):
        return args[0].__class__
    return type(*args, **kwargs)


def _is_real_number(tensor: torch.Tensor) -> bool:
    # This read is ours, not the model's.
    with torch._C.DisableTorchFunction():
        return tensor.numel() == 1 and not tensor.is_complex() and tensor.dtype != torch.bool


class _StandInType(type):
    """The metaclass of stand-ins for types."""

    stands_for: type
    convert: Callable[..., Any]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.convert(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.stands_for)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.stands_for)


class _StandIn(metaclass=_StandInType):
    """The base of stand-ins for types."""


def _stand_in(stands_for: type, convert: Callable[..., Any]) -> _StandInType:
    members = {"stands_for": stands_for, "convert": staticmethod(convert)}
    return _StandInType(stands_for.__name__, (_StandIn,), members)


def _codes_of(scope: Mapping[str, Any]) -> Iterator[CodeType]:
    """Yield the code of the functions and classes of a module."""
    home = scope.get("__name__")
    for value in list(scope.values()):
        if type(value) in _WITHOUT_CODE:
            continue
        if not is_of(value, type):
            members: Iterable[Any] = (value,)
        else:
            members = vars(value).values() if home_of(value) == home else ()
        for member in members:
            if type(member) is FunctionType and not member.__dict__:
                # Nearly all are plain functions.
                if member.__globals__ is scope:
                    yield member.__code__
            elif type(member) not in _WITHOUT_CODE:
                yield from _code_of(member, scope)


# Nothing that is called is in values of these types.
_WITHOUT_CODE = PLAIN | {BuiltinFunctionType, ModuleType, dict, list, tuple, set, frozenset}


def _code_of(member: Any, scope: Mapping[str, Any]) -> Iterator[CodeType]:
    seen: set[int] = set()
    while member is not None and not is_of(member, type) and id(member) not in seen:
        seen.add(id(member))
        if type(member) is FunctionType and member.__globals__ is scope:
            yield member.__code__
        # Methods of classes, and functions inside decorators.
        if is_of(member, _METHODS):
            member = attribute(member, "__func__")
        elif is_of(member, property):
            member = attribute(member, "fget")
        else:
            member = (members_of(member) or {}).get("__wrapped__")


_METHODS = (staticmethod, classmethod, MethodType)


@by_identity
def _uses(code: CodeType) -> dict[str, bool]:
    """Return, for each of the names, whether code only calls it; without unused ones."""
    inside = [_uses(each) for each in code.co_consts if type(each) is CodeType]
    found = {} if _NUMBERS.isdisjoint(code.co_names) else _own_uses(code)
    for name, only_called in chain.from_iterable(each.items() for each in inside):
        found[name] = found.get(name, True) and only_called
    return found


_NUMBERS = frozenset({"int", "float", "type"})


def _own_uses(code: CodeType) -> dict[str, bool]:
    found: dict[str, bool] = {}
    taking = False
    for step in dis.get_instructions(code):
        if step.opname.startswith("CALL"):
            taking = False
        elif step.opname.startswith(("LOAD_GLOBAL", "LOAD_NAME")):
            is_called = step.opname == "LOAD_GLOBAL" and bool((step.arg or 0) & 1)
            if step.argval in _NUMBERS:
                found[step.argval] = found.get(step.argval, True) and (is_called or taking)
            elif is_called:
                taking = step.argval in _TAKE_TYPES
    return found
