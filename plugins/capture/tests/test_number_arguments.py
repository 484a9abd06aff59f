"""Ints and floats among the arguments: they are values of the graph, as sizes are."""

# What the linter would have written otherwise are the traps.

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base, Traps, check
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal

TRAPS = Traps()


def _draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def exact(given, *others):
    return TRAPS.exact((_draw(3, 4), given), [(_draw(3, 4), each) for each in others])


def assumes(given, *others):
    return TRAPS.assumes((_draw(3, 4), given), [(_draw(3, 4), each) for each in others])


@exact(2, 3, -1, 2**40)
class Multiplies(Base):
    def forward(self, x, number):
        return self.lin(x) * number + number // 2, number, {"more": number + 1}


@exact(1.0, 0.7, 2.5, math.inf, math.nan)
class Temperature(Base):
    def forward(self, x, number):
        if number != 1.0:
            x = x / number
        return self.lin(x).softmax(-1)


@exact(0.5, 0.1)
class DropsOut(Base):
    def forward(self, x, number):
        return F.dropout(self.lin(x), number, training=self.training)


@exact(2, 1, 3)
class Selects(Base):
    def forward(self, x, number):
        return (
            self.lin(x).topk(number),
            x[:number],
            x.roll(number, 0)[number - 1],
            x.narrow(1, 0, number),
        )


@exact(1, 0, -1)
class Dimension(Base):
    def forward(self, x, number):
        return self.lin(x).sum(number), x.cumsum(number).unsqueeze(number)


@exact(3, 2, 5, 0)
class Makes(Base):
    def forward(self, x, number):
        made = torch.zeros(number, 2), torch.arange(number), torch.full((2,), number)
        return self.lin(x), made, torch.tensor([number, 1])


@exact(4, 9, 1)
class Computes(Base):
    def forward(self, x, number):
        x = self.lin(x) * math.sqrt(number) + max(number, 2) + int(number) / float(number)
        return x * round(number / 3), number % 2


@exact(2, 3, 1, -3)
class Decides(Base):
    def forward(self, x, number):
        if number > 2:
            return self.lin(x) * number
        return x - number


@exact((2.0, 3), (1.0, 4), (0.5, -1))
class InATuple(Base):
    def forward(self, x, numbers):
        scale, shift = numbers
        return self.lin(x) * scale + shift


@exact({"scale": 2.0, "mode": "linear"}, {"scale": 0.5, "mode": "linear"})
class InADict(Base):
    def forward(self, x, options):
        return self.lin(x) * options["scale"] if options["mode"] == "linear" else x


@exact((6, 8), (3, 9), (12, 1))
class OutputSize(Base):
    def forward(self, x, size):
        return F.interpolate(self.lin(x)[None, None], size=size)


@assumes(2, 2.5, True, None, torch.tensor(2))
class OtherClass(Base):
    def forward(self, x, number):
        return self.lin(x) * (2 if number is None else number)


@assumes({"scale": 2.0, "mode": "linear"}, {"scale": 2.0, "mode": "none"}, {"scale": 2.0})
class OtherText(Base):
    def forward(self, x, options):
        return self.lin(x) * options["scale"] if options.get("mode") == "linear" else x


@assumes(1, 2, 0)
class IndexOfALayer(Base):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x, number):
        return self.heads[number](x)


@assumes(True, False)
class TruthValue(Base):
    def forward(self, x, truth):
        return self.lin(x) if truth else x


@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])


