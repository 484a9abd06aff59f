"""Generators of random numbers that code makes in ``forward``, or takes as arguments.

A generator is a value of the graph, which functions take as an argument. They draw from it in the
order of the graph, as they do in the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from layergraph.functions.names import places
from layergraph.literals import UnknownValueError
from layergraph.torch2ir.tracing.module_call import TracedValue
from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.symbolic.symbolic_int import SymbolicNumber

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer

# Others set or tell the state of the generator.
_RECORDED = frozenset({"device", "manual_seed", "initial_seed"})


class Generators:
    """Maps generators to the values of the graph.

    Args:
        tracer: the tracer of the run.
    """

    def __init__(self, tracer: EagerTracer) -> None:
        self._tracer = tracer
        # Each entry keeps its generator alive, so that ids stay unique.
        self._known: dict[int, tuple[torch.Generator, TracedValue]] = {}

    def bind(self, generator: torch.Generator, value: TracedValue) -> None:
        """Bind a generator to a value."""
        self._known[id(generator)] = generator, value

    def value_of(self, generator: object) -> TracedValue | None:
        """Return the value of a generator; None if the run has neither made nor got it."""
        known = self._known.get(id(generator))
        return None if known is None else known[1]

    def bind_any(self, given: Any, value: Any) -> None:
        """Bind a generator or a tensor among the arguments to a value."""
        is_own = isinstance(given, torch.Generator)
        (self if is_own else self._tracer.tensors).bind(given, value)

    def read(self, given: object) -> TracedValue:
        """Return the value of a generator.

        Raises:
            UnknownValueError: the graph has no value for it.
        """
        value = self.value_of(given)
        if value is None:
            raise UnknownValueError(f"{given!r}, a {type(given).__name__}")
        return value

    def clear(self) -> None:
        """Forget all generators."""
        self._known.clear()

    def patches(self) -> Iterator[Patch]:
        """Yield the patches that record where code makes a generator."""
        recorded = self._class()
        for members, name in places((torch.Generator,)):
            yield members, name, recorded

    def _class(self) -> type:
        """Return the class that stands for ``torch.Generator`` during the run."""
        tracer = self._tracer
        original: Any = torch.Generator

        class Kind(type(original)):  # type: ignore[misc]
            def __instancecheck__(cls, value: object) -> bool:
                return isinstance(value, original)

        class Generator(original, metaclass=Kind):  # type: ignore[misc]
            def __new__(cls, device: Any = "cpu") -> Any:
                made = original.__new__(cls, device)
                if tracer.is_recording():
                    args = (tracer.to_literal(device),)
                    value = tracer.recorder.call("function", "layergraph.generator", args, {})
                    tracer.made_generators.bind(made, value)
                return made

            def __getattribute__(self, name: str) -> Any:
                if name not in _RECORDED and name[:2] != "__" and tracer.is_recording():
                    tracer.refuse(
                        f"{name} of a random number generator: a graph makes one, gives it a seed "
                        "by manual_seed, and draws from it"
                    )
                return super().__getattribute__(name)

            def manual_seed(self, seed: Any) -> Any:
                if tracer.is_recording():
                    args = (tracer.made_generators.value_of(self), tracer.to_literal(seed))
                    value = tracer.recorder.call("function", "layergraph.seeded", args, {})
                    tracer.made_generators.bind(self, value)
                super().manual_seed(seed.value if isinstance(seed, SymbolicNumber) else seed)
                return self

        return Generator
