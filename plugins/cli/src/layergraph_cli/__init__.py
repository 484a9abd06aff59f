"""The command ``layergraph``, with one file for each of its subcommands.

This module is the plugin: it implements the hook ``commands``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from layergraph import hookimpl

layergraph_hooks = 1


@hookimpl
def commands() -> list[Callable[..., Any]]:
    """Return the built-in subcommands."""
    # Imported here, because each conversion loads this plugin, but needs no subcommand.
    from layergraph_cli.check import check
    from layergraph_cli.convert import convert
    from layergraph_cli.diff import diff
    from layergraph_cli.explain import explain
    from layergraph_cli.new import new_plugin
    from layergraph_cli.passes import passes, run
    from layergraph_cli.plugins import plugins
    from layergraph_cli.select import select
    from layergraph_cli.show import show

    return [show, select, check, diff, convert, explain, passes, run, plugins, new_plugin]


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    try:
        from layergraph_cli.app import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())
