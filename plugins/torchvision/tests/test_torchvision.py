"""The functions of torchvision that are nodes."""

import importlib

import pytest
import torch
from torchvision.models import swin_t
from torchvision.models.swin_transformer import shifted_window_attention

import layergraph as lg
from layergraph.testing import bitwise_equal
from layergraph_torchvision import functions

NAME = "torchvision.models.swin_transformer.shifted_window_attention"


def test_shifted_window_attention_is_named():
    assert NAME in functions()
    assert f"{shifted_window_attention.__module__}.{shifted_window_attention.__name__}" == NAME


@pytest.mark.parametrize("name", functions())
def test_what_is_named_is_there(name):
    home, _, last = name.rpartition(".")
    assert callable(getattr(importlib.import_module(home), last))


def test_a_swin_transformer_has_it_as_a_node():
    torch.manual_seed(0)
    model = swin_t().eval()
    ir = lg.to_ir(model)
    attentions = [
        node
        for implementation in ir.values()
        for node in implementation.nodes.values()
        if node.type == "function" and node.implementation == NAME
    ]
    assert len(attentions) == 12  # one for each block of swin_t: 2, 2, 6, 2

    rebuilt = lg.to_torch(ir, model.state_dict())
    inputs = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert bitwise_equal(model(inputs), rebuilt(inputs))
