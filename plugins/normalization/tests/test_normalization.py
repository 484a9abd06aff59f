"""Normalizations: to an IR and back."""

import contextlib
from functools import partial

import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import Case, LayerTests, layers_of
from layergraph.torch_versions import missing

BATCH = {
    nn.BatchNorm1d: (5, 4, 3),
    nn.BatchNorm2d: (5, 4, 3, 2),
    nn.BatchNorm3d: (5, 4, 3, 2, 2),
    nn.SyncBatchNorm: (5, 4, 3),
}
INSTANCE = {
    nn.InstanceNorm1d: (5, 4, 3),
    nn.InstanceNorm2d: (5, 4, 3, 2),
    nn.InstanceNorm3d: (5, 4, 3, 2, 2),
}
BOTH = {
    "": {},
    "unusual numbers": {"eps": 0.1, "momentum": 0.5},
    "affine": {"affine": True},
    "affine without bias": {"affine": True, "bias": False},
    "not affine": {"affine": False},
    "not affine without bias": {"affine": False, "bias": False},
    "with running stats": {"track_running_stats": True},
    "without running stats": {"track_running_stats": False},
    "affine with running stats": {"affine": True, "track_running_stats": True},
}
# An instance norm with running statistics needs a momentum.
ONLY_BATCH = {"cumulative average": {"momentum": None}}


# Releases of torch without the argument lack these layers.
NO_BIAS = missing("norm_bias")


def variants_of(sizes, variants):
    return {
        f"{cls.__name__} {name}".strip(): Case(
            partial(cls, 4, **arguments), [size], skip=NO_BIAS if "bias" in arguments else None
        )
        for cls, size in sizes.items()
        for name, arguments in variants.items()
    }


CASES = {
    **variants_of(BATCH, BOTH | ONLY_BATCH),
    **variants_of(INSTANCE, BOTH),
    "BatchNorm1d without positions": Case(lambda: nn.BatchNorm1d(4), [(5, 4)]),
    "InstanceNorm2d without batch": Case(lambda: nn.InstanceNorm2d(4), [(4, 3, 2)]),
    "CrossMapLRN2d": Case(lambda: nn.CrossMapLRN2d(2), [(2, 4, 3, 2)]),
    "CrossMapLRN2d numbers": Case(lambda: nn.CrossMapLRN2d(3, 0.1, 0.5, 2), [(2, 4, 3, 2)]),
    "GroupNorm": Case(lambda: nn.GroupNorm(2, 4), [(2, 4, 3)]),
    "GroupNorm numbers": Case(lambda: nn.GroupNorm(1, 4, eps=0.1), [(2, 4, 3)]),
    "GroupNorm not affine": Case(lambda: nn.GroupNorm(4, 4, affine=False), [(2, 4, 3)]),
    "GroupNorm without bias": Case(
        lambda: nn.GroupNorm(2, 4, bias=False), [(2, 4, 3)], skip=NO_BIAS
    ),
    "LayerNorm": Case(lambda: nn.LayerNorm(3), [(2, 4, 3)]),
    "LayerNorm over two": Case(lambda: nn.LayerNorm([4, 3], eps=0.1), [(2, 4, 3)]),
    "LayerNorm over a size": Case(lambda: nn.LayerNorm(torch.Size([4, 3])), [(2, 4, 3)]),
    "LayerNorm without bias": Case(lambda: nn.LayerNorm(3, bias=False), [(2, 3)]),
    "LayerNorm not affine": Case(lambda: nn.LayerNorm(3, elementwise_affine=False), [(2, 3)]),
    "LocalResponseNorm": Case(lambda: nn.LocalResponseNorm(2), [(2, 4, 3)]),
    "LocalResponseNorm numbers": Case(lambda: nn.LocalResponseNorm(3, 0.1, 0.5, 2), [(2, 4, 3)]),
    "RMSNorm": Case(lambda: nn.RMSNorm(3), [(2, 4, 3)]),
    "RMSNorm over two": Case(lambda: nn.RMSNorm((4, 3), eps=0.1), [(2, 4, 3)]),
    "RMSNorm not affine": Case(lambda: nn.RMSNorm(3, elementwise_affine=False), [(2, 3)]),
}


class TestNormalization(LayerTests):
    distribution = "layergraph-normalization"
    classes = (
        layers_of(torch.nn.modules.normalization)
        | layers_of(torch.nn.modules.batchnorm)
        | layers_of(torch.nn.modules.instancenorm)
    )
    cases = CASES


def test_a_bias_goes_without_saying():
    assert lg.to_ir(nn.BatchNorm2d(4))["root"].data == {
        "num_features": 4,
        "eps": 1e-5,
        "momentum": 0.1,
        "affine": True,
        "track_running_stats": True,
    }


def test_a_layer_of_a_process_group_is_not_described():
    layer = nn.SyncBatchNorm(4, process_group=object())
    with contextlib.suppress(CaptureError):
        assert lg.to_ir(layer)["root"].type != "syncbatchnorm"
