"""Tensors with parts in files: version 4 of the format, and damage to it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import FileError, InvalidIrError, LayergraphError
from layergraph.ir2torch import get_default_converter
from layergraph.testing import bitwise_equal
from layergraph_files.document import to_document
from layergraph_files.save import Item, kinds_of, write_part
from layergraph_files.text import compact

DOCS = Path(__file__).parents[3] / "docs"
SCHEMA = json.loads((DOCS / "reference/file-format.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FILES = Path(__file__).parent / "files"


class Graph(nn.Module):
    """A graph network: a sparse matrix beside a layer."""

    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        links = torch.tensor([[0, 0, 1, 2], [1, 2, 2, 0]])
        adjacency = torch.sparse_coo_tensor(links, torch.ones(4) / 3, (3, 3)).coalesce()
        self.register_buffer("adjacency", adjacency, persistent=persistent)
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(torch.sparse.mm(self.adjacency, x)))


@pytest.fixture
def model():
    return Graph()


@pytest.fixture
def ir(model):
    return lg.to_ir(model, (torch.randn(3, 2),))


@pytest.mark.parametrize("persistent", [True, False])
def test_it_comes_back(persistent, tmp_path):
    model = Graph(persistent)
    ir = lg.to_ir(model, (torch.randn(3, 2),))
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    lg.save(ir, tmp_path / "m.json")
    assert lg.load(tmp_path / "m.json") == ir == lg.load(tmp_path / "m.safetensors")
    again = lg.load_model(tmp_path / "m.safetensors")
    assert list(again.state_dict()) == list(model.state_dict())
    assert again.adjacency.layout is torch.sparse_coo
    assert again.adjacency.is_coalesced()
    for mode in (True, False):
        x = torch.randn(3, 2)
        one, other = (each.train(mode)(x) for each in (model, again))
        assert bitwise_equal(one, other)
        grads = [
            torch.autograd.grad(value.sum(), each.layer.weight)
            for value, each in ((one, model), (other, again))
        ]
        assert bitwise_equal(*grads)
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["version"] == 4
    assert document["tensor_kinds"] == {"torch.sparse_coo": "layergraph-sparse"}
    VALIDATOR.validate(document)


def test_several_files(model, ir, tmp_path):
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict(), max_shard_size=48)
    assert len(list(tmp_path.glob("m-*"))) > 1
    again = lg.load_model(tmp_path / "m.safetensors")
    x = torch.randn(3, 2)
    assert bitwise_equal(again(x), model(x))


def test_the_parts_are_in_the_file(model, ir, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    found = safetensors.load_file(tmp_path / "m.safetensors")
    assert torch.equal(found["adjacency.values"], model.adjacency.values())
    assert torch.equal(found["adjacency.indices"], model.adjacency.indices())
    assert found.keys() - {"layer.weight", "layer.bias"} == {
        "adjacency.values",
        "adjacency.indices",
    }


def test_version_4_is_read_for_good():
    ir = lg.load(FILES / "version-4.json")
    assert lg.load(FILES / "version-4.safetensors") == ir
    loaded = lg.load_model(FILES / "version-4.safetensors")
    assert loaded.adjacency.to_dense().tolist() == [[0.0, 2.0], [0.0, 0.0]]
    assert loaded(torch.tensor([[1.0], [3.0]])).tolist() == [[6.0], [0.0]]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_older_versions_have_no_parts(ir, version, tmp_path):
    document = to_document(ir, {}) | {"version": version}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FileError, match=r"'adjacency', packed: versions 1 to 3 .* no parts"):
        lg.load(path)
    assert not VALIDATOR.is_valid(document)
    entry = document["implementations"][0]
    del entry["tensors"]
    path.write_text(json.dumps(document | {"tensor_kinds": {}}))
    with pytest.raises(FileError, match="no kinds of tensors"):
        lg.load(path)


def test_models_without_parts_are_of_an_older_version(tmp_path):
    lg.save(lg.to_ir(nn.Linear(2, 2)), tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["version"] == 1


# --- without the plugin ---


def test_without_the_plugin_the_distribution_is_named(model, ir, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict())
    converter = get_default_converter(disable=["layergraph-sparse"])
    monkeypatch.setattr("layergraph_files.build.default_ir2torch", lambda: converter)
    # The structure can be read.
    assert lg.load(path) == ir
    with pytest.raises(FileError, match=r"'adjacency': .* 'torch.sparse_coo' .* layergraph-sparse"):
        lg.load_model(path)


# --- damaged files ---


def _packed(document):
    return document["implementations"][0]["tensors"][0]["packed"]


def _part(document, number=0):
    return _packed(document)["parts"][number]


NOT_READ = {
    "no object": (lambda d: d["implementations"][0]["tensors"][0].update(packed=1), "packed: an i"),
    "no kind": (lambda d: _packed(d).pop("kind"), "packed"),
    "no parts": (lambda d: _packed(d).pop("parts"), "packed"),
    "an unknown field": (lambda d: _packed(d).update(cls="os.system"), "packed"),
    "a kind of numbers": (lambda d: _packed(d).update(kind=1), "kind: an integer"),
    "parts in an object": (lambda d: _packed(d).update(parts={}), "parts: an object"),
    "a part without a name": (lambda d: _part(d).pop("name"), r"parts\[0\]"),
    "two parts of one name": (lambda d: _part(d).update(name="values"), "appears twice"),
    "parts in a part": (lambda d: _part(d).update(packed={}), r"parts\[0\]"),
    "a tie in a part": (lambda d: _part(d).update(tied="x"), r"parts\[0\]"),
    "a kind of a part": (lambda d: _part(d).update(kind="buffer"), r"parts\[0\]"),
    "code in the data": (lambda d: _packed(d)["data"].update(x={"call": "os"}), "data"),
    "kinds in a list": (lambda d: d.update(tensor_kinds=[]), "tensor_kinds: an array"),
    "a kind of no text": (lambda d: d.update(tensor_kinds={"a.b": 1}), "tensor_kinds"),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_a_damaged_document(ir, name, tmp_path):
    document = json.loads(json.dumps(to_document(ir, {}, kinds=kinds_of(ir))))
    VALIDATOR.validate(document)
    damage, message = NOT_READ[name]
    damage(document)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FileError, match=message):
        lg.load(path)
    if name != "two parts of one name":
        assert not VALIDATOR.is_valid(document)


RULES = {
    "a dot": lambda d: _part(d).update(name="a.b"),
    "no name": lambda d: _part(d).update(name=""),
    "no shape": lambda d: _part(d).pop("shape"),
    "a negative size": lambda d: _part(d).update(shape=[-1]),
    "a value of the whole": lambda d: d["implementations"][0]["tensors"][0].update(value=""),
}


@pytest.mark.parametrize("name", RULES)
def test_a_document_that_breaks_a_rule(ir, name, tmp_path):
    document = json.loads(json.dumps(to_document(ir, {})))
    RULES[name](document)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidIrError, match="'adjacency'"):
        lg.load(path)


def _write(path, document, tensors):
    """Write a file with any document and any tensors, as an attacker may."""
    from layergraph_files.atomic import writing

    items = {
        name: Item(str(each.dtype).removeprefix("torch."), tuple(each.shape), each)
        for name, each in tensors.items()
    }
    metadata = {"format": "pt", "layergraph": compact(document)}
    with writing(path, lambda _names, _alone: ()) as written:
        write_part(written, path.name, items, metadata)


def _sound(model):
    adjacency = model.adjacency
    return {
        "adjacency.indices": adjacency.indices(),
        "adjacency.values": adjacency.values(),
        "layer.weight": model.layer.weight,
        "layer.bias": model.layer.bias,
    }


def _outside(_document, tensors):
    tensors["adjacency.indices"] = torch.tensor([[0, 0, 1, 9], [1, 2, 2, 0]])


def _kind(document, _tensors):
    _packed(document)["kind"] = "acme.Unknown"


def _owners(document, _tensors):
    # A second tensor whose own key is that of the part.
    child = {"name": "adjacency", "type": "module", "tensors": []}
    child["tensors"].append({"name": "values", "kind": "buffer", "shape": [4]})
    document["implementations"].append(child)
    document["implementations"][0]["children"].append(["adjacency", "adjacency"])


HOSTILE = {
    "unknown kind": (_kind, "no plugin that is asked lists the kind of tensors 'acme.Unknown'"),
    "missing part": (
        lambda _, tensors: tensors.pop("adjacency.values"),
        "'adjacency.values' is missing",
    ),
    "extra part": (
        lambda _, tensors: tensors.update({"adjacency.more": torch.ones(1)}),
        "'adjacency.more' is not one of the model",
    ),
    "another shape": (
        lambda _, tensors: tensors.update({"adjacency.values": torch.ones(5)}),
        r"'adjacency.values' has shape \(5,\) where \(4,\) is wanted",
    ),
    "another dtype": (
        lambda _, tensors: tensors.update({"adjacency.indices": torch.ones(2, 4)}),
        "'adjacency.indices' is of torch.float32 where torch.int64 is wanted",
    ),
    "the whole beside the parts": (
        lambda _, tensors: tensors.update({"adjacency": torch.ones(3, 3)}),
        "'adjacency' is a plain tensor where a torch.sparse_coo is wanted",
    ),
    "two owners": (_owners, "adjacency"),
    "indices outside": (_outside, "refuses its parts"),
    "a size that does not fit": (
        lambda document, _: _packed(document)["data"].update(size=[3, 2]),
        "adjacency",
    ),
    "no size": (lambda document, _: _packed(document)["data"].pop("size"), "refuses its parts"),
    "a size of text": (
        lambda document, _: _packed(document)["data"].update(size="os.system"),
        "refuses its parts",
    ),
    "not coalesced": (
        lambda document, _: _packed(document)["data"].update(is_coalesced=1),
        "no bool",
    ),
    "more parts": (
        lambda document, _: _packed(document)["parts"].append({"name": "more", "shape": [1]}),
        "makes another tensor of its parts",
    ),
    "more values": (
        lambda document, _: _packed(document)["data"].update(more=1),
        "makes another tensor of its parts",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file(model, ir, name, tmp_path):
    path = tmp_path / "m.safetensors"
    document = json.loads(json.dumps(to_document(ir, {})))
    tensors = _sound(model)
    _write(path, document, tensors)
    x = torch.randn(3, 2)
    assert bitwise_equal(lg.load_model(path)(x), model(x))
    damage, message = HOSTILE[name]
    damage(document, tensors)
    _write(path, document, tensors)
    with pytest.raises(LayergraphError, match=message):
        lg.load_model(path)


def test_one_value_of_two_parts(tmp_path):
    ir = lg.to_ir(Graph(persistent=False), (torch.randn(3, 2),))
    document = json.loads(json.dumps(to_document(ir, {}, lambda _: {"tensor": ".value.0"})))
    _write(tmp_path / "m.safetensors", document, {".value.0": torch.ones(4)})
    with pytest.raises(FileError, match=r"another value has '\.value\.0'"):
        lg.load(tmp_path / "m.safetensors")


def test_a_dtype_cannot_be_asked_for(model, ir, tmp_path):
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    with pytest.raises(LayergraphError, match=r"load\s+the model without a dtype"):
        lg.load_model(tmp_path / "m.safetensors", dtype=torch.float64)
