"""torchvision's models are rebuilt bit for bit, in both modes."""

from __future__ import annotations

import pytest
import torch
import torchvision

import layergraph as lg
from layergraph.testing import bitwise_equal
from layergraph_capture.replaying.tracer import ReplayTracer
from layergraph_capture.tracer import EagerTracer

pytestmark = pytest.mark.slow

# Name to the smallest picture that the model takes.
MODELS = {
    "alexnet": 64,
    "vgg11_bn": 32,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "densenet121": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "mnasnet0_5": 64,
    "googlenet": 64,
    "inception_v3": 299,
    "convnext_tiny": 64,
    "regnet_y_400mf": 64,
    "swin_t": 64,
    # More models, to show that the plugin has no special cases for the list above.
    "mobilenet_v2": 64,
    "resnet34": 64,
    "wide_resnet50_2": 64,
    "vgg13": 32,
    "shufflenet_v2_x1_5": 64,
    "vit_b_32": 224,
    "segmentation.fcn_resnet50": 64,
}


def _make(name, **arguments):
    family, _, last = name.rpartition(".")
    if last in ("googlenet", "inception_v3"):
        arguments["init_weights"] = (
            False  # initialisation takes minutes, and the values do not matter
        )
    if family:
        arguments["weights_backbone"] = None
    module = getattr(torchvision.models, family) if family else torchvision.models
    return getattr(module, last)(**arguments)


@pytest.mark.parametrize("name", MODELS)
def test_comes_back_bit_exact(name, assert_same):
    torch.manual_seed(0)
    model = _make(name).eval()
    ir = lg.to_ir(model)
    rebuilt = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    assert not rebuilt.training
    strangers = {type(each) for each in rebuilt.modules() if "torchvision" in type(each).__module__}
    assert not strangers
    size = MODELS[name]
    assert_same(model, rebuilt, torch.randn(2, 3, size, size))
    with torch.no_grad():
        x = torch.randn(1, 3, size, size)
        was, now = model.eval()(x), rebuilt.eval()(x)
        flat = lg.to_torch(ir.flatten(), model.state_dict())(x)
        if isinstance(was, dict):
            was, now, flat = was["out"], now["out"], flat["out"]
        assert bitwise_equal(was, now)
        assert bitwise_equal(was, flat)


@pytest.mark.parametrize("name", ["efficientnet_b0", "googlenet", "resnet18"])
def test_captured_while_training_it_is_the_same(name):
    model = _make(name).eval()
    evaluating, training = lg.to_ir(model), lg.to_ir(model.train())
    for each in evaluating:
        assert evaluating[each].nodes == training[each].nodes
        assert evaluating[each].evaluation == training[each].evaluation


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny", "swin_t"])
@pytest.mark.parametrize("training", [True, False])
def test_stochastic_depth_needs_no_second_run(name, training, monkeypatch):
    """Swin_t needs no second run either: torchvision's plugin lists its attention function."""
    runs, call = [], EagerTracer.call

    def counted(self, *args):
        runs.append(1)
        call(self, *args)

    monkeypatch.setattr(EagerTracer, "call", counted)
    model, x = _make(name).train(training), torch.randn(2, 3, 64, 64)
    ir = lg.to_ir(model, (x,))
    assert len(runs) == 1
    monkeypatch.setattr(ReplayTracer, "_in_other_mode", lambda *_: None)
    assert lg.to_ir(model, (x,)) == ir
    assert len(runs) == 3
