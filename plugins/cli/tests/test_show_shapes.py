"""``show --shapes``: the shape of every value of a file."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError
from layergraph_cli.app import run
from layergraph_shapes import TensorMeta
from layergraph_shapes.texts import argument
from plugins.cli.tests.harness import Done


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x, mask=None, scale=1.0):
        y = self.fc(x) * scale
        return y if mask is None else y * mask


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    lg.save(lg.to_ir(nn.Sequential(nn.Linear(4, 3), nn.ReLU())), "chain.json")
    example = torch.ones(2, 4), torch.ones(2, 1), 1.0
    lg.save(lg.to_ir(Masked(), example), "masked.json")

    def call(*arguments):
        code = run(["show", *arguments])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call


def test_every_value_is_listed(cli):
    done = cli("chain.json", "--shapes", "batch,4")
    assert done.out.splitlines() == [
        "input_1: float32[batch, 4]",
        "_0: float32[batch, 3]",
        "_1: float32[batch, 3]",
        "return float32[batch, 3]",
    ]
    assert (done.code, done.err) == (0, "")


def test_inputs_by_name_of_other_dtypes_and_in_json(cli):
    inputs = ["--shapes", "5,4", "--shapes", "mask=bool[5,1]", "--shapes", "scale=1.0"]
    done = cli("masked.json", *inputs)
    assert done.out.splitlines()[-1] == "return float32[5, 3]"
    assert "mask: bool[5, 1]" in done.out
    as_json = json.loads(cli("masked.json", *inputs, "--json").out)
    assert as_json == {"file": "masked.json", "shapes": done.out.splitlines()}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (["2,3"], "node '_0': the linear '0' does not take these inputs"),
        (["2,4", "2,4"], "2 were given, but it takes input"),
        (["y=2,4"], "given in vain"),
        (["two"], "'two' is no input; write sizes as 2,3,32,32"),
        (["real[2,4]"], "is no dtype"),
        (["u0,4"], "is no name for a size"),
    ],
)
def test_wrong_inputs_are_told_in_one_line(cli, inputs, said):
    cli("chain.json", *[part for each in inputs for part in ("--shapes", each)]).refused(said)


def test_texts_of_inputs():
    assert argument("2, 3") == TensorMeta((2, 3))
    assert argument("[3]") == TensorMeta((3,))
    assert argument("int64[]") == TensorMeta((), torch.int64)
    assert argument("bfloat16[ n , 2 ]") == TensorMeta(("n", 2), torch.bfloat16)
    assert argument("false") is False
    assert argument('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ArgumentError):
        argument("nn[2]")
