"""Example inputs for the models of torchvision."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import get_model, vit_b_32

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal
from zoo import all_entries

ENTRIES = {
    each.name.removeprefix("torchvision/"): each
    for each in all_entries()
    if each.name.startswith("torchvision/")
}
# All families of the zoo, and all branches of the code for inputs.
GIVEN = {
    "resnet18": [(2, 3, 64, 64)],
    "vit_b_32": [(2, 3, 64, 64)],
    "quantized_mobilenet_v2": [(2, 3, 64, 64)],
    "lraspp_mobilenet_v3_large": [(2, 3, 64, 64)],
    "r3d_18": [(2, 3, 8, 64, 64)],
    "raft_small": [(2, 3, 128, 128), (2, 3, 128, 128)],
    "ssdlite320_mobilenet_v3_large": [(3, 64, 64), (3, 64, 80)],
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value
    return [tensor for each in values for tensor in tensors(each)]


@pytest.mark.parametrize("name", GIVEN)
def test_a_model_is_captured_on_them(name):
    model = ENTRIES[name].model()
    args, kwargs = lg.example_inputs(model)
    assert kwargs == {}
    assert [tuple(each.shape) for each in tensors(args)] == GIVEN[name]
    assert all(each.min() >= 0 and each.max() <= 1 for each in tensors(args))
    ir = lg.to_ir(model, args, values="assume")
    rebuilt = lg.to_torch(ir, model.state_dict())
    with torch.no_grad():
        found, expected = tensors(rebuilt(*args)), tensors(model(*args))
    assert expected
    assert len(found) == len(expected)
    assert all(map(bitwise_equal, found, expected))


def test_every_family_of_the_zoo_is_among_them():
    families = {each.family for each in ENTRIES.values()}
    assert {ENTRIES[name].family for name in GIVEN} == families


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("inception_v3", (2, 3, 299, 299)),
        ("maxvit_t", (2, 3, 224, 224)),
        ("mvit_v2_s", (1, 3, 16, 224, 224)),
        ("s3d", (2, 3, 16, 224, 224)),
    ],
)
def test_some_want_more(name, shape):
    arguments = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        model = get_model(name, weights=None, **arguments)
    (given,), _ = lg.example_inputs(model)
    assert given.is_meta
    assert tuple(given.shape) == shape


def test_they_are_of_the_size_and_the_dtype_of_the_model():
    with torch.device("meta"):
        model = vit_b_32(image_size=96).double()
    (given,), _ = lg.example_inputs(model)
    assert (tuple(given.shape), given.dtype) == ((2, 3, 96, 96), torch.float64)


def test_of_parts_and_heirs_and_of_detection_in_training_none_are_known():
    model = ENTRIES["resnet18"].model()
    part = model.layer1[0]
    model.__class__ = type("Own", (type(model),), {"__module__": "own"})
    detector = ENTRIES["ssdlite320_mobilenet_v3_large"].model().train()
    for each in (model, part, detector, nn.Linear(1, 1)):
        with pytest.raises(CaptureError, match="no plugin knows example inputs"):
            lg.example_inputs(each)
