"""Results and side effects of a call, named piece by piece, and compared to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from layergraph.api import default_ir2torch
from layergraph.literals import record_of
from layergraph.tensors.memory import same_bytes


class DifferenceError(Exception):
    """Two things that are compared are not the same."""


def told(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The items and classes of a nested structure, by name."""
    kind = type(value)
    if isinstance(value, Mapping):
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
    """The first of some names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "none") + more


def compare(was: Mapping[str, object], now: Mapping[str, object], *, exact: bool = False) -> str:
    """Compare what is under each name; give a summary.

    Args:
        was: of the original.
        now: of the other model.
        exact: whether all bits count, also those of a nan, which come out of computing by chance.

    Raises:
        DifferenceError: they differ; it says where first, and how.
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
    """Compare what is under each name, with the tolerances of :func:`torch.testing.assert_close`.

    Raises:
        DifferenceError: they differ.
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
    gather = getattr(value, "full_tensor", None)  # of a DTensor
    return value if gather is None else gather()


def difference(was: object, now: object, *, exact: bool = False) -> str:
    """The difference of two values; empty if there is none."""
    if not isinstance(was, torch.Tensor) or not isinstance(now, torch.Tensor):
        same = type(was) is type(now) and (
            # As text, nan is nan and -0.0 is not 0.0.
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
    """The numbers of a tensor, as ones that can be compared; exactly these."""
    plain = tensor.detach().to_dense().cpu()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    return plain.double() if plain.is_floating_point() else plain


def named(value: object) -> str:
    """A value in short."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    return repr(value) if isinstance(value, bool | int | float | str | None) else f"{value!r:.60}"
