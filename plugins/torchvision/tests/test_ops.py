"""Everything in torchvision.ops: leaves, function nodes and composites."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import ops

import layergraph as lg
from layergraph.testing import Case, LayerTests, bitwise_equal

torch.manual_seed(0)
BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 1, 9, 12], [20, 20, 30, 35], [0, 0, 0.5, 0.5]])
OTHERS = BOXES + 1
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6])
CLASSES = torch.tensor([0, 0, 1, 1])
PICTURES = torch.randn(2, 8, 16, 16)
SMALLER = PICTURES[:, :, ::2, ::2]
REGIONS = torch.tensor([[0.0, 0, 0, 10, 10], [1, 2, 2, 9, 12]])
OFFSETS = torch.randn(2, 18, 14, 14)
VOLUMES = torch.randn(1, 8, 6, 6, 6)
MASKS = torch.zeros(2, 8, 8)
MASKS[0, 1:4, 2:5] = 1
MASKS[1, 3:7, 0:2] = 1


# --- leaves ---

NAMED = {
    "x": {"large": PICTURES, "small": SMALLER},
    "boxes": [BOXES[:2], BOXES[2:]],
    "image_shapes": [(64, 64), (64, 64)],
}
LEAVES = {
    "DeformConv2d": Case(lambda: ops.DeformConv2d(8, 4, 3), [(2, 8, 16, 16), (2, 18, 14, 14)]),
    "DeformConv2d with all": Case(
        lambda: ops.DeformConv2d(8, 4, 3, stride=2, padding=1, dilation=2, groups=2, bias=False),
        [(2, 8, 16, 16), (2, 18, 7, 7)],
    ),
    "RoIAlign": Case(lambda: ops.RoIAlign((3, 3), 1.0, 2), [PICTURES, REGIONS]),
    "RoIAlign aligned": Case(lambda: ops.RoIAlign(3, 0.5, -1, aligned=True), [PICTURES, REGIONS]),
    "RoIPool": Case(lambda: ops.RoIPool((3, 3), 1.0), [PICTURES, REGIONS]),
    "PSRoIAlign": Case(lambda: ops.PSRoIAlign(2, 1.0, 2), [PICTURES, REGIONS]),
    "PSRoIPool": Case(lambda: ops.PSRoIPool(2, 1.0), [PICTURES, REGIONS]),
    "FrozenBatchNorm2d": Case(lambda: ops.FrozenBatchNorm2d(8, eps=0.1), [(2, 8, 4, 4)]),
    "DropBlock2d": Case(lambda: ops.DropBlock2d(0.3, 3), [(2, 8, 16, 16)]),
    "DropBlock2d in place": Case(
        lambda: ops.DropBlock2d(0.3, 3, inplace=True, eps=0.1), [(2, 8, 16, 16)]
    ),
    "DropBlock3d": Case(lambda: ops.DropBlock3d(0.3, 3), [(1, 8, 6, 6, 6)]),
    "MultiScaleRoIAlign": Case(
        lambda: ops.MultiScaleRoIAlign(["large", "small"], 3, 2, canonical_level=3),
        [],
        kwargs=NAMED,
    ),
}
KEPT = {type(case.make()) for case in LEAVES.values()}


class TestLayers(LayerTests):
    distribution = "layergraph-torchvision"
    cases = LEAVES


def test_without_torchvision_they_are_no_layers():
    impostor = type("RoIAlign", (nn.Identity,), {})()
    assert lg.to_ir(impostor)["root"].type == "module"


# --- everything else ---


class Call(nn.Module):
    """Calls a function of torchvision.ops, by the name that users know."""

    def __init__(self, name, **arguments):
        super().__init__()
        self.name, self.arguments = name, arguments

    def forward(self, *given):
        return getattr(ops, self.name)(*given, **self.arguments)


class Named(nn.Module):
    """Calls a layer with a dict of pictures of two sizes, and regions in each picture."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, large, small, *boxes):
        pictures = {"large": large, "small": small}
        if not boxes:
            return self.inner(pictures)
        return self.inner(pictures, list(boxes), [(64, 64), (64, 64)])


