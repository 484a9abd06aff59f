"""Convert the models of the zoo, and compare each with what came back."""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from zoo import Entry, all_entries, matching
from zoo.compare import Outcome, RoundTrip, there_and_back, through_passes
from zoo.exceptions import EXPECTED
from zoo.onnx_files import as_line, onnx_outcomes
from zoo.report import by_family, failures, unexpected
from zoo.run import outcomes
from zoo.source import through_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the zoo, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description=__doc__)
    parser.add_argument("--only", metavar="PATTERN", default="*", help="such as '*/bert*'")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="processes (1)")
    parser.add_argument("--list", action="store_true", help="list the models, make none")
    parser.add_argument(
        "--pass", dest="passes", metavar="PASS", action="append", help="run a pass on each, too"
    )
    parser.add_argument(
        "--source", action="store_true", help="run the Python source of each, without layergraph"
    )
    parser.add_argument("--onnx", action="store_true", help="write ONNX files, and run those")
    parser.add_argument("--onnx-peer", action="store_true", help="compare with torch.onnx, too")
    options = parser.parse_args(arguments)
    entries = matching(all_entries(), options.only)
    if not entries:
        parser.error(f"no model is called {options.only!r}")
    if options.list:
        for each in entries:
            print(f"{each.name}  ({each.family})")
        return 0
    if options.onnx or options.onnx_peer:
        return _onnx(entries, peer=options.onnx_peer)
    console = Console()
    if not console.is_terminal:
        console.width = 140
    way: RoundTrip = there_and_back
    if options.source:
        way = through_source
    if options.passes:
        way = functools.partial(through_passes, passes=options.passes)
    return _report(_watched(entries, options.jobs, way, console), console)


def _onnx(entries: Sequence[Entry], *, peer: bool) -> int:
    """Print a line of JSON for each model, and the figures at the end."""
    found = []
    for outcome in onnx_outcomes(entries, peer=peer):
        print(as_line(outcome), flush=True)
        found.append(outcome)
    passed, ran = (
        sum(each.passed for each in found),
        sum(each.error is not None for each in found),
    )
    print(f"{len(found)} models, {ran} run in onnxruntime, {passed} give what the originals give")
    return 0


def _watched(
    entries: Sequence[Entry], jobs: int, way: RoundTrip, console: Console
) -> list[Outcome]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    found = {}
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(entries))
        for outcome in outcomes(entries, jobs, way):
            found[outcome.name] = outcome
            verdict = "" if outcome.passed else " failed"
            progress.update(task, advance=1, description=f"{outcome.name}{verdict}")
    return [found[each.name] for each in entries]


def _report(found: Sequence[Outcome], console: Console) -> int:
    console.print(by_family(found))
    wrong = unexpected(found, EXPECTED)
    if wrong or not all(each.passed for each in found):
        console.print(failures(found, EXPECTED))
    notes = Counter(note for each in found for note in each.notes)
    for note, count in notes.most_common():
        console.print(f"note, {count} models: {note}", markup=False)
    console.print(f"{len(found)} models, {len(wrong)} of them not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
