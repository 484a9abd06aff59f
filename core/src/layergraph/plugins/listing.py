"""What the installed plugins list through a hook: commands, formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from layergraph.errors import LayergraphError
from layergraph.plugins.contract import HookFailure
from layergraph.plugins.loading import installed_plugins, warn_of_skipped
from layergraph.plugins.plugin import HookImplementation, Plugin, by_precedence


def installed_answers(hook: str) -> Iterator[tuple[Plugin, Any]]:
    """All that the installed plugins list through a hook, each with its plugin.

    Plugins whose source does not name the hook are not loaded, so that torch is imported only if
    one that does imports it.

    Args:
        hook: the name of a hook that gives a list.

    Yields:
        What the plugins give; that of the plugin that is asked first comes first.

    Warns:
        PluginWarning: a plugin cannot be used, or its hook fails. Its answers are skipped.

    Raises:
        PluginError: there is such a plugin, and ``LAYERGRAPH_STRICT`` is set.
    """
    for each in reversed(by_precedence(installed_plugins(hook))):
        if each.hook == hook and each.plugin is not None:  # a converter lists nothing
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
