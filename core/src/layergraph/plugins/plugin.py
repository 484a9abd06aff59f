"""What a plugin is, and what is in it."""

from __future__ import annotations

import enum
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from layergraph import hookspecs
from layergraph.errors import LayergraphError, PluginError, first_line
from layergraph.plugins.contract import MANY, contained, listed

# Only rows need torch, and the command line lists its commands without it.
if TYPE_CHECKING:
    from layergraph.layers import Layer, LayerTable

BUILTIN_PREFIX = "layergraph-"


class Level(enum.IntEnum):
    """Where an implementation of a hook stands, lowest first."""

    THIRD_PARTY_TRYLAST = 0
    BUILTIN = 1
    THIRD_PARTY = 2
    THIRD_PARTY_TRYFIRST = 3
    REGISTERED = 4
    OVERRIDE = 5

    def __str__(self) -> str:
        return "built-in" if self is Level.BUILTIN else self.name.lower().replace("_", " ")


@dataclass(frozen=True, eq=False)
class Plugin:
    """What one entry point names.

    Attributes:
        distribution: the normalised name of the distribution.
        version: its version.
        entry_point: the name of the entry point.
        implementation: the object, usually a module, that holds the hook implementations.
    """

    distribution: str
    version: str
    entry_point: str
    implementation: object

    @property
    def is_builtin(self) -> bool:
        """Whether it comes with layergraph."""
        return self.distribution.startswith(BUILTIN_PREFIX)

    @functools.cached_property
    def hooks(self) -> tuple[HookImplementation, ...]:
        """What it implements, those that are asked first last.

        Raises:
            PluginError: it misuses a hook, was written for other hooks, or implements none.
        """
        return tuple(_read(self))

    @property
    def rows(self) -> tuple[Layer, ...]:
        """The layers that it lists; its other handlers answer for what they like."""
        tables = [each.table for each in self.hooks if each.hook == "torch_to_ir" and each.table]
        return tuple(row for table in tables for row in table)

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point})"


class HookImplementation(NamedTuple):
    """One function that implements a hook.

    Attributes:
        hook: the name of the hook.
        level: where it stands.
        function: the function.
        source: what is written in a file: the function, or what lists the rows of the table.
        plugin: what it is from; None: it is registered on a converter.
        is_wrapper: whether it runs around the others.
        table: the rows that it answers from; None if it answers as it likes.
    """

    hook: str
    level: Level
    function: Callable[..., Any]
    source: Any
    plugin: Plugin | None = None
    is_wrapper: bool = False
    table: LayerTable | None = None

    def ask(self, **given: Any) -> Any:
        """Ask it alone, giving it those of the hook's arguments that it takes."""
        taken = inspect.signature(self.function).parameters
        asked = functools.partial(self.function, **{name: given[name] for name in taken})
        return contained(self.hook, asked, self.owner)()

    @property
    def owner(self) -> str:
        """Who it belongs to, for people."""
        return "this converter" if self.plugin is None else str(self.plugin)


# What each hook gives its implementations.
_HOOKS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(hook).parameters)
    for name, hook in vars(hookspecs).items()
    if hasattr(hook, f"{hookspecs.PROJECT}_spec")
}

# The hooks that are asked one implementation at a time, and the remedy if one is a wrapper.
_UNWRAPPED = {
    "layers": "wrap torch_to_ir or ir_to_torch",
    "commands": "give a command of the same name",
    "formats": "give a format for the same suffix",
}


def _read(plugin: Plugin) -> Iterator[HookImplementation]:
    """Find and check all that a plugin implements."""
    holder = plugin.implementation
    written_for = getattr(holder, "layergraph_hooks", hookspecs.VERSION)
    if written_for != hookspecs.VERSION:
        raise PluginError(
            f"it was written for version {written_for} of the hooks, and this layergraph has "
            f"version {hookspecs.VERSION}"
        )
    rows = _marked(holder)
    if rows:
        yield from _from_rows(rows, plugin, _level(plugin, {}), rows[0].cls)
    functions = []
    for name, function, options in marked_functions(holder):
        hook = options.get("specname") or name
        if hook not in _HOOKS and options.get("optionalhook"):
            continue
        is_wrapper = bool(options.get("wrapper") or options.get("hookwrapper"))
        _check(hook, function, is_wrapper=is_wrapper)
        level = _level(plugin, options)
        if hook == "layers":
            rows = _listed(function)
            yield from _from_rows(rows, plugin, level, function)
        else:
            functions.append(
                HookImplementation(hook, level, function, function, plugin, is_wrapper)
            )
    yield from functions
    if not rows and not functions:
        raise PluginError("it implements no hook; mark its functions with layergraph.hookimpl")


