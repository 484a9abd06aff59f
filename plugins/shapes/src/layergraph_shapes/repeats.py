"""Calls that are like one before: a composite of the same form, on inputs described alike.

The shapes inside are those of the first call, which stands for the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor

from layergraph.ir import Implementation
from layergraph.ir.values import Symbol, leaves, map_leaves, parts
from layergraph_shapes.fake_model import FakeModel
from layergraph_shapes.forms import Forms
from layergraph_shapes.observer import Observer, Path

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), Symbol)
_OF_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class Call(NamedTuple):
    """A call of a composite.

    Attributes:
        implementation: the composite.
        path: the names of the nodes that make the call.
        inputs: its inputs, in the order of its graph.
        key: what it has in common with the calls that are like it.
    """

    implementation: Implementation
    path: Path
    inputs: Sequence[Any]
    key: Hashable


class Repeats:
    """The first call of each kind, and its result.

    Args:
        model: the model.
        observer: sees the calls.
    """

    def __init__(self, model: FakeModel, observer: Observer) -> None:
        self._model = model
        self._observer = observer
        self._forms = Forms(model.ir)
        self._first: dict[Hashable, tuple[Call, Any]] = {}

    def call(
        self, implementation: Implementation, path: Path, bound: Mapping[str, Any]
    ) -> Call | None:
        """Return a call; None if no other one is like it.

        Args:
            implementation: the composite.
            path: the names of the nodes that make the call.
            bound: the value of each parameter.
        """
        if not self._observer.takes_repeats:
            return None
        parameters = self._model.graph_of(implementation).parameters().values()
        inputs = [bound[name] for name in parameters if name in bound]
        described = _described(tuple(inputs), {})
        if described is None:
            return None
        form = self._forms.of(implementation.name)
        is_given = tuple(name in bound for name in parameters)
        key = form, self._is_training(implementation), is_given, described
        return Call(implementation, path, inputs, key)

    def first(self, call: Call) -> tuple[Call, Any] | None:
        """Return the first call that is like another one, and its result."""
        return self._first.get(call.key)

    def keep(self, call: Call, after: Call | None, result: Any) -> None:
        """Keep a call for those that are like it.

        Args:
            call: the call.
            after: the same call, described when it has been made. It must not change its inputs.
            result: its result.
        """
        is_same = after is not None and after.key == call.key
        if is_same and _described(result, {}) is not None:
            self._first.setdefault(call.key, (call, result))

    def again(self, first: tuple[Call, Any], call: Call) -> Iterator[None]:
        """Show the nodes of a call to the observer, one at a time."""
        one, path, name = first[0], call.path, call.implementation.name
        self._enter(call.implementation, call.inputs)
        for pair in self._forms.pairs(one.implementation.name, name, self._model.graph_of):
            other = pair.other
            self._observer.repeat((*one.path, *pair.path), (*path, *pair.other_path), other)
            if other.is_call and self._model.ir[other.implementation].nodes:
                self._enter(self._model.ir[other.implementation], ())
            yield

    def _enter(self, implementation: Implementation, inputs: Sequence[Any]) -> None:
        self._observer.enter(implementation, inputs, self._is_training(implementation))

    def _is_training(self, implementation: Implementation) -> bool:
        return self._model.modules[implementation.name].training

    def result(self, first: tuple[Call, Any], call: Call) -> Any:
        """Return a result that is described like that of the first call.

        Where that one returns an input of its own, this is the input in its place.
        """
        given = zip(leaves(*first[0].inputs), leaves(*call.inputs), strict=True)
        same = {id(one): other for one, other in given if isinstance(one, torch.Tensor)}

        def leaf(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) not in same:
                made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
                same[id(value)] = made
            return same[id(value)]

        return map_leaves(leaf, first[1])


def _described(value: Any, numbers: dict[int, int]) -> Hashable:
    """Return a description that decides what a call on the value computes; None if none does.

    Args:
        value: the value.
        numbers: numbers for the tensors, so that one that is given twice is told from two.
    """
    inside = parts(value)
    if inside is None:
        return _leaf(value, numbers)
    described = [_described(each, numbers) for each in inside]
    names = repr(list(getattr(value, "fields", value if type(value) is dict else ())))
    return None if None in described else (type(value), names, tuple(described))


def _leaf(value: Any, numbers: dict[int, int]) -> Hashable:
    if type(value) is FakeTensor:
        if value.constant is not None or value.is_sparse or value.is_conj() or value.is_neg():
            return None
        number = numbers.setdefault(id(value), len(numbers))
        sizes = (*value.shape, *value.stride())
        return number, value.dtype, value.device, value.is_inference(), tuple(map(str, sizes))
    if isinstance(value, _SYMBOLIC):
        return type(value), str(value)
    return (type(value), repr(value)) if isinstance(value, (*_PLAIN, *_OF_TORCH)) else None
