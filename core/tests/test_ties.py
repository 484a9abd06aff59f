"""Tied tensors: a state dict may hold any of the keys, but not two values for one tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import StateError
from layergraph.testing import bitwise_equal


def _tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def _separate(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.add_(1),
        lambda value: value[0].neg_(),
        lambda value: value[3, 3].fill_(torch.nan),
    ],
)
def test_two_values_of_one_tensor_are_refused_by_their_keys(change):
    model = _tied()
    ir, weights = lg.to_ir(model), _separate(model)
    change(weights["2.weight"])
    with pytest.raises(StateError, match=r"'0\.weight' and '2\.weight' are one tensor"):
        lg.to_torch(ir, weights)
    for key in ("0.weight", "2.weight"):
        one = {each: value for each, value in weights.items() if each == key or "bias" in each}
        assert bitwise_equal(lg.to_torch(ir, one)[0].weight.detach(), weights[key])


@pytest.mark.parametrize("number", [1.0, torch.nan, -0.0, torch.inf])
def test_equal_values_are_no_contradiction(number):
    model = _tied()
    nn.init.constant_(model[0].weight, number)
    weights = _separate(model)
    weights["2.weight"] = weights["2.weight"].t().contiguous().t().double()
    rebuilt = lg.to_torch(lg.to_ir(model), weights)
    assert rebuilt[0].weight is rebuilt[2].weight
    assert bitwise_equal(rebuilt[0].weight, model[0].weight)
