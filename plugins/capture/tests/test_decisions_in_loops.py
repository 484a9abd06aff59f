"""Decisions by numbers in the turns of loops: each turn may go its own way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal
from layergraph_capture.capturer import EagerCapturer
from layergraph_capture.ways.decisions import Decisions

LENGTHS = (1, 2, 3, 4, 5, 8, 13)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, h):
        if x.sum() > 0:
            return self.lin(x) + h
        return h


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 4)
        self.f = nn.Linear(4, 4)
        self.g = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(4)
        self.inner = Inner()
        self.register_buffer("count", torch.zeros(()))


def sequence(length):
    return (torch.randn(length, 3, 4),)


def masked(length):
    return torch.randn(length, 3, 4), torch.rand(length, 2) > 0.6


def pictures(count):
    """Pictures of several sizes, some of which have no row that is kept."""
    return ([torch.randn(2 + int(torch.randint(0, 4, ())), 4) for _ in range(count)],)


@dataclass(frozen=True)
class Case:
    """A model that decides in the turns of a loop.

    Attributes:
        model: makes it.
        given: makes the arguments of a length.
        captured: the length of the example.
        lengths: those to compare at.
    """

    model: Callable[[], nn.Module]
    given: Callable[[int], tuple[Any, ...]] = sequence
    captured: int = 4
    lengths: tuple[int, ...] = LENGTHS


CASES: list[Any] = []


def case(**options):
    def add(model):
        CASES.append(pytest.param(Case(model, **options), id=model.__name__))
        return model

    return add


@case(given=masked)
class SkipsAnUpdate(Base):
    def forward(self, x, mask):
        h = torch.zeros(x.shape[1], 4)
        for t in range(x.shape[0]):
            if mask[t].any():
                h = self.cell(x[t], h)
        return h


@case()
class ComputesEitherOf(Base):
    def forward(self, x):
        h, out = torch.zeros(3, 4), []
        for t in range(x.shape[0]):
            h = self.f(h + x[t]) if x[t].sum() > 0 else self.g(h) * x[t].mean()
            out.append(h)
        return torch.stack(out)


# The loop reads the size of a tensor that one way replaces.
@case()
class ScalesBefore(Base):
    def forward(self, x):
        if x.sum() > 0:
            x = x * 0.5
        h = torch.zeros(x.shape[1], 4)
        for t in range(x.shape[0]):
            h = self.cell(x[t], h)
        return h


@case()
class Spikes(Base):
    def forward(self, x):
        mem, out = torch.zeros(3, 4), []
        for t in range(x.shape[0]):
            mem = 0.9 * mem + self.f(x[t])
            spikes = (mem > 0.5).float()
            if spikes.any():
                mem = mem - spikes * self.g(mem)
            out.append(spikes)
        return torch.stack(out), mem


@case()
class DecidesInASubmodule(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            h = self.inner(each, h)
        return h


@case()
class DecidesInAWay(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            if each.mean() > 0:
                h = self.cell(each, h)
                h = self.f(h) if h.sum() > 0 else h * 2
            else:
                h = self.g(h)
        return h


@case()
class DecidesTwice(Base):
    def forward(self, x):
        h, c = torch.zeros(3, 4), torch.zeros(3, 4)
        for each in x:
            if each.mean() > 0:
                h = self.cell(each, h)
            if each[0].mean() > 0:
                c = self.cell(each, c)
        return h, c


@case()
class DrawsInOneWay(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            h = h + torch.randn(3, 4) if each.mean() > 0 else h * each
        return h


@case()
class DropsOutInOneWay(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            if each.mean() > 0:
                h = self.drop(self.cell(each, h))
        return h


@case()
class NormalizesInOneWay(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            if each.mean() > 0:
                h = self.norm(self.cell(each, h))
        return h


@case()
class CountsInOneWay(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            if each.mean() > 0:
                self.count.add_(1)
                h = self.cell(each, h)
        return h + self.count


@case()
class ChangesInPlaceInOneWay(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            if each.mean() > 0:
                h.add_(self.f(each))
        return h


@case()
class FillsSlots(Base):
    def forward(self, x):
        out = torch.zeros(x.shape[0], 3, 4)
        for t in range(x.shape[0]):
            if x[t].mean() > 0:
                out[t] = self.f(x[t])
        return out


@case()
class ReadsTheNumberOfTheTurn(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for t in range(x.shape[0]):
            h = h + x[t] * t if x[t].mean() > 0 else h + x[x.shape[0] - 1 - t]
        return h


@case()
class NeedsNoGradientInOneWay(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            if each.mean() > 0:
                with torch.no_grad():
                    h = self.cell(each, h)
            else:
                h = self.f(h)
        return h


@case()
class ReadsTheFirstValue(Base):
    def forward(self, x):
        first = h = self.f(x[0])
        for each in x:
            if each.mean() > 0:
                h = self.cell(each, h) + first
        return h + first


@case()
class ComparesBeforeAndAfter(Base):
    def forward(self, x):
        h, out = torch.zeros(3, 4), []
        for each in x:
            new = self.cell(each, h) if each.mean() > 0 else h
            out.append(h - new)
            h = new
        return torch.stack(out)


@case()
class LeavesLayersEarly(Base):
    def forward(self, x):
        out = []
        for each in x:
            h = each
            for layer in (self.f, self.g, self.f):
                h = layer(h)
                if h.mean() > 0.1:
                    break
            out.append(h)
        return torch.stack(out)


@case(given=pictures, captured=2)
class KeepsRows(Base):
    def forward(self, pictures):
        out = []
        for each in pictures:
            rows = each[torch.where(each[:, 0] > 0.8)[0]]
            if rows.numel() == 0:
                out.append(rows.sum(0))
                continue
            rows = self.f(rows)
            out.append(rows[rows[:, 0].argsort()].sum(0))
        return torch.stack(out)


def best(rows):
    if rows.numel() == 0:
        return rows.new_zeros(1)
    return rows.max().reshape(1)  # fails without rows


@case(given=pictures)
class SharesAHelper(Base):
    """One caller of the helper always has rows, and the other one has none in the example."""

    def forward(self, images):
        some, none = [], []
        for each in images:
            rows = self.f(each)
            some.append(best(rows[rows.sum(1) > -100]))
            none.append(best(rows[rows.sum(1) > 100]))
        return torch.cat(some), torch.cat(none)


class Scale:
    def __init__(self, factor):
        self.factor = factor


@case()
class MakesAnObjectInEachRun(Base):
    """The plain state changes in each turn, so the states of two runs are compared."""

    scale = None

    def forward(self, x):
        if self.scale is None:
            self.scale = Scale(2)
        h, is_even = x.new_zeros(3, 4), True
        for step in x:
            is_even = not is_even
            h = h + self.scale.factor * step
            if step.sum() > 0:
                h = self.f(h)
        return h


@case()
class LoopsInOneWay(Base):
    def forward(self, x):
        h, is_even = x.new_zeros(4), True
        for step in x:
            is_even = not is_even
            if step.sum() > 0:
                for row in step:
                    h = h + self.f(row)
            else:
                h = h - self.g(h)
        return h


@case()
class HasAnOpenRankInOneWay(Base):
    """The ranks behind ``squeeze`` follow from sizes, so only runs of this way guard them."""

    def forward(self, x):
        rows = []
        for step in x:
            if step.sum() > 100:
                rows.append(self.g(step))
            elif step.mean() > -100:
                rows.append(self.f(step.unsqueeze(0)).squeeze(0))
            else:
                rows.append(step)
        length, batch, size = torch.stack(rows).shape
        return torch.stack(rows).reshape(length * batch, size)


@case(given=pictures, lengths=(1, 2, 3, 5, 8))
class LoopsOverASizeInEachTurn(Base):
    """The size is one outside of the turns, and only the first of them guards it."""

    def forward(self, pictures):
        scores = []
        for each in pictures:
            scores.append(self.f(each.mean(0)))  # noqa: PERF401 as models do it
        scores = torch.stack(scores)
        classes = scores.size(-1)
        found = []
        for row in scores:
            kept = []
            for each in range(1, classes):
                kept.append(row[each].clamp(min=0))  # noqa: PERF401 as models do it
            found.append(torch.stack(kept))
        scaled = []
        for each in found:
            scaled.append(each * 2)  # noqa: PERF401 as models do it
        return scaled


class Sums(nn.Module):
    def forward(self, kept):
        out = []
        for rows in kept:
            total = rows.new_zeros(())
            for value in torch.unique(rows[:, 0].detach() * 0):
                total = total + value + rows.sum()
            out.append(total)
        return torch.stack(out)


@case(given=pictures, lengths=(1, 2, 3, 5, 8))
class LeadsToAnotherGuard(Base):
    """Without rows, the inner loop of the sums has no turn, and a guard says that it has one."""

    def __init__(self):
        super().__init__()
        self.sums = Sums()

    def forward(self, pictures):
        kept = []
        for each in pictures:
            rows = each[torch.where(each[:, 0] > -100)[0]]
            kept.append(rows[:0] if rows.numel() == 0 else self.f(rows))
        return self.sums(kept)


@case(given=pictures, captured=2)
class GivesDicts(Base):
    def forward(self, pictures):
        out = []
        for each in pictures:
            rows = each[each[:, 0] > 0.8]
            if rows.numel() > 0:
                rows = self.f(rows)
            out.append({"rows": rows, "sum": rows.sum()})
        return out


class AppendsInOneWay(Base):
    def forward(self, x):
        out = [x[0]]
        for each in x:
            if each.mean() > 0:
                out.append(self.f(each))  # noqa: PERF401 as models do it
        return torch.stack(out).sum(0)


class EndsTheLoop(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            h = self.cell(each, h)
            if h.mean() > 0.05:
                break
        return h


class CountsInPython(Base):
    def forward(self, x):
        h, count = torch.zeros(3, 4), 0
        for each in x:
            if each.mean() > 0:
                h, count = self.cell(each, h), count + 1
        return h * count


class ResetsToTheFirstValue(Base):
    def forward(self, x):
        first = h = self.f(x[0])
        for each in x:
            h = self.cell(each, h)
            if each.mean() > 0:
                h = first
        return h


class UpdatesEitherOf(Base):
    def forward(self, x):
        h, c = torch.zeros(3, 4), torch.zeros(3, 4)
        for each in x:
            if each.mean() > 0:
                h = self.cell(each, h)
            else:
                c = self.f(c) + each
        return h, c


class CountsForLaterTurns(Base):
    def forward(self, x):
        h, count = torch.zeros(3, 4), 0
        for each in x:
            h = self.cell(each, h)
            if each.mean() > 0.02:
                h, count = self.f(h), count + 1
            if count > 9:
                h = h * 2
        return h


OTHERS = [
    CountsForLaterTurns,
    AppendsInOneWay,
    EndsTheLoop,
    CountsInPython,
    ResetsToTheFirstValue,
    UpdatesEitherOf,
]


def _rebuilt(model: nn.Module, ir: Any) -> nn.Module:
    rebuilt = lg.to_torch(ir)
    rebuilt.load_state_dict(model.state_dict())
    return rebuilt


def _check(model: nn.Module, rebuilt: nn.Module, args: Any, seed: int) -> None:
    """Compare results, buffers and gradients."""
    one, other = copy.deepcopy(model), copy.deepcopy(rebuilt)
    torch.manual_seed(seed)
    expected = one(*args)
    torch.manual_seed(seed)
    given = other(*args)
    assert bitwise_equal(given, expected)
    assert bitwise_equal(other.state_dict(), one.state_dict())
    for result in (expected, given):
        leaves = [leaf for leaf in _tensors(result) if leaf.requires_grad]
        if leaves:
            sum(leaf.sum() for leaf in leaves).backward()
    names = dict(one.named_parameters())
    for name, parameter in other.named_parameters():
        own = names[name].grad
        assert (parameter.grad is None) == (own is None)
        assert own is None or torch.equal(parameter.grad, own)


def _tensors(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    inside = result.values() if isinstance(result, dict) else result
    return [leaf for each in inside for leaf in _tensors(each)]


@pytest.mark.parametrize("each", CASES)
def test_each_turn_goes_its_own_way(each, tmp_path):
    torch.manual_seed(1)
    model = each.model().eval()
    ir = lg.to_ir(model, each.given(each.captured))
    lg.save(ir, tmp_path / "model.safetensors", model.state_dict())
    for rebuilt in (_rebuilt(model, ir), lg.load_model(tmp_path / "model.safetensors")):
        rebuilt.load_state_dict(model.state_dict())
        for training in (False, True):
            model.train(training)
            rebuilt.train(training)
            for length in each.lengths:
                for seed in range(3):
                    _check(model, rebuilt, each.given(length), seed)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_a_body_cannot_hold_is_never_wrong(kind):
    torch.manual_seed(1)
    model = kind().eval()
    rebuilt = _rebuilt(model, lg.to_ir(model, sequence(4))).eval()
    served = 0
    for length in (*LENGTHS, 40):
        for _ in range(8):
            args = sequence(length)
            try:
                given = rebuilt(*args)
            except AssumptionError:
                continue
            served += 1
            assert bitwise_equal(given, model(*args))
    assert served


def test_the_number_of_runs_does_not_grow_with_the_turns(monkeypatch):
    made: list[object] = []
    tracer = EagerCapturer.tracer

    def counted(self, *args, **options):
        made.append(self)
        return tracer(self, *args, **options)

    monkeypatch.setattr(EagerCapturer, "tracer", counted)
    runs = []
    for length in (6, 12):
        made.clear()
        torch.manual_seed(1)
        lg.to_ir(SkipsAnUpdate().eval(), masked(length))
        runs.append(len(made))
    assert runs[0] == runs[1]


class RefusesNegativeSums(Base):
    def forward(self, x):
        h = torch.zeros(3, 4)
        for each in x:
            if each.sum() < 0:
                raise ValueError("a negative sum")
            h = self.cell(each, h)
        return h


def test_a_way_that_fails_is_a_guard():
    model = RefusesNegativeSums().eval()
    rebuilt = _rebuilt(model, lg.to_ir(model, (torch.rand(4, 3, 4),))).eval()
    for length in LENGTHS:
        x = torch.rand(length, 3, 4)
        assert bitwise_equal(rebuilt(x), model(x))
        x[-1] -= 1
        with pytest.raises(AssumptionError, match="the model raises ValueError: a negative sum"):
            rebuilt(x)


class Settles(Base):
    """Repeats until the numbers settle, as solvers do."""

    def forward(self, x):
        result = torch.zeros_like(x)
        while (x - result).abs().max() > 0.5:
            result = result + (x - result) * 0.3
        return self.f(result)


class SettlesInPlace(Base):
    def forward(self, x):
        result = torch.zeros_like(x)
        while True:
            result += (x - result) * 0.3
            if (x - result).abs().max() < 0.5:
                break
        return self.f(result)


@pytest.mark.parametrize("kind", [Settles, SettlesInPlace])
def test_a_loop_that_a_decision_ends(kind, monkeypatch):
    """With the answer of the first turn in each turn, such a loop would never end."""
    asked = []
    truth = Decisions.truth
    monkeypatch.setattr(Decisions, "truth", lambda *given: asked.append(1) or truth(*given))
    model = kind()
    x = torch.randn(5, 3, 4)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    assert len(asked) < 1000
    assert bitwise_equal(rebuilt(x), model(x))
    for more in (x * 20, x / 20):
        try:
            ours = rebuilt(more)
        except AssumptionError:
            continue
        assert bitwise_equal(ours, model(more))
