"""Buffers that keep their dtype in a cast: version 5 of the format."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import layergraph as lg
from layergraph.errors import FileError

DOCS = Path(__file__).parents[3] / "docs"
SCHEMA = json.loads((DOCS / "reference/file-format.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FILES = Path(__file__).parent / "files"


def test_version_5_is_read_for_good(tmp_path):
    ir = lg.load(FILES / "version-5.json")
    assert ir["root"].tensors["bands"].narrows is False
    assert lg.load(FILES / "version-5.safetensors") == ir
    model = lg.load_model(FILES / "version-5.safetensors")
    before = model.bands
    assert torch.equal(model.half().bands, before)
    assert model.layer.weight.dtype == torch.float16
    lg.save(ir, tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["version"] == 5
    VALIDATOR.validate(document)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_older_versions_have_none(version, tmp_path):
    document = json.loads((FILES / "version-5.json").read_text()) | {"version": version}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FileError, match=r"narrows: versions 1 to 4 .* keep their dtype"):
        lg.load(path)
    assert not VALIDATOR.is_valid(document)
