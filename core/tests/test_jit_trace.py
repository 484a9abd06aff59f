"""``torch.jit.trace`` of rebuilt models, where sizes and values derived from sizes are tensors."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal

X = torch.arange(12.0).reshape(3, 4) / 12
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Asks(Base):
    """Reads a size in a comparison, in a tuple, and as a number."""

    def forward(self, x):
        if x.size(0) > 2 and x.shape[1:] == (4,):
            x = x + 1
        return self.lin(x) * x.shape[0]


class OneRow(Base):
    """Takes another branch for a batch of one. The graph holds both branches."""

    def forward(self, x):
        return self.lin(x) if x.shape[0] == 1 else self.lin(x).relu() + 1


@pytest.mark.parametrize("cls", [Asks, OneRow])
def test_a_traced_model_computes_the_same(cls):
    model: nn.Module = cls()
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(rebuilt, (X,))
    for x in (X, -X):
        assert bitwise_equal(traced(x), model(x))


def test_a_guard_holds_while_it_is_traced():
    rebuilt = lg.to_torch(lg.to_ir(Asks(), (X,)))
    with pytest.raises(AssumptionError, match="was True"):
        torch.jit.trace(rebuilt, (X[:2],))
