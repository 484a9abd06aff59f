"""Result rows, and their comparison with the goals."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks.timing import Spread, Timed, geometric_mean

PEERS = "torch torchvision transformers safetensors onnx onnx2torch nirtorch elasticai.creator"


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        what: the measured step.
        model: its model.
        ours: the result of layergraph in ``unit``; None if unsupported.
        peer: the peer.
        theirs: the result of the peer.
        ratio: ours to theirs, per round.
        at_most: the goal: the maximum of the ratio, or of ``ours`` without a ratio.
        unit: ``s``, ``MiB``, or empty for numbers.
        note: a remark, such as the reason why a peer cannot do it.
        points: for a curve, sizes and seconds.
    """

    what: str
    model: str
    ours: Spread | None = None
    peer: str = ""
    theirs: Spread | None = None
    ratio: Spread | None = None
    at_most: float | None = None
    unit: str = "s"
    note: str = ""
    points: tuple[tuple[float, float], ...] = ()

    @property
    def is_met(self) -> bool | None:
        """Return whether the goal is met; None without a goal or a result."""
        held = self.ratio or self.ours
        if self.at_most is None or held is None:
            return None
        return held.median <= self.at_most

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "is_met": self.is_met}


def compared(
    what: str,
    model: str,
    timed: Timed,
    ways: tuple[str, str],
    *,
    at_most: float | None = None,
    note: str = "",
) -> Row:
    """Return the row that compares two variants, or the reason why one has no time."""
    ours, theirs = ways
    missing = "; ".join(timed.refusals[way] for way in ways if way in timed.refusals)
    if missing:
        one, other = timed.get(ours), timed.get(theirs)
        return Row(what, model, one, theirs, other, note=f"no: {missing}")
    both = timed.keep(ours, theirs)
    ratio = both.ratio(ours, theirs)
    return Row(what, model, timed[ours], theirs, timed[theirs], ratio, at_most, note=note)


def mean(
    what: str, rows: Sequence[Row], *, at_most: float | None = None, note: str = ""
) -> list[Row]:
    """The geometric mean of ratios; nothing if there are none."""
    ratios = [each.ratio for each in rows if each.ratio is not None]
    if not ratios:
        return []
    found = Spread(
        *(
            geometric_mean(getattr(each, part) for each in ratios)
            for part in ("median", "low", "high")
        )
    )
    model = f"geometric mean of {len(ratios)}"
    return [Row(what, model, peer=rows[0].peer, ratio=found, at_most=at_most, note=note)]


def environment() -> dict[str, Any]:
    """Return the versions and the machine on which the numbers depend."""
    versions = {}
    for name in PEERS.split():
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
    }
