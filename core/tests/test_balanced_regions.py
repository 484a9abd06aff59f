"""Regions that begin in a graph end in it, one inside the other."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError, InvalidIrError
from layergraph.ir import Implementation, Ir, Node, Ref, Symbol, check
from layergraph.ir.from_nodes import graph_from_nodes
from layergraph.testing import bitwise_equal

X = torch.randn(2, 4)


def _ir(*steps):
    """Return a graph of regions. A step is the name of a node, its function and its arguments."""
    functions = {"grad": "set_grad_enabled", "enter": "enter_autocast", "exit": "exit_autocast"}
    nodes = [Node("x", "input", "x")]
    for name, function, given in steps:
        args = (Ref(given),) if isinstance(given, str) else (given,)
        if function == "enter":
            args = ("cpu", Symbol("torch.bfloat16"), True, True)
        nodes.append(Node(name, "function", f"layergraph.{functions[function]}", args))
    graph = graph_from_nodes([*nodes, Node("output", "output", "output", (Ref("x"),))])
    return Ir([Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)])


UNBALANCED = {
    "gradients stay off": ([("a", "grad", False)], "'a': the region .*set_grad_enabled.* not end"),
    "autocast stays on": ([("a", "enter", None)], "'a': the region .*enter_autocast.* not end"),
    "ended twice": (
        [("a", "grad", False), ("b", "grad", "a"), ("c", "grad", "a")],
        "'c': the region of 'a' is not open",
    ),
    "autocast ended twice": (
        [("a", "enter", None), ("b", "exit", "a"), ("c", "exit", "a")],
        "'c': the region of 'a' is not open",
    ),
    "across each other": (
        [("a", "grad", False), ("b", "enter", None), ("c", "grad", "a"), ("d", "exit", "b")],
        "'c': it ends a region, but that of 'b' inside it is open",
    ),
    "nothing to end": ([("a", "exit", "x")], "'a': 'layergraph.exit_autocast' ends no region"),
    "the end of gradients as that of autocast": (
        [("a", "grad", False), ("b", "exit", "a")],
        "'b': 'layergraph.exit_autocast' ends no region",
    ),
    "of three, the middle one": (
        [("a", "grad", False), ("b", "enter", None), ("c", "grad", True), ("d", "grad", "c")],
        "'b': the region",
    ),
}


@pytest.mark.parametrize("name", UNBALANCED)
def test_unbalanced(name):
    steps, message = UNBALANCED[name]
    with pytest.raises(InvalidIrError, match=f"'root', node {message}"):
        check(_ir(*steps))


BALANCED = {
    "one": [("a", "grad", False), ("b", "grad", "a")],
    "one inside the other": [
        *[("a", "grad", False), ("b", "enter", None), ("c", "grad", True)],
        *[("d", "grad", "c"), ("e", "exit", "b"), ("f", "grad", "a")],
    ],
    "off and on": [("a", "grad", False), ("b", "grad", True)],
    "off, off and on": [("a", "grad", False), ("b", "grad", False), ("c", "grad", True)],
    "switched inside": [("a", "grad", False), ("b", "grad", True), ("c", "grad", "a")],
}


@pytest.mark.parametrize("name", BALANCED)
def test_balanced(name):
    check(_ir(*BALANCED[name]))


class ByStatement(nn.Module):
    def forward(self, x):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            y = x @ x.t()
            with torch.enable_grad():
                y = y * 2
        with torch.set_grad_enabled(self.training):
            return y + 1


class ByCalls(nn.Module):
    def forward(self, x):
        torch.set_grad_enabled(False)
        y = x * 2
        torch.set_grad_enabled(True)
        return y + x


@pytest.mark.parametrize("cls", [ByStatement, ByCalls])
def test_what_is_captured_is_balanced(cls):
    ir = lg.to_ir(cls(), (X,))
    check(ir)
    assert bitwise_equal(lg.to_torch(ir)(X), cls()(X))


class Leaves(nn.Module):
    def forward(self, x):
        torch.set_grad_enabled(False)
        return x * 2


def test_a_model_that_leaves_its_caller_in_another_mode_is_refused():
    with torch.enable_grad(), pytest.raises(CaptureError, match=r"does not end.*with statement"):
        lg.to_ir(Leaves(), (X,))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("read", [lg.load, lg.load_model])
def test_files_are_held_to_it(tmp_path, read):
    path = tmp_path / "m.json"
    ir = _ir(("a", "grad", False), ("b", "grad", "a"))
    lg.save(ir, path)
    form = json.loads(path.read_text())
    end = form["implementations"][0]["nodes"][2]
    del end["inputs"]
    end["args"] = [False]
    path.write_text(json.dumps(form))
    with pytest.raises(InvalidIrError, match="does not end"):
        read(path)
