"""The docstrings of the two conversions are complete, and their examples run."""

from __future__ import annotations

import doctest
import inspect

import pytest

import layergraph as lg
from layergraph.ir import check, find_problems, graph_from_nodes
from layergraph.ir2torch import Ir2Torch
from layergraph.torch2ir import Torch2Ir

CONVERSIONS = [(lg.to_ir, Torch2Ir.convert), (lg.to_torch, Ir2Torch.convert)]


EXAMPLES = [lg.to_ir, lg.to_torch, lg.verify, check, find_problems, graph_from_nodes]


@pytest.mark.parametrize("function", EXAMPLES)
def test_the_examples_run(function):
    (test,) = doctest.DocTestFinder(recurse=False).find(function)
    assert test.examples
    ran = doctest.DocTestRunner(verbose=False).run(test)
    assert ran.failed == 0


@pytest.mark.parametrize(("function", "method"), CONVERSIONS)
def test_the_help_says_what_the_method_of_a_converter_says(function, method):
    said, other = inspect.getdoc(function), inspect.getdoc(method)
    for name in inspect.signature(function).parameters:
        assert f"    {name}: " in said
        assert name in inspect.signature(method).parameters
    assert "Returns:" in said
    assert "Raises:" in said
    assert f":func:`layergraph.{function.__name__}`" in other


@pytest.mark.parametrize("function", [lg.to_ir, lg.to_torch])
def test_arguments_and_defaults_are_those_of_the_converter(function):
    method = dict(CONVERSIONS)[function]
    own = inspect.signature(function).parameters
    theirs = dict(inspect.signature(method).parameters)
    theirs.pop("self")
    assert [(each.name, each.kind, each.default) for each in own.values()] == [
        (each.name, each.kind, each.default) for each in theirs.values()
    ]
