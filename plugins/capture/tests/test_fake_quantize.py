"""Models that torch.ao has prepared for training with quantized weights."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.ao import quantization

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant = quantization.QuantStub()
        self.conv, self.norm, self.relu = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()
        self.head = nn.Linear(2, 3)
        self.dequant = quantization.DeQuantStub()

    def forward(self, x):
        x = self.relu(self.norm(self.conv(self.quant(x))))
        return self.dequant(self.head(x.mean((2, 3))))


def prepared(*, fused: bool) -> nn.Module:
    model = Net().train()
    if fused:
        model = quantization.fuse_modules_qat(model, [["conv", "norm", "relu"]])
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(model)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_prepare_qat(fused, training, tmp_path):
    model = prepared(fused=fused)
    model(torch.randn(2, 1, 8, 8))
    model.train(training)
    x = torch.randn(3, 1, 8, 8)
    ir = lg.to_ir(model, (x,))
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    for way in (lg.to_torch(ir, model.state_dict()), lg.load_model(path)):
        original = copy.deepcopy(model)
        for given in (x, torch.randn(5, 1, 6, 7)):
            results = []
            for each in (original, way.train(training)):
                each.zero_grad()
                y = each(given)
                y.sum().backward()
                gradients = [each.grad for each in each.parameters()]
                results.append((y, gradients, dict(each.state_dict())))
            assert bitwise_equal(*results)


def test_a_buffer_that_the_first_call_resizes_is_refused():
    """The observers learn the number of channels of a weight in the first call."""
    with pytest.raises(CaptureError, match="resizes"):
        lg.to_ir(prepared(fused=False), (torch.randn(2, 1, 8, 8),))
