"""Finding and loading plugins by their entry points. A broken plugin does not stop the others."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import importlib_metadata

from layergraph.errors import PluginError, PluginWarning
from layergraph.plugins.plugin import BUILTIN_PREFIX, Plugin

GROUP = "layergraph"
DISABLE = "LAYERGRAPH_DISABLE"
STRICT = "LAYERGRAPH_STRICT"
THIRD_PARTY = "*"


class SkippedPlugin(NamedTuple):
    """A plugin that layergraph does not ask, with the reason.

    Attributes:
        distribution: the normalised name of the distribution; its folder if the name is unknown.
        version: its version; empty if it is unknown.
        entry_point: the name of the entry point; empty if the reason is about the distribution.
        reason: the reason why the plugin is left out.
        cure: the remedy.
        is_disabled: True if the user disabled the plugin; False if it is broken.

    Example:
        >>> from layergraph.plugins import SkippedPlugin
        >>> print(SkippedPlugin("acme", "1.0", "x", "no module acme", "reinstall acme"))
        plugin 'x' of acme 1.0 is left out: no module acme; reinstall acme
    """

    distribution: str
    version: str
    entry_point: str
    reason: str
    cure: str
    is_disabled: bool = False

    def __str__(self) -> str:
        what = f"{self.distribution} {self.version}".strip()
        if self.entry_point:
            what = f"plugin {self.entry_point!r} of {what}"
        return f"{what} is left out: {self.reason}; {self.cure}"


class Discovered(NamedTuple):
    """The plugins that the entry points of installed distributions name.

    Attributes:
        plugins: the plugins to ask, in load order: within a level, the last is asked first.
        left_out: the plugins that are disabled or broken, in load order.
    """

    plugins: tuple[Plugin, ...]
    left_out: tuple[SkippedPlugin, ...]


def installed_plugins(hook: str = "") -> tuple[Plugin, ...]:
    """Return the installed plugins that can be used and are not disabled.

    A process looks for entry points once, and loads each plugin once.

    Args:
        hook: the name of a hook. Plugins whose source does not contain it are not loaded, which
            saves their imports. Empty: all plugins are loaded.

    Returns:
        The plugins in load order: within a level, the last is asked first.

    Warns:
        PluginWarning: once for each plugin that cannot be used; the others are returned.

    Raises:
        PluginError: a plugin cannot be used, and ``LAYERGRAPH_STRICT`` is set.

    Example:
        >>> from layergraph.plugins import installed_plugins
        >>> "layergraph-linear" in [each.distribution for each in installed_plugins()]
        True
    """
    return _warned(discovered(hook=hook))


def chosen_plugins(
    plugins: Iterable[Plugin] | None, disable: Collection[str]
) -> tuple[Plugin, ...]:
    """Return the plugins for one converter.

    Args:
        plugins: the plugins to choose from; None: the installed ones.
        disable: the names of distributions to leave out; ``*`` for all third-party ones.

    Raises:
        PluginError: no plugin of a disabled name is there, or an installed plugin cannot be used
            and ``LAYERGRAPH_STRICT`` is set.
    """
    names = _names(disable)
    if plugins is None:
        known = {each.distribution for each in _look()[0]}
    else:
        plugins = tuple(plugins)
        known = {each.distribution for each in plugins}
    unknown = sorted(names - known - {THIRD_PARTY})
    if unknown:
        raise PluginError(
            f"no plugin of {', '.join(unknown)} is there to be disabled; there are "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    if plugins is None:
        return _warned(discovered(names))
    return tuple(each for each in plugins if not _is_disabled(each.distribution, names))


def _warned(found: Discovered) -> tuple[Plugin, ...]:
    """Warn of the broken plugins, and return the others."""
    for each in found.left_out:
        _warn_once(each)
    return found.plugins


def discovered(disable: Collection[str] = (), hook: str = "") -> Discovered:
    """Return the installed plugins, and those that are left out with the reason, without a warning.

    Args:
        disable: the names of distributions to leave out besides those that ``LAYERGRAPH_DISABLE``
            names; ``*`` for all third-party ones.
        hook: as for :func:`installed_plugins`.

    Example:
        >>> from layergraph.plugins import discovered
        >>> found = discovered(disable=["layergraph-linear"])
        >>> [each.reason for each in found.left_out if each.distribution == "layergraph-linear"]
        ['this converter disables it']
    """
    by_environment, by_converter = _names(os.environ.get(DISABLE, "")), _names(disable)
    plugins: list[Plugin] = []
    left_out: list[SkippedPlugin] = []
    for installed in _look()[0]:
        if _is_disabled(installed.distribution, by_environment):
            left_out.append(_disabled(installed, f"{DISABLE} names it", f"change {DISABLE}"))
        elif _is_disabled(installed.distribution, by_converter):
            left_out.append(_disabled(installed, "this converter disables it", "do not disable it"))
        elif not hook or _may_implement(installed, hook):
            loaded = _loaded(installed)
            plugins.append(loaded) if isinstance(loaded, Plugin) else left_out.append(loaded)
    missing = by_environment - {each.distribution for each in _look()[0]} - {THIRD_PARTY}
    left_out += [
        SkippedPlugin(
            name, "", "", f"no such plugin is there for {DISABLE} to name", f"correct {DISABLE}"
        )
        for name in sorted(missing)
    ]
    return Discovered(tuple(plugins), (*left_out, *_look()[1]))


def load_plugins(entry_points: Iterable[importlib_metadata.EntryPoint]) -> Iterator[Plugin]:
    """Yield the plugins that entry points name, sorted by distribution and entry point.

    Warns:
        PluginWarning: for each plugin that fails to import or misuses the hooks.

    Raises:
        PluginError: a plugin fails to import or misuses the hooks, and ``LAYERGRAPH_STRICT`` is
            set.
    """
    for installed in sorted(map(_identified, entry_points), key=_load_order):
        loaded = _load(installed)
        if isinstance(loaded, Plugin):
            yield loaded
        else:
            warn_of_skipped(str(loaded))


def normalised(name: str) -> str:
    """Return the normalised name of a distribution, as in the packaging specifications."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(given: str | Iterable[str]) -> frozenset[str]:
    """Return normalised names of distributions, given as names or as text with commas."""
    listed = given.split(",") if isinstance(given, str) else given
    return frozenset(normalised(name.strip()) for name in listed if name.strip())


