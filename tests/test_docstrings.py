"""The examples in the docstrings of all names that the reference pages list."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import layergraph as lg

PAGES = Path(__file__).parents[1] / "docs" / "reference"
_LISTED = re.compile(r"^::: (?P<name>[\w.]+)\n(?P<options>(?:    .*\n)*)", re.MULTILINE)
_MEMBERS = re.compile(r"^ +members: \[(?P<names>.*)\]$", re.MULTILINE)

# These still need an example.
WITHOUT_EXAMPLE = {"verify", "check", "find_problems"}


def resolved(name: str) -> Any:
    """Import the object of a full name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        home, _, attribute = name.rpartition(".")
        return getattr(resolved(home), attribute)


def is_public_in(module: ModuleType, value: object) -> bool:
    """Return whether a module defines a public function or class."""
    is_documented = inspect.isfunction(value) or inspect.isclass(value)
    return is_documented and value.__module__ == module.__name__ and value.__name__[0] != "_"


def listed() -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes that the reference pages list, by their full names."""
    for page in sorted(PAGES.glob("*.md")):
        for match in _LISTED.finditer(page.read_text()):
            value = resolved(match["name"])
            if not inspect.ismodule(value):
                yield match["name"], value
                continue
            members = _MEMBERS.search(match["options"])
            names = (
                [name for name, each in vars(value).items() if is_public_in(value, each)]
                if members is None
                else re.findall(r"\w+", members["names"])
            )
            yield from ((f"{match['name']}.{name}", getattr(value, name)) for name in names)


LISTED = dict(listed())


def parts(value: Any) -> list[Any]:
    """Return an object, and its base classes in layergraph that the pages do not list."""
    bases = value.__mro__[1:] if inspect.isclass(value) else ()
    inherited = [each for each in bases if each.__module__.startswith("layergraph")]
    return [value, *(each for each in inherited if each not in LISTED.values())]


def examples(name: str) -> list[doctest.DocTest]:
    """Return the examples in the docstrings of an object and of its methods."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = {"torch": torch, "lg": lg}
    found = [
        test
        for part in parts(LISTED[name])
        # Without a module, the finder also takes methods that a decorator of another module wraps.
        for test in finder.find(part, part.__name__, module=False, globs=names)
    ]
    return [test for test in found if test.examples]


def test_the_pages_list_names():
    assert {"layergraph.api.to_ir", "layergraph.hookspecs.torch_to_ir"} <= LISTED.keys()


@pytest.mark.parametrize("name", [name for name in LISTED if examples(name)])
def test_the_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for test in examples(name):
        report: list[str] = []
        ran = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
        assert ran.failed == 0, "".join(report)


@pytest.mark.parametrize(
    "name", [name for name, value in LISTED.items() if inspect.isfunction(value)]
)
def test_each_function_has_an_example(name):
    assert examples(name) or LISTED[name].__name__ in WITHOUT_EXAMPLE


@pytest.mark.parametrize("name", list(LISTED))
def test_a_summary_is_one_sentence_in_one_line(name):
    summary, *rest = inspect.getdoc(LISTED[name]).splitlines()
    assert summary.endswith(".")
    assert not rest or not rest[0]
