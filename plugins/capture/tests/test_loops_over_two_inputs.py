"""Loops over two inputs: their lengths may differ only if they did so in the example."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.cell = nn.GRUCell(4, 4)

    def forward(self, x, m):
        h = x[:, 0] * 0
        for each in self.parts(x):
            h = self.cell(each.view(2, 4), h)
        for each in self.parts(m):
            h = self.lin(each.view(2, 4)) + h
        return h

    def parts(self, x):
        """Return the values of the turns."""
        raise NotImplementedError


class Ranges(Base):
    def forward(self, x, m):
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
        for t in range(m.size(1)):
            h = self.lin(m[:, t]) + h
        return h


class Unbound(Base):
    def parts(self, x):
        return x.unbind(1)


class Rows(Base):
    def parts(self, x):
        return x.transpose(0, 1)


class Split(Base):
    def parts(self, x):
        return x.split(1, 1)


class Zipped(Base):
    def forward(self, x, m):
        h = x[:, 0] * 0
        for one, other in zip(x.unbind(1), m.unbind(1), strict=False):
            h = self.cell(one + other, h)
        return h


KINDS = pytest.mark.parametrize("kind", [Ranges, Unbound, Rows, Split, Zipped])


def given(one, other):
    return torch.randn(2, one, 4), torch.randn(2, other, 4)


@KINDS
def test_equal_lengths_stay_equal(kind, tmp_path):
    model = kind()
    ir = lg.to_ir(model, given(5, 5))
    assert "layergraph.loop(" in str(ir)
    assert all(str(each) for each in ir.guards)
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    rebuilt = lg.load_model(tmp_path / "m.safetensors")
    for length in (3, 5, 30):
        args = given(length, length)
        assert bitwise_equal(rebuilt(*args), model(*args))
    for lengths in (5, 8), (8, 5):
        with pytest.raises(AssumptionError, match="when this model was captured"):
            rebuilt(*given(*lengths))


@pytest.mark.parametrize("kind", [Ranges, Unbound, Rows, Split])
def test_lengths_that_differ_in_the_example_are_free(kind):
    model = kind()
    rebuilt = lg.to_torch(lg.to_ir(model, given(5, 7)), model.state_dict())
    for lengths in (5, 7), (8, 8), (3, 9), (9, 3):
        args = given(*lengths)
        assert bitwise_equal(rebuilt(*args), model(*args))