class _Installed(NamedTuple):
    distribution: str
    version: str
    entry_point: importlib_metadata.EntryPoint


def _identified(entry_point: importlib_metadata.EntryPoint) -> _Installed:
    distribution = entry_point.dist
    if distribution is None:
        return _Installed("unknown", "unknown", entry_point)
    name, version = _name_and_version(distribution)
    return _Installed(normalised(name), version, entry_point)


# importlib_metadata parses all of the metadata as an e-mail, once for the name and once for the
# version: with fifteen plugins, this takes a fifth of the time of the first converter.
def _name_and_version(distribution: Any) -> tuple[str, str]:
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    head = text.partition("\n\n")[0]
    found = dict(re.findall(r"^(Name|Version): *(\S+) *$", head, re.MULTILINE))
    if found.keys() != {"Name", "Version"}:
        raise PluginError("its metadata does not say both its name and its version")
    return found["Name"], found["Version"]


def _load_order(installed: _Installed) -> tuple[str, str, str]:
    return installed.distribution, installed.version, installed.entry_point.name


@functools.cache
def _look() -> tuple[tuple[_Installed, ...], tuple[SkippedPlugin, ...]]:
    """Return the installed entry points in load order, and the damaged distributions."""
    found: list[_Installed] = []
    damaged: list[SkippedPlugin] = []
    earlier: dict[str, list[Any]] = {}
    # Python itself passes over other entries, but importlib_metadata fails at one.
    path = [each for each in sys.path if isinstance(each, str)]
    # Not importlib_metadata.entry_points: it raises if any one distribution is damaged.
    for distribution in importlib_metadata.distributions(path=path):
        try:
            mine = _entry_points(distribution)
            names = {_name_in_path(distribution), *(each.distribution for each in mine)}
            if not any(map(_is_valid, chain.from_iterable(earlier.get(n, ()) for n in names))):
                found += mine
        except Exception as error:
            names = {_name_in_path(distribution)}
            what = f"a distribution in {distribution.locate_file('')}"
            damaged.append(SkippedPlugin(what, "", "", _one_line(error), "reinstall or remove it"))
        for name in names:
            earlier.setdefault(name, []).append(distribution)
    return tuple(sorted(found, key=_load_order)), tuple(damaged)


