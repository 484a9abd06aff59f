"""The mutations that were chosen by hand: each quotes a place of the code that exists once."""

from __future__ import annotations

import ast

import pytest

from tests.mutate import CHECKOUT, listed


@pytest.mark.parametrize("mutation", listed(), ids=lambda each: f"{each.path}:{each.line}")
def test_a_listed_mutation_is_code(mutation, tmp_path):
    file = tmp_path / mutation.path
    file.parent.mkdir(parents=True)
    file.write_bytes((CHECKOUT / mutation.path).read_bytes())
    mutation.apply(tmp_path)
    ast.parse(file.read_bytes())
    assert file.read_bytes() != (CHECKOUT / mutation.path).read_bytes()
