"""Passes on models with loops: what a body does stays done."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal


class InPlace(nn.Module):
    """The loop's own value is not read: it fills a tensor in place."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        out = torch.zeros_like(x)
        for step in range(x.size(1)):
            out[:, step] = self.norm(self.layer(x[:, step]))
        return out


PASSES = [
    "dead-code",
    "common-subexpressions",
    "canonicalize",
    "fold-batchnorm",
    "remove-dropout",
    "remove-identity",
    "deduplicate",
    "functional-to-layers",
]


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_leaves_a_loop_right(name):
    torch.manual_seed(0)
    model = InPlace().eval()
    ir = lg.to_ir(model, (torch.randn(2, 4, 4),))
    assert "layergraph.loop" in str(ir)
    other, state, _ = lg.run_passes(ir, [name], model.state_dict())
    x = torch.randn(3, 7, 4)
    found = lg.to_torch(other, state).eval()(x)
    if name == "fold-batchnorm":
        torch.testing.assert_close(found, model(x))
    else:
        assert bitwise_equal(found, model(x))


class Steps(nn.Module):
    """A loop whose body has what passes look for."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.same = nn.Identity()

    def forward(self, x):
        state = torch.zeros_like(x[:, 0])
        for step in range(x.size(1)):
            new = self.norm(self.layer(x[:, step]))
            state = self.same(self.drop(torch.relu(new) + state.mul(0.2) + state.mul(0.2)))
        return state


def looped():
    torch.manual_seed(0)
    model = Steps()
    for _ in range(3):
        model(torch.randn(5, 3, 4))
    model.eval()
    ir = lg.to_ir(model, (torch.randn(2, 4, 4),))
    assert "layergraph.loop" in str(ir)
    return model, ir


def kinds(ir):
    graphs = [graph for each in ir.values() for graph in each.graphs]
    return [node.implementation for graph in graphs for node in graph.nodes.values()]


@pytest.mark.parametrize(
    ("name", "gone", "there"),
    [
        ("remove-dropout", "drop", None),
        ("remove-identity", "same", None),
        ("fold-batchnorm", "norm", None),
        ("functional-to-layers", "torch.relu", "relu"),
        ("canonicalize", "torch.Tensor.mul", None),
    ],
)
def test_a_pass_changes_what_is_in_a_loop(name, gone, there):
    model, ir = looped()
    ir = ir.in_mode(training=False)
    assert gone in kinds(ir)
    other, state, report = lg.run_passes(ir, [name], model.state_dict())
    assert gone not in kinds(other)
    assert there is None or there in kinds(other)
    assert report.applied
    built = lg.to_torch(other, state).eval()
    for length in (1, 2, 4, 9):
        x = torch.randn(3, length, 4)
        if name == "fold-batchnorm":
            torch.testing.assert_close(built(x), model(x))
        else:
            assert bitwise_equal(built(x), model(x))


def test_equal_calls_in_a_loop_are_computed_once():
    model, ir = looped()
    ir = ir.in_mode(training=False)
    other, state, _ = lg.run_passes(ir, ["common-subexpressions"], model.state_dict())
    assert kinds(ir).count("torch.Tensor.mul") == 2
    assert kinds(other).count("torch.Tensor.mul") == 1
    x = torch.randn(3, 6, 4)
    assert bitwise_equal(lg.to_torch(other, state).eval()(x), model(x))


def test_selections_look_into_loops():
    _, ir = looped()
    ir = ir.in_mode(training=False)
    (call,) = ir.select("linear")
    assert call.layer == "layer"
    assert not call.is_in_root
    body = call.site.graph
    assert [each.layer for each in ir.select().inside(body) if each.layer] == [
        "layer",
        "norm",
        "drop",
        "same",
    ]
    # The state of one turn reaches the layers of the next one.
    assert "layer" in ir.select().feeding(ir.select("dropout")).layers


def test_edits_work_inside_of_a_loop_and_leave_its_borders():
    from layergraph_rewrite import EditError, layer

    model, ir = looped()
    ir = ir.in_mode(training=False)
    edit = lg.edit(ir, model.state_dict())
    body = edit.select("linear")[0].site.graph
    edit.insert_after("layer", layer("tanh"))
    edit.outline(["norm"], name="part")
    built = lg.to_torch(edit.ir, edit.state).eval()
    assert {"tanh", "part"} <= dict(built.named_children()).keys()
    built(torch.randn(2, 5, 4))
    with pytest.raises(EditError, match="is a body"):
        edit.add_input("y", graph=body)
    with pytest.raises(EditError, match="is a body"):
        edit.set_outputs(1, graph=body)
    with pytest.raises(EditError, match="may run several times"):
        lg.extract(ir, inputs=["layer"], outputs=["norm"], state=model.state_dict())