def _entry_points(distribution: Any) -> list[_Installed]:
    if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
        return []
    return [_identified(each) for each in distribution.entry_points.select(group=GROUP)]


def _name_in_path(distribution: Any) -> str:
    """Return the normalised name of a distribution from the path of its metadata."""
    try:
        return normalised(distribution._normalized_name)  # .name would read a file
    except Exception:  # neither the path nor the metadata has a name
        return ""


def _is_valid(distribution: Any) -> bool:
    """Return whether metadata exists; an interrupted installation leaves empty folders."""
    return any(map(distribution.read_text, ("METADATA", "PKG-INFO", "")))


@functools.cache
def _loaded(installed: _Installed) -> Plugin | SkippedPlugin:
    return _load(installed)


def _load(installed: _Installed) -> Plugin | SkippedPlugin:
    distribution, version, entry_point = installed
    try:
        plugin = Plugin(distribution, version, entry_point.name, entry_point.load())
        plugin.hooks  # noqa: B018 -- reading them checks them; an error here names the plugin
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        cure = f"uninstall or mend {distribution}, or set {DISABLE}={distribution}"
        return SkippedPlugin(distribution, version, entry_point.name, _one_line(error), cure)
    return plugin


@functools.cache
def _may_implement(installed: _Installed, hook: str) -> bool:
    """Return whether the source of a plugin contains the name of a hook.

    A plugin whose source cannot be read may implement any hook.
    """
    entry_point = installed.entry_point
    try:
        spec = None if entry_point.attr else importlib.util.find_spec(entry_point.module)
        get_source = getattr(spec and spec.loader, "get_source", None)
        source = get_source(entry_point.module) if get_source else None
    except (Exception, SystemExit):  # loading the plugin will report the error
        return True
    return source is None or hook in source or re.search(r"import\s*\*", source) is not None


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def way_to_get(distribution: str) -> str:
    """Return the remedy for a missing distribution: install or enable it."""
    if _is_disabled(distribution, _names(os.environ.get(DISABLE, ""))):
        return f"{DISABLE} names {distribution}: change it"
    return f"pip install {distribution}"


def _is_disabled(distribution: str, names: Collection[str]) -> bool:
    if distribution in names:
        return True
    return THIRD_PARTY in names and not distribution.startswith(BUILTIN_PREFIX)


def _disabled(installed: _Installed, reason: str, cure: str) -> SkippedPlugin:
    name = installed.entry_point.name
    return SkippedPlugin(
        installed.distribution, installed.version, name, reason, cure, is_disabled=True
    )


def warn_of_skipped(message: str) -> None:
    """Warn that a plugin, or one of its answers, is skipped.

    Args:
        message: the skipped thing, the reason, and the remedy.

    Warns:
        PluginWarning: always, with the message.

    Raises:
        PluginError: ``LAYERGRAPH_STRICT`` is set.
    """
    if os.environ.get(STRICT, "") not in ("", "0"):
        raise PluginError(f"{message} (an error because {STRICT} is set)")
    warnings.warn(message, PluginWarning, stacklevel=3)


@functools.cache
def _warn_once(left_out: SkippedPlugin) -> None:
    if not left_out.is_disabled:
        warn_of_skipped(str(left_out))
