"""Python source of models: a readable module that runs without layergraph.

This module is the plugin: it implements the hooks ``formats`` and ``commands``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layergraph import Format, hookimpl
from layergraph.elsewhere import imported

if TYPE_CHECKING:
    from layergraph_source.errors import SourceError
    from layergraph_source.writer import to_source

__all__ = ["SourceError", "to_source"]

layergraph_hooks = 1

_HOMES = {"SourceError": "layergraph_source.errors", "to_source": "layergraph_source.writer"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'layergraph_source' has no attribute {name!r}")
    return imported(_HOMES[name], name)


@hookimpl
def formats() -> list[Format]:
    """List the format ``.py``, which has a writer only."""
    # Imported here, because each conversion loads this plugin and writes no file.
    from layergraph_source.files import write

    return [Format(".py", "the Python source of the model, without weights", write=write)]


@hookimpl
def commands() -> list[Callable[..., Any]]:
    """List the subcommand ``source``."""
    from layergraph_source.command import source

    return [source]
