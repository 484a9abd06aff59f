"""Numbers that know from which sizes of tensors they were computed.

They pass for ints and floats, so that model code goes on as always. What they lose their origin by
(a comparison, ``int()``, ``range()``, the index of a list) is reported, and becomes an assumption.
"""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Callable, Hashable, Iterator
from numbers import Integral, Real
from typing import Any, Protocol, Self

import torch

from layergraph.errors import CaptureError
from layergraph.functions.table import MATH
from layergraph.torch2ir.tracing.stand_ins import StandIn

Origin = tuple[Any, ...]
"""What a number came from: the name of a function, and what this was given."""


class SizeListener(Protocol):
    """Who gets to know what becomes of sizes.

    Attributes:
        is_over: whether the capture has ended: its sizes are ints then, wherever they are kept.
        born: the numbers that came about.
    """

    is_over: bool
    born: list[weakref.ref[SymbolicNumber]]

    def is_recording(self) -> bool:
        """Whether what happens now is to be recorded."""

    def assume(self, origin: Origin, result: object) -> None:
        """Note that a graph was decided by a number."""

    def decide(self, origin: Origin, result: bool) -> bool:
        """Note that code compares a number, and return the answer that it is to get."""


class SymbolicNumber(StandIn):
    """A number with an origin.

    It passes for an int or a float, but is none: C code that wants its value has to ask for it, and
    then it is known to be lost. Torch takes it for one of its own symbolic numbers, and so lets it
    through to whoever records; no kernel ever gets to see it.
    """

    origin: Origin
    listener: SizeListener
    value: Any

    def key(self) -> Hashable:
        """Equal for numbers of one origin."""
        return tuple(
            [each.key() if isinstance(each, SymbolicNumber) else each for each in self.origin]
        )

    def plain(self) -> Any:
        """The number alone."""
        return self.value

    def lose(self) -> Any:
        """The number alone, which the graph is taken to depend on."""
        self.listener.assume((self,), self.value)
        return self.value

    def __bool__(self) -> bool:
        different: bool = self.__ne__(0)
        return different

    def __round__(self, digits: int | None = None) -> Any:
        given = () if digits is None else (digits,)
        return symbolic(round(self.value, *given), ("builtins.round", self, *given), self.listener)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __str__(self) -> str:
        return Text(self)

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        number = self.lose()
        return type(number), (number,)

    def __deepcopy__(self, _memo: object) -> Any:
        return self.value if self.listener.is_over else self

    @property
    def real(self) -> SymbolicNumber:
        """The number itself."""
        return self

    @property
    def imag(self) -> int:
        """Zero."""
        return 0

    @property
    def node(self) -> Any:
        """The value that torch asks for where it does not let others record.

        Raises:
            CaptureError: the capture is going on.
        """
        if self.listener.is_over:
            return _Known(self.value)
        raise CaptureError(
            f"a graph cannot hold the number {self.value} as it is given here; use a function that "
            "makes tensors, such as torch.tensor or torch.zeros"
        )