def by_precedence(plugins: Iterable[Plugin]) -> list[HookImplementation]:
    """All that plugins implement, those that are asked first last.

    Args:
        plugins: the plugins in load order.
    """
    found = [each for plugin in plugins for each in plugin.hooks]
    return sorted(found, key=lambda each: each.level)


def _marked(holder: object) -> list[Layer]:
    if not isinstance(holder, ModuleType) or "torch" not in sys.modules:
        return []  # a class of modules needs torch
    from layergraph.layers import marked_layers

    return marked_layers(holder)


def marked_functions(
    holder: object,
) -> Iterator[tuple[str, Callable[..., Any], pluggy.HookimplOpts]]:
    """The hook implementations of an object by name, in the order of names."""
    if isinstance(holder, ModuleType):  # the globals: asking for all it has may run code
        names = sorted(name for name, each in vars(holder).items() if inspect.isroutine(each))
    else:
        names = dir(holder)
    for name in names:
        options = _PARSER.parse_hookimpl_opts(holder, name)
        if options is not None:
            yield name, getattr(holder, name), options


_PARSER = pluggy.PluginManager(hookspecs.PROJECT)


def _level(plugin: Plugin, options: Any) -> Level:
    if plugin.is_builtin:
        return Level.BUILTIN
    if options.get("tryfirst"):
        return Level.THIRD_PARTY_TRYFIRST
    return Level.THIRD_PARTY_TRYLAST if options.get("trylast") else Level.THIRD_PARTY


def _check(hook: str, function: Callable[..., Any], *, is_wrapper: bool) -> None:
    """Check what pluggy would only notice when the hook is asked, or never.

    Raises:
        PluginError: the function is of no hook, or takes what the hook does not give.
    """
    if hook not in _HOOKS:
        raise PluginError(f"unknown hook {hook!r}; the hooks are {', '.join(_HOOKS)}")
    given = _HOOKS[hook]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty:
            raise PluginError(
                f"{hook}: the argument {parameter.name!r} has a default, and would never be given "
                "anything else; remove the default"
            )
        if parameter.name not in given or parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise PluginError(
                f"{hook}: no argument {str(parameter)!r} is given to it; take "
                f"{', '.join(given) or 'none'}"
            )
    if is_wrapper and hook in _UNWRAPPED:
        raise PluginError(f"{hook}: there is nothing to wrap; {_UNWRAPPED[hook]}")
    if is_wrapper and not inspect.isgeneratorfunction(inspect.unwrap(function)):
        raise PluginError(f"{hook}: a wrapper has to yield once; write answer = yield")


def _listed(layers: Callable[[], Iterable[Layer]]) -> list[Layer]:
    try:
        rows = layers()
    except (LayergraphError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError(
            f"layers: it raised {type(error).__name__}: {first_line(error)}"
        ) from error
    from layergraph.layers import Layer

    found = listed(rows) if isinstance(rows, Iterable) else []
    if found is None:
        raise PluginError(f"layers: it lists more than {MANY} rows, or does not end; give fewer")
    if not found or not all(isinstance(row, Layer) for row in found):
        raise PluginError(f"layers: it gave {rows!r}; give rows, layergraph.layers.Layer(cls)")
    return found


def _from_rows(
    rows: list[Layer], plugin: Plugin, level: Level, source: Any
) -> Iterator[HookImplementation]:
    """What answers for the rows of a table, in both directions."""
    from layergraph.layers import LayerTable

    table = LayerTable(rows)
    if not plugin.is_builtin:  # of which the tests check it, once and not at each start
        for row in rows:
            row.check()
    for hook, function in (("torch_to_ir", table.to_ir), ("ir_to_torch", table.to_torch)):
        yield HookImplementation(hook, level, function, source, plugin=plugin, table=table)
