"""Linear layers: to an IR and back."""

import torch
from torch import nn

import layergraph as lg
from layergraph.testing import Case, LayerTests, layers_of

CASES = {
    "linear": Case(lambda: nn.Linear(3, 2), [(5, 3)]),
    "linear without bias": Case(lambda: nn.Linear(3, 2, bias=False), [(5, 3)]),
    "linear on many dimensions": Case(lambda: nn.Linear(3, 1), [(2, 4, 5, 3)]),
    "bilinear": Case(lambda: nn.Bilinear(3, 4, 2), [(5, 3), (5, 4)]),
    "bilinear without bias": Case(lambda: nn.Bilinear(3, 4, 2, bias=False), [(5, 3), (5, 4)]),
    "identity": Case(nn.Identity, [(5, 3)]),
}


class TestLinear(LayerTests):
    distribution = "layergraph-linear"
    classes = layers_of(torch.nn.modules.linear)
    cases = CASES


def test_only_the_bias_is_said_besides_the_sizes():
    data = lg.to_ir(nn.Linear(3, 2))["root"].data
    assert data == {"in_features": 3, "out_features": 2, "bias": True}


def test_a_lazy_layer_is_a_linear_one_after_its_first_run():
    layer = nn.LazyLinear(2)
    layer(torch.zeros(1, 3))
    assert lg.to_ir(layer) == lg.to_ir(nn.Linear(3, 2))
