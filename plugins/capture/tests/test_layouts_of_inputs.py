"""Code that asks how a tensor keeps its numbers: the answer for the example is a guard."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError


class Model(nn.Module):
    def __init__(self, is_dense):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.is_dense = is_dense

    def forward(self, x):
        return self.lin(x if self.is_dense(x) else x.to_dense()) * (2 if self.is_dense(x) else 3)


@pytest.mark.parametrize(
    ("is_dense", "other"),
    [
        (lambda x: not x.is_sparse, torch.Tensor.to_sparse),
        (lambda x: x.layout == torch.strided, torch.Tensor.to_sparse),
        (lambda x: not x.is_sparse_csr, torch.Tensor.to_sparse_csr),
        (lambda x: not x.is_mkldnn, torch.Tensor.to_mkldnn),
    ],
    ids=["is_sparse", "layout", "is_sparse_csr", "is_mkldnn"],
)
def test_another_layout_is_refused(is_dense, other, tmp_path):
    model = Model(is_dense)
    ir = lg.to_ir(model, (torch.randn(3, 4),))
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for rebuilt in (lg.to_torch(ir, model.state_dict()), lg.load_model(tmp_path / "m.safetensors")):
        x = torch.randn(5, 4)
        assert torch.equal(rebuilt(x), model(x))
        with pytest.raises(AssumptionError, match="test_layouts_of_inputs"):
            rebuilt(other(x))
