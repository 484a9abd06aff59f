"""Finding, sorting and asking plugins.

Who is asked first:

1. what ``register_override`` added to this converter, the latest first;
2. what ``register`` added to this converter;
3. third-party implementations marked ``tryfirst``;
4. third-party implementations without a mark;
5. the built-ins: those of distributions named ``layergraph-…``, whatever their marks;
6. third-party implementations marked ``trylast``.

Within a level the distribution whose name sorts last is asked first, and in a distribution the
entry point whose name sorts last: ``sys.path`` has no say. Wrappers run around all of them.

pluggy's own loading of entry points gives no such order, so this module loads them itself and
registers every implementation for itself, in the order that makes pluggy ask them as listed.
"""

from __future__ import annotations

import enum
import functools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import importlib_metadata
import pluggy

from layergraph import hookspecs
from layergraph.errors import PluginError, PluginWarning

GROUP = "layergraph"
BUILTIN_PREFIX = "layergraph-"


class Level(enum.IntEnum):
    """Where an implementation of a hook stands, lowest first."""

    THIRD_PARTY_TRYLAST = 0
    BUILTIN = 1
    THIRD_PARTY = 2
    THIRD_PARTY_TRYFIRST = 3
    CONVERTER = 4


@dataclass(frozen=True, slots=True)
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

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point})"


@dataclass(frozen=True, slots=True)
class HookImplementation:
    """One function that implements a hook.

    Attributes:
        hook: the name of the hook.
        owner: who it belongs to, for people.
        level: where it stands.
        function: the function.
        is_wrapper: whether it runs around the others.
    """

    hook: str
    owner: str
    level: Level
    function: Callable[..., Any]
    is_wrapper: bool


@functools.cache
def installed_plugins() -> tuple[Plugin, ...]:
    """The plugins that are installed, in load order. Looked for once in a process.

    Warns:
        PluginWarning: for each plugin that cannot be used; the others are not concerned.
    """
    return tuple(load_plugins(_installed_entry_points()))


def _installed_entry_points() -> Iterator[importlib_metadata.EntryPoint]:
    # Not importlib_metadata.entry_points: one damaged distribution, of whomever, stops that.
    for distribution in importlib_metadata.distributions():
        try:
            if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            found = list(distribution.entry_points.select(group=GROUP))
            first = importlib_metadata.distribution(distribution.name)
            shadowed = first.locate_file("") != distribution.locate_file("")
            for each in found:
                _load_order(each)
        except Exception as error:
            where = distribution.locate_file("")
            _warn(f"a distribution in {where}", error, "reinstall or remove it")
        else:
            yield from () if shadowed else found


def load_plugins(entry_points: Iterable[importlib_metadata.EntryPoint]) -> Iterator[Plugin]:
    """The plugins that entry points name, sorted by distribution and entry point.

    Warns:
        PluginWarning: for each plugin that fails to import or that misuses the hooks.
    """
    for entry_point in sorted(entry_points, key=_load_order):
        try:
            plugin = Plugin(*_identity(entry_point), entry_point.name, entry_point.load())
            _try_out(plugin)
        except (Exception, SystemExit) as error:
            distribution, version = _identity(entry_point)
            plugin_name = f"plugin {entry_point.name!r} of {distribution} {version}"
            _warn(plugin_name, error, f"update or uninstall {distribution}")
        else:
            yield plugin


def _warn(what: str, error: BaseException, remedy: str) -> None:
    said = " ".join(str(error).split())
    message = f"{what} is left out: {type(error).__name__}: {said}; {remedy}"
    warnings.warn(message, PluginWarning, stacklevel=3)


def _identity(entry_point: importlib_metadata.EntryPoint) -> tuple[str, str]:
    distribution = entry_point.dist
    if distribution is None:
        return "unknown", "unknown"
    return _normalised(distribution), distribution.version


def _normalised(distribution: Any) -> str:
    """The name of a distribution as the Python packaging specifications compare names."""
    return re.sub(r"[-_.]+", "-", distribution.name).lower()


def _load_order(entry_point: importlib_metadata.EntryPoint) -> tuple[str, str, str]:
    return *_identity(entry_point), entry_point.name


