"""Regions of a graph: ``no_grad``, ``autocast`` and ``sdpa_kernel`` blocks.

A block becomes an enter node and an exit node. The exit node takes the result of the enter node.
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
        The setting before. To end the region, call this function with it.

    Raises:
        AssumptionError: ``mode`` is not a bool.
    """
    if type(mode) is not bool:
        raise AssumptionError(f"gradients cannot be set to {mode!r}; give True or False")
    before = torch.is_grad_enabled()
    torch._C._set_grad_enabled(mode)
    return before


def enter_autocast(
    device: str, dtype: torch.dtype | None, enabled: bool, cache_enabled: bool
) -> torch.autocast:
    """Enter an autocast region, as ``with torch.autocast(…)`` does.

    Args:
        device: the type of device, such as ``"cpu"``.
        dtype: the dtype to compute in; None: the default of autocast when the region begins.
        enabled: False for a region in which autocast is off.
        cache_enabled: True to keep weights that were cast until the end of the region.

    Returns:
        The region, for :func:`exit_autocast`.
    """
    # torch.compile can trace this function and its counterpart in exit_autocast.
    return torch.amp.autocast_mode._enter_autocast(device, dtype, enabled, cache_enabled)  # type: ignore[no-any-return, no-untyped-call]


def exit_autocast(region: torch.autocast) -> None:
    """Exit an autocast region.

    Args:
        region: the result of :func:`enter_autocast`.

    Raises:
        AssumptionError: the argument is not a region.
    """
    if not isinstance(region, torch.autocast):
        raise AssumptionError(
            f"no autocast region ends with a {type(region).__name__}; give the result of "
            "enter_autocast"
        )
    torch.amp.autocast_mode._exit_autocast(region)  # type: ignore[no-untyped-call]


_KERNELS = {
    name: (getattr(torch.backends.cuda, f"{name}_sdp_enabled"), f"enable_{name}_sdp")
    for name in ("flash", "mem_efficient", "math", "cudnn")
}


def attention_kernels() -> tuple[str, ...]:
    """Return the kernels that attention may use, of ``flash``, ``mem_efficient`` and so on."""
    return tuple([name for name, (is_enabled, _) in _KERNELS.items() if is_enabled()])


def select_attention(kernels: tuple[str, ...]) -> tuple[str, ...]:
    """Restrict attention to some kernels, as ``with sdpa_kernel(…)`` does.

    Args:
        kernels: their names, such as ``("math",)``.

    Returns:
        The kernels before. To end the region, call this function with them.

    Raises:
        AssumptionError: ``kernels`` are no names of kernels.
    """
    if not isinstance(kernels, tuple | list) or not {*map(str, kernels)} <= _KERNELS.keys():
        listed = ", ".join(_KERNELS)
        raise AssumptionError(f"{kernels!r} are no kernels of attention; give some of {listed}")
    before = attention_kernels()
    for name, (_, setter) in _KERNELS.items():
        getattr(torch.backends.cuda, setter)(name in kernels)
    return before


REGIONS = frozenset({set_grad_enabled, enter_autocast, exit_autocast, select_attention})
"""The functions that enter and exit regions."""


def ending() -> AbstractContextManager[Any]:
    """Return a context for a graph with regions, which restores the modes if the graph raises."""
    if torch.compiler.is_compiling():
        # torch.compile cannot trace _Ending, which reads all modes.
        return torch.set_grad_enabled(torch.is_grad_enabled())
    return _Ending()


# `depth` counts the graphs with regions that this thread runs, one inside the other.
_inside = threading.local()


class _Ending(AbstractContextManager[None]):
    def __enter__(self) -> None:
        self._before = _modes()
        _inside.depth = getattr(_inside, "depth", 0) + 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        before = self._before
        _inside.depth -= 1
        # A submodule may leave a region open, which the outer graph exits.
        if (kind is None and _inside.depth) or _modes() == before:
            return
        torch._C._set_grad_enabled(before.gradients)
        select_attention(before.kernels)
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
    kernels: tuple[str, ...]


def _modes() -> _Modes:
    """Return the modes of this thread that regions can change."""
    autocast = [
        (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in _devices()
    ]
    cache = torch.is_autocast_cache_enabled()
    return _Modes(torch.is_grad_enabled(), _nesting(), cache, autocast, attention_kernels())


def _nesting() -> int:
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


@functools.cache
def _devices() -> tuple[str, ...]:
    """Return the device types with an autocast mode, even if there is no such device."""
    known = "cpu cuda xpu mps hpu xla ipu mtia maia".split()
    return tuple([device for device in known if _has_autocast(device)])


def _has_autocast(device: str) -> bool:
    try:
        torch.get_autocast_dtype(device)
    except RuntimeError:
        return False
    return True
