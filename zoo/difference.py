"""Comparison of the outputs of two models, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from layergraph.testing import bitwise_difference


@dataclass(frozen=True)
class Difference:
    """A place where two outputs differ. One that does not count is only worth a note."""

    where: str
    what: str
    counts: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def differences(expected: Any, actual: Any, where: str = "output") -> Iterator[Difference]:
    """Compare by structure: dicts of any class by their keys, named tuples by their fields."""
    if _is_cache(expected):
        yield from _of_caches(expected, actual, where)
    elif isinstance(expected, Mapping):
        yield from _of_mappings(expected, actual, where)
    elif isinstance(expected, (list, tuple)):
        yield from _of_sequences(expected, actual, where)
    elif found := bitwise_difference(expected, actual, name=where):
        yield Difference(where, found.removeprefix(f"{where}: "))


def _of_mappings(expected: Mapping[Any, Any], actual: Any, where: str) -> Iterator[Difference]:
    if not isinstance(actual, Mapping):
        yield Difference(where, f"a mapping became {type(actual).__name__}")
        return
    for key in actual.keys() - expected.keys():
        yield Difference(f"{where}[{key!r}]", "is new")
    for key, value in expected.items():
        if key in actual or _is_cache(value):
            yield from differences(value, actual.get(key), f"{where}[{key!r}]")
        else:
            yield Difference(f"{where}[{key!r}]", "is missing")


def _of_sequences(
    expected: list[Any] | tuple[Any, ...], actual: Any, where: str
) -> Iterator[Difference]:
    kind = list if isinstance(expected, list) else tuple
    fields, found = (getattr(each, "_fields", None) for each in (expected, actual))
    if not isinstance(actual, kind) or fields != found:
        yield Difference(where, f"{type(expected).__name__} became {type(actual).__name__}")
    elif len(expected) != len(actual):
        yield Difference(where, f"{len(expected)} values became {len(actual)}")
    else:
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            name = f".{fields[index]}" if fields else f"[{index}]"
            yield from differences(one, other, where + name)


def _is_cache(value: Any) -> bool:
    """Return whether a value is a cache object of a library."""
    plain = (torch.Tensor, Mapping, list, tuple)
    return not isinstance(value, plain) and type(value).__module__.startswith("transformers")


def _of_caches(expected: Any, actual: Any, where: str) -> Iterator[Difference]:
    """Compare what is remembered by the tensors in it, in whatever they lie.

    What becomes of such an object in the rebuilt model is not decided yet: here is the one place
    that knows. A model that gives none at all is right, with a note.
    """
    if actual is None:
        yield Difference(where, f"{type(expected).__name__} is left out", counts=False)
    else:
        yield from differences(list(_tensors_in(expected)), list(_tensors_in(actual)), where)


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors_in(each)
    elif hasattr(value, "__dict__"):
        # By name: in which order an object got its attributes does not matter.
        yield from _tensors_in(dict(sorted(vars(value).items())))
