"""An index of 10,000 files: files per second if all are new, and if none is.

Copies of a model have equal structures and different weights. So one folder holds copies of 400
models, and another one a different model in each file. The goal is 200 files per second.
"""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from torch import nn

import layergraph as lg
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.timing import Spread
from layergraph_index.index import Index

FILES_A_SECOND = 200


def rows(settings: Settings) -> Iterator[Row]:
    count = 500 if settings.quick else 10_000
    for name, kinds in (("copies", count // 25), ("all different", count)):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), count, kinds)
            with Index(folder) as index:
                yield _row(f"{name}, {count} files", index, count)
                yield _row(f"{name}, again", index, count)


def _row(name: str, index: Index, count: int) -> Row:
    begin = time.perf_counter()
    update = index.update()
    seconds = time.perf_counter() - begin
    goal = count / FILES_A_SECOND
    share = Spread.exactly(seconds / goal)
    note = f"{count / seconds:.0f} files a second, {update.parsed} structures read"
    at_goal = Spread.exactly(goal)
    return Row(name, "index", Spread.exactly(seconds), "the goal", at_goal, share, 1.0, note=note)


def write(folder: Path, count: int, kinds: int) -> None:
    """Write files of models of 2 to 20 layers."""
    numbers = random.Random(0)
    for kind in range(kinds):
        widths = [numbers.randint(2, 200) for _ in range(numbers.randint(2, 11))]
        pairs = itertools.pairwise(widths)
        layers = [each for pair in pairs for each in (nn.Linear(*pair, device="meta"), nn.ReLU())]
        lg.save(lg.to_ir(nn.Sequential(*layers)), folder / f"{kind}.json")
    for copy in range(kinds, count):
        shutil.copyfile(folder / f"{copy % kinds}.json", folder / f"{copy}.json")
