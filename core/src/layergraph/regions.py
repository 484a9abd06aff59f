"""Regions of a graph in which gradients are off, or the precision is chosen by autocast.

A ``with`` statement becomes two nodes: one where the region begins, and one where it ends, which is
given what the first one gave.
"""

from __future__ import annotations

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
    region = torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)
    region.__enter__()
    return region


def exit_autocast(region: torch.autocast) -> None:
    """End a region that :func:`enter_autocast` began."""
    region.__exit__(None, None, None)
