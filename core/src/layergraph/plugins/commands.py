"""The subcommands that plugins add to the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from layergraph.errors import LayergraphError
from layergraph.plugins.contract import HookFailure, command_name
from layergraph.plugins.loading import installed_plugins, warn_of_skipped
from layergraph.plugins.plugin import HookImplementation, Plugin, by_precedence


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
    implementations = reversed(by_precedence(installed_plugins("commands")))
    return [
        command
        for each in implementations
        if each.hook == "commands"
        for command in _commands_of(each)
    ]


def _commands_of(implementation: HookImplementation) -> list[Command]:
    plugin = implementation.plugin
    if plugin is None:  # a converter has no commands
        return []
    try:
        functions = implementation.ask() or ()
    except (HookFailure, LayergraphError) as error:
        cause = str(error) if isinstance(error, HookFailure) else f"{plugin}: {error}"
        warn_of_skipped(
            f"the commands of {plugin} are skipped: {cause}; mend or disable {plugin.distribution}"
        )
        return []
    return [Command(command_name(each), each, plugin) for each in functions]
