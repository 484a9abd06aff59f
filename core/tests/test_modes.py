"""Models that compute one thing in training and another in evaluation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal

X = torch.randn(4, 6)


class DropPath(nn.Module):
    """Stochastic depth: two graphs."""

    def forward(self, x):
        if not self.training:
            return x
        keep = torch.empty(x.shape[0], 1, dtype=x.dtype, device=x.device).bernoulli_(0.5)
        return x * keep


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 6)
        self.drop_path = DropPath()

    def forward(self, x):
        return x + self.drop_path(self.lin(x))


class Auxiliary(nn.Module):
    """Returns other outputs in training mode."""

    def __init__(self):
        super().__init__()
        self.block = Block()
        self.aux = nn.Linear(6, 2)

    def forward(self, x):
        y = self.block(x)
        return (y, self.aux(y)) if self.training else y


class Flags(nn.Module):
    """One graph, with flags that follow the mode."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 6)
        self.blocks = nn.Sequential(Block(), nn.ReLU(), Block())

    def forward(self, x):
        x = F.dropout(self.lin(x), 0.5, self.training)
        return self.blocks(F.dropout(x, 0.5, training=self.training, inplace=False))


class Inverted(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=not self.training)


class PassesMode(nn.Module):
    """Passes its mode to a child as an argument."""

    class Child(nn.Module):
        def forward(self, x, *more):
            return x + sum(more)

    def __init__(self):
        super().__init__()
        self.child = self.Child()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.child(x, self.drop(x)) if self.training else self.child(x)


@pytest.mark.parametrize("cls", [Block, Auxiliary, Flags, Inverted, PassesMode])
@pytest.mark.parametrize("training", [True, False])
def test_works_in_both_modes(cls, training, round_trip):
    round_trip(cls().train(training), X)


def test_two_graphs_only_where_they_differ():
    ir = lg.to_ir(Flags())
    assert {name for name, each in ir.items() if each.evaluation is not None} == {
        "blocks.0.drop_path",
        "blocks.2.drop_path",
    }
    assert ir["blocks"].type == "sequential"
    assert any(
        node.type == "state" and node.implementation == "training"
        for node in ir["root"].nodes.values()
    )


def test_which_mode_was_captured_makes_no_difference():
    model = Auxiliary()
    training, evaluating = lg.to_ir(model.train()), lg.to_ir(model.eval())
    for name in training:
        assert training[name].nodes == evaluating[name].nodes
        assert training[name].evaluation == evaluating[name].evaluation
    assert training["root"].nodes == evaluating["root"].nodes
    assert training["root"].evaluation == evaluating["root"].evaluation


def test_the_ir_of_one_mode():
    model = Auxiliary().eval()
    ir = lg.to_ir(model)
    for training in (True, False):
        one = ir.in_mode(training=training)
        assert all(each.evaluation is None for each in one.values())
        rebuilt = lg.to_torch(one, model.state_dict()).train(training)
        torch.manual_seed(0)
        was = model.train(training)(X)
        torch.manual_seed(0)
        now = rebuilt(X)
        assert bitwise_equal(was[0], now[0]) if training else bitwise_equal(was, now)


def test_a_mode_of_ones_own_inside_another():
    model = nn.Sequential(Block(), nn.BatchNorm1d(6), Block()).train()
    model[0].drop_path.eval()
    model[1].eval()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert [m.training for m in rebuilt.modules()] == [m.training for m in model.modules()]
    torch.manual_seed(0)
    was = model(X)
    torch.manual_seed(0)
    assert bitwise_equal(was, rebuilt(X))


class Unpredictable(nn.Module):
    """Branches on its input in training mode, which a capture without inputs cannot follow."""

    def forward(self, x):
        if self.training and x.sum() > 0:
            return x * 2
        return x + 1


def test_one_mode_that_cannot_be_captured_is_refused_when_it_is_run():
    model = nn.Sequential(nn.Linear(6, 6), Unpredictable()).eval()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
    rebuilt.train()
    with pytest.raises(AssumptionError, match=r"training of '1'.*test_modes.py"):
        rebuilt(X)


