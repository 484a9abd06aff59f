"""``layergraph select``."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import layergraph as lg
from plugins.cli.tests.harness import spawn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4))

    def forward(self, x):
        return torch.flatten(self.body(x), 1)


@pytest.fixture
def file(tmp_path):
    model = Net()
    lg.save(lg.to_ir(model), tmp_path / "m.safetensors", model.state_dict())
    return tmp_path / "m.safetensors"


def test_nodes_are_listed(file):
    done = spawn("select", "body* conv2d[groups>1]", file)
    assert (done.code, done.err) == (0, "")
    node, count = done.out.splitlines()
    assert node.startswith("body:_1: conv2d body.1(in_channels=4, ")
    assert count == "1 node"
    assert spawn("select", "torch.flatten", file).out == ("root:flatten: torch.flatten()\n1 node\n")
    assert spawn("select", "linear", file).out == "0 nodes\n"


def test_json(file):
    form = json.loads(spawn("select", "--json", "[groups>1]", file).out)
    (node,) = form["nodes"]
    assert node["data"].pop("groups") == 4
    assert {name: node[name] for name in node if name != "data"} == {
        "graph": "body",
        "node": "_1",
        "type": "conv2d",
        "layer": "body.1",
        "function": None,
    }


def test_a_text_of_another_form_is_refused(file):
    spawn("select", "conv2d[", file).refused("bracket", "conv2d[groups>1]")
    spawn("select", "", file.parent / "none.json").refused("none.json")
