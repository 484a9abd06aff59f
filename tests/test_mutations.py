"""The mutations that were chosen by hand: each quotes a place of the code that exists once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutate import CHECKOUT, listed
from tests.mutate import test_files as files_for


@pytest.mark.parametrize("mutation", listed(), ids=lambda each: f"{each.path}:{each.line}")
def test_a_listed_mutation_is_code(mutation, tmp_path):
    file = tmp_path / mutation.path
    file.parent.mkdir(parents=True)
    file.write_bytes((CHECKOUT / mutation.path).read_bytes())
    mutation.apply(tmp_path)
    ast.parse(file.read_bytes())
    assert file.read_bytes() != (CHECKOUT / mutation.path).read_bytes()


def test_the_test_of_the_list_catches_no_mutation():
    files = files_for(listed()[0])
    assert Path(__file__).relative_to(CHECKOUT).as_posix() not in files
    assert "tests/test_docs.py" in files
