"""The final report of the zoo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from zoo.compare import CHECKS, Outcome

_WIDTH = 160


def unexpected(outcomes: Sequence[Outcome], exceptions: Mapping[str, str]) -> list[Outcome]:
    """Those that fail and are not listed, or are listed and pass."""
    return [each for each in outcomes if each.passed == (each.name in exceptions)]


def by_family(outcomes: Sequence[Outcome]) -> Table:
    """A row for each family: of how many models each check is passed."""
    table = Table(title="exact by family, of the models that accept such inputs themselves")
    table.add_column("family", no_wrap=True)
    for name in ("models", *CHECKS, "capture s"):
        table.add_column(name, justify="right")
    families: dict[str, list[Outcome]] = {}
    for each in outcomes:
        families.setdefault(each.family, []).append(each)
    for family, members in families.items():
        table.add_row(family, *_cells(members))
    table.add_section()
    table.add_row("all", *_cells(outcomes))
    return table


def failures(outcomes: Sequence[Outcome], exceptions: Mapping[str, str]) -> Table:
    """A row for each model that fails, or that passes and was expected not to."""
    table = Table(title="not as it was")
    table.add_column("model", no_wrap=True)
    table.add_column("first reason")
    for each in outcomes:
        if not each.passed:
            first = each.reasons[0] if each.reasons else "no reason given"
            expected = "expected: " if each.name in exceptions else ""
            table.add_row(each.name, escape(f"{expected}{first}"[:_WIDTH]))
        elif each.name in exceptions:
            table.add_row(each.name, escape(f"passes, but is listed: {exceptions[each.name]}"))
    return table


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    seconds = [each.seconds for each in outcomes if each.seconds is not None]
    return [
        str(len(outcomes)),
        *(_share([each.checks[check] for each in outcomes]) for check in CHECKS),
        f"{sum(seconds):.1f}" if seconds else "-",
    ]


def _share(results: list[bool | None]) -> str:
    applicable = [each for each in results if each is not None]
    return f"{sum(applicable)}/{len(applicable)}" if applicable else "n/a"
