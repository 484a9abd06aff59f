"""Convolutions: to an IR and back."""

from functools import partial

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import Case, LayerTests, layers_of

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BOTH = {
    "": {},
    "without bias": {"bias": False},
    "strided and padded": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2},
    "grouped": {"groups": 2},
}
ONLY_CONVOLUTIONS = {
    "same padding": {"padding": "same"},
    "valid padding": {"padding": "valid"},
    **{
        f"padded by {mode}": {"padding": 1, "padding_mode": mode}
        for mode in ("zeros", "reflect", "replicate", "circular")
    },
    "same padding by circular": {"padding": "same", "padding_mode": "circular"},
}
ONLY_TRANSPOSED = {"output padding": {"stride": 3, "output_padding": 1}}


def variants_of(classes, variants):
    return {
        f"{cls.__name__} {name}".strip(): Case(
            partial(cls, **{"in_channels": 2, "out_channels": 4, "kernel_size": 3} | arguments),
            [(2, 2, *(7, 6, 5)[:dimensions])],
        )
        for dimensions, cls in enumerate(classes, start=1)
        for name, arguments in variants.items()
    }


CASES = {
    **variants_of(CONVOLUTIONS, BOTH | ONLY_CONVOLUTIONS),
    **variants_of(TRANSPOSED, BOTH | ONLY_TRANSPOSED),
    "Conv2d tuples": Case(
        lambda: nn.Conv2d(2, 4, (3, 1), stride=(1, 2), padding=(0, 1), dilation=(2, 1)),
        [(1, 2, 7, 6)],
    ),
    "Conv2d without batch": Case(lambda: nn.Conv2d(2, 4, 3), [(2, 7, 6)]),
    "ConvTranspose2d tuples": Case(
        lambda: nn.ConvTranspose2d(2, 4, (3, 1), stride=(1, 2), output_padding=(0, 1)),
        [(1, 2, 7, 6)],
    ),
    "Unfold": Case(lambda: nn.Unfold(2), [(1, 2, 6, 6)]),
    "Unfold tuples": Case(
        lambda: nn.Unfold((2, 3), dilation=(2, 1), padding=(1, 0), stride=(1, 2)),
        [(1, 2, 6, 7)],
    ),
    "Fold": Case(lambda: nn.Fold((4, 4), 2), [(1, 8, 9)]),
    "Fold strided": Case(lambda: nn.Fold(4, 2, padding=1, stride=2), [(1, 8, 9)]),
}


class TestConv(LayerTests):
    distribution = "layergraph-conv"
    classes = layers_of(torch.nn.modules.conv) | layers_of(torch.nn.modules.fold)
    cases = CASES


@pytest.mark.parametrize("cls", CONVOLUTIONS)
def test_zeros_padding_goes_without_saying(cls):
    assert set(lg.to_ir(cls(2, 4, 3))["root"].data) == {
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "bias",
    }
