"""Models whose first call notes something, by which later calls decide or ask less."""

from __future__ import annotations

import types

import pytest
import torch
import torch.nn.functional as F

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal

X = torch.arange(12.0).reshape(3, 4) / 12
LABELS = torch.tensor([0, 1, 3])


class Kinds(Base):
    """It decides by the dtype of the labels in the first call, and keeps the answer."""

    def __init__(self):
        super().__init__()
        self.config = types.SimpleNamespace(problem=None)

    def forward(self, x, labels):
        y = self.lin(x)
        if self.config.problem is None:
            self.config.problem = "classes" if labels.dtype == torch.long else "numbers"
        if self.config.problem == "classes":
            return F.cross_entropy(y, labels)
        return F.mse_loss(y, labels)


@pytest.mark.parametrize("labels", [LABELS, torch.ones(3, 4)])
def test_a_first_call_may_ask_more(labels):
    model = Kinds()
    rebuilt = lg.to_torch(lg.to_ir(model, (X, labels)), model.state_dict())
    assert model.config.problem is None
    for x in (X, -X):
        assert bitwise_equal(rebuilt(x, labels), model(x, labels))
    other = torch.ones(3, 4) if labels is LABELS else LABELS
    with pytest.raises(AssumptionError, match="'labels' was of torch"):
        rebuilt(X, other)


class Remembers(Base):
    """Later calls compare a size with that of the first one."""

    def __init__(self):
        super().__init__()
        self.rows = None

    def forward(self, x):
        if self.rows is None:
            self.rows = x.shape[0]
            return self.lin(x)
        return self.lin(x) * 2 if x.shape[0] != self.rows else self.lin(x)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_later_call_may_not_ask_more(rows):
    model = Remembers()
    with pytest.raises(CaptureError, match=r"assigns self\.rows"):
        lg.to_ir(model, (X[:rows],))
    assert model.rows is None
