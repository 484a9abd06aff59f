"""Padding layers: to an IR and back."""

import math
from functools import partial

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import Case, LayerTests, bitwise_equal, layers_of

SIZES = {1: (2, 3, 8), 2: (2, 3, 8, 7), 3: (2, 3, 8, 7, 6)}
MANNERS = {
    "CircularPad": {},
    "ConstantPad": {"value": -0.5},
    "ReflectionPad": {},
    "ReplicationPad": {},
    "ZeroPad": {},
}
CASES = {
    **{
        f"{manner}{dimensions}d {name}": Case(
            partial(getattr(nn, f"{manner}{dimensions}d"), padding, **arguments), [size]
        )
        for manner, arguments in MANNERS.items()
        for dimensions, size in SIZES.items()
        for name, padding in (("alike", 2), ("each", tuple(range(2 * dimensions))))
    },
    "ConstantPad1d none": Case(lambda: nn.ConstantPad1d(0, 1), [SIZES[1]]),
    "ConstantPad2d removing": Case(lambda: nn.ConstantPad2d((-1, 2, 0, -3), 1.0), [SIZES[2]]),
    "ConstantPad2d infinite": Case(lambda: nn.ConstantPad2d(1, -math.inf), [SIZES[2]]),
    "ZeroPad2d of a list": Case(lambda: nn.ZeroPad2d([1, 0, 2, 1]), [SIZES[2]]),
}


class TestPadding(LayerTests):
    distribution = "layergraph-padding"
    classes = layers_of(torch.nn.modules.padding)
    cases = CASES


def test_one_number_is_said_for_each_side():
    assert lg.to_ir(nn.ZeroPad2d(1))["root"].data == {"padding": (1, 1, 1, 1)}


@pytest.mark.parametrize("value", [0, 0.0])
def test_a_value_keeps_its_kind(value):
    rebuilt = lg.to_torch(lg.to_ir(nn.ConstantPad1d(1, value)))
    assert type(rebuilt.value) is type(value)


def test_a_changed_value_is_no_zero_padding():
    layer = nn.ZeroPad1d(1)
    layer.value = 2.0
    ir = lg.to_ir(layer)
    assert ir["root"].type != "zeropad1d"
    x = torch.randn(2, 3)
    assert bitwise_equal(lg.to_torch(ir)(x), layer(x))
