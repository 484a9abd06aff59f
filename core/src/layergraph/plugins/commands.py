"""The subcommands that plugins add to the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from layergraph.plugins.contract import command_name
from layergraph.plugins.listing import installed_answers
from layergraph.plugins.plugin import Plugin


class Command(NamedTuple):
    """A subcommand of ``layergraph``.

    Attributes:
        name: its name on the command line.
        function: the function that it calls.
        plugin: the plugin that it is from.
    """

    name: str
    function: Callable[..., Any]
    plugin: Plugin


def installed_commands() -> list[Command]:
    """The subcommands that the hook ``commands`` of the installed plugins gives.

    torch is imported only if a plugin that gives commands imports it.

    Returns:
        All commands, those of the plugin that is asked first first: see
        :mod:`layergraph.plugins`. Of several with one name, the first has the name.

    Warns:
        PluginWarning: a plugin cannot be used, or its hook fails. Its commands are skipped.

    Raises:
        PluginError: there is such a plugin, and ``LAYERGRAPH_STRICT`` is set.
    """
    return [
        Command(command_name(function), function, plugin)
        for plugin, function in installed_answers("commands")
    ]
