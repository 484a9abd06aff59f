"""Modules and tensors that no graph can hold: refused by name, unless a handler keeps them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.torch2ir import get_default_converter


def distributed(module):
    # Its constructor needs other processes.
    around = nn.Sequential(module)
    around.__class__ = nn.parallel.DistributedDataParallel
    return around


@pytest.mark.parametrize("place", [nn.DataParallel, distributed], ids=["one process", "many"])
@pytest.mark.parametrize("around", [lambda m: m, nn.Sequential], ids=["alone", "inside"])
def test_what_places_a_model_on_devices(place, around):
    model = around(place(nn.Linear(2, 2)))
    # With this plugin, the model converts: see the tests of the plugin.
    converter = get_default_converter(disable=["layergraph-wrappers"])
    with pytest.raises(CaptureError, match=r"places a model on devices; convert its \.module"):
        converter.convert(model)


def test_a_handler_may_keep_what_would_be_refused():
    converter = get_default_converter()
    converter.register(nn.DataParallel, lambda module: {"kept": True})
    ir = converter.convert(nn.Sequential(nn.DataParallel(nn.Linear(2, 2))))
    assert ir["0"].data == {"kept": True}


HOLDERS = {
    "list": lambda: nn.ModuleList([nn.Linear(2, 2)]),
    "dict": lambda: nn.ModuleDict({"a": nn.Linear(2, 2)}),
    "parameters": lambda: nn.ParameterList([torch.ones(2)]),
    "module": nn.Module,
}


@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS.keys())
@pytest.mark.parametrize("args", [None, (torch.ones(2),)])
def test_what_cannot_be_called_is_no_model(make, args):
    with pytest.raises(CaptureError, match="cannot be called: it has no forward"):
        lg.to_ir(make(), args)


def test_a_forward_of_its_own_is_one():
    model = nn.Module()
    model.forward = lambda x: x + 1
    assert lg.to_torch(lg.to_ir(model))(torch.ones(2)).tolist() == [2, 2]


class Scaling(nn.Module):
    def __init__(self, buffer):
        super().__init__()
        self.register_buffer("scale", buffer)

    def forward(self, x):
        return x * self.scale


BUFFERS = {
    "parameter": (nn.Parameter(torch.ones(2)), "the parameter 'scale' registered as a buffer"),
    "frozen parameter": (
        nn.Parameter(torch.ones(2), requires_grad=False),
        "the parameter 'scale' registered as a buffer",
    ),
    "wants gradients": (torch.ones(2, requires_grad=True), "scale wants gradients, but is a buf"),
    "has gradients": (torch.ones(2, requires_grad=True) * 2, "scale wants gradients, but is a buf"),
}


@pytest.mark.parametrize(("buffer", "message"), BUFFERS.values(), ids=BUFFERS.keys())
@pytest.mark.parametrize("around", [lambda m: m, nn.Sequential], ids=["alone", "inside"])
def test_buffers_that_would_come_back_as_something_else(buffer, message, around):
    with pytest.raises(CaptureError, match=message):
        lg.to_ir(around(Scaling(buffer)))


def test_buffers_of_layers_that_would_come_back_as_something_else():
    layer = nn.BatchNorm1d(2)
    layer.running_mean.requires_grad_()
    with pytest.raises(CaptureError, match="running_mean wants gradients, but is a buffer"):
        lg.to_ir(layer)
    layer = nn.BatchNorm1d(2)
    layer._buffers["running_mean"] = nn.Parameter(torch.ones(2))
    with pytest.raises(CaptureError, match="parameter 'running_mean' registered as a buffer"):
        lg.to_ir(layer)
