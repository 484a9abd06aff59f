"""Code that asks whether autograd has a function for a tensor: ``is_leaf`` and ``grad_fn``."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal


class IsLeaf(nn.Module):
    def forward(self, x):
        return x * 2 if x.is_leaf else x + 1


class HasFunction(nn.Module):
    def forward(self, x):
        return x * 2 if x.grad_fn is None else x + 1


class ResultIsLeaf(nn.Module):
    def forward(self, x):
        y = x * 3
        return y * 2 if y.is_leaf else y + 1


INPUTS = {
    "plain": lambda: torch.randn(3, 4),
    "leaf": lambda: torch.randn(3, 4, requires_grad=True),
    "computed": lambda: torch.randn(3, 4, requires_grad=True) * 1,
}


@pytest.mark.parametrize("cls", [IsLeaf, HasFunction, ResultIsLeaf])
@pytest.mark.parametrize("example", INPUTS)
def test_another_answer_is_refused(cls, example):
    model = cls()
    rebuilt = lg.to_torch(lg.to_ir(model, (INPUTS[example](),)))
    for (name, make), gradients in itertools.product(INPUTS.items(), (True, False)):
        x = make()
        with torch.set_grad_enabled(gradients):
            expected = model(x)
            try:
                result = rebuilt(x)
            except AssumptionError:
                refused = True
            else:
                refused = False
                assert bitwise_equal(result, expected)
            assert not refused or (name, gradients) != (example, True)
