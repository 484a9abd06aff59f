"""Comparison of the results and side effects of a call, name by name and bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from layergraph.api import default_ir2torch
from layergraph.ir import Record
from layergraph.literals import record_of
from layergraph.tensors.memory import same_bytes


class DifferenceError(Exception):
    """The two models differ."""


def told(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a nested structure, and the class of each container, by name."""
    kind = type(value)
    if kind is Record:
        parts = {f"{name}.{field}": each for field, each in value.fields.items()}
        made = f"a {value.type}"
    elif isinstance(value, Mapping):
        parts = {f"{name}[{key!r}]": each for key, each in value.items()}
        made = "a dict" if kind is dict else f"a {kind.__qualname__}"
    elif isinstance(value, tuple | list):
        made, names = f"a {kind.__name__}", None
        if kind not in (tuple, list, torch.Size) and isinstance(value, tuple):
            record = record_of(kind)
            names = None if record is None else record[1]
            made = made if record is None else f"a tuple {record[0]} of {record[1]}"
        parts = {
            (f"{name}.{names[index]}" if names else f"{name}[{index}]"): each
            for index, each in enumerate(value)
        }
    else:
        yield name, value
        return
    yield name, f"{made} of {len(parts)}"
    for part, each in parts.items():
        yield from told(part, each)


def some(names: list[str]) -> str:
    """Return the first names of a list as text, and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "none") + more


def compare(was: Mapping[str, object], now: Mapping[str, object], *, exact: bool = False) -> str:
    """Compare the values of two models by name, and return a summary.

    Args:
        was: the values of the original.
        now: the values of the other model.
        exact: whether to compare the bits of nans too. Those of a computed nan are arbitrary.

    Raises:
        DifferenceError: two values differ; the message describes the first difference.
    """
    for name, one in was.items():
        if name not in now:
            raise DifferenceError(f"{name}: it was {named(one)}, and is missing")
        what = difference(one, now[name], exact=exact)
        if what:
            raise DifferenceError(f"{name}: {what}")
    added = [name for name in now if name not in was]
    if added:
        raise DifferenceError(f"{some(added)}: not in the original")
    count = sum(isinstance(one, torch.Tensor) for one in was.values())
    return f"{count} tensors bit for bit"


def compare_closely(was: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Compare values by name, with the tolerances of :func:`torch.testing.assert_close`.

    Raises:
        DifferenceError: two values differ by more than that.
    """
    was = {name: _whole(each) for name, each in was.items()}
    try:
        return compare(was, now)
    except DifferenceError as error:
        worst = 0.0
        for name, one in was.items():
            other = now.get(name)
            if not difference(one, other):
                continue
            if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
                raise
            try:
                torch.testing.assert_close(other, one, equal_nan=True)
            except AssertionError:
                raise error from None
            worst = max(worst, (one - other).abs().max().item())
        return f"equal up to {worst:.3g}"


def _whole(value: object) -> object:
    gather = getattr(value, "full_tensor", None)  # the method of a DTensor
    return value if gather is None else gather()


def difference(was: object, now: object, *, exact: bool = False) -> str:
    """Describe the difference of two values; empty if there is none."""
    if not isinstance(was, torch.Tensor) or not isinstance(now, torch.Tensor):
        same = type(was) is type(now) and (
            # Compare texts: they are equal for two nans, and differ for -0.0 and 0.0.
            repr(was) == repr(now) if isinstance(was, float | complex) else bool(was == now)
        )
        return "" if same else f"it was {named(was)}, and is {named(now)}"
    if (was.dtype, was.shape) != (now.dtype, now.shape):
        return f"it was {named(was)}, and is {named(now)}"
    for what in ("device", "requires_grad"):
        one, other = getattr(was, what), getattr(now, what)
        if one != other:
            return f"its {what} was {one}, and is {other}"
    kinds = default_ir2torch().hooks.tensor_kinds
    if kinds.flatten(was) is not None or kinds.flatten(now) is not None:
        misfit = kinds.misfit(now, was)
        if misfit:
            return f"it {misfit}"
        parts = zip(kinds.blocks(was), kinds.blocks(now), strict=True)
        return next(filter(None, (difference(*each, exact=True) for each in parts)), "")
    if same_bytes(_plain(was), _plain(now)):
        return ""
    one, other = _comparable(was), _comparable(now)
    differing = one != other
    if one.is_floating_point():
        differing |= one.signbit() != other.signbit()
        differing &= ~(one.isnan() & other.isnan())
    if not differing.any():
        return "the bits of a nan differ" if exact else ""
    by = (one.double() - other.double()).abs()[differing].max().item()
    count, total = int(differing.sum()), differing.numel()
    return f"{count} of {total} numbers differ, by up to {by:.3g}"


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().resolve_conj().resolve_neg().to_dense().contiguous()


def _comparable(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in a form that ``!=`` compares: dense, on the CPU, without rounding."""
    plain = tensor.detach().to_dense().cpu()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    return plain.double() if plain.is_floating_point() else plain


def named(value: object) -> str:
    """Describe a value briefly."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    return repr(value) if isinstance(value, bool | int | float | str | None) else f"{value!r:.60}"
