"""Pictures of models: a page that works offline, SVG, mermaid, dot, JSON of Model Explorer.

This module is the plugin: it implements the hooks ``formats`` and ``commands``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from layergraph.hook_types.formats import Format
from layergraph.hookspecs import hookimpl
from layergraph.ir import Ir

if TYPE_CHECKING:
    import torch

    from layergraph_view.api import View, view

__all__ = ["View", "view"]

layergraph_hooks = 1

_DESCRIPTIONS = {
    ".html": "a page that shows the model, for any browser",
    ".svg": "a picture",
    ".mmd": "a mermaid diagram",
    ".dot": "a graph for Graphviz",
    ".explorer.json": "a graph for Model Explorer",
}


def __getattr__(name: str) -> Any:
    # Imported on first use, because each conversion loads this plugin and draws nothing.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("layergraph_view.api"), name)


def _write(
    ir: Ir,
    path: Any,
    state_dict: Mapping[str, torch.Tensor] | None = None,  # noqa: ARG001 a picture has no weights
    **options: Any,
) -> None:
    importlib.import_module("layergraph_view.api").view(ir, path, **options)


@hookimpl
def formats() -> list[Format]:
    """List the formats, which have writers only."""
    return [Format(suffix, text, _write) for suffix, text in _DESCRIPTIONS.items()]


@hookimpl
def commands() -> list[Callable[..., Any]]:
    """List the command ``layergraph view``."""
    return [importlib.import_module("layergraph_view.command").view]
