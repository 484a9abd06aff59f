"""New layers have the dtype and device of what they stand in for, or of their neighbours."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph_rewrite import layer

LINEAR = {"in_features": 2, "out_features": 2}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.float32])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("with_state", [True, False])
def test_dtype_and_device(dtype, device, with_state):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
    model.to(dtype).to(device)
    edit = lg.edit(lg.to_ir(model), model.state_dict() if with_state else None)
    edit.insert_after("1", layer("linear", **LINEAR))
    edit.insert_before("2.0", layer("linear", **LINEAR))
    edit.insert_after("0", layer("batchnorm1d", num_features=2))
    edit.replace("2.0", layer("linear", **LINEAR))
    edit.set("0", out_features=3, bias=True)
    edit.set("0", out_features=2)
    edit.set("1", "prelu")
    rebuilt = lg.to_torch(edit.ir, edit.state, device=device)
    for key, tensor in rebuilt.state_dict().items():
        wanted = torch.int64 if key.endswith("num_batches_tracked") else dtype
        assert (key, tensor.dtype, tensor.device.type) == (key, wanted, device)
    if with_state:
        assert {each.device.type for each in edit.state.values()} == {device}
        assert {each.dtype for each in edit.state.values()} == {dtype, torch.int64}
    assert rebuilt.eval()(torch.ones(1, 2, dtype=dtype, device=device)).dtype == dtype


def test_the_dtype_of_a_given_tensor_counts():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).half()
    edit = lg.edit(lg.to_ir(model), model.state_dict())
    edit.insert_after("1", layer("prelu", tensors={"weight": torch.tensor([0.1]).double()}))
    rebuilt = lg.to_torch(edit.ir, edit.state)
    assert rebuilt.prelu.weight.dtype is torch.float64
    assert torch.equal(rebuilt.prelu.weight, torch.tensor([0.1]).double())


def test_a_layer_of_one_dtype_keeps_it_among_others():
    model = nn.Sequential(nn.Linear(2, 2).half(), nn.Linear(2, 2))
    for state in (None, model.state_dict()):
        edit = lg.edit(lg.to_ir(model), state)
        edit.set("1", bias=False)
        edit.set("1", bias=True)
        rebuilt = lg.to_torch(edit.ir, edit.state)
        assert {each.dtype for each in rebuilt[1].parameters()} == {torch.float32}


def test_a_type_that_nothing_makes_keeps_what_it_is_given():
    model = nn.Sequential(nn.Linear(2, 2))
    edit = lg.edit(lg.to_ir(model), model.state_dict())
    edit.set("0", "acme", tensors={"codes": torch.zeros(3)})
    assert edit.ir["0"].type == "acme"
    assert torch.equal(edit.state["0.codes"], torch.zeros(3))