# Functions with their constant arguments and their inputs.
NODES = {
    "deform_conv2d": ({}, [PICTURES, OFFSETS, torch.randn(4, 8, 3, 3)]),
    "nms": ({"iou_threshold": 0.5}, [BOXES, SCORES]),
    "ps_roi_align": ({"output_size": 2}, [PICTURES, REGIONS]),
    "ps_roi_pool": ({"output_size": 2}, [PICTURES, REGIONS]),
    "roi_align": ({"output_size": (3, 3)}, [PICTURES, REGIONS]),
    "roi_pool": ({"output_size": (3, 3)}, [PICTURES, REGIONS]),
}
COMPOSED = {
    "batched_nms": ({"iou_threshold": 0.5}, [BOXES, SCORES, CLASSES]),
    "box_area": ({}, [BOXES]),
    "box_convert": ({"in_fmt": "xyxy", "out_fmt": "cxcywh"}, [BOXES]),
    "box_iou": ({}, [BOXES, OTHERS]),
    "clip_boxes_to_image": ({"size": (12, 12)}, [BOXES]),
    "complete_box_iou": ({}, [BOXES, OTHERS]),
    "complete_box_iou_loss": ({}, [BOXES, OTHERS]),
    "distance_box_iou": ({}, [BOXES, OTHERS]),
    "distance_box_iou_loss": ({"reduction": "mean"}, [BOXES, OTHERS]),
    "drop_block2d": ({"p": 0.3, "block_size": 3}, [PICTURES]),
    "drop_block3d": ({"p": 0.3, "block_size": 3}, [VOLUMES]),
    "generalized_box_iou": ({}, [BOXES, OTHERS]),
    "generalized_box_iou_loss": ({"reduction": "sum"}, [BOXES, OTHERS]),
    "masks_to_boxes": ({}, [MASKS]),
    "remove_small_boxes": ({"min_size": 1.0}, [BOXES]),
    "sigmoid_focal_loss": ({"reduction": "mean"}, [torch.randn(4, 3), torch.rand(4, 3)]),
    "stochastic_depth": ({"p": 0.5, "mode": "row"}, [PICTURES]),
}
# Layers whose rebuilt form needs no torchvision, with their inputs.
COMPOSITES = {
    "Conv2dNormActivation": (lambda: ops.Conv2dNormActivation(8, 4), [PICTURES]),
    "Conv3dNormActivation": (lambda: ops.Conv3dNormActivation(8, 4), [VOLUMES]),
    "FeaturePyramidNetwork": (
        lambda: Named(ops.FeaturePyramidNetwork([8, 8], 4)),
        [PICTURES, SMALLER],
    ),
    "MLP": (lambda: ops.MLP(16, [8, 4], dropout=0.5), [torch.randn(2, 16)]),
    "Permute": (lambda: ops.Permute([0, 2, 3, 1]), [PICTURES]),
    "SqueezeExcitation": (lambda: ops.SqueezeExcitation(8, 2), [PICTURES]),
    "StochasticDepth": (lambda: ops.StochasticDepth(0.5, "row"), [PICTURES]),
}


def compare(model, given):
    """Compare a model with the rebuilt one; return the functions of torchvision in its graph."""
    ir = lg.to_ir(model, given, values="assume")
    rebuilt = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    assert not {type(each) for each in rebuilt.modules() if "torchvision" in type(each).__module__}
    for training in (True, False):
        found = []
        for each in (model.train(training), rebuilt.train(training)):
            torch.manual_seed(1)
            output = each(*given)
            found.append(list(output.values()) if isinstance(output, dict) else [output])
        assert all(map(bitwise_equal, *found))
    called = {node.implementation for each in ir.values() for node in each.nodes.values()}
    return {name for name in called if name.startswith("torchvision.")}


@pytest.mark.parametrize("name", NODES)
def test_kernels_are_nodes(name):
    arguments, given = NODES[name]
    (called,) = compare(Call(name, **arguments), given)
    assert called.endswith(f".{name}")


@pytest.mark.parametrize("name", COMPOSED)
def test_other_functions_are_traced_through(name):
    arguments, given = COMPOSED[name]
    called = compare(Call(name, **arguments), given)
    assert called == ({"torchvision.ops.boxes.nms"} if name == "batched_nms" else set())


@pytest.mark.parametrize("name", COMPOSITES)
def test_other_layers_are_traced_through(name):
    make, given = COMPOSITES[name]
    assert compare(make(), given) == set()


def test_a_pooler_is_captured_in_its_first_run_and_for_other_sizes():
    model = Named(ops.MultiScaleRoIAlign(["large", "small"], 3, 2))
    given = [PICTURES, SMALLER, BOXES[:2], BOXES[2:]]
    ir = lg.to_ir(model, given)
    assert model.inner.scales is None
    rebuilt = lg.to_torch(ir)
    larger = [torch.randn(2, 8, 32, 32), torch.randn(2, 8, 16, 16), BOXES[1:], BOXES[:1]]
    assert bitwise_equal(rebuilt(*larger), model(*larger))


def test_nothing_of_it_is_forgotten():
    kept = {cls.__name__ for cls in KEPT}
    listed = [*kept, *NODES, *COMPOSED, *COMPOSITES]
    assert sorted(listed) == sorted(ops.__all__)
