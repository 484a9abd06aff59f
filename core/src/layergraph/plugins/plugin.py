"""A plugin and its hook implementations, read and checked."""

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

# Rows of layers need torch; the command line lists its subcommands without importing it.
if TYPE_CHECKING:
    from layergraph.layers import Layer, LayerTable

BUILTIN_PREFIX = "layergraph-"


class Level(enum.IntEnum):
    """The precedence of a hook implementation: a higher level is asked first."""

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
    """A plugin: the object that one entry point names.

    Attributes:
        distribution: the normalised name of the distribution.
        version: its version.
        entry_point: the name of the entry point.
        implementation: the object, usually a Python module, that holds the hook implementations.

    Example:
        >>> from layergraph.plugins import installed_plugins
        >>> [linear] = [p for p in installed_plugins() if p.distribution == "layergraph-linear"]
        >>> linear.is_builtin, [row.type for row in linear.rows]
        (True, ['linear', 'bilinear', 'identity'])
    """

    distribution: str
    version: str
    entry_point: str
    implementation: object

    @property
    def is_builtin(self) -> bool:
        """Return whether the plugin belongs to layergraph: its name starts with ``layergraph-``."""
        return self.distribution.startswith(BUILTIN_PREFIX)

    @functools.cached_property
    def hooks(self) -> tuple[HookImplementation, ...]:
        """Return the hook implementations; the last is asked first.

        Raises:
            PluginError: the plugin misuses a hook, was written for another version of the hooks,
                or implements none.
        """
        return tuple(_read(self))

    @property
    def rows(self) -> tuple[Layer, ...]:
        """Return the rows of layers that the plugin lists. Its handlers may know more layers."""
        tables = [each.table for each in self.hooks if each.hook == "torch_to_ir" and each.table]
        return tuple(row for table in tables for row in table)

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point})"


class HookImplementation(NamedTuple):
    """One function that implements a hook.

    Attributes:
        hook: the name of the hook.
        level: its precedence.
        function: the function.
        source: the object whose source code to show: this function, or the function that lists the
            rows.
        plugin: the plugin that has it; None if it is registered on a converter.
        is_wrapper: True if it runs around the other implementations.
        table: the rows of layers that it answers from; None if it does not answer from rows.
    """

    hook: str
    level: Level
    function: Callable[..., Any]
    source: Any
    plugin: Plugin | None = None
    is_wrapper: bool = False
    table: LayerTable | None = None

    def ask(self, **given: Any) -> Any:
        """Call this implementation alone, with the hook's arguments that it takes."""
        # Hooks that list take nothing, and are asked at each load and save.
        taken = inspect.signature(self.function).parameters if given else ()
        asked = functools.partial(self.function, **{name: given[name] for name in taken})
        return contained(self.hook, asked, self.owner)()

    @property
    def owner(self) -> str:
        """Return the text that names the plugin or converter in messages."""
        return "this converter" if self.plugin is None else str(self.plugin)


# The parameters of each hook.
PARAMETERS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(hook).parameters)
    for name, hook in vars(hookspecs).items()
    if hasattr(hook, f"{hookspecs.PROJECT}_spec")
}

# Hooks without a chain of implementations, so that a wrapper has nothing to wrap; with the remedy.
_UNWRAPPED = {
    "layers": "wrap torch_to_ir or ir_to_torch",
    "commands": "give a command of the same name",
    "formats": "give a format for the same suffix",
    "passes": "give a pass of the same name",
    "lowerings": "give a handler for the same layer",
}


def _read(plugin: Plugin) -> Iterator[HookImplementation]:
    """Find and check the hook implementations of a plugin."""
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
        if hook not in PARAMETERS and options.get("optionalhook"):
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
    """Sort the hook implementations of plugins; the last is asked first.

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
    """Yield name, function and marks of each hook implementation of an object, sorted by name."""
    if isinstance(holder, ModuleType):  # not dir() and getattr(), which may run a lazy import
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
    """Check the signature of an implementation; pluggy would check it on a call, or never.

    Raises:
        PluginError: there is no such hook, or the function takes an argument that the hook does not
            have.
    """
    if hook not in PARAMETERS:
        raise PluginError(f"unknown hook {hook!r}; the hooks are {', '.join(PARAMETERS)}")
    given = PARAMETERS[hook]
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
        raise PluginError(f"layers: it returned {rows!r}; give rows, layergraph.layers.Layer(cls)")
    return found


def _from_rows(
    rows: list[Layer], plugin: Plugin, level: Level, source: Any
) -> Iterator[HookImplementation]:
    """Yield the implementations of both conversions that answer from rows."""
    from layergraph.layers import LayerTable

    table = LayerTable(rows)
    if not plugin.is_builtin:  # our tests check the built-in rows, which saves time at each start
        for row in rows:
            row.check()
    for hook, function in (("torch_to_ir", table.to_ir), ("ir_to_torch", table.to_torch)):
        yield HookImplementation(hook, level, function, source, plugin=plugin, table=table)
