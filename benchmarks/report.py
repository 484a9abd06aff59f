"""The table of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.results import Row
from benchmarks.timing import Spread


def table(name: str, title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=f"{name}: {title}", title_justify="left")
    for column in ("what", "model"):
        table.add_column(column)
    for column in ("ours", "theirs", "ratio", "quartiles", "goal"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("met")
    table.add_column("against; notes")
    for each in rows:
        table.add_row(
            each.what,
            each.model,
            _amount(each.ours, each.unit),
            _amount(each.theirs, each.unit),
            "" if each.ratio is None else _number(each.ratio.median),
            "" if each.ratio is None else f"{_number(each.ratio.low)}-{_number(each.ratio.high)}",
            _goal(each),
            {None: "", True: "yes", False: "NO"}[each.is_met],
            escape("; ".join(part for part in (each.peer, each.note) if part)),
        )
    return table


def goals(console: Console, found: Mapping[str, Sequence[Row]]) -> None:
    """Print the met and the missed goals."""
    rows = [(name, each) for name, rows in found.items() for each in rows]
    missed = [(name, each) for name, each in rows if each.is_met is False]
    met = sum(each.is_met is True for _, each in rows)
    console.print(f"{met} goals are met, {len(missed)} are not")
    for name, each in missed:
        held = each.ratio or each.ours
        amount = "" if held is None else _number(held.median)
        where = " ".join(part for part in (each.what, each.model, each.peer) if part)
        console.print(f"  {name}: {where}: {amount}, goal {_goal(each)}", markup=False)


def _goal(row: Row) -> str:
    if row.at_most is None:
        return ""
    unit = row.unit if row.ratio is None else ""
    return f"≤ {_amount(Spread.exactly(row.at_most), unit)}"


def _amount(spread: Spread | None, unit: str) -> str:
    if spread is None:
        return ""
    number = spread.median
    if unit != "s":
        return f"{_number(number)} {unit}".strip()
    return f"{number:.2f} s" if number >= 1 else f"{1000 * number:.3g} ms"


def _number(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
