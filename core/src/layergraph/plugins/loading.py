"""Which plugins there are: found through entry points, one fault concerning nobody else."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import importlib_metadata

from layergraph.errors import PluginError, PluginWarning
from layergraph.plugins.plugin import BUILTIN_PREFIX, Plugin

GROUP = "layergraph"
DISABLE = "LAYERGRAPH_DISABLE"
STRICT = "LAYERGRAPH_STRICT"
THIRD_PARTY = "*"


class SkippedPlugin(NamedTuple):
    """An entry point that nobody asks.

    Attributes:
        distribution: the normalised name of the distribution, or what is known instead.
        version: its version; empty if that is not known.
        entry_point: the name of the entry point; empty if it is about none or all of them.
        reason: why it is left out.
        cure: what to do about it.
        is_disabled: whether somebody asked for it to be left out; else it is broken.
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
    """What entry points name.

    Attributes:
        plugins: those that are asked, in load order: within a level, the last is asked first.
        left_out: those that are not, in the same order.
    """

    plugins: tuple[Plugin, ...]
    left_out: tuple[SkippedPlugin, ...]


def installed_plugins(hook: str = "") -> tuple[Plugin, ...]:
    """The installed plugins that can be used and are not disabled, in load order.

    What is installed is looked for once in a process, and each plugin is loaded once.

    Args:
        hook: the name of a hook. Plugins whose source does not name it are not loaded: this saves
            their imports.

    Warns:
        PluginWarning: once for each plugin that cannot be used; the others are not concerned.

    Raises:
        PluginError: there is such a plugin, and ``LAYERGRAPH_STRICT`` is set.
    """
    return _told(discovered(hook=hook))


def chosen_plugins(
    plugins: Iterable[Plugin] | None, disable: Collection[str]
) -> tuple[Plugin, ...]:
    """The plugins for one converter.

    Args:
        plugins: those to choose from; None: those that are installed.
        disable: the names of distributions to leave out; ``*`` for all third-party ones.

    Raises:
        PluginError: nothing of a name is installed, or an installed plugin cannot be used and
            ``LAYERGRAPH_STRICT`` is set.
    """
    names = _names(disable)
    if plugins is None:
        known = {each.distribution for each in _installed()}
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
        return _told(discovered(names))
    return tuple(each for each in plugins if not _is_disabled(each.distribution, names))


def _told(found: Discovered) -> tuple[Plugin, ...]:
    for each in found.left_out:
        _tell_once(each)
    return found.plugins


def discovered(disable: Collection[str] = (), hook: str = "") -> Discovered:
    """All that is installed as a plugin, with what is left out and why; tells nobody.

    Args:
        disable: the names of distributions to leave out besides those that ``LAYERGRAPH_DISABLE``
            names; ``*`` for all third-party ones.
        hook: as for :func:`installed_plugins`.
    """
    by_environment, by_converter = _names(os.environ.get(DISABLE, "")), _names(disable)
    plugins: list[Plugin] = []
    left_out: list[SkippedPlugin] = []
    for installed in _installed():
        if _is_disabled(installed.distribution, by_environment):
            left_out.append(_disabled(installed, f"{DISABLE} names it", f"change {DISABLE}"))
        elif _is_disabled(installed.distribution, by_converter):
            left_out.append(_disabled(installed, "this converter disables it", "do not disable it"))
        elif not hook or _may_implement(installed, hook):
            loaded = _loaded(installed)
            plugins.append(loaded) if isinstance(loaded, Plugin) else left_out.append(loaded)
    missing = by_environment - {each.distribution for each in _installed()} - {THIRD_PARTY}
    left_out += [
        SkippedPlugin(
            name, "", "", f"no such plugin is there for {DISABLE} to name", f"correct {DISABLE}"
        )
        for name in sorted(missing)
    ]
    return Discovered(tuple(plugins), (*left_out, *_damaged()))


def load_plugins(entry_points: Iterable[importlib_metadata.EntryPoint]) -> Iterator[Plugin]:
    """The plugins that entry points name, sorted by distribution and entry point.

    Warns:
        PluginWarning: for each plugin that fails to import or that misuses the hooks.

    Raises:
        PluginError: there is such a plugin, and ``LAYERGRAPH_STRICT`` is set.
    """
    for installed in sorted(map(_identified, entry_points), key=_load_order):
        loaded = _load(installed)
        if isinstance(loaded, Plugin):
            yield loaded
        else:
            warn_of_skipped(str(loaded))


