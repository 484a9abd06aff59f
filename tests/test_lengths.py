"""No file and no class of the packages is longer than a reader keeps in mind."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("core/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")])
MOST_OF_A_FILE, MOST_OF_A_CLASS = 400, 250


def too_long(text):
    """Yield the name and the lines of a file, as "", and of each class that is too long."""
    length = len(text.splitlines())
    if length > MOST_OF_A_FILE:
        yield "", length
    for each in ast.walk(ast.parse(text)):
        if isinstance(each, ast.ClassDef):
            first = min(line.lineno for line in (each, *each.decorator_list))
            length = each.end_lineno - first + 1
            if length > MOST_OF_A_CLASS:
                yield each.name, length


@pytest.mark.parametrize("lines", [250, 251])
def test_a_class_is_measured_with_its_decorators(lines):
    text = "@decorated\nclass Long:\n" + "    x = 1\n" * (lines - 2)
    assert list(too_long(text)) == ([("Long", lines)] if lines > MOST_OF_A_CLASS else [])


def test_a_file_is_measured():
    assert list(too_long("x = 1\n" * 401)) == [("", 401)]
    assert not list(too_long("x = 1\n" * 400))


def test_no_file_and_no_class_is_too_long():
    assert len(FILES) > 500
    found = {
        f"{path.relative_to(ROOT)} {name}".rstrip(): length
        for path in FILES
        for name, length in too_long(path.read_text())
    }
    assert not found, "cut them by what they do, into classes that have each other as parts"
