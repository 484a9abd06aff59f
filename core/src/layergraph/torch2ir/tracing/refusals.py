"""Patches that refuse calls which a run on symbols would not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.patches import Patch
from layergraph.torch2ir.tracing.proxy import Proxy


def guards(is_here: Callable[[], bool]) -> Iterator[Patch]:
    """The patches that refuse what would be lost, or be answered wrongly, in silence.

    Args:
        is_here: whether the current thread is the one that captures; others see no change.
    """
    enter: Any = torch.autocast.__enter__

    def refuse_autocast(region: Any) -> Any:
        if is_here():
            raise CaptureError("a graph cannot hold an autocast region")
        return enter(region)

    yield torch.autocast, "__enter__", refuse_autocast


def scope_guards(scope: dict[str, Any], is_here: Callable[[], bool]) -> Iterator[Patch]:
    """Likewise, in the globals of code that runs."""
    yield scope, "isinstance", _isinstance(scope.get("isinstance", isinstance), is_here)


def _isinstance(original: Callable[..., bool], is_here: Callable[[], bool]) -> Callable[..., bool]:
    def check(value: object, kinds: Any) -> bool:
        if isinstance(value, Proxy) and is_here():
            raise CaptureError(f"the model asks whether a value is a {kinds!r}")
        return original(value, kinds)

    return check
