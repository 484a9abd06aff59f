"""Regions of a graph in which gradients are off, or the precision is chosen by autocast.

A ``with`` statement becomes two nodes: one where the region begins, and one where it ends, which is
given what the first one gave.
"""

from __future__ import annotations

import functools
import threading
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

from layergraph.errors import AssumptionError


def set_grad_enabled(mode: bool) -> bool:
    """Switch the recording of gradients on or off.

    Returns:
        What it was before: given to this function, it ends the region.
    """
    if type(mode) is not bool:
        raise AssumptionError(f"gradients cannot be set to {mode!r}; give True or False")
    before = torch.is_grad_enabled()
    torch._C._set_grad_enabled(mode)
    return before


def enter_autocast(
    device: str, dtype: torch.dtype | None, enabled: bool, cache_enabled: bool
) -> torch.autocast:
    """Begin a region as ``with torch.autocast(…)`` does.

    Args:
        device: the type of device that it is for: ``"cpu"``.
        dtype: what is computed in; None for the dtype that is usual when the region begins.
        enabled: False for a region in which autocast is off.
        cache_enabled: whether weights that were cast are kept to the region's end.

    Returns:
        What :func:`exit_autocast` takes.
    """
    # torch.compile knows this one, and the one that ends it.
    return torch.amp.autocast_mode._enter_autocast(device, dtype, enabled, cache_enabled)  # type: ignore[no-any-return, no-untyped-call]


def exit_autocast(region: torch.autocast) -> None:
    """End a region that :func:`enter_autocast` began."""
    if not isinstance(region, torch.autocast):
        raise AssumptionError(
            f"no autocast region ends with a {type(region).__name__}; give what enter_autocast gave"
        )
    torch.amp.autocast_mode._exit_autocast(region)  # type: ignore[no-untyped-call]


REGIONS = frozenset({set_grad_enabled, enter_autocast, exit_autocast})
"""The functions that begin and end regions."""


def ending() -> AbstractContextManager[Any]:
    """The context of a graph with regions: it puts the modes back, however the graph ends."""
    if torch.compiler.is_compiling():
        # The compiler cannot trace what reads all modes, but knows this one.
        return torch.set_grad_enabled(torch.is_grad_enabled())
    return _Ending()


# The count of graphs with regions that this thread is in.
_inside = threading.local()


class _Ending(AbstractContextManager[None]):
    def __enter__(self) -> None:
        self._before = _modes()
        _inside.depth = getattr(_inside, "depth", 0) + 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        before = self._before
        _inside.depth -= 1
        # A region that a module leaves open may end in the graph around it.
        if (kind is None and _inside.depth) or _modes() == before:
            return
        torch._C._set_grad_enabled(before.gradients)
        while _nesting() > before.nesting:
            torch.autocast_decrement_nesting()
        while _nesting() < before.nesting:
            torch.autocast_increment_nesting()
        for device, enabled, dtype in before.autocast:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(before.cache)
        torch.clear_autocast_cache()


class _Modes(NamedTuple):
    gradients: bool
    nesting: int
    cache: bool
    autocast: list[tuple[str, bool, torch.dtype]]


def _modes() -> _Modes:
    """The modes of this thread that regions can change."""
    autocast = [
        (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in _devices()
    ]
    cache = torch.is_autocast_cache_enabled()
    return _Modes(torch.is_grad_enabled(), _nesting(), cache, autocast)


def _nesting() -> int:
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


@functools.cache
def _devices() -> tuple[str, ...]:
    """The types of devices that have an autocast mode, those that are not here too."""
    known = "cpu cuda xpu mps hpu xla ipu mtia maia".split()
    return tuple([device for device in known if _has_autocast(device)])


def _has_autocast(device: str) -> bool:
    try:
        torch.get_autocast_dtype(device)
    except RuntimeError:
        return False
    return True