class _Known:
    """A number whose capture is over, as torch wants to have its symbolic numbers."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def is_int(self) -> bool:
        """Return whether it is an int."""
        return isinstance(self._value, int)

    def is_float(self) -> bool:
        """Return whether it is a float."""
        return isinstance(self._value, float)

    def is_bool(self) -> bool:
        """It is no bool."""
        return False

    def is_symbolic(self) -> bool:
        """It is none any more."""
        return False

    def guard_int(self, _file: str, _line: int) -> Any:
        """The number."""
        return self._value

    guard_float = guard_int

    def maybe_as_int(self) -> Any:
        """The number, where it is an int."""
        return self._value if self.is_int() else None


class Text(str, StandIn):
    """A number as text: for a message, unless somebody looks at it."""

    number: SymbolicNumber

    def __new__(cls, number: SymbolicNumber) -> Self:
        """The text of a number."""
        text = super().__new__(cls, number.value)
        text.number = number
        return text

    def plain(self) -> str:
        """The text alone."""
        return "".join(self)

    def _lost(self) -> str:
        return str(lost(self.number))

    def __hash__(self) -> int:
        return hash(self._lost())

    def __eq__(self, other: object) -> bool:
        return self._lost() == other

    def __ne__(self, other: object) -> bool:
        return self._lost() != other

    def __add__(self, other: str) -> str:
        return self._lost() + other

    def __radd__(self, other: str) -> str:
        return other + self._lost()

    def __format__(self, said: str) -> str:
        return format(self._lost(), said)

    def __str__(self) -> str:
        return self._lost()


def plain(value: Any) -> Any:
    """A number without its origin; anything else as it is."""
    return value.plain() if isinstance(value, SymbolicNumber) else value


def _operand(value: object) -> Any:
    """What can be computed with; NotImplemented for what has to say itself how that is done."""
    if isinstance(value, SymbolicNumber):
        return value
    for kind, like in ((int, Integral), (float, Real)):
        # Those of numpy, and members of an IntEnum, are among these.
        if isinstance(value, like):
            return kind(value)  # type: ignore[call-overload]
    return NotImplemented


def lost(value: Any) -> Any:
    """A number alone, which the graph is taken to depend on."""
    return value.lose() if isinstance(value, SymbolicNumber) else value


def _lost_in(value: Any) -> Any:
    """Likewise, in the arguments of a function."""
    if isinstance(value, dict):
        return {key: _lost_in(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)([_lost_in(each) for each in value])
    return lost(value)


def _arithmetic(
    name: str, function: Callable[[Any, Any], Any], *, swapped: bool
) -> Callable[[Any, Any], Any]:
    def method(self: SymbolicNumber, other: Any, *modulus: Any) -> Any:
        value = _operand(other)
        if modulus:
            return pow(*map(lost, (other, self, *modulus) if swapped else (self, other, *modulus)))
        if value is NotImplemented:
            if isinstance(other, list | tuple | str | bytes | complex):
                number = self.lose()
                return function(other, number) if swapped else function(number, other)
            return NotImplemented
        args = (value, self) if swapped else (self, value)
        result = function(plain(args[0]), plain(args[1]))
        if isinstance(result, complex):
            return function(*map(lost, args))
        return symbolic(result, (f"operator.{name}", *args), self.listener)

    return method


def _comparison(name: str, function: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def method(self: SymbolicNumber, other: Any) -> Any:
        value = _operand(other)
        if value is NotImplemented:
            return NotImplemented
        result = function(self.plain(), plain(value))
        if not (isinstance(value, SymbolicNumber) and value.key() == self.key()):
            return self.listener.decide((f"operator.{name}", self, value), result)
        return result

    return method


def _unary(name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def method(self: SymbolicNumber) -> Any:
        return symbolic(function(self.plain()), (name, self), self.listener)

    return method


def _losing(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: SymbolicNumber, *args: Any) -> Any:
        return function(self.lose(), *args)

    return method


def _member(name: str) -> Callable[..., Any]:
    def call(number: Any, *args: Any) -> Any:
        return getattr(number, name)(*args)

    return _losing(call)


_ARITHMETIC = "add sub mul floordiv truediv mod pow and_ or_ xor lshift rshift".split()
_COMPARISONS = "lt le gt ge eq ne".split()
_UNARY = {
    "__neg__": "operator.neg",
    "__pos__": "operator.pos",
    "__abs__": "operator.abs",
    "__invert__": "operator.invert",
    "__ceil__": "math.ceil",
    "__floor__": "math.floor",
    "__trunc__": "math.trunc",
}
_LOSING: dict[str, Callable[..., Any]] = {
    "__int__": int,
    "__float__": float,
    "__complex__": complex,
    "__hash__": hash,
    "__repr__": repr,
    "__format__": format,
}
_MEMBERS = "as_integer_ratio bit_count bit_length conjugate hex is_integer to_bytes".split()


def _methods() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in _ARITHMETIC:
        function, bare = getattr(operator, name), name.strip("_")
        yield f"__{bare}__", _arithmetic(name, function, swapped=False)
        yield f"__r{bare}__", _arithmetic(name, function, swapped=True)
    for name in _COMPARISONS:
        yield f"__{name}__", _comparison(name, getattr(operator, name))
    for name, full in _UNARY.items():
        home = operator if full.startswith("operator.") else math
        yield name, _unary(full, getattr(home, full.rpartition(".")[2]))
    for name, loses in _LOSING.items():
        yield name, _losing(loses)
    for name in _MEMBERS:
        yield name, _member(name)
    for name in MATH:
        # numpy's functions call methods of these names.
        yield name, _unary(f"math.{name}", getattr(math, name))


for _name, _method in _methods():
    setattr(SymbolicNumber, _name, _method)


class SymbolicInt(SymbolicNumber, torch.SymInt):  # type: ignore[override]  # torch's node is for others
    """An int with an origin."""

    __class__ = property(lambda _: int)
    numerator = property(lambda self: self)
    denominator = property(lambda _: 1)
    __index__ = _losing(int)


class SymbolicFloat(SymbolicNumber, torch.SymFloat):  # type: ignore[misc,override]  # likewise
    """A float with an origin."""

    __class__ = property(lambda _: float)

    def __int__(self) -> int:
        result = int(self.value)
        self.listener.assume(("math.trunc", self), result)
        return result


class _Over:
    """A base that numbers get once their capture is over: they compute as plain numbers."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute with the number alone, which a kernel of torch would not see."""
        return func(*_lost_in(args), **_lost_in(kwargs or {}))


class OverInt(_Over, SymbolicInt):  # type: ignore[override]  # likewise
    """An int whose capture is over."""


class OverFloat(_Over, SymbolicFloat):  # type: ignore[misc,override]  # likewise
    """A float whose capture is over."""


SYMBOLIC_TYPES = frozenset({SymbolicInt, SymbolicFloat, OverInt, OverFloat})


def symbolic(value: Any, origin: Origin, listener: SizeListener) -> Any:
    """A number with its origin; anything else as it is."""
    number: SymbolicNumber
    if listener.is_over:
        return value
    if type(value) is int:
        number = SymbolicInt.__new__(SymbolicInt)
    elif type(value) is float:
        number = SymbolicFloat.__new__(SymbolicFloat)
    else:
        return value
    number.value, number.origin, number.listener = value, origin, listener
    listener.born.append(weakref.ref(number))
    return number
