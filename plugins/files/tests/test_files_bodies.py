"""Bodies in files: version 3 of the format."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import layergraph as lg
from core.tests.test_bodies import X, recurrent
from layergraph.errors import FileError
from layergraph.ir import Ir
from layergraph.testing import bitwise_equal
from layergraph_files.document import to_document

FILES = Path(__file__).parent / "files"
SCHEMA = json.loads(
    (Path(__file__).parents[3] / "docs/reference/file-format.schema.json").read_text()
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_a_loop_comes_back(tmp_path):
    ir = Ir(recurrent())
    model = lg.to_torch(ir)
    lg.save(ir, tmp_path / "m.json")
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for name in ("m.json", "m.safetensors"):
        assert lg.load(tmp_path / name) == ir
    assert bitwise_equal(lg.load_model(tmp_path / "m.safetensors")(X), model(X))


def test_the_form():
    document = to_document(Ir(recurrent()), {})
    VALIDATOR.validate(document)
    assert document["version"] == 3
    nodes = {each["name"]: each for each in document["implementations"][0]["nodes"]}
    assert nodes["steps"]["args"][0] == {"body": "root/loop"}


def test_a_file_of_version_3():
    ir = lg.load(FILES / "version-3.json")
    assert ir["root/loop"].type == "body"
    assert lg.load(FILES / "version-3.safetensors") == ir
    model = lg.load_model(FILES / "version-3.safetensors")
    assert model(torch.ones(2, 7, 4)).shape == (2, 7, 4)


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_have_no_bodies(tmp_path, version):
    document = to_document(Ir(recurrent()), {})
    document["version"] = version
    assert not VALIDATOR.is_valid(document)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FileError, match="have no bodies"):
        lg.load(path)


DAMAGED = {
    "a body of no name": lambda node: node["args"].__setitem__(0, {"body": 1}),
    "a body that is not there": lambda node: node["args"].__setitem__(0, {"body": "nowhere"}),
    "a body in data": lambda node: node.update(data={"a": {"body": "root/loop"}}),
    "a function that takes none": lambda node: node.update(implementation="torch.relu"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_bodies_are_refused(tmp_path, name):
    document = to_document(Ir(recurrent()), {})
    root = document["implementations"][0]
    DAMAGED[name](next(each for each in root["nodes"] if each["name"] == "steps"))
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    with pytest.raises((FileError, lg.errors.LayergraphError)):
        lg.to_torch(lg.load(path))
