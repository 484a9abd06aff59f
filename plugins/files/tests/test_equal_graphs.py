"""Graphs that differ only in the names they call: parsed once, and each of them checked."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, InvalidIrError, StateError
from layergraph.ir import refs
from layergraph.testing import bitwise_equal
from layergraph_files import graph_reader
from layergraph_files.document import from_document, to_document
from layergraph_files.parse_errors import ParseError, Unreadable
from layergraph_files.values import MAX_NAME


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(3))
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        x = torch.cat([self.inner(x), x * self.scale], dim=1)
        return torch.add(x[:, :3], 1.0, alpha=1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block(), Block())


@pytest.fixture(scope="module")
def ir(model):
    return lg.to_ir(model, (torch.rand(2, 3),))


@pytest.fixture
def document(ir):
    return json.loads(json.dumps(to_document(ir, {})))


def _of(document, name):
    return next(each for each in document["implementations"] if each["name"] == name)


def _node(document, name, type_):
    return next(each for each in _of(document, name)["nodes"] if each["type"] == type_)


def _add(document, name):
    nodes = _of(document, name)["nodes"]
    return next(each for each in nodes if each["implementation"] == "torch.add")


def test_a_repeated_graph_is_read_once(document, ir, monkeypatch):
    read = []
    monkeypatch.setattr(
        graph_reader,
        "_read_node",
        lambda form, spot, real=graph_reader._read_node: (
            read.append(form["name"]) or real(form, spot)
        ),
    )
    assert from_document(document) == ir
    assert len(read) == len(ir["root"].nodes) + len(ir["0"].nodes)


def test_copies_share_nothing(document, ir):
    loaded = from_document(document)
    for name, node in loaded["0"].nodes.items():
        other = loaded["1"].nodes[name]
        assert node is not other
        assert node.kwargs is not other.kwargs
        assert node.data is not other.data
        node.data["acme.seen"] = True
        node.kwargs["more"] = 1
        for value in node.args or ():
            if type(value) is list:
                value.clear()
    for edge in loaded["0"].edges.values():
        edge.data["acme.seen"] = True
    assert [loaded["1"], loaded["2"]] == [ir["1"], ir["2"]]
    assert loaded["0"] != ir["0"]
    loaded["1"].nodes["inner"].read_instead("x", "y")
    assert refs(*loaded["2"].nodes["inner"].args) == ["x"]


def test_it_computes_the_same(tmp_path, model, ir):
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    x = torch.rand(4, 3)
    assert bitwise_equal(lg.load_model(path)(x), model(x))


@pytest.mark.parametrize("value", [True, 1.0, -1, {"float": "nan"}, {"int": "0x1"}], ids=str)
def test_values_that_python_holds_for_equal_stay_apart(document, value):
    _add(document, "1")["kwargs"]["alpha"] = value
    loaded = from_document(document)
    found = [
        node.kwargs["alpha"]
        for name in "012"
        for node in loaded[name].nodes.values()
        if node.implementation == "torch.add"
    ]
    wanted = math.nan if value == {"float": "nan"} else 1 if value == {"int": "0x1"} else value
    assert list(map(repr, found)) == ["1", repr(wanted), "1"]


def test_the_sign_of_zero_stays(document):
    for name, zero in zip("012", (0.0, -0.0, 0.0), strict=True):
        _add(document, name)["kwargs"]["alpha"] = zero
    loaded = from_document(document)
    signs = [
        math.copysign(1, node.kwargs["alpha"])
        for each in loaded.values()
        for node in each.nodes.values()
        if "alpha" in node.kwargs
    ]
    assert signs == [1, -1, 1]


def _set(name, **fields):
    return lambda document: _node(document, "1", name).update(fields)


DAMAGE = {
    "no name of what is called": (_set("linear", implementation=None), "null where a string"),
    "a number": (_set("linear", implementation=3), "an integer where a string"),
    "a long name": (_set("linear", implementation="a" * (MAX_NAME + 1)), "characters"),
    "a tensor without a name": (_set("state", implementation=[]), "an array where a string"),
    "a type that is a list": (_set("linear", type=["linear"]), "an array where a string"),
    "no type": (lambda document: _node(document, "1", "linear").pop("type"), "'type' is missing"),
    "another field": (_set("linear", more=1), "there is no such field"),
    "invalid text": (
        lambda document: _add(document, "1")["kwargs"].update(alpha=Unreadable("bad", "mend it")),
        "bad",
    ),
    "a node that is no object": (lambda document: _of(document, "1")["nodes"].append(3), "object"),
    "a node twice": (
        lambda document: _of(document, "1")["nodes"].append(_add(document, "1")),
        "appears twice",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_an_error_in_a_later_copy_is_found(document, what):
    damage, message = DAMAGE[what]
    damage(document)
    with pytest.raises(ParseError, match=message) as caught:
        from_document(document)
    spot, keys = caught.value.spot, []
    while spot is not None:
        spot, key = spot
        keys.append(key)
    at = [each["name"] for each in document["implementations"]].index("1")
    assert keys[::-1][:2] == ["implementations", at]


@pytest.mark.parametrize("field", [{"nodes": {}}, {"nodes": [], "edges": None}], ids=str)
def test_an_empty_graph_stands_for_no_other_form(document, field):
    empty = {"type": "module", "children": []}
    document["implementations"] += [
        {"name": "empty", **empty, "nodes": []},
        {"name": "other", **empty, **field},
    ]
    with pytest.raises(ParseError, match="where an array belongs"):
        from_document(document)


@pytest.mark.parametrize("type_", ["linear", "state"])
def test_a_name_in_a_later_copy_is_checked(tmp_path, document, type_):
    _node(document, "1", type_)["implementation"] = "of.nothing"
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    with pytest.raises((InvalidIrError, BuildError, StateError), match=r"of\.nothing"):
        lg.to_torch(lg.load(path))
