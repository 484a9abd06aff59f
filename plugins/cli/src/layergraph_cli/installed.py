"""The subcommands that plugins add to the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from layergraph.plugins import Plugin, command_name, installed_answers


class Command(NamedTuple):
    """A subcommand of ``layergraph``.

    Attributes:
        name: the name on the command line, such as ``"new-plugin"``.
        function: the function that runs.
        plugin: the plugin that lists the function.
    """

    name: str
    function: Callable[..., Any]
    plugin: Plugin


def installed_commands() -> list[Command]:
    """Return the subcommands that the installed plugins list through the hook ``commands``.

    torch is imported only if a plugin that lists commands imports it.

    Returns:
        All commands, in the order in which plugins are asked: see :mod:`layergraph.plugins`. Of
        several commands with one name, the command line runs the first.

    Warns:
        PluginWarning: a plugin cannot be used, or its hook fails. Its commands are skipped.

    Raises:
        PluginError: a plugin cannot be used or its hook fails, and ``LAYERGRAPH_STRICT`` is set.

    Example:
        >>> from layergraph_cli.installed import installed_commands
        >>> [each.name for each in installed_commands() if each.name.startswith("ex")]
        ['explain']
    """
    return [
        Command(command_name(function), function, plugin)
        for plugin, function in installed_answers("commands")
    ]