class Steps(nn.Module):
    """Runs as many steps as its caller says, as spiking networks and solvers do."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.2)

    def forward(self, x, count: int = 25, rate: float = 0.9):
        state, spikes = torch.zeros_like(x), []
        for step in range(count):
            state = state * rate + self.drop(self.lin(x)) * step
            spikes.append((state > 1).float())
            state = state - spikes[-1]
        return torch.stack(spikes), state


class Counts(Steps):
    """Takes the number of steps from a tensor, as a network with sequences of lengths does."""

    def forward(self, x, lengths):
        for step in range(int(lengths.max())):
            x = torch.where((step < lengths)[:, None], torch.tanh(self.lin(x)), x)
        return x


class CountsDown(Steps):
    def forward(self, x, count):
        while count > 0:
            x = torch.tanh(self.lin(x)) * count
            count -= 1
        return x


class Loops(Steps):
    def forward(self, x, sizes):
        for _ in range(sizes["outer"]):
            for step in range(sizes["inner"]):
                x = self.lin(x) + step
            x = x.sin()
        return x


@pytest.mark.parametrize(
    ("model", "given", "others"),
    [
        (Steps, (4,), [(1,), (2,), (9,), (30,)]),
        (Steps, (5, 0.5), [(1, 0.25), (), (7,)]),
        (Counts, (torch.tensor([3, 2, 5]),), [(torch.tensor(each),) for each in ([1], [9, 0, 2])]),
        (CountsDown, (4,), [(1,), (2,), (9,)]),
        (Loops, ({"outer": 4, "inner": 3},), [({"outer": 2, "inner": 5},)]),
    ],
)
def test_a_loop_serves_other_numbers_of_turns(model, given, others, tmp_path):
    model = model()
    ir = lg.to_ir(model, (torch.randn(3, 4), *given))
    lg.save(ir, tmp_path / "model.safetensors", model.state_dict())
    rebuilt = lg.load_model(tmp_path / "model.safetensors")
    for call in (given, *others):
        x = torch.randn(len(call[0]) if call and torch.is_tensor(call[0]) else 3, 4)
        for is_training in (True, False):
            results = []
            for each in (model, rebuilt):
                each.train(is_training)
                torch.manual_seed(7)
                results.append(each(x.clone(), *call))
            assert bitwise_equal(*results), call


def test_a_loop_refuses_a_negative_number():
    rebuilt = lg.to_torch(lg.to_ir(Steps(), (torch.randn(3, 4), 4)))
    with pytest.raises(AssumptionError, match="a loop"):
        rebuilt(torch.randn(3, 4), -1)


class Reads(nn.Module):
    """Loops over the tokens of sequences."""

    def __init__(self):
        super().__init__()
        self.embedding, self.cell = nn.Embedding(10, 4), nn.GRUCell(4, 4)

    def forward(self, tokens):
        state = torch.zeros(len(tokens), 4, device=tokens.device)
        for place in range(tokens.shape[1]):
            state = self.cell(self.embedding(tokens[:, place]), state)
        return state


def test_a_model_on_meta_has_no_largest_number():
    model = Reads().to("meta")
    ir = lg.to_ir(model, (torch.ones(2, 5, dtype=torch.long, device="meta"),))
    own = Reads()
    rebuilt = lg.to_torch(ir, own.state_dict())
    tokens = torch.randint(10, (3, 7))
    assert torch.equal(rebuilt(tokens), own(tokens))


class TimeStep(nn.Module):
    """Takes a time step as an int or as a tensor, as diffusion models do."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, step):
        if not torch.is_tensor(step):
            step = torch.tensor([step], dtype=torch.long)
        return self.lin(x) * step.expand(len(x)).unsqueeze(1)


def test_examples_may_give_a_number_and_a_tensor():
    model, x = TimeStep(), torch.randn(3, 4)
    examples = [((x, 4), {}), ((x, torch.tensor([4])), {})]
    ir = lg.to_ir(model, examples=examples)
    rebuilt = lg.to_torch(ir, model.state_dict())
    for step in (7, torch.tensor([9]), torch.tensor([1, 2, 3])):
        assert torch.equal(rebuilt(x, step), model(x, step))


def test_equal_graphs_of_two_numbers_are_one():
    model, x = Steps(), torch.randn(3, 4)
    one = lg.to_ir(model, (x, 4))
    both = lg.to_ir(model, examples=[((x, 4), {}), ((x, 6), {})])
    assert both.flatten().to_dict() == one.flatten().to_dict()


class Table(nn.Module):
    """Keeps a table for each number of steps that a call has had."""

    def __init__(self):
        super().__init__()
        self.tables = {}

    def forward(self, x, steps):
        if steps not in self.tables:
            self.tables[steps] = torch.linspace(0, 1, steps)
        return x[:, None] * self.tables[steps]


def test_a_table_by_a_number_is_computed_in_each_call():
    model, x = Table(), torch.randn(3)
    rebuilt = lg.to_torch(lg.to_ir(model, (x, 4)))
    for steps in (4, 2, 7, 2):
        assert torch.equal(rebuilt(x, steps), model(x, steps))


class Dictionary(nn.Module):
    """Keys a dict of numpy by the number, which needs a plain one."""

    def __init__(self):
        super().__init__()
        self.scales = {2: 0.5, 3: 0.25}

    def forward(self, x, key):
        return x * self.scales[key] + float(np.arange(5)[key])


def test_a_number_that_code_needs_is_a_guard():
    model, x = Dictionary(), torch.randn(3)
    rebuilt = lg.to_torch(lg.to_ir(model, (x, 2)))
    assert torch.equal(rebuilt(x, 2), model(x, 2))
    with pytest.raises(AssumptionError, match="was 2"):
        rebuilt(x, 3)
