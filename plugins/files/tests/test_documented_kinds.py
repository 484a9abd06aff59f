"""The pages on files name each kind of value, record and function that a file may hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layergraph.functions.table import by_name
from layergraph.ir2torch.graph import _TUPLES_OF_TORCH
from layergraph.literals import _OF_TORCH, OUTPUT_CLASS, SIZE
from layergraph_files.values import _OBJECTS

DOCS = Path(__file__).parents[3] / "docs"
FORMAT = (DOCS / "reference/file-format.md").read_text()
IR = (DOCS / "reference/ir.md").read_text()
THREATS = (DOCS / "explanation/threat-model.md").read_text()
SCHEMA = json.loads((DOCS / "reference/file-format.schema.json").read_text())

VALUES = [key for key, _, _ in _OBJECTS.values()]
RECORDS = [
    SIZE,
    _OF_TORCH,
    OUTPUT_CLASS,
    "numpy.",
    "torch.distributions.MODULE.",
    *[cls.__name__ for cls in _TUPLES_OF_TORCH],
]
FUNCTIONS = sorted(name for name in by_name() if name.startswith("layergraph."))
# A graph gives these what the caller passes, and reads or changes it by attributes.
OF_OBJECTS = sorted(
    name
    for name, target in by_name().items()
    if getattr(target.target, "__module__", "") == "layergraph.functions.fields"
)


@pytest.mark.parametrize("key", VALUES)
def test_each_value(key):
    assert f'{{"{key}": ' in FORMAT
    [objects] = [each for each in SCHEMA["$defs"]["value"]["oneOf"] if "properties" in each]
    assert key in objects["properties"]


def test_the_schema_has_no_value_that_readers_refuse():
    [objects] = [each for each in SCHEMA["$defs"]["value"]["oneOf"] if "properties" in each]
    assert objects["properties"].keys() == {*VALUES}


@pytest.mark.parametrize("name", RECORDS)
def test_each_record(name):
    said = [f"`{name}`", f"`{name.removesuffix('.')}.NAME`"]
    assert any(f"| {each}" in FORMAT for each in said)
    assert name == "PackedSequence" or any(each in THREATS for each in said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_of_layergraph(name):
    assert f"`{name}(" in IR or f"`{name}`" in IR


@pytest.mark.parametrize(
    "name", [*OF_OBJECTS, *[f"layergraph.assume_{each}" for each in ("named", "distinct")]]
)
def test_each_function_that_reads_objects_of_a_caller(name):
    assert name in FUNCTIONS
    assert f"`{name}`" in THREATS
