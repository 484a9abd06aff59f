"""Tensordicts as arguments and results of models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal

TensorDict = pytest.importorskip("tensordict").TensorDict


def tensors(rows: int, **more: torch.Tensor) -> TensorDict:
    drawn = torch.Generator().manual_seed(rows)
    x, y = torch.randn(2, rows, 4, generator=drawn)
    return TensorDict({"x": x, "inner": {"y": y}, **more}, batch_size=[rows])


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)


class Reads(Base):
    def forward(self, given):
        return self.lin(given["x"]) * given["inner", "y"]


class ReadsSize(Base):
    def forward(self, given):
        return self.lin(given["x"]) + torch.ones(given.batch_size[0], 4) * given.batch_size[0]


class Sets(Base):
    def forward(self, given):
        given["z"] = self.lin(given["x"])
        given.set("w", given["z"] + 1)
        return given


class Makes(Base):
    def forward(self, given):
        return TensorDict({"z": self.lin(given["x"])}, batch_size=given.batch_size)


def _parts(value):
    is_tensor = isinstance(value, torch.Tensor)
    return value if is_tensor else (value.to_dict(), tuple(value.batch_size))


@pytest.mark.parametrize("cls", [Reads, ReadsSize, Sets, Makes])
def test_tensordicts_are_arguments(cls, tmp_path):
    model = cls()
    ir = lg.to_ir(model, (tensors(2),))
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    for rebuilt in (lg.to_torch(ir, model.state_dict()), lg.load_model(path)):
        for rows in (2, 5):
            mine, theirs = tensors(rows), tensors(rows)
            expected, found = model(mine), rebuilt(theirs)
            assert type(found) is type(expected)
            assert (found is theirs) == (expected is mine)
            assert bitwise_equal(_parts(found), _parts(expected))
            assert bitwise_equal(_parts(theirs), _parts(mine))


@pytest.mark.parametrize(
    "other", [tensors(2, more=torch.ones(2)), {"x": torch.ones(2, 4)}, torch.ones(2, 4)]
)
def test_other_parts_are_refused(other):
    model = Reads()
    rebuilt = lg.to_torch(lg.to_ir(model, (tensors(2),)), model.state_dict())
    with pytest.raises(AssumptionError):
        rebuilt(copy.copy(other))
