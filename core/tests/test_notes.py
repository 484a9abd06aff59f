"""Values that a model's code records in its modules while it runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.ir2torch import Ir2Torch
from layergraph.layers import Layer
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir

X = torch.randn(2, 3)


class Observed(nn.Linear):
    """Records the largest number that it returned."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.largest = 0.0

    def forward(self, x):
        y = super().forward(x)
        self.largest = max(self.largest, y.abs().max().item())
        return y


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = Observed(3, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.fc(x)))


def converters(row):
    torch2ir, ir2torch = Torch2Ir(), Ir2Torch()
    torch2ir.register(Observed, row.to_ir)
    ir2torch.register("observed", row.to_torch)
    return torch2ir, ir2torch


def test_what_a_leaf_notes_down_is_its_own_affair():
    torch2ir, ir2torch = converters(Layer(Observed, derived=["largest"]))
    model = Twice()
    ir = torch2ir.convert(model, (X,))
    assert model.fc.largest == 0.0  # the capture restores it
    rebuilt = ir2torch.convert(ir, model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
    assert rebuilt.fc.largest == model.fc.largest > 0


def test_unless_its_handler_then_says_something_else_of_it():
    torch2ir, _ = converters(Layer(Observed))
    with pytest.raises(CaptureError, match="a change of 'fc' that lasts for a call"):
        torch2ir.convert(Twice(), (X,))


class Meddling(nn.Module):
    """Sets an attribute of the leaf that only the leaf should set, around a call of the leaf."""

    def __init__(self):
        super().__init__()
        self.fc = Observed(3, 3)

    def forward(self, x):
        x = self.fc(x)
        self.fc.largest = 7.0
        x = self.fc(x)
        self.fc.largest = 0.0
        return x


def test_what_others_note_down_in_it_is_not():
    torch2ir, _ = converters(Layer(Observed, derived=["largest"]))
    with pytest.raises(CaptureError, match="a change of 'fc' that lasts for a call"):
        torch2ir.convert(Meddling(), (X,))


def test_its_handler_is_asked_again_without_being_recorded():
    def answer(module):
        # The model changes none of these.
        with torch.random.fork_rng():
            return {"in_features": 3, "out_features": 3, "scale": int(torch.randn(2).numel())}

    torch2ir, _ = converters(Layer(Observed))
    torch2ir.register_override(Observed, answer)
    functions = [
        node.implementation
        for node in torch2ir.convert(Twice(), (X,))["root"].nodes.values()
        if node.type == "function"
    ]
    assert functions == ["torch.relu"]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x * 2

    @staticmethod
    def backward(_, grad):
        return grad * 2


class Doubling(nn.Module):
    """Holds a function with its own gradient."""

    def __init__(self):
        super().__init__()
        self.function = Doubled.apply

    def forward(self, x):
        return self.function(x)


def test_a_leaf_may_keep_a_function_with_its_own_gradient():
    torch2ir = Torch2Ir()
    torch2ir.register(Doubling, lambda _: {})
    ir = torch2ir.convert(nn.Sequential(Doubling(), nn.ReLU()), (X,))
    assert ir["0"].type == "doubling"


class Block(nn.Module):
    """Has a submodule that changes in a call."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(x)


class Around(nn.Module):
    def __init__(self, eps):
        super().__init__()
        self.block = Block()
        self.eps = eps

    def forward(self, x):
        before = self.block.norm.eps
        self.block.norm.eps = self.eps
        y = self.block(x)
        self.block.norm.eps = before
        return y


def test_what_is_inside_a_leaf_is_the_leafs():
    torch2ir = Torch2Ir()
    torch2ir.register(Block, lambda _: {})
    model = Around(eps=1e-5).train()
    model.block.norm.eps = model.eps
    assert torch2ir.convert(model, (X,))["block"].type == "block"
    assert model.block.norm.num_batches_tracked == 0
    with pytest.raises(CaptureError, match="a change of 'block' that lasts for a call"):
        torch2ir.convert(Around(eps=7.0), (X,))


def test_what_is_replaced_by_itself_is_put_back():
    class Anchors(nn.Module):
        def __init__(self):
            super().__init__()
            self.anchors = [torch.ones(3), torch.zeros(3)]
            self.seen = None

        def forward(self, x):
            # The same values in the same memory, as new tensors.
            self.anchors = [each.to(dtype=x.dtype, device=x.device) for each in self.anchors]
            self.seen = "something"
            return x + self.anchors[0] - self.anchors[1]

    model = Anchors()
    before = list(model.anchors)
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)))
    assert all(one is other for one, other in zip(model.anchors, before, strict=True))
    assert model.seen is None
    assert bitwise_equal(rebuilt(X), model(X))
