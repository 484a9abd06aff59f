"""``layergraph plugins``: what is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layergraph.cli.output import as_json, line
from layergraph.errors import first_line

if TYPE_CHECKING:
    from layergraph.plugins import HookImplementation, Plugin


def plugins(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """List the installed plugins and what each handles.

    Those that are asked first come first; last come those that are left out, and why. Exit code 1:
    one of them is broken.
    """
    # They import torch, as plugins do.
    from layergraph.plugins import Hooks, discovered

    found = discovered()
    hooks = Hooks(found.plugins, object()).implementations
    asked = dict.fromkeys(each.plugin for each in hooks if each.plugin is not None)
    first = _first(hooks)
    forms = [_form(plugin, first) for plugin in asked]
    broken = [each for each in found.left_out if not each.is_disabled]
    if json:
        as_json({"plugins": forms, "left_out": [each._asdict() for each in found.left_out]})
        return 1 if broken else 0
    for form in forms:
        _show(form)
    for each in found.left_out:
        line(("disabled " if each.is_disabled else "broken ", "red"), str(each))
    return 1 if broken else 0


def _form(plugin: Plugin, first: Mapping[object, str]) -> dict[str, Any]:
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
        "functions": list(_functions(plugin)),
    }


def _functions(plugin: Plugin) -> Iterator[str]:
    for each in plugin.hooks:
        if each.hook == "functions" and not each.is_wrapper:
            try:
                yield from map(str, each.function())
            except Exception as error:
                yield f"(fails: {type(error).__name__}: {first_line(error)})"


def _first(hooks: Iterable[HookImplementation]) -> dict[object, str]:
    """The distribution whose row is asked first, for each type and each class."""
    first: dict[object, str] = {}
    for each in hooks:
        if each.hook == "torch_to_ir" and each.table and each.plugin:
            for row in each.table:
                first.setdefault(row.type, each.plugin.distribution)
                first.setdefault(row.cls, each.plugin.distribution)
    return first


def _other(own: str, *owners: str) -> str | None:
    return next((each for each in owners if each != own), None)


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
    shown = {
        "layers": [each["type"] for each in form["layers"] if not each["shadowed_by"]],
        "shadowed": [
            f"{each['type']} (by {each['shadowed_by']})"
            for each in form["layers"]
            if each["shadowed_by"]
        ],
        "hooks": list(own),
        "functions": form["functions"],
    }
    for what, listed in shown.items():
        if listed:
            line(f"  {what}: {', '.join(listed)}")
