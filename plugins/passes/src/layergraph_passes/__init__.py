"""Common passes: folding, dead-code removal, replacement, canonical forms of operations.

This module is the plugin: it implements the hook ``passes``.
"""

from __future__ import annotations

from layergraph import Pass, hookimpl

layergraph_hooks = 1


@hookimpl
def passes() -> list[Pass]:
    """List the passes: one function each, named as the pass."""
    # Imported here, because each conversion loads this plugin and runs no pass.
    from layergraph_passes import registry

    return registry.passes()
