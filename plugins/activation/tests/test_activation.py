"""Activations: to an IR and back."""

from functools import partial

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import Case, LayerTests, layers_of

SIZE = (2, 4, 3, 2)
ARGUMENTS = {
    nn.CELU: [{"alpha": 0.5, "inplace": True}],
    nn.ELU: [{"alpha": 0.5, "inplace": True}],
    nn.GELU: [{"approximate": "tanh"}],
    nn.GLU: [{"dim": 1}],
    nn.Hardshrink: [{"lambd": 0.1}],
    nn.Hardsigmoid: [{"inplace": True}],
    nn.Hardswish: [{"inplace": True}],
    nn.Hardtanh: [
        {"min_val": -0.5, "max_val": 0.25},
        {"inplace": True},
        {"min_val": 0, "max_val": 6},
    ],
    nn.LeakyReLU: [{"negative_slope": 0.5}, {"inplace": True}],
    nn.LogSigmoid: [],
    nn.LogSoftmax: [{"dim": -1}],
    nn.Mish: [{"inplace": True}],
    nn.PReLU: [{"num_parameters": 4, "init": 0.5}],
    nn.RReLU: [{"lower": 0.1, "upper": 0.2, "inplace": True}],
    nn.ReLU: [{"inplace": True}],
    nn.ReLU6: [{"inplace": True}],
    nn.SELU: [{"inplace": True}],
    nn.SiLU: [{"inplace": True}],
    nn.Sigmoid: [],
    nn.Softmax: [{"dim": 1}],
    nn.Softmax2d: [],
    nn.Softmin: [{"dim": 1}],
    nn.Softplus: [{"beta": 2, "threshold": 1.0}],
    nn.Softshrink: [{"lambd": 0.1}],
    nn.Softsign: [],
    nn.Tanh: [],
    nn.Tanhshrink: [],
}
ATTENTION = {
    "default": ({}, [(3, 2, 4)] * 3),
    "dropout": ({"dropout": 0.5, "batch_first": True}, [(3, 2, 4)] * 3),
    "without bias": ({"bias": False}, [(3, 2, 4)] * 3),
    "other sizes": ({"kdim": 6, "vdim": 2}, [(3, 2, 4), (5, 2, 6), (5, 2, 2)]),
    "more keys": ({"add_bias_kv": True, "add_zero_attn": True}, [(3, 2, 4)] * 3),
}
CASES = {
    **{
        f"MultiheadAttention {name}": Case(partial(nn.MultiheadAttention, 4, 2, **arguments), sizes)
        for name, (arguments, sizes) in ATTENTION.items()
    },
    "Threshold": Case(lambda: nn.Threshold(0.1, 20), [SIZE]),
    "Threshold inplace": Case(lambda: nn.Threshold(0, -0.5, inplace=True), [SIZE]),
    # Without an argument `dim`, these layers choose one by the rank of the input, and warn.
    **{
        cls.__name__: Case(cls, [SIZE])
        for cls in ARGUMENTS
        if cls not in (nn.LogSoftmax, nn.Softmax, nn.Softmin)
    },
    **{
        f"{cls.__name__} {', '.join(f'{k}={v}' for k, v in arguments.items())}": Case(
            partial(cls, **arguments), [SIZE]
        )
        for cls, variants in ARGUMENTS.items()
        for arguments in variants
    },
}


class TestActivation(LayerTests):
    distribution = "layergraph-activation"
    classes = layers_of(torch.nn.modules.activation)
    cases = CASES


@pytest.mark.parametrize("cls", [nn.LogSoftmax, nn.Softmax, nn.Softmin])
def test_a_dimension_that_was_not_chosen_is_not_said(cls):
    ir = lg.to_ir(cls())
    assert ir["root"].data == {}
    assert lg.to_torch(ir).dim is None


def test_arguments_by_their_old_names_are_said_by_the_new_ones():
    with pytest.warns(FutureWarning):
        layer = nn.Hardtanh(min_value=-2.0, max_value=2.0)
    assert lg.to_ir(layer)["root"].data == {"min_val": -2.0, "max_val": 2.0}
