"""Poolings: to an IR and back."""

from functools import partial

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import LayergraphError
from layergraph.testing import Case, LayerTests, layers_of

SIZES = ((2, 3, 8), (2, 3, 8, 7), (2, 3, 8, 7, 6))
VARIANTS = {
    "AvgPool": {
        "": {"kernel_size": 2},
        "strided": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        "without padding counted": {
            "kernel_size": 3,
            "padding": 1,
            "count_include_pad": False,
        },
    },
    "MaxPool": {
        "": {"kernel_size": 2},
        "strided": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        "dilated": {"kernel_size": 2, "stride": 1, "dilation": 2},
        "with indices": {"kernel_size": 2, "return_indices": True},
    },
    "LPPool": {
        "": {"norm_type": 2, "kernel_size": 2},
        "strided": {"norm_type": 1.5, "kernel_size": 3, "stride": 2, "ceil_mode": True},
    },
    "AdaptiveAvgPool": {"": {"output_size": 3}, "of one": {"output_size": 1}},
    "AdaptiveMaxPool": {
        "": {"output_size": 3},
        "with indices": {"output_size": 2, "return_indices": True},
    },
}


def unpool(dimensions, size, **arguments):
    pool = getattr(nn, f"MaxPool{dimensions}d")(**arguments, return_indices=True)
    values, indices = pool(torch.arange(float(size**dimensions)).reshape(1, *[size] * dimensions))
    unpool = getattr(nn, f"MaxUnpool{dimensions}d")
    return Case(partial(unpool, **arguments), [tuple(values.shape), indices])


CASES = {
    **{
        f"{family}{len(size) - 2}d {name}".strip(): Case(
            partial(getattr(nn, f"{family}{len(size) - 2}d"), **arguments), [size]
        )
        for family, variants in VARIANTS.items()
        for size in SIZES
        for name, arguments in variants.items()
    },
    **{
        f"MaxUnpool{dimensions}d {name}".strip(): unpool(dimensions, size, **arguments)
        for dimensions in (1, 2, 3)
        for name, size, arguments in (
            ("", 8, {"kernel_size": 2}),
            ("strided", 7, {"kernel_size": 3, "stride": 3, "padding": 1}),
            ("overlapping", 7, {"kernel_size": 3, "stride": 2}),
        )
    },
    "AvgPool2d tuples": Case(
        lambda: nn.AvgPool2d((2, 3), stride=(1, 2), padding=(1, 0), divisor_override=5), [SIZES[1]]
    ),
    "AvgPool3d divisor": Case(lambda: nn.AvgPool3d(2, divisor_override=3), [SIZES[2]]),
    "MaxPool2d tuples": Case(
        lambda: nn.MaxPool2d((2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1)), [SIZES[1]]
    ),
    "LPPool2d tuples": Case(lambda: nn.LPPool2d(2, (2, 3), stride=(1, 2)), [SIZES[1]]),
    "AdaptiveAvgPool2d one side": Case(lambda: nn.AdaptiveAvgPool2d((None, 2)), [SIZES[1]]),
    "AdaptiveMaxPool3d one side": Case(lambda: nn.AdaptiveMaxPool3d((2, None, 1)), [SIZES[2]]),
    "FractionalMaxPool2d size": Case(
        lambda: nn.FractionalMaxPool2d(2, output_size=(4, 3), return_indices=True), [SIZES[1]]
    ),
    "FractionalMaxPool2d ratio": Case(
        lambda: nn.FractionalMaxPool2d((2, 3), output_ratio=(0.5, 0.4)), [SIZES[1]]
    ),
    "FractionalMaxPool3d size": Case(lambda: nn.FractionalMaxPool3d(2, output_size=3), [SIZES[2]]),
    "FractionalMaxPool3d ratio": Case(
        lambda: nn.FractionalMaxPool3d(2, output_ratio=0.5), [SIZES[2]]
    ),
}


class TestPooling(LayerTests):
    distribution = "layergraph-pooling"
    classes = layers_of(torch.nn.modules.pooling)
    cases = CASES


def test_a_fractional_pooling_needs_a_size_or_a_ratio():
    ir = lg.to_ir(nn.FractionalMaxPool2d(2, output_size=3))
    del ir["root"].data["output_size"]
    with pytest.raises(LayergraphError, match="output size"):
        lg.to_torch(ir)


def test_given_samples_are_not_left_out():
    layer = nn.FractionalMaxPool2d(2, output_size=3, _random_samples=torch.full((2, 3, 2), 0.5))
    assert lg.to_ir(layer)["root"].type != "fractionalmaxpool2d"
