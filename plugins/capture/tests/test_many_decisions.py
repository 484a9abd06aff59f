"""Models that make many decisions, whose answers may be combined in more than eight ways."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal


class Branches(nn.Module):
    """Each input takes a way of its own, and so does the sum of two."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.drop = nn.Dropout(0.3)

    def forward(self, a, b, c, d):
        if a.sum() > 0:
            a = self.one(a)
        if b.sum() > 0:
            b = self.drop(self.other(b))
        c = self.one(c) if c.sum() > 0 else self.other(c).relu()
        if d.sum() > 0:
            d = d * 2
        if (a + b).sum() > 0:
            return a + b + c + d
        return a * b * c * d


class Experts(nn.Module):
    """Calls the experts that some token has chosen."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 5)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.2)) for _ in range(5)
        )

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, places = torch.where(chosen == number)
            if rows.numel() == 0:
                continue
            out.index_add_(0, rows, expert(x[rows]) * weights[rows, places, None])
        return out


class SkipsLayers(nn.Module):
    """Skips layers at random while it trains, and returns the states between them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))

    def forward(self, x):
        states = ()
        for layer in self.layers:
            states += (x,)
            skips = self.training and torch.rand([]) < 0.5
            if not skips:
                x = layer(x) + x
        return x, states


class ChangesInPlace(nn.Module):
    """Changes one tensor on several ways, and reads it afterwards."""

    def forward(self, x):
        out = x.clone()
        for row in range(5):
            if x[0, row] > 0:
                out[:, row].mul_(row + 2)
        return out, out.sum()


def _agree(model, rebuilt, *given):
    for is_training in (True, False):
        results = []
        for each in (model, rebuilt):
            each.train(is_training)
            inputs = [value.clone().requires_grad_() for value in given]
            each.zero_grad()
            torch.manual_seed(5)
            result = each(*inputs)
            first = result[0] if isinstance(result, tuple) else result
            first.sum().backward()
            found = [value.grad for value in (*inputs, *each.parameters())]
            results.append((result, [value for value in found if value is not None]))
        assert bitwise_equal(*results)


def _loaded(model, given, path):
    lg.save(lg.to_ir(model, given), path, model.state_dict())
    return lg.load_model(path)


def test_each_combination_of_answers(tmp_path):
    model = Branches()
    given = [torch.rand(2, 4) for _ in range(4)]
    rebuilt = _loaded(model, tuple(given), tmp_path / "model.safetensors")
    for signs in itertools.product((1, -1), repeat=4):
        _agree(model, rebuilt, *[torch.rand(3, 4) * sign for sign in signs])


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_any_set_of_experts(rows, tmp_path):
    torch.manual_seed(rows)
    model = Experts()
    rebuilt = _loaded(model, (torch.randn(6, 4),), tmp_path / "model.safetensors")
    for _ in range(5):
        _agree(model, rebuilt, torch.randn(rows, 4))


def test_layers_skipped_at_random():
    model = SkipsLayers()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.randn(2, 4),)), model.state_dict())
    for seed in range(20):
        results = []
        for each in (model, rebuilt):
            torch.manual_seed(seed)
            results.append(each(torch.ones(2, 4)))
        assert bitwise_equal(*results)


def test_changes_in_place_on_each_way():
    model = ChangesInPlace()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.rand(2, 5),)))
    for signs in itertools.product((1.0, -1.0), repeat=5):
        x = torch.rand(2, 5) * torch.tensor(signs)
        assert bitwise_equal(rebuilt(x.clone()), model(x.clone()))


class Dependent(nn.Module):
    """The ways of its decisions do not meet: each sets what the next one reads in Python."""

    def forward(self, x):
        count = 0
        for row in range(5):
            if x[row] > 0:
                count += 1
                x = x + count
        return x * count


def test_ways_that_do_not_meet_are_guards():
    model = Dependent()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.full((5,), -20.0),)))
    refused = 0
    for signs in itertools.product((20.0, -20.0), repeat=5):
        x = torch.tensor(signs)
        try:
            assert bitwise_equal(rebuilt(x), model(x))
        except AssumptionError:
            refused += 1
    assert 0 < refused < 32
