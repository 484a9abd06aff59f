"""The cost of a loop of many iterations: capture, IR, and rebuilt model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

import layergraph as lg
from benchmarks.models import call_count
from benchmarks.results import Row, compared
from benchmarks.settings import Settings
from benchmarks.timing import Spread, Way, take_turns

# The goals: the ratios of the capture to a run, and of the rebuilt model to the original.
CAPTURE, FORWARD = 1.5, 1.1
TURNS = 1000
WIDTH = 64


class Gated(nn.Module):
    """A custom recurrent cell over the steps of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(WIDTH, 2 * WIDTH)
        self.keep = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(x.shape[0], WIDTH)
        states = []
        for step in range(x.shape[1]):
            gate, value = (self.read(x[:, step]) + self.keep(h)).chunk(2, -1)
            gate = torch.sigmoid(gate)
            h = gate * h + (1 - gate) * torch.tanh(value)
            states.append(h)
        return torch.stack(states, 1)


class Scan(nn.Module):
    """A selective scan without kernels, as in Mamba."""

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(WIDTH))
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = torch.exp(-self.decay * nn.functional.softplus(self.mix(x)))
        h = torch.zeros_like(x[:, 0])
        states = []
        for t in range(x.shape[1]):
            h = step[:, t] * h + x[:, t]
            states.append(h)
        return torch.stack(states, 1)


def rows(settings: Settings) -> Iterator[Row]:
    for kind in (Gated, Scan):
        yield from _rows(kind(), settings)


def _rows(model: nn.Module, settings: Settings) -> Iterator[Row]:
    name = f"{type(model).__name__}, {TURNS} turns"
    x = torch.randn(8, TURNS, WIDTH)
    short, ir = (lg.to_ir(model, (each,)) for each in (x[:, : TURNS // 10], x))
    rebuilt = lg.to_torch(ir, model.state_dict())
    ways: dict[str, Way] = {
        "capture": partial(lg.to_ir, model, (x,)),
        "run": partial(_forward, model, x),
        "rebuilt forward": partial(_forward, rebuilt, x),
        "rebuilt training": partial(_train, rebuilt, x),
        "training": partial(_train, model, x),
    }
    timed = take_turns(ways, rounds=settings.rounds, patience=settings.patience)
    for what, pair, at_most in (
        ("capture", ("capture", "run"), CAPTURE),
        ("forward", ("rebuilt forward", "run"), FORWARD),
        ("forward and backward", ("rebuilt training", "training"), FORWARD),
    ):
        yield compared(what, name, timed, pair, at_most=at_most)
    sizes = call_count(ir), call_count(short)
    yield Row(
        "calls",
        name,
        ours=Spread.of([sizes[0]]),
        peer="a tenth of the turns",
        theirs=Spread.of([sizes[1]]),
        ratio=Spread.of([sizes[0] / sizes[1]]),
        at_most=1.0,
        unit="",
    )


def _forward(model: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        model(x)


def _train(model: nn.Module, x: torch.Tensor) -> None:
    model(x).sum().backward()
