"""Passes on models with loops: what a body does stays done."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal


class InPlace(nn.Module):
    """The loop's own value is not read: it fills a tensor in place."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        out = torch.zeros_like(x)
        for step in range(x.size(1)):
            out[:, step] = self.norm(self.layer(x[:, step]))
        return out


PASSES = [
    "dead-code",
    "common-subexpressions",
    "canonicalize",
    "fold-batchnorm",
    "remove-dropout",
    "remove-identity",
    "deduplicate",
    "functional-to-layers",
]


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_leaves_a_loop_right(name):
    torch.manual_seed(0)
    model = InPlace().eval()
    ir = lg.to_ir(model, (torch.randn(2, 4, 4),))
    assert "layergraph.loop" in str(ir)
    other, state, _ = lg.run_passes(ir, [name], model.state_dict())
    x = torch.randn(3, 7, 4)
    assert bitwise_equal(lg.to_torch(other, state).eval()(x), model(x))
