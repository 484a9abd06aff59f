"""Regions of a graph in which gradients are off, or the precision is chosen by autocast.

A ``with`` statement becomes two nodes: one where the region begins, and one where it ends, which is
given what the first one gave.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import torch


def set_grad_enabled(mode: bool) -> bool:
    """Switch the recording of gradients on or off.

    Returns:
        What it was before: given to this function, it ends the region.
    """
    before = torch.is_grad_enabled()
    torch._C._set_grad_enabled(mode)
    return before


def enter_autocast(
    device: str, dtype: torch.dtype, enabled: bool, cache_enabled: bool
) -> torch.autocast:
    """Begin a region as ``with torch.autocast(…)`` does.

    Args:
        device: the type of device that it is for: ``"cpu"``.
        dtype: what is computed in.
        enabled: False for a region in which autocast is off.
        cache_enabled: whether weights that were cast are kept to the region's end.

    Returns:
        What :func:`exit_autocast` takes.
    """
    # torch.compile knows these two.
    return torch.amp.autocast_mode._enter_autocast(device, dtype, enabled, cache_enabled)  # type: ignore[no-any-return, no-untyped-call]


def exit_autocast(region: torch.autocast) -> None:
    """End a region that :func:`enter_autocast` began."""
    torch.amp.autocast_mode._exit_autocast(region)  # type: ignore[no-untyped-call]


REGIONS = frozenset({set_grad_enabled, enter_autocast, exit_autocast})
"""The functions that begin and end regions."""


def ending() -> AbstractContextManager[None]:
    """What a graph with regions runs in: they end with it, even if it fails."""
    # The compiler would have to trace what this does, and cannot.
    return nullcontext() if torch.compiler.is_compiling() else _Ending()


class _Ending(AbstractContextManager[None]):
    def __enter__(self) -> None:
        self._gradients = torch.is_grad_enabled()
        self._nesting = _nesting()
        self._autocast = {device: _autocast(device) for device in _devices()}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        torch._C._set_grad_enabled(self._gradients)
        while _nesting() > self._nesting:
            torch.autocast_decrement_nesting()
        for device, (enabled, dtype) in self._autocast.items():
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        torch.clear_autocast_cache()


def _nesting() -> int:
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


def _autocast(device: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)


@functools.cache
def _devices() -> tuple[str, ...]:
    accelerator = torch.accelerator.current_accelerator()
    return ("cpu",) if accelerator is None else ("cpu", accelerator.type)
