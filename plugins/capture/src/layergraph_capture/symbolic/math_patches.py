"""Patches of functions in C, such as ``len`` and ``math``, so that they return symbolic numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, SimpleNamespace
from typing import Any

import torch

from layergraph.functions.table import MATH
from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.loops.turns import is_of_turn
from layergraph_capture.symbolic.symbolic_int import SizeListener, SymbolicNumber, plain, symbolic


class MathPatches:
    """Makes the patches of ``len``, ``max``, ``min`` and ``math`` in the globals of code that runs.

    Args:
        listener: records the uses of sizes.
        length: returns the length of an object other than a tensor; None for its plain length.
    """

    def __init__(
        self, listener: SizeListener, length: Callable[[object], Any] = lambda _: None
    ) -> None:
        self._listener = listener
        self._length = length
        wrapped = {name: _math(name, getattr(math, name), listener) for name in MATH}
        self._functions = {getattr(math, name): wrapped[name] for name in MATH}
        self._ids = frozenset(map(id, [math, *self._functions]))
        self._math = SimpleNamespace(**vars(math) | wrapped)

    def of(self, scope: dict[str, Any]) -> Iterator[Patch]:
        """Yield the patches of the globals of a module."""
        yield scope, "len", self._len(scope.get("len", len))
        for function in (max, min):
            name = function.__name__
            if scope.get(name, function) is function:
                yield scope, name, _extreme(name, function, self._listener)
        if self._ids.isdisjoint(map(id, scope.values())):
            return
        for name, value in scope.items():
            if value is math:
                yield scope, name, self._math
            elif type(value) is BuiltinFunctionType and value in self._functions:
                yield scope, name, self._functions[value]

    def _len(self, original: Callable[[Any], int]) -> Callable[[Any], int]:
        listener, length = self._listener, self._length

        def call(value: Any, /) -> int:
            if type(value) is torch.Tensor and listener.is_recording() and value.dim():
                return value.size(0)
            known: int | None = length(value)
            return original(value) if known is None else known

        return call


def _math(name: str, function: Callable[..., Any], listener: SizeListener) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if not any(isinstance(arg, SymbolicNumber) for arg in args) or not listener.is_recording():
            return function(*args)
        return symbolic(function(*map(plain, args)), (f"math.{name}", *args), listener)

    return call


def _extreme(name: str, function: Callable[..., Any], listener: SizeListener) -> Callable[..., Any]:
    """Return ``max`` or ``min`` without the comparisons, which would be guards."""

    def call(*args: Any, **options: Any) -> Any:
        is_one = len(args) == 1
        if options or not listener.is_recording() or (is_one and isinstance(args[0], torch.Tensor)):
            return function(*args, **options)
        numbers = [*args[0]] if is_one else [*args]
        symbols = [each for each in numbers if isinstance(each, SymbolicNumber)]
        are_numbers = all(isinstance(each, int | float) for each in numbers)
        # A graph knows the number of each turn, so it computes nothing with these. Numbers of an
        # ended capture are plain.
        are_of_run = all(each.listener is listener for each in symbols)
        if not (symbols and are_numbers and are_of_run) or any(map(is_of_turn, symbols)):
            return function(numbers) if is_one else function(*args)
        result = function(map(plain, numbers))
        if is_one and not isinstance(args[0], tuple):
            # The number of items may vary, so they are one argument.
            return listener.of_numbers(f"builtins.{name}", numbers, result)
        are_same = len(symbols) == len(numbers) and len({each.key() for each in symbols}) == 1
        if are_same:
            return numbers[0]
        return symbolic(result, (f"builtins.{name}", *numbers), listener)

    return call
