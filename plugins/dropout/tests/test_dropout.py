"""Dropouts: to an IR and back."""

from functools import partial

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError
from layergraph.testing import Case, LayerTests, layers_of

SIZES = {
    nn.AlphaDropout: (20, 4),
    nn.Dropout: (20, 4),
    nn.Dropout1d: (5, 8, 3),
    nn.Dropout2d: (5, 8, 3, 2),
    nn.Dropout3d: (5, 8, 3, 2, 2),
    nn.FeatureAlphaDropout: (5, 8, 3),
}
VARIANTS = ({}, {"p": 0.25, "inplace": True}, {"p": 0}, {"p": 1.0})
CASES = {
    f"{cls.__name__} {', '.join(f'{k}={v}' for k, v in arguments.items())}".strip(): Case(
        partial(cls, **arguments), [size]
    )
    for cls, size in SIZES.items()
    for arguments in VARIANTS
}


class TestDropout(LayerTests):
    distribution = "layergraph-dropout"
    classes = layers_of(torch.nn.modules.dropout)
    cases = CASES


def test_no_probability_is_refused():
    ir = lg.to_ir(nn.Dropout())
    ir["root"].data["p"] = 1.5
    with pytest.raises(BuildError, match=r"1\.5"):
        lg.to_torch(ir)
