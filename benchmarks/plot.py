"""Plots of the results: ratios with their goals, and seconds by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.results import Row

MET, MISSED = "tab:green", "tab:red"


def draw(found: Mapping[str, Sequence[Row]], folder: Path) -> list[Path]:
    """Write the pictures with data, and return their paths."""
    mpl.rcParams["svg.hashsalt"] = "layergraph"  # the same picture each time
    drawn = []
    held = [(name, each) for name, rows in found.items() for each in rows if _is_held(each)]
    if held:
        drawn.append(_save(_ratios(held), folder / "ratios.svg"))
    curves = [each for rows in found.values() for each in rows if each.points]
    if curves:
        drawn.append(_save(_sizes(curves), folder / "scaling.svg"))
    return drawn


def _is_held(row: Row) -> bool:
    return row.ratio is not None and row.at_most is not None


def _ratios(held: Sequence[tuple[str, Row]]) -> Figure:
    """Draw each ratio in units of its goal; below one, the goal is met."""
    figure = Figure(figsize=(10, 1 + 0.18 * len(held)), layout="constrained")
    axes = figure.subplots()
    for place, (_, row) in enumerate(held):
        if row.ratio is None or row.at_most is None:
            continue
        low, middle, high = (
            each / row.at_most for each in (row.ratio.low, row.ratio.median, row.ratio.high)
        )
        colour = MET if row.is_met else MISSED
        axes.plot([low, high], [place, place], color=colour, linewidth=1)
        axes.plot([middle], [place], "o", color=colour, markersize=4)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    labels = [
        " ".join(part for part in (name, row.what, row.model, row.peer) if part)
        for name, row in held
    ]
    axes.set_yticks(range(len(held)), labels, fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("ratio in units of its goal, with quartiles; left of the line it is met")
    return figure


def _sizes(curves: Sequence[Row]) -> Figure:
    models = list(dict.fromkeys(each.model for each in curves))
    figure = Figure(figsize=(5 * len(models), 6), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        axes.set_prop_cycle(color=mpl.colormaps["tab20"].colors)
        for row in curves:
            if row.model == model:
                exponent = "" if row.ours is None else f" {row.ours.median:.2f}"
                axes.plot(
                    *zip(*row.points, strict=True), "o-", markersize=3, label=row.what + exponent
                )
        axes.set(xscale="log", yscale="log", title=model, xlabel="layers", ylabel="seconds")
        axes.legend(
            fontsize=7, title="exponent", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2
        )
    return figure


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    return path
