"""Numbers that know from which sizes of tensors they were computed.

They are real ints and floats, so that model code goes on as always. What they lose their origin by
(a comparison, ``int()``, ``range()``) is reported, and becomes an assumption.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NoReturn, Protocol

import torch

from layergraph.functions import MATH
from layergraph.torch2ir.patches import Patch

Origin = tuple[Any, ...]
"""What a number came from: the name of a function, and what this was given."""


class Witness(Protocol):
    """Who gets to know what becomes of sizes."""

    def is_recording(self) -> bool:
        """Whether what happens now is to be recorded."""

    def assume(self, origin: Origin, result: object) -> None:
        """Note that a graph was decided by a number."""


class Traced:
    """A number with an origin."""

    origin: Origin
    witness: Witness

    def key(self) -> Hashable:
        """Equal for numbers of one origin."""
        return tuple([each.key() if isinstance(each, Traced) else each for each in self.origin])

    def plain(self) -> Any:
        """The number alone."""
        raise NotImplementedError

    def lose(self) -> Any:
        """The number alone, which the graph is taken to depend on."""
        self.witness.assume((self,), self.plain())
        return self.plain()


class TracedInt(int, Traced):
    """An int with an origin."""

    def plain(self) -> int:
        """See :class:`Traced`."""
        return int.__add__(self, 0)


class TracedFloat(float, Traced):
    """A float with an origin."""

    def plain(self) -> float:
        """See :class:`Traced`."""
        return float.__pos__(self)


def traced(value: Any, origin: Origin, witness: Witness) -> Any:
    """A number with its origin; anything else as it is."""
    number: TracedInt | TracedFloat
    if type(value) is int:
        number = int.__new__(TracedInt, value)
    elif type(value) is float:
        number = float.__new__(TracedFloat, value)
    else:
        return value
    number.origin = origin
    number.witness = witness
    return number


def plain(value: Any) -> Any:
    """A number without its origin; anything else as it is."""
    return value.plain() if isinstance(value, Traced) else value


def _operand(value: object) -> Any:
    """What can be computed with; NotImplemented for what has to say itself how that is done."""
    if isinstance(value, Traced):
        return value
    kind = type(value)
    if kind is int or kind is float:
        return value
    if kind is bool:
        return int(value)  # type: ignore[call-overload]
    if isinstance(value, int | float):  # numpy's float among them
        return float(value) if isinstance(value, float) else int(value)
    return NotImplemented


def _arithmetic(
    name: str, function: Callable[[Any, Any], Any], *, swapped: bool
) -> Callable[[Any, Any], Any]:
    def method(self: Traced, other: Any) -> Any:
        value = _operand(other)
        if value is NotImplemented:
            if isinstance(other, list | tuple | str | bytes | complex):
                number = self.lose()
                return function(other, number) if swapped else function(number, other)
            return NotImplemented
        args = (value, self) if swapped else (self, value)
        result = function(plain(args[0]), plain(args[1]))
        return traced(result, (f"operator.{name}", *args), self.witness)

    return method


def _comparison(name: str, function: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def method(self: Traced, other: Any) -> Any:
        value = _operand(other)
        if value is NotImplemented:
            return NotImplemented
        result = function(self.plain(), plain(value))
        if not (isinstance(value, Traced) and value.key() == self.key()):
            self.witness.assume((f"operator.{name}", self, value), result)
        return result

    return method


def _unary(name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def method(self: Traced) -> Any:
        return traced(function(self.plain()), (name, self), self.witness)

    return method


def _losing(name: str) -> Callable[..., Any]:
    def method(self: Traced, *args: Any) -> Any:
        number = self.lose()
        return getattr(type(number), name)(number, *args)

    return method


def _truncated(self: Traced) -> int:
    result = int(self.plain())
    self.witness.assume(("math.trunc", self), result)
    return result


def _round(self: Traced, digits: int | None = None) -> Any:
    given = () if digits is None else (digits,)
    return traced(round(self.plain(), *given), ("builtins.round", self, *given), self.witness)


def _divmod(self: Any, other: Any) -> Any:
    return self // other, self % other


def _reduce(self: Traced) -> tuple[Any, ...]:
    return type(self.plain()), (self.plain(),)


_ARITHMETIC = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow")
_BITS = ("and_", "or_", "xor", "lshift", "rshift")
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_UNARY = {
    "__neg__": "operator.neg",
    "__pos__": "operator.pos",
    "__abs__": "operator.abs",
    "__ceil__": "math.ceil",
    "__floor__": "math.floor",
    "__trunc__": "math.trunc",
}
_LOSING = ("__int__", "__float__", "__hash__", "__str__", "__repr__", "__format__")


def _equip(cls: type[Traced], operators: tuple[str, ...]) -> None:
    for name in operators:
        function = getattr(operator, name)
        bare = name.strip("_")
        setattr(cls, f"__{bare}__", _arithmetic(name, function, swapped=False))
        setattr(cls, f"__r{bare}__", _arithmetic(name, function, swapped=True))
    for name in _COMPARISONS:
        setattr(cls, f"__{name}__", _comparison(name, getattr(operator, name)))
    for name, full in _UNARY.items():
        home = operator if full.startswith("operator.") else math
        setattr(cls, name, _unary(full, getattr(home, full.rpartition(".")[2])))
    for name in _LOSING:
        setattr(cls, name, _losing(name))
    methods: dict[str, Any] = {
        "__bool__": lambda self: self != 0,
        "__round__": _round,
        "__divmod__": _divmod,
        "__reduce__": _reduce,
    }
    for name, method in methods.items():
        setattr(cls, name, method)


_equip(TracedInt, _ARITHMETIC + _BITS)
_equip(TracedFloat, _ARITHMETIC)
for _name in ("bit_length", "bit_count", "to_bytes"):
    setattr(TracedInt, _name, _losing(_name))
for _name in ("is_integer", "as_integer_ratio", "hex"):
    setattr(TracedFloat, _name, _losing(_name))
setattr(TracedFloat, "__int__", _truncated)  # noqa: B010 type checkers take it for another one
setattr(TracedInt, "__invert__", _unary("operator.invert", operator.invert))  # noqa: B010 likewise


# --- what takes a number's value without asking the number ---


def patches(witness: Witness) -> Iterator[Patch]:
    """What is to be replaced while sizes are traced: ``range``, ``len``, functions of ``math``."""
    yield vars(builtins), "range", _range(witness)
    yield vars(builtins), "len", _len(witness)
    for name in MATH:
        yield math, name, _math(name, getattr(math, name), witness)


def _math(name: str, function: Callable[..., Any], witness: Witness) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if not any(isinstance(arg, Traced) for arg in args) or not witness.is_recording():
            return function(*args)
        return traced(function(*map(plain, args)), (f"math.{name}", *args), witness)

    return call


def _len(witness: Witness) -> Callable[[Any], int]:
    original = len

    def call(value: Any, /) -> int:
        if type(value) is torch.Tensor and witness.is_recording() and value.dim():
            return value.size(0)
        return original(value)

    return call


def _range(witness: Witness) -> type:
    original = range

    class Meta(type):
        """``range`` to whoever asks."""

        def __call__(cls, *args: Any) -> range:
            if witness.is_recording():
                args = tuple([arg.lose() if isinstance(arg, Traced) else arg for arg in args])
            return original(*args)

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, original)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, original)

    class Range(metaclass=Meta):
        def __new__(cls) -> NoReturn:
            raise NotImplementedError

    return Range
