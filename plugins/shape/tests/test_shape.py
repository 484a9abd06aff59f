"""Layers that change shapes: to an IR and back."""

import torch
from torch import nn

import layergraph as lg
from layergraph.testing import Case, LayerTests, layers_of

IMAGE = (2, 4, 6, 8)
CASES = {
    "ChannelShuffle": Case(lambda: nn.ChannelShuffle(2), [IMAGE]),
    "Flatten": Case(nn.Flatten, [IMAGE]),
    "Flatten some": Case(lambda: nn.Flatten(0, -2), [IMAGE]),
    "PixelShuffle": Case(lambda: nn.PixelShuffle(2), [IMAGE]),
    "PixelUnshuffle": Case(lambda: nn.PixelUnshuffle(2), [IMAGE]),
    "Unflatten": Case(lambda: nn.Unflatten(1, (2, 2)), [IMAGE]),
    "Unflatten by a list": Case(lambda: nn.Unflatten(-1, [2, -1]), [IMAGE]),
    "Upsample to size": Case(lambda: nn.Upsample(size=(5, 9)), [IMAGE]),
    "Upsample by factor": Case(lambda: nn.Upsample(scale_factor=2), [IMAGE]),
    "Upsample by factors": Case(lambda: nn.Upsample(scale_factor=(1.5, 2)), [IMAGE]),
    "Upsample linear": Case(
        lambda: nn.Upsample(scale_factor=2, mode="linear", align_corners=True), [(2, 4, 6)]
    ),
    "Upsample bilinear": Case(
        lambda: nn.Upsample(scale_factor=1.3, mode="bilinear", recompute_scale_factor=True), [IMAGE]
    ),
    "Upsample bicubic": Case(
        lambda: nn.Upsample(size=7, mode="bicubic", align_corners=False), [IMAGE]
    ),
    "Upsample trilinear": Case(
        lambda: nn.Upsample(scale_factor=2, mode="trilinear"), [(1, 2, 3, 2, 2)]
    ),
    "Upsample nearest-exact": Case(lambda: nn.Upsample(size=7, mode="nearest-exact"), [IMAGE]),
    "UpsamplingBilinear2d": Case(lambda: nn.UpsamplingBilinear2d(scale_factor=2), [IMAGE]),
    "UpsamplingBilinear2d to size": Case(lambda: nn.UpsamplingBilinear2d(size=(9, 7)), [IMAGE]),
    "UpsamplingNearest2d": Case(lambda: nn.UpsamplingNearest2d(scale_factor=2), [IMAGE]),
    "UpsamplingNearest2d to size": Case(lambda: nn.UpsamplingNearest2d(size=9), [IMAGE]),
}


class TestShape(LayerTests):
    distribution = "layergraph-shape"
    classes = (
        layers_of(torch.nn.modules.channelshuffle)
        | layers_of(torch.nn.modules.flatten)
        | layers_of(torch.nn.modules.pixelshuffle)
        | layers_of(torch.nn.modules.upsampling)
    )
    cases = CASES


def test_a_size_comes_back_as_a_tuple():
    layer = lg.to_torch(lg.to_ir(nn.Unflatten(1, torch.Size([2, 2]))))
    assert type(layer.unflattened_size) is tuple
    assert layer.unflattened_size == (2, 2)
