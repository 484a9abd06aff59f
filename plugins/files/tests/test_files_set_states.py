"""Nodes that set a tensor: version 6 of the format."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import layergraph as lg
from layergraph.errors import BuildError, FileError, InvalidIrError
from layergraph.ir import Implementation, Ir, Node, Ref, TensorSpec, graph_from_nodes

DOCS = Path(__file__).parents[3] / "docs"
SCHEMA = json.loads((DOCS / "reference/file-format.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FILES = Path(__file__).parent / "files"


def summing(key="total", value=("x", "total"), kind="buffer"):
    nodes = [
        Node("x", "input", "x"),
        Node("total", "state", "total", args=()),
        Node("add", "function", "torch.add", args=tuple(map(Ref, value))),
        Node("set", "state", key, args=(Ref("add"),)),
        Node("norm", "batchnorm1d", "norm", args=(Ref("add"),)),
        Node("output", "output", "output", args=(Ref("norm"),)),
    ]
    graph = graph_from_nodes(nodes)
    root = Implementation(
        "module",
        name="root",
        nodes=graph.nodes,
        edges=graph.edges,
        children={"norm": "norm"},
        tensors={"total": TensorSpec(kind=kind, shape=(3,))},
    )
    return Ir([root, Implementation("batchnorm1d", {"num_features": 3}, name="norm")], "root")


def test_version_6_is_read_for_good(tmp_path):
    ir = lg.load(FILES / "version-6.json")
    assert lg.load(FILES / "version-6.safetensors") == ir
    model = lg.load_model(FILES / "version-6.safetensors")
    x = torch.tensor([[1.0, -2.0]])
    assert model(x).tolist() == [[1.0, -2.0]]
    assert model(x).tolist() == [[2.0, -4.0]]
    assert model.state_dict()["total"].tolist() == [[2.0, -4.0]]
    lg.save(ir, tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["version"] == 6
    VALIDATOR.validate(document)


def _loaded(document, folder):
    path = folder / "m.json"
    path.write_text(json.dumps(document))
    return lg.load(path)


@pytest.mark.parametrize("version", range(1, 6))
@pytest.mark.parametrize("form", ["inputs", "args", "edges"])
def test_older_versions_have_none(version, form, tmp_path):
    document = json.loads((FILES / "version-6.json").read_text()) | {"version": version}
    root = document["implementations"][0]
    node = next(each for each in root["nodes"] if each["type"] == "state" and len(each) > 3)
    node.pop("inputs", None), node.pop("args", None)
    given = {"inputs": ["add"], "args": [{"ref": "add"}]}
    if form == "edges":
        root["edges"] = [{"src": "add", "sink": node["name"]}]
    else:
        node[form] = given[form]
        assert not VALIDATOR.is_valid(document)
    with pytest.raises(FileError, match=r"versions 1 to 5 .* set a tensor"):
        _loaded(document, tmp_path)


def test_an_edge_to_a_state_without_arguments_is_named(tmp_path):
    """The list of arguments counts, empty here: the node sets no tensor, and the edge is wrong."""
    document = json.loads((FILES / "version-6.json").read_text()) | {"version": 5}
    root = document["implementations"][0]
    root["edges"] = [{"src": "add", "sink": "set"}]
    for node in root["nodes"]:
        node["args"] = [{"ref": name} for name in node.pop("inputs", ())]
        if node["name"] == "set":
            node["args"] = []
    with pytest.raises(InvalidIrError, match=r"remove the edge \('add', 'set'\)"):
        _loaded(document, tmp_path)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    document = json.loads((FILES / "version-6.json").read_text()) | {"version": 5}
    node = next(each for each in document["implementations"][0]["nodes"] if each["type"] == "state")
    node["name"] = {}
    with pytest.raises(FileError):
        _loaded(document, tmp_path)


@pytest.mark.parametrize(
    ("ir", "message"),
    [
        (summing(kind="parameter"), "no buffer of a module"),
        (summing(key="norm.running_mean"), "no buffer of a module"),
        (summing(key="norm.weight"), "no buffer of a module"),
        (summing(key="training"), "no buffer of a module"),
        (summing(key="absent"), "there is no 'absent'"),
    ],
)
def test_only_buffers_of_modules_are_set(ir, message):
    with pytest.raises(BuildError, match=message):
        lg.to_torch(ir)


def test_the_graph_sets_tensors_only():
    ir = summing()
    ir["root"].nodes["set"].args = (None,)
    ir["root"].edges.pop(("add", "set"))
    with pytest.raises(TypeError, match="set a buffer to a tensor"):
        lg.to_torch(ir)(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("args", "kwargs"), [((Ref("x"), Ref("add")), {}), ((Ref("add"),), {"value": 1})]
)
def test_a_node_sets_one_value(args, kwargs):
    ir = summing()
    ir["root"].nodes["set"].args, ir["root"].nodes["set"].kwargs = args, kwargs
    with pytest.raises(InvalidIrError, match="takes several arguments"):
        lg.to_torch(ir)


def test_source_sets_the_tensor(tmp_path):
    ir = summing()
    torch.manual_seed(0)
    model = lg.to_torch(ir)
    path = tmp_path / "summing.py"
    lg.save(ir, path)
    text = path.read_text()
    assert "self.total = add" in text
    namespace = {"__name__": "summing"}
    exec(compile(text, str(path), "exec"), namespace)
    cls = next(
        each
        for each in namespace.values()
        if isinstance(each, type)
        and issubclass(each, torch.nn.Module)
        and each.__module__ == "summing"
    )
    written = cls()
    written.load_state_dict(model.state_dict())
    for _ in range(3):
        x = torch.randn(2, 3)
        assert torch.equal(model(x), written(x))
