"""Many models, one after the other or side by side, each by itself."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from zoo.compare import Outcome, RoundTrip, compare, there_and_back
from zoo.entry import Entry


def outcomes(
    entries: Sequence[Entry], jobs: int, round_trip: RoundTrip = there_and_back
) -> Iterator[Outcome]:
    """The outcome of each, in the order in which they come."""
    if jobs == 1:
        prepare()
        yield from (_freed(each, round_trip) for each in entries)
    else:
        yield from _side_by_side(entries, jobs, round_trip)


def prepare() -> None:
    """Set up a process in which models are made and run."""
    # Small inputs are no work for several threads, which only wait for each other: on a machine
    # that has other things to do, many times as long.
    torch.set_num_threads(1)
    # What libraries have to say about small models is not about ours.
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)


def _freed(entry: Entry, round_trip: RoundTrip) -> Outcome:
    outcome = compare(entry, round_trip)
    # Models have cycles, and the next one may need the memory.
    gc.collect()
    return outcome


def _side_by_side(entries: Sequence[Entry], jobs: int, round_trip: RoundTrip) -> Iterator[Outcome]:
    with ProcessPoolExecutor(jobs, get_context("spawn"), prepare) as pool:
        running = {pool.submit(_freed, each, round_trip): each for each in entries}
        for future in as_completed(running):
            entry = running[future]
            try:
                yield future.result()
            except Exception as error:  # The process was killed, and the others with it.
                yield Outcome(entry.name, entry.family, reasons=[repr(error)])
