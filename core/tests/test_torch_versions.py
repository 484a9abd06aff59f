"""The table of features of torch's releases: it holds for the installed torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, CaptureError
from layergraph.ir2torch import Ir2Torch
from layergraph.torch_versions import FEATURES, NEWER_LAYERS, RELEASE, default_device, has, missing


@pytest.mark.parametrize("name", FEATURES)
def test_the_table_is_true_of_this_release(name):
    up_to = tuple(map(int, FEATURES[name].up_to.split(".")))
    assert has(name) == (up_to < RELEASE)
    assert (missing(name) is None) == has(name)


def test_what_is_missing_is_told_with_the_release(monkeypatch):
    monkeypatch.setitem(FEATURES, "norm_bias", FEATURES["norm_bias"]._replace(is_here=False))
    assert f"in torch {torch.__version__}, batch" in missing("norm_bias")


@pytest.mark.parametrize("kind", NEWER_LAYERS)
def test_a_layer_of_a_newer_torch_is_refused_by_name(kind, monkeypatch):
    feature = NEWER_LAYERS[kind]
    monkeypatch.setitem(FEATURES, feature, FEATURES[feature]._replace(is_here=False))
    ir = lg.Ir([lg.Implementation(kind, name="root")])
    with pytest.raises(BuildError, match=rf"in torch {RELEASE[0]}\.{RELEASE[1]}.*a newer one"):
        Ir2Torch(plugins=()).convert(ir)


def test_an_argument_of_a_newer_torch_is_refused_by_name():
    ir = lg.to_ir(nn.BatchNorm1d(2))
    ir["root"].data["of_a_newer_one"] = True
    with pytest.raises(BuildError, match=r"no attribute 'of_a_newer_one'.* in torch \d"):
        lg.to_torch(ir)


@pytest.fixture
def _no_default_device():
    yield
    torch.set_default_device(None)
    # Without this, older releases of torch do not return the default device.
    vars(torch._GLOBAL_DEVICE_CONTEXT).clear()


@pytest.mark.usefixtures("_no_default_device")
def test_the_default_device_is_where_tensors_are_made():
    with torch.device("meta"):
        assert default_device().type == "meta"
    torch.set_default_device("meta")
    assert default_device().type == "meta"
    torch.set_default_device(None)
    assert default_device().type == "cpu"
    assert lg.to_torch(lg.to_ir(nn.Linear(2, 2))).weight.device.type == "cpu"


class SetsTheDevice(nn.Module):
    def forward(self, x):
        torch.set_default_device("meta")
        return x + 1


@pytest.mark.usefixtures("_no_default_device")
def test_torch_can_tell_the_default_device_after_it_was_put_back():
    with pytest.raises(CaptureError, match="default device"):
        lg.to_ir(SetsTheDevice(), (torch.rand(2),))
    assert torch.get_default_device().type == "cpu"