def _try_out(plugin: Plugin) -> None:
    """Let pluggy check the hook implementations of a plugin.

    Raises:
        PluginError: it has none.
        pluggy.PluginValidationError: one is of no hook, or takes what the hook does not give.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin.implementation)
    manager.check_pending()
    if not _implementations(plugin):
        raise PluginError("it implements no hook; mark its functions with layergraph.hookimpl")


class Hooks:
    """The hooks as one converter asks them.

    Args:
        plugins: the plugins to ask.
        converter: an object whose hook implementations come before all plugins'.
    """

    def __init__(self, plugins: Iterable[Plugin], converter: object) -> None:
        listed = [each for plugin in plugins for each in _implementations(plugin)]
        listed.sort(key=lambda each: each.level)
        listed += _functions(converter, "this converter", lambda _options: Level.CONVERTER)
        self._manager = _Manager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for number, each in enumerate(listed):
            self._manager.register(each, name=f"{number}: {each.owner}")
        self.implementations = tuple(reversed(listed))
        self.ask = self._manager.hook

    def named_functions(self) -> frozenset[str]:
        """The names of functions that plugins add.

        Raises:
            PluginError: a plugin gave something else than names.
        """
        named: set[str] = set()
        for names in self.ask.functions():
            named.update(_checked(names))
        return frozenset(named)

    def asked(self, hook: str) -> list[str]:
        """Who is asked for a hook, in order, without repetition."""
        return list(dict.fromkeys(each.owner for each in self.implementations if each.hook == hook))


def function_homes() -> dict[str, str]:
    """The functions that installed plugins add, to the distributions that name them.

    Raises:
        PluginError: a plugin gave something else than names.
    """
    return {
        name: plugin.distribution
        for plugin in installed_plugins()
        for each in _implementations(plugin)
        if each.hook == "functions" and not each.is_wrapper
        for name in _checked(each.function())
    }


def _checked(names: Any) -> Iterable[str]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise PluginError(f"a plugin names functions by {names!r}; give full names")
    return names  # type: ignore[no-any-return]


class _Manager(pluggy.PluginManager):
    """Registers one implementation at a time, and leaves the order to that of registration.

    The last registered is asked first, whatever it is marked with.
    """

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        if name != "function":
            return None
        options = super().parse_hookimpl_opts(plugin, name)
        if options is not None:
            options = options.copy()
            options["specname"] = plugin.hook
            options["tryfirst"] = options["trylast"] = False
        return options


@functools.cache
def _implementations(plugin: Plugin) -> list[HookImplementation]:
    def level(options: pluggy.HookimplOpts) -> Level:
        if plugin.is_builtin:
            return Level.BUILTIN
        if options.get("tryfirst"):
            return Level.THIRD_PARTY_TRYFIRST
        return Level.THIRD_PARTY_TRYLAST if options.get("trylast") else Level.THIRD_PARTY

    return _functions(plugin.implementation, str(plugin), level)


def _functions(
    holder: object, owner: str, level: Callable[[pluggy.HookimplOpts], Level]
) -> list[HookImplementation]:
    found = []
    parser = pluggy.PluginManager(hookspecs.PROJECT)
    for name in dir(holder):
        options = parser.parse_hookimpl_opts(holder, name)
        if options is None:
            continue
        found.append(
            HookImplementation(
                hook=options.get("specname") or name,
                owner=owner,
                level=level(options),
                function=getattr(holder, name),
                is_wrapper=bool(options.get("wrapper") or options.get("hookwrapper")),
            )
        )
    return found


# The plugins for the files of torch.nn that are not named as they are.
_SECTIONS = {
    "adaptive": "loss",
    "batchnorm": "normalization",
    "channelshuffle": "shape",
    "container": "sequential",
    "flatten": "shape",
    "fold": "conv",
    "instancenorm": "normalization",
    "pixelshuffle": "shape",
    "rnn": "recurrent",
    "upsampling": "shape",
}


def distribution_for(defined_in: str) -> str | None:
    """The built-in distribution that would handle a layer of torch.

    Args:
        defined_in: the name of the Python module that defines the layer's class.

    Returns:
        A name to look for (``layergraph-conv``), whether or not it is installed; None for what is
        not a layer of torch.nn.
    """
    package, _, file = defined_in.rpartition(".")
    if package != "torch.nn.modules":
        return None
    return BUILTIN_PREFIX + _SECTIONS.get(file, file)
