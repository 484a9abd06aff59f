"""Shapes and costs of models with loops and with functions that torch runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ShapeError


class Steps(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 4)
        self.lin = nn.Linear(4, 4)

    def turns(self, x):
        return range(x.shape[1])

    def forward(self, x):
        h = torch.zeros(2, 4)
        gave = []
        for turn in self.turns(x):
            h = self.cell(x[:, turn], h)
            gave.append(self.lin(h))
        return torch.stack(gave, 1)


class Unrolled(Steps):
    def turns(self, x):
        return range(7)


def loops_of(model, length):
    return lg.to_ir(model().eval(), (torch.randn(2, length, 4),))


@pytest.mark.parametrize("is_flat", [False, True])
def test_a_loop_costs_what_its_turns_cost(is_flat):
    looped, unrolled = loops_of(Steps, 5), loops_of(Unrolled, 7)
    assert "layergraph.loop(" in str(looped)
    assert "layergraph.loop(" not in str(unrolled)
    one = lg.cost(looped.flatten() if is_flat else looped, [(2, 7, 4)])
    other = lg.cost(unrolled, [(2, 7, 4)])
    assert one.flops == other.flops == 7 * (2 * 2 * 4 * 12 * 2 + 2 * 2 * 4 * 4)
    assert one.peak_activation_bytes == other.peak_activation_bytes
    assert one.parameters == other.parameters
    assert [each.name for each in one.layers] == [each.name for each in other.layers]
    assert (one["lin"].calls, one["cell"].calls) == (7, 7)


def test_the_shapes_of_a_loop_are_those_of_its_result():
    ir = loops_of(Steps, 5)
    shapes = lg.shapes(ir, [(2, 9, 4)])
    assert str(shapes.output) == "float32[2, 9, 4]"
    assert len(shapes["loop"][1]) == 9
    assert all(len(path) == 1 for path in shapes)
    with pytest.raises(ShapeError, match="the size 't' cannot vary"):
        lg.shapes(ir, [(2, "t", 4)])


class Cond(nn.Module):
    def __init__(self):
        super().__init__()
        self.small = nn.Linear(4, 4)
        self.large = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))

    def forward(self, x):
        return torch.cond(x.sum() > 0, self.small, self.large, (x,))


def test_a_cond_is_a_decision():
    ir = lg.to_ir(Cond().eval(), (torch.randn(3, 4),))
    shapes = lg.shapes(ir, [("b", 4)])
    assert str(shapes.output) == "float32[b, 4]"
    assert list(shapes.decisions) == ["cond"]
    assert lg.cost(ir, [(3, 4)]).flops == 2 * 2 * 3 * 4 * 8
    assert lg.cost(ir, [(3, 4)], decisions={"cond": True}).flops == 2 * 3 * 4 * 4


class Vmap(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        return torch.func.vmap(lambda row: self.lin(row).relu())(x)


@pytest.mark.parametrize("function", [lg.shapes, lg.cost])
def test_other_functions_that_run_functions_are_refused(function):
    ir = lg.to_ir(Vmap().eval(), (torch.randn(3, 4),))
    with pytest.raises(ShapeError, match="runs functions of the model"):
        function(ir, [(3, 4)])
