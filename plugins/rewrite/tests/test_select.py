"""Selections by text, by relation, and their order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph_rewrite import EditError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding="same")
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        y = self.body(self.stem(x))
        return self.head(torch.flatten(y.mean((2, 3)), start_dim=1)), y


IR = lg.to_ir(Net())


def names(selection):
    return [call.layer or call.site.node for call in selection]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("conv2d", ["stem", "body.0"]),
        ("*", [
            "x", "stem", "body", "input_1", "body.0", "body.1", "output",
            "mean", "flatten", "head", "output",
        ]),
        ("body.*", ["body.0", "body.1"]),
        ("body* conv2d", ["body.0"]),
        ("conv2d[groups>1]", ["body.0"]),
        ("conv2d[groups>=1, kernel_size=(3, 3)]", ["stem", "body.0"]),
        ("conv2d[padding=same]", ["stem"]),
        ("conv2d[padding='same']", ["stem"]),
        ("conv2d[padding>1]", []),
        ("[groups]", ["stem", "body.0"]),
        ("[groups != 4]", ["stem"]),
        ("torch.flatten[start_dim=1]", ["flatten"]),
        ("? *", ["x"]),
        ("nothing", []),
        ("conv2d[padding_mode=zeros]", ["stem", "body.0"]),
        ("conv2d[padding_mode!=zeros]", []),
        ("conv2d[bias=true, padding_mode='zeros']", ["stem", "body.0"]),
    ],
)  # fmt: skip
def test_text(text, found):
    assert names(IR.select(text)) == found


@pytest.mark.parametrize("text", [
    "conv2d[", "a b c", "conv2d[groups>]", "conv2d[=1]", "  ", "conv2d]", "conv2d[groups=[1]",
    "conv2d[groups=1]]", "conv2d[groups>'a]", "conv2d[groups<>1]", "conv2d[groups=!1]",
])  # fmt: skip
def test_texts_of_another_form_are_refused(text):
    with pytest.raises(EditError, match="write it as"):
        IR.select(text)


def test_relations():
    everything, convs = IR.select(), IR.select("conv2d")
    assert names(everything.inside("body").select("conv2d")) == ["body.0"]
    assert names(convs.before("body.0")) == ["stem"]
    assert names(everything.between("body.1", "head")) == ["output", "mean", "flatten"]
    assert names(IR.select("linear").fed_by("stem")) == ["head"]
    assert names(everything.feeding("head", direct=True)) == ["flatten"]
    assert names(convs.feeding("body.1")) == ["stem", "body.0"]
    assert names(convs | IR.select("linear")) == ["stem", "body.0", "head"]
    assert names(IR.select("linear") | convs) == ["stem", "body.0", "head"]
    assert names(convs - convs.inside("body")) == ["stem"]
    assert names(convs & everything.inside("body")) == ["body.0"]
    assert names(convs.where(lambda call: call.is_in_root)) == ["stem"]
    with pytest.raises(EditError, match="empty"):
        convs.before(IR.select("nothing"))


def test_what_is_in_a_composite_runs_within_it():
    everything = IR.select()
    assert names(everything.after("body")) == ["mean", "flatten", "head", "output"]
    assert names(everything.before("body.0")) == ["x", "stem", "input_1"]
    assert names(everything.between("stem", "body")) == []
    assert names(everything.before("head").select("body*")) == ["body", "body.0", "body.1"]


def test_the_second_call_of_a_composite_runs_after_the_first():
    shared = nn.Sequential(nn.Linear(2, 2))
    ir = lg.to_ir(nn.Sequential(shared, nn.ReLU(), shared))
    first, second = (call for call in ir.select("sequential") if call.is_in_root)
    assert names(ir.select("relu").after(first).before(second)) == ["1"]


def test_a_call_gives_the_defaults_of_its_layer():
    (call,) = lg.to_ir(nn.Sequential(nn.LSTM(2, 3))).select("lstm[num_layers=1]")
    assert (call["hidden_size"], call["num_layers"], call["batch_first"]) == (3, 1, False)
    with pytest.raises(KeyError):
        call["acme.bits"]
