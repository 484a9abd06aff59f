"""The answers of the installed plugins to the hooks that list, such as ``formats``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from layergraph.errors import LayergraphError
from layergraph.plugins.contract import HookFailure
from layergraph.plugins.loading import installed_plugins, warn_of_skipped
from layergraph.plugins.plugin import HookImplementation, Plugin, by_precedence


def installed_answers(hook: str) -> Iterator[tuple[Plugin, Any]]:
    """Yield each item that the installed plugins list through a hook, with its plugin.

    A plugin is loaded only if its source contains the name of the hook. So torch is imported only
    if such a plugin imports it.

    Args:
        hook: the name of a hook that returns a list: ``"commands"``, ``"formats"``, ``"passes"`` or
            ``"lowerings"``.

    Yields:
        Pairs of plugin and item, in the order in which plugins are asked.

    Warns:
        PluginWarning: a plugin cannot be used, or its hook fails. Its answers are skipped.

    Raises:
        PluginError: a plugin cannot be used or its hook fails, and ``LAYERGRAPH_STRICT`` is set.

    Example:
        >>> from layergraph.plugins import installed_answers
        >>> for plugin, row in installed_answers("formats"):
        ...     if row.suffix == ".json":
        ...         print(plugin.distribution)
        layergraph-files
    """
    for each in reversed(by_precedence(installed_plugins(hook))):
        if each.hook == hook and each.plugin is not None:  # handlers on a converter list nothing
            for answer in _answers_of(each, each.plugin):
                yield each.plugin, answer


def _answers_of(implementation: HookImplementation, plugin: Plugin) -> list[Any]:
    try:
        return list(implementation.ask() or ())
    except (HookFailure, LayergraphError) as error:
        cause = str(error) if isinstance(error, HookFailure) else f"{plugin}: {error}"
        warn_of_skipped(
            f"the {implementation.hook} of {plugin} are skipped: {cause}; mend or disable "
            f"{plugin.distribution}"
        )
        return []
