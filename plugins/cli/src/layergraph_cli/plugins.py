"""``layergraph plugins``: list the installed plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layergraph.errors import LayergraphError, first_line
from layergraph.plugins import (
    HookFailure,
    Hooks,
    command_name,
    discovered,
    installed_answers,
)
from layergraph_cli.installed import installed_commands
from layergraph_cli.output import as_json, line

if TYPE_CHECKING:
    from layergraph.plugins import HookImplementation, Plugin


def plugins(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """List the installed plugins and what each handles.

    The plugins appear in the order in which layergraph asks them. Skipped plugins come last, with
    the reason. Exit code 1: a plugin is broken.
    """
    found = discovered()
    hooks = Hooks(found.plugins, object()).implementations
    asked = dict.fromkeys(each.plugin for each in hooks if each.plugin is not None)
    first = _first(hooks)
    owners: dict[str, str] = {}
    for command in installed_commands():
        owners.setdefault(command.name, command.plugin.distribution)
    passes: dict[str, str] = {}
    for plugin, row in installed_answers("passes"):
        passes.setdefault(row.name, plugin.distribution)
    forms = [_form(plugin, first, owners, passes) for plugin in asked]
    broken = [each for each in found.left_out if not each.is_disabled]
    if json:
        as_json({"plugins": forms, "left_out": [each._asdict() for each in found.left_out]})
        return 1 if broken else 0
    for form in forms:
        _show(form)
    for each in found.left_out:
        line(("disabled " if each.is_disabled else "broken ", "red"), str(each))
    return 1 if broken else 0


def _form(
    plugin: Plugin,
    first: Mapping[object, str],
    owners: Mapping[str, str],
    passes: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "distribution": plugin.distribution,
        "version": plugin.version,
        "entry_point": plugin.entry_point,
        "builtin": plugin.is_builtin,
        "hooks": [
            {
                "hook": each.hook,
                "level": str(each.level),
                "wrapper": each.is_wrapper,
                "rows": each.table is not None,
            }
            for each in reversed(plugin.hooks)
        ],
        "layers": [
            {
                "type": row.type,
                "class": f"{row.cls.__module__}:{row.cls.__qualname__}",
                "shadowed_by": _other(plugin.distribution, first[row.type], first[row.cls]),
            }
            for row in plugin.rows
        ],
        "functions": list(_given(plugin, "functions", str)),
        "commands": [
            {"name": name, "shadowed_by": _other(plugin.distribution, owners.get(name))}
            for name in _given(plugin, "commands", command_name)
        ],
        "passes": [
            {"name": name, "shadowed_by": _other(plugin.distribution, passes.get(name))}
            for name in _given(plugin, "passes", lambda row: str(row.name))
        ],
    }


def _given(plugin: Plugin, hook: str, name_of: Callable[[Any], str]) -> Iterator[str]:
    """Return the names that a plugin returns for a hook."""
    for each in plugin.hooks:
        if each.hook == hook and not each.is_wrapper:
            try:
                yield from map(name_of, each.ask() or ())
            except (HookFailure, LayergraphError) as error:
                yield f"(fails: {first_line(error)})"


def _first(hooks: Iterable[HookImplementation]) -> dict[object, str]:
    """Return, for each type and each class, the distribution whose row comes first."""
    first: dict[object, str] = {}
    for each in hooks:
        if each.hook == "torch_to_ir" and each.table and each.plugin:
            for row in each.table:
                first.setdefault(row.type, each.plugin.distribution)
                first.setdefault(row.cls, each.plugin.distribution)
    return first


def _other(own: str, *owners: str | None) -> str | None:
    return next((each for each in owners if each != own), None)


def _split(listed: Iterable[Mapping[str, Any]], key: str) -> tuple[list[str], list[str]]:
    """Return the names that a plugin handles itself, and those that another plugin shadows."""
    reached, shadowed = [], []
    for each in listed:
        owner = each["shadowed_by"]
        shadowed.append(f"{each[key]} (by {owner})") if owner else reached.append(each[key])
    return reached, shadowed


def _show(form: dict[str, Any]) -> None:
    levels = dict.fromkeys(each["level"] for each in form["hooks"])
    line(
        (form["distribution"], "bold"),
        f" {form['version']} ({form['entry_point']}), {', '.join(levels)}",
    )
    own = dict.fromkeys(
        each["hook"] + (" (wrapper)" if each["wrapper"] else "")
        for each in form["hooks"]
        if not each["rows"]
    )
    layers, shadowed = _split(form["layers"], "type")
    commands, shadowed_commands = _split(form["commands"], "name")
    passes, shadowed_passes = _split(form["passes"], "name")
    shown = {
        "layers": layers,
        "shadowed": shadowed,
        "hooks": list(own),
        "functions": form["functions"],
        "commands": commands,
        "shadowed commands": shadowed_commands,
        "passes": passes,
        "shadowed passes": shadowed_passes,
    }
    for what, listed in shown.items():
        if listed:
            line(f"  {what}: {', '.join(listed)}")