def normalised(name: str) -> str:
    """The name of a distribution as the Python packaging specifications compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(said: str | Iterable[str]) -> frozenset[str]:
    """Names of distributions, as they are compared; in a text they stand between commas."""
    listed = said.split(",") if isinstance(said, str) else said
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


# importlib_metadata parses all of the metadata, as e-mail, for each of the two: with fifteen
# plugins that is a fifth of the time that the first converter takes.
def _name_and_version(distribution: Any) -> tuple[str, str]:
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    said = dict(re.findall(r"^(Name|Version): *(\S+) *$", text.partition("\n\n")[0], re.MULTILINE))
    if said.keys() != {"Name", "Version"}:
        raise PluginError("its metadata does not say both its name and its version")
    return said["Name"], said["Version"]


def _load_order(installed: _Installed) -> tuple[str, str, str]:
    return installed.distribution, installed.version, installed.entry_point.name


def _installed() -> tuple[_Installed, ...]:
    return _look()[0]


def _damaged() -> tuple[SkippedPlugin, ...]:
    return _look()[1]


@functools.cache
def _look() -> tuple[tuple[_Installed, ...], tuple[SkippedPlugin, ...]]:
    """What is installed, in load order, and what is damaged."""
    found: list[_Installed] = []
    damaged: list[SkippedPlugin] = []
    sites: dict[Path, dict[str, Path]] = {}
    # Not importlib_metadata.entry_points: one damaged distribution stops that.
    for distribution in importlib_metadata.distributions():
        try:
            site = Path(str(distribution.locate_file("")))
            if site not in sites:
                sites[site] = _distributions_in(site)
            if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            entry_points = distribution.entry_points.select(group=GROUP)
            mine = [_identified(each) for each in entry_points]
            # Python imports the distribution of that name that comes first on sys.path.
            named = mine[0].distribution if mine else ""
            first = next((at for at, known in sites.items() if _is_in(known, named)), site)
            if first == site:
                found += mine
        except Exception as error:
            what = f"a distribution in {distribution.locate_file('')}"
            damaged.append(SkippedPlugin(what, "", "", _said(error), "reinstall or remove it"))
    # Once each: a folder may be on sys.path twice.
    return tuple(sorted(dict.fromkeys(found), key=_load_order)), tuple(damaged)


# Looking up each distribution by its name would read every folder of sys.path again.
def _distributions_in(site: Path) -> dict[str, Path]:
    """The distributions in a folder: their normalised names to the folders of their metadata."""
    if not site.is_dir():
        return {}
    with os.scandir(site) as entries:
        names = [each.name for each in entries if each.name.endswith((".dist-info", ".egg-info"))]
    return {normalised(re.split(r"-|\.egg-info$", name)[0]): site / name for name in names}


def _is_in(known: dict[str, Path], name: str) -> bool:
    """Return whether a distribution is among those of a folder, and is no leftover of one."""
    place = known.get(name)
    files = ("", "METADATA", "PKG-INFO")
    return place is not None and any((place / file).is_file() for file in files)


@functools.cache
def _loaded(installed: _Installed) -> Plugin | SkippedPlugin:
    return _load(installed)


def _load(installed: _Installed) -> Plugin | SkippedPlugin:
    distribution, version, entry_point = installed
    try:
        plugin = Plugin(distribution, version, entry_point.name, entry_point.load())
        plugin.hooks  # noqa: B018 -- they are read and checked here, where a fault is the plugin's
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        cure = f"uninstall or mend {distribution}, or set {DISABLE}={distribution}"
        return SkippedPlugin(distribution, version, entry_point.name, _said(error), cure)
    return plugin


@functools.cache
def _may_implement(installed: _Installed, hook: str) -> bool:
    """Return whether the source of a plugin names a hook. Loading shows if the plugin has it."""
    entry_point = installed.entry_point
    try:
        spec = None if entry_point.attr else importlib.util.find_spec(entry_point.module)
        get_source = getattr(spec and spec.loader, "get_source", None)
        source = get_source(entry_point.module) if get_source else None
    except (Exception, SystemExit):  # loading it says what is wrong
        return True
    return source is None or hook in source or re.search(r"import\s*\*", source) is not None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


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
    """Warn that something of a plugin is skipped.

    Args:
        message: what is skipped, why, and what to do about it.

    Warns:
        PluginWarning: the message.

    Raises:
        PluginError: ``LAYERGRAPH_STRICT`` is set.
    """
    if os.environ.get(STRICT, "") not in ("", "0"):
        raise PluginError(f"{message} (an error because {STRICT} is set)")
    warnings.warn(message, PluginWarning, stacklevel=3)


@functools.cache
def _tell_once(left_out: SkippedPlugin) -> None:
    if not left_out.is_disabled:
        warn_of_skipped(str(left_out))
