"""Fingerprints of models and of their blocks, and an index of the files in a folder.

This module is the plugin: it implements the hook ``commands``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layergraph import hookimpl
from layergraph.elsewhere import imported

if TYPE_CHECKING:
    from layergraph_index.fingerprint import fingerprint, fingerprints
    from layergraph_index.index import Index

__all__ = ["Index", "fingerprint", "fingerprints"]

layergraph_hooks = 1

_HOMES = {
    "Index": "layergraph_index.index",
    "fingerprint": "layergraph_index.fingerprint",
    "fingerprints": "layergraph_index.fingerprint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'layergraph_index' has no attribute {name!r}")
    return imported(_HOMES[name], name)


@hookimpl
def commands() -> list[Callable[..., Any]]:
    """Return the subcommands ``fingerprint`` and ``index``."""
    from layergraph_index import subcommands

    return [subcommands.fingerprint, subcommands.index]
