"""The JSON Schema of the format: it accepts all files that we write, and refuses damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from torch import nn

import layergraph as lg
from layergraph_files.document import from_document, to_document
from layergraph_files.parse_errors import ParseError

DOCS = Path(__file__).parents[3] / "docs"
SCHEMA = json.loads((DOCS / "reference/file-format.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
VALUES = [
    *(
        None,
        True,
        5,
        -(2**70),
        2**2047,
        0.5,
        -0.0,
        float("inf"),
        float("nan"),
        1j,
        "text",
        b"bytes",
        ...,
    ),
    *([1, (2,)], {"a": 1, 2: None, (0, "b"): 3}, slice(None, 1), lg.Symbol("torch.float32")),
    *(lg.ir.Record("Pair", {"left": 1}), complex("nan")),
]


def _document(**more):
    node = {"name": "x", "type": "input", "implementation": "x"}
    entry = {"name": "root", "type": "module", "nodes": [node], "tensors": [{"name": "w"}]}
    document = {"format": "layergraph", "version": 1, "root": "root", "implementations": [entry]}
    return document | more, entry, node


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_keep_the_schema(value):
    ir = lg.Ir([lg.Implementation("module", {"value": value}, name="root")])
    VALIDATOR.validate(to_document(ir, {}))


def test_models_keep_the_schema(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout()
            self.scale = nn.Parameter(nn.Linear(2, 2).weight.detach(), requires_grad=False)

        def forward(self, x):
            return self.drop(x[..., :2] @ self.scale) if self.training else (x, {"y": x + 1})

    lg.save(lg.to_ir(Model()), tmp_path / "m.json")
    VALIDATOR.validate(json.loads((tmp_path / "m.json").read_text()))
    VALIDATOR.validate(json.loads((Path(__file__).parent / "files/version-1.json").read_text()))


DAMAGES = {
    "unknown field": lambda document, entry, node: document.update(more=1),
    "no root": lambda document, entry, node: document.pop("root"),
    "number as a name": lambda document, entry, node: entry.update(name=1),
    "unknown field of an implementation": lambda document, entry, node: entry.update(mode=1),
    "child without implementation": lambda document, entry, node: entry.update(children=[["a"]]),
    "unknown field of a node": lambda document, entry, node: node.update(code="x"),
    "inputs and arguments": lambda document, entry, node: node.update(inputs=[], args=[]),
    "two keys": lambda document, entry, node: node.update(args=[{"ref": "x", "int": "0x1"}]),
    "no key": lambda document, entry, node: node.update(args=[{}]),
    "unknown value": lambda document, entry, node: node.update(args=[{"pickle": ""}]),
    "slice of two": lambda document, entry, node: node.update(args=[{"slice": [1, 2]}]),
    "long name": lambda document, entry, node: node.update(name="x" * 4097),
    "mode of text": lambda document, entry, node: entry.update(kept_modes=[["a", "train"]]),
    "long int": lambda document, entry, node: node.update(args=[{"int": "0x" + "1" * 514}]),
    "float by number": lambda document, entry, node: node.update(args=[{"float": "1.0"}]),
    "int by decimal": lambda document, entry, node: node.update(args=[{"int": "12"}]),
    "edge without sink": lambda document, entry, node: entry.update(edges=[{"src": "x"}]),
    "shape of text": lambda document, entry, node: entry["tensors"][0].update(shape=["1"]),
    "value of numbers": lambda document, entry, node: entry["tensors"][0].update(value=[1]),
    "functions in a list": lambda document, entry, node: document.update(functions=[]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_does_not(name):
    document, entry, node = _document()
    VALIDATOR.validate(document)
    from_document(document)
    DAMAGES[name](document, entry, node)
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(ParseError):
        from_document(document)


def test_bounds_of_the_checker_are_in_the_schema():
    document, entry, _ = _document()
    entry["tensors"][0].update(kind="buffer", shape=[1] * 65)
    assert not VALIDATOR.is_valid(document)
    assert "65 dimensions" in str(lg.ir.find_problems(from_document(document))[0])
