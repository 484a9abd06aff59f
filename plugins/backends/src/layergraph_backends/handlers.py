"""The handlers of a target, from the hook ``lowerings``, in the order of asking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from layergraph.errors import LayergraphError, PluginError, first_line
from layergraph.hook_types.declining import listening
from layergraph.hook_types.lowerings import Lowering
from layergraph.plugins import Plugin, installed_answers
from layergraph_backends.backend import NO_HANDLER
from layergraph_backends.step import Step


class Handler(NamedTuple):
    """A row of the hook ``lowerings``, and the plugin that lists it; None for one of the caller."""

    row: Lowering
    plugin: Plugin | None

    def __str__(self) -> str:
        owner = "" if self.plugin is None else f" of {self.plugin}"
        function = getattr(self.row.function, "__name__", "a handler")
        return f"{function}{owner} for the target {self.row.target!r}"


class Answer(NamedTuple):
    """The answer for a step.

    Attributes:
        value: a value of the target; None if there is none.
        reason: the reason why there is none.
        is_builtin: whether only built-in handlers were asked.
    """

    value: Any
    reason: str = ""
    is_builtin: bool = True


class Handlers:
    """The handlers of one target.

    Args:
        rows: the handlers in the order of asking.
    """

    def __init__(self, rows: Iterable[Handler]) -> None:
        self._layers: dict[str, list[Handler]] = {}
        self._functions: dict[str, list[Handler]] = {}
        self._rest: list[Handler] = []
        for each in rows:
            for name in each.row.layers:
                self._layers.setdefault(name, []).append(each)
            for name in each.row.functions:
                self._functions.setdefault(name, []).append(each)
            if not each.row.layers and not each.row.functions:
                self._rest.append(each)

    @property
    def layers(self) -> dict[str, Handler]:
        """The handler that is asked first, by the type of the layer."""
        return {name: listed[0] for name, listed in sorted(self._layers.items())}

    @property
    def functions(self) -> dict[str, Handler]:
        """The handler that is asked first, by the name of the function."""
        return {name: listed[0] for name, listed in sorted(self._functions.items())}

    def has(self, step: Step) -> bool:
        """Return whether there is a handler to ask about a step."""
        return bool(self._named(step) or self._rest)

    def names(self, step: Step) -> bool:
        """Return whether a handler names the layer or function of a step."""
        return bool(self._named(step))

    def answer(self, step: Step, backend: Any) -> Answer:
        """Ask the handlers for the value of a step.

        Raises:
            PluginError: a third-party handler raised a foreign error.
        """
        reasons: list[str] = []
        is_builtin = True
        for each in (*self._named(step), *self._rest):
            is_builtin = is_builtin and each.plugin is not None and each.plugin.is_builtin
            try:
                with listening() as heard:
                    value = each.row.function(step, backend)
            except LayergraphError as error:
                return Answer(None, str(error))
            except Exception as error:
                if each.plugin is None or each.plugin.is_builtin:
                    raise  # an error of ours or of the caller shows as it is
                raise PluginError(
                    f"{each} raised {type(error).__name__} at {step.where}: {first_line(error)}; "
                    f"mend it, or disable {each.plugin.distribution}"
                ) from error
            if value is not None:
                return Answer(value, is_builtin=is_builtin)
            reasons += heard or [f"{each} declines, and gives no reason"]
        return Answer(None, "; ".join(reasons) or NO_HANDLER)

    def _named(self, step: Step) -> list[Handler]:
        listed = self._functions if step.layer is None else self._layers
        return listed.get(step.kind, [])


def handlers_of(target: str, own: Iterable[Lowering] = ()) -> Handlers:
    """Return the handlers of a target.

    Args:
        target: the name of the target.
        own: rows that come before those of all plugins.

    Warns:
        PluginWarning: a plugin cannot be used, or its hook fails. Its handlers are skipped.

    Example:
        >>> from layergraph import Lowering
        >>> from layergraph_backends import handlers_of
        >>> row = Lowering("acme", lambda step, backend: "relu", layers=["relu"])
        >>> list(handlers_of("acme", [row]).layers)
        ['relu']
    """
    installed = (Handler(row, plugin) for plugin, row in installed_answers("lowerings"))
    rows = [*(Handler(row, None) for row in own), *installed]
    return Handlers(each for each in rows if each.row.target == target)


def targets() -> dict[str, list[str]]:
    """Return the targets that the installed plugins know, each with the plugins that have rows.

    Warns:
        PluginWarning: a plugin cannot be used, or its hook fails. Its handlers are skipped.

    Example:
        >>> from layergraph_backends import targets
        >>> sorted(targets()) == list(targets())
        True
    """
    found: dict[str, dict[str, None]] = {}
    for plugin, row in installed_answers("lowerings"):
        found.setdefault(row.target, {})[plugin.distribution] = None
    return {target: list(found[target]) for target in sorted(found)}