class FlagFromOutside(nn.Module):
    """Has a child that follows its parent's mode, not its own."""

    class Child(nn.Module):
        def forward(self, x, training):
            return F.dropout(x, 0.5, training=training)

    def __init__(self):
        super().__init__()
        self.child = self.Child()

    def forward(self, x):
        return self.child(x, self.training)


def test_a_mode_from_outside(round_trip):
    _, rebuilt = round_trip(FlagFromOutside(), X)
    rebuilt.train().child.eval()
    with pytest.raises(AssumptionError, match="training of 'child'"):
        rebuilt(X)


def test_callee_in_another_mode_than_its_caller_is_refused_where_arguments_depend_on_it():
    class Child(nn.Module):
        def forward(self, x, y):
            return (x + y, y) if self.training else x

    class Caller(nn.Module):
        def __init__(self):
            super().__init__()
            self.child = Child()

        def forward(self, x):
            return self.child(x, x * 2)[0] if self.training else self.child(x, x * 3)

    model = Caller()
    rebuilt = lg.to_torch(lg.to_ir(model))
    for training in (True, False):
        assert bitwise_equal(model.train(training)(X), rebuilt.train(training)(X))
    rebuilt.child.train()
    with pytest.raises(AssumptionError, match="'child'"):
        rebuilt(X)


@pytest.mark.parametrize("given", [None, (X,)])
def test_one_mode_alone_where_that_is_wanted(given):
    model = Flags().eval()
    ir = lg.to_ir(model, given, modes="own")
    assert all(each.evaluation is None for each in ir.values())
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
    with pytest.raises(AssumptionError, match="training of"):
        rebuilt.train()(X)


def test_modes_that_no_code_asks_for_are_not_assumed():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))
    assert lg.to_ir(model, (X,), modes="own") == lg.to_ir(model, (X,))


def test_modes_is_one_of_two():
    with pytest.raises(CaptureError, match="modes is 'eval'; say one of both, own"):
        lg.to_ir(Flags(), modes="eval")


class ReadsOthers(nn.Module):
    """Reads the mode of a layer that it does not call."""

    def __init__(self, forward):
        super().__init__()
        self.lin, self.drop, self.norm = nn.Linear(6, 6), nn.Dropout(0.5), nn.BatchNorm1d(6)
        self.block = Block()
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


READING = {
    "a layer's forward": lambda self, x: self.drop.forward(self.lin(x)),
    "a class's forward": lambda self, x: nn.BatchNorm1d.forward(self.norm, x),
    "a composite's forward": lambda self, x: self.block.drop_path.forward(x),
    "a layer's mode": lambda self, x: F.dropout(x, self.drop.p, self.drop.training),
    "a layer's mode decides": lambda self, x: x if self.drop.training else self.lin(x),
    "an inner layer's mode": lambda self, x: self.block(x) * (2 if self.block.lin.training else 3),
}


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_another_module_is_read(name, training):
    model = ReadsOthers(READING[name]).train(training)
    again = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    for mode in (True, False):
        model.train(mode), again.train(mode)
        torch.manual_seed(1)
        expected = model(X)
        torch.manual_seed(1)
        assert bitwise_equal(again(X), expected)


def test_another_module_out_of_step_is_told():
    again = lg.to_torch(lg.to_ir(ReadsOthers(READING["a layer's mode"]), (X,)))
    again.drop.eval()
    with pytest.raises(AssumptionError, match="training of 'drop', as against the module around"):
        again(X)


@pytest.mark.parametrize("training", [True, False])
def test_a_loop_in_one_mode_only(training):
    def forward(self, x):
        return torch.stack([self.lin(row) for row in x]) if self.training else self.lin(x) * 2

    model = ReadsOthers(forward).train(training)
    again = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    for mode in (True, False):
        model.train(mode), again.train(mode)
        for size in (4, 7):
            x = torch.randn(size, 6)
            assert bitwise_equal(again(x), model(x))
