"""Symbolic ints and floats, which record how they were computed from sizes.

They behave as ints and floats for model code. Operations that need the plain value (a comparison,
``int()``, ``range()``, the index of a list) report it to the listener, which adds a guard.
"""

from __future__ import annotations

import math
import operator
import sys
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from numbers import Integral, Real
from typing import Any, Protocol

import torch

from layergraph.errors import CaptureError
from layergraph.functions.table import MATH
from layergraph.torch2ir.tracing.stand_ins import StandIn
from layergraph_capture.symbolic.known_node import KnownNode
from layergraph_capture.symbolic.messages import is_in_message

Origin = tuple[Any, ...]
"""The origin of a number: the name of a function, and its arguments."""


class SizeListener(Protocol):
    """The listener for uses of symbolic numbers.

    Attributes:
        is_over: whether the capture has ended; then its sizes are plain ints.
        born: weak references to the numbers made so far.
    """

    is_over: bool
    born: list[weakref.ref[SymbolicNumber]]

    def is_recording(self) -> bool:
        """Return whether the tracer records calls now."""

    def assume(self, origin: Origin, result: object) -> None:
        """Record a guard: the graph depends on the value of a number."""

    def decide(self, origin: Origin, result: bool) -> bool:
        """Record a comparison of a number, and return the answer for the code."""

    def of_numbers(self, name: str, numbers: Sequence[Any], result: Any) -> Any:
        """Return the symbolic number that a function computes from any number of numbers."""


class SymbolicNumber(StandIn):
    """A symbolic number.

    It behaves as an int or a float, but its class is neither. C code that needs the value calls
    ``__index__`` or ``__float__``, and we then add a guard. Torch accepts it as one of its own
    symbolic numbers, and passes it to the modes that record; no kernel sees it.
    """

    origin: Origin
    listener: SizeListener
    value: Any

    def key(self) -> Hashable:
        """Return a key that is equal for numbers with equal origins."""
        return key_of(self.origin)

    def plain(self) -> Any:
        """Return the plain number, without a guard."""
        return self.value

    def lose(self) -> Any:
        """Return the plain number, and guard it."""
        self.listener.assume((self,), self.value)
        return self.value

    def __bool__(self) -> bool:
        different: bool = self.__ne__(0)
        return different

    def __round__(self, digits: int | None = None) -> Any:
        given = () if digits is None else (digits,)
        return symbolic(round(self.value, *given), ("builtins.round", self, *given), self.listener)

    def is_integer(self) -> bool:
        """Return whether it is a whole number; this is a comparison of numbers."""
        floor: Any = math.floor
        return bool(self == floor(self))

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        number = self.lose()
        return type(number), (number,)

    def __deepcopy__(self, _memo: object) -> Any:
        return self.value if self.listener.is_over else self

    @property
    def real(self) -> SymbolicNumber:
        """Return the number itself."""
        return self

    @property
    def imag(self) -> int:
        """Return zero."""
        return 0

    @property
    def node(self) -> Any:
        """Return the node that torch reads where it passes the number to no mode.

        Raises:
            CaptureError: the capture has not ended.
        """
        if self.listener.is_over:
            return KnownNode(self.value)
        raise CaptureError(
            f"a graph cannot hold the number {self.value} in this call; use a function that "
            "makes tensors, such as torch.tensor or torch.zeros"
        )


def key_of(origin: Origin) -> Hashable:
    """Return a key that is equal for equal origins."""
    return tuple([each.key() if isinstance(each, SymbolicNumber) else each for each in origin])


def plain(value: Any) -> Any:
    """Return the plain number of a symbolic one; any other value unchanged."""
    return value.plain() if isinstance(value, SymbolicNumber) else value


def _operand(value: object) -> Any:
    """Return the operand as a number, or NotImplemented to let the other operand handle it."""
    if type(value).__module__ == "numpy":
        return NotImplemented  # numpy calls ``__array_ufunc__``, so that the result has its type
    return _compared(value)


def _compared(value: object) -> Any:
    if isinstance(value, SymbolicNumber):
        return value
    for kind, like in ((int, Integral), (float, Real)):
        # This includes numbers of numpy, and members of an IntEnum.
        if isinstance(value, like):
            return kind(value)  # type: ignore[call-overload]
    return NotImplemented


def lost(value: Any) -> Any:
    """Return the plain number of a symbolic one, and guard it."""
    return value.lose() if isinstance(value, SymbolicNumber) else value


def _lost_in(value: Any) -> Any:
    """Return arguments with plain numbers in place of symbolic ones, and guard these."""
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
        value = _compared(other)
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


