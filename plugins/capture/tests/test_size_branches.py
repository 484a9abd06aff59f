"""Branches by sizes that are equal in the example: the graph holds both ways."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal


class Windows(nn.Module):
    """Pads to a multiple of the window, and crops at the end."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        missing = (4 - x.size(1) % 4) % 4
        if missing > 0:
            x = F.pad(x, (0, 0, 0, missing))
        y = self.drop(self.lin(x)).unflatten(1, (-1, 4)).cumsum(2).flatten(1, 2)
        if missing > 0:
            y = y[:, :-missing]
        return y


class WindowsInPlace(nn.Module):
    """Asks the same again after it has changed a tensor in place."""

    def forward(self, x):
        missing = (4 - x.size(1) % 4) % 4
        if missing > 0:
            x = F.pad(x, (0, 0, 0, missing))
        y = x.clone()
        y[:, :1] += 1
        if missing > 0:
            y = y * 2
        y = y.unflatten(1, (-1, 4)).cumsum(2).flatten(1, 2)
        if missing > 0:
            y = y[:, :-missing]
        return y


class WholeWindows(nn.Module):
    """Asks whether a quotient is a whole number, as the code of local attention does."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        windows = x.size(1) / 4
        if windows.is_integer():
            missing = 0
        else:
            missing = math.ceil(windows) * 4 - x.size(1)
            x = F.pad(x, (0, 0, 0, missing))
        y = self.lin(x).unflatten(1, (-1, 4)).cumsum(2).flatten(1, 2)
        return y[:, : y.size(1) - missing]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Windows() for _ in range(2))

    def forward(self, x):
        for each in self.layers:
            x = each(x) + x
        return x


class Positions(nn.Module):
    """Interpolates its table for other numbers of rows."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 4, 8))

    def forward(self, x):
        return x + self.of(x.size(2))

    def of(self, length):
        if length == self.table.size(2) and not torch.jit.is_tracing():
            return self.table
        return F.interpolate(self.table, size=length, mode="linear")


class Either(nn.Module):
    def forward(self, x):
        right, below = -x.size(2) % 2, -x.size(1) % 2
        if right or below:
            x = F.pad(x, (0, right, 0, below))
        return x.unflatten(2, (-1, 2)).amax(3)


class Truth(nn.Module):
    def forward(self, x):
        rest = x.size(1) % 4
        return x[:, :-rest] * 2 if rest else x + 1


class Ranks(nn.Module):
    """One way has another rank, which code reads later."""

    def forward(self, x):
        y = x.sum(2) if x.size(1) % 4 == 0 else x[:, :4]
        return y.unsqueeze(0) if y.dim() == 2 else y


CASES = [
    (Windows(), (2, 8, 4), [(2, 8, 4), (3, 7, 4), (1, 12, 4), (2, 1, 4)]),
    (WindowsInPlace(), (2, 8, 4), [(2, 8, 4), (3, 7, 4), (1, 12, 4), (2, 1, 4)]),
    (WholeWindows(), (2, 8, 4), [(2, 8, 4), (3, 7, 4), (1, 12, 4), (2, 1, 4)]),
    (Encoder(), (2, 8, 4), [(2, 8, 4), (3, 7, 4), (1, 12, 4)]),
    (Positions(), (2, 4, 8), [(2, 4, 8), (1, 4, 5), (2, 4, 16)]),
    (Either(), (1, 4, 4), [(1, 4, 4), (2, 4, 5), (1, 3, 4), (1, 5, 7)]),
    (Truth(), (2, 8), [(2, 8), (2, 7), (1, 13)]),
]


@pytest.mark.parametrize(
    ("model", "example", "others"), CASES, ids=lambda each: type(each).__name__
)
@pytest.mark.parametrize("training", [False, True])
def test_the_graph_holds_both_ways(model, example, others, training, tmp_path):
    model.train(training)
    ir = lg.to_ir(model, (torch.randn(example),))
    lg.save(ir, tmp_path / "model.safetensors", model.state_dict())
    for rebuilt in (
        lg.to_torch(ir, model.state_dict()),
        lg.load_model(tmp_path / "model.safetensors"),
    ):
        rebuilt.train(training)
        for shape in others:
            x = torch.randn(shape)
            ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
            torch.manual_seed(1)
            expected = model(theirs)
            torch.manual_seed(1)
            found = rebuilt(ours)
            assert bitwise_equal(found, expected)
            expected.square().sum().backward()
            found.square().sum().backward()
            assert bitwise_equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("shape", [(2, 8, 4), (2, 6, 4)])
def test_a_rank_that_the_other_way_changes_is_no_guess(shape):
    model = Ranks()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.randn(2, 8, 4),)))
    x = torch.randn(shape)
    try:
        found = rebuilt(x)
    except AssumptionError:
        assert shape != (2, 8, 4)
    else:
        assert bitwise_equal(found, model(x))


def test_a_check_that_raises_is_no_branch_and_keeps_its_message():
    class Checked(nn.Module):
        def forward(self, x):
            assert x.size(1) % 4 == 0, "no multiple of four"
            if x.size(2) != 4:
                raise ValueError("not four wide")
            return x + 1

    ir = lg.to_ir(Checked(), (torch.randn(2, 8, 4),))
    assert len(ir.guards) == 2
    rebuilt = lg.to_torch(ir)
    for shape in (2, 6, 4), (2, 8, 5):
        with pytest.raises(AssumptionError, match="test_size_branches"):
            rebuilt(torch.randn(shape))


class Many(nn.Module):
    """It also changes a tensor in place, after which a number may be any."""

    def forward(self, x):
        x = x.clone().add_(1)
        for width in range(2, 6):
            if x.size(1) % width != 0:
                x = F.pad(x, (0, width - x.size(1) % width))
        return x


def test_many_branches_by_sizes_are_guards():
    ir = lg.to_ir(Many(), (torch.randn(2, 60),))
    assert len([each for each in ir.guards if "width" in each.where]) == 4
    assert "choose" not in str(ir)
    with pytest.raises(AssumptionError, match="width"):
        lg.to_torch(ir)(torch.randn(2, 59))


def test_sizes_of_two_arguments_that_differ_are_no_way():
    class Masked(nn.Module):
        def forward(self, x, mask):
            if x.size(1) != mask.size(1):
                mask = F.pad(mask, (0, 1))
            return x * mask

    ir = lg.to_ir(Masked(), (torch.randn(2, 8), torch.ones(2, 8)))
    assert len(ir.guards) == 1


def test_a_rebuilt_model_compiles_and_exports_where_the_original_does():
    model = Truth()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.randn(2, 8),)))
    compiled = torch.compile(rebuilt, backend="eager", fullgraph=True)
    for shape in (2, 8), (2, 7):
        x = torch.randn(shape)
        assert bitwise_equal(compiled(x), model(x))
        exported = torch.export.export(rebuilt, (x,))
        assert bitwise_equal(exported.module()(x), model(x))
