"""Patches that refuse calls which the symbolic tracer cannot see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.patches import Patch
from layergraph.torch2ir.tracing.proxy import Proxy


def guards(is_here: Callable[[], bool]) -> Iterator[Patch]:
    """Yield the patches that refuse calls which symbols would silently drop or answer wrongly.

    Args:
        is_here: returns whether the current thread captures; the patches ignore other threads.
    """
    enter: Any = torch.autocast.__enter__

    def refuse_autocast(region: Any) -> Any:
        if is_here():
            raise CaptureError("a graph cannot hold an autocast region")
        return enter(region)

    yield torch.autocast, "__enter__", refuse_autocast


def scope_guards(scope: dict[str, Any], is_here: Callable[[], bool]) -> Iterator[Patch]:
    """Yield such patches for the globals of code that is about to run."""
    yield scope, "isinstance", _isinstance(scope.get("isinstance", isinstance), is_here)


def _isinstance(original: Callable[..., bool], is_here: Callable[[], bool]) -> Callable[..., bool]:
    def check(value: object, kinds: Any) -> bool:
        if isinstance(value, Proxy) and is_here():
            raise CaptureError(f"the model asks whether a value is a {kinds!r}")
        return original(value, kinds)

    return check