def _written(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: SymbolicNumber, *args: Any) -> Any:
        return function(self.plain() if is_in_message() else self.lose(), *args)

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
    "__float__": float,
    "__complex__": complex,
    "__hash__": hash,
}
# What texts call: "%d" calls ``__int__``.
_WRITTEN: dict[str, Callable[..., Any]] = {
    "__int__": int,
    "__repr__": repr,
    "__str__": str,
    "__format__": format,
}
_MEMBERS = "as_integer_ratio bit_count bit_length conjugate hex to_bytes".split()


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
    for name, writes in _WRITTEN.items():
        yield name, _written(writes)
    for name in _MEMBERS:
        yield name, _member(name)
    for name in MATH:
        # numpy's functions call methods of these names.
        yield name, _unary(f"math.{name}", getattr(math, name))
    yield "__array_ufunc__", _of_numpy
    yield "rint", _rint
    yield "astype", _astype


def _of_numpy(self: SymbolicNumber, function: Any, method: str, *given: Any, **options: Any) -> Any:
    """Call a function of numpy, which calls operators and methods of symbolic numbers.

    Those of Python may return an int where numpy returns a float, or other bits. If so, the numbers
    are guarded.
    """
    call = getattr(function, method)
    if options or method != "__call__" or any(getattr(each, "shape", ()) for each in given):
        return call(*map(_in_array, given), **options)  # arrays of objects
    result = call(*map(plain, given))
    with suppress(TypeError, AttributeError):
        numbers = [each.item() if type(each).__module__ == "numpy" else each for each in given]
        found = call(*map(_in_array, numbers))
        if isinstance(result, float) and isinstance(found, SymbolicInt):
            found = symbolic(float(found.value), ("operator.truediv", found, 1), self.listener)
        if result.dtype.name == "bool":
            return type(result)(found)
        is_plain = result.dtype.name in ("float64", "int64")
        if is_plain and repr(result.item()) == repr(plain(found)):
            # A number of numpy: torch.tensor makes a tensor of float64 of it.
            is_float = isinstance(found, SymbolicFloat)
            return symbolic(result, found.origin, self.listener) if is_float else found
    return call(*map(lost, given))


def _in_array(value: Any) -> Any:
    """Return an array of numpy around a number; another value unchanged."""
    if not isinstance(value, SymbolicNumber):
        return value
    array = sys.modules["numpy"].empty((), object)
    array[()] = value
    return array


_TRUNC: Callable[[Any], Any] = math.trunc


def _rint(self: SymbolicNumber) -> Any:
    return self if isinstance(self, SymbolicInt) else round(self) / 1


def _astype(self: SymbolicNumber, dtype: Any, *args: Any, **kwargs: Any) -> Any:
    if dtype is int:
        return _TRUNC(self)
    return sys.modules["numpy"].asarray(self.lose())[()].astype(dtype, *args, **kwargs)


for _name, _method in _methods():
    setattr(SymbolicNumber, _name, _method)


class SymbolicInt(SymbolicNumber, torch.SymInt):  # type: ignore[override]  # torch's node is for others
    """A symbolic int."""

    __class__ = property(lambda _: int)
    numerator = property(lambda self: self)
    denominator = property(lambda _: 1)
    __index__ = _losing(int)


class SymbolicFloat(SymbolicNumber, torch.SymFloat):  # type: ignore[misc,override]  # likewise
    """A symbolic float."""

    __class__ = property(lambda _: float)

    def __int__(self) -> int:
        result = int(self.value)
        self.listener.assume(("math.trunc", self), result)
        return result


class _Over:
    """A base class of ended numbers, which compute as plain numbers."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch with plain numbers, because kernels accept no symbolic ones."""
        return func(*_lost_in(args), **_lost_in(kwargs or {}))


class OverInt(_Over, SymbolicInt):  # type: ignore[override]  # likewise
    """An int of an ended capture."""


class OverFloat(_Over, SymbolicFloat):  # type: ignore[misc,override]  # likewise
    """A float of an ended capture."""


SYMBOLIC_TYPES = frozenset({SymbolicInt, SymbolicFloat, OverInt, OverFloat})


def symbolic(value: Any, origin: Origin, listener: SizeListener) -> Any:
    """Return a number as a symbolic one with an origin; any other value unchanged."""
    number: SymbolicNumber
    if listener.is_over:
        return value
    if type(value) is int:
        number = SymbolicInt.__new__(SymbolicInt)
    elif isinstance(value, float) and not isinstance(value, SymbolicNumber):
        number = SymbolicFloat.__new__(SymbolicFloat)
    else:
        return value
    number.value, number.origin, number.listener = value, origin, listener
    listener.born.append(weakref.ref(number))
    return number
