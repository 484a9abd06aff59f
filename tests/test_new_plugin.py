"""A plugin of ``layergraph new-plugin`` works unchanged: its wheel, its tests, its listing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from layergraph.errors import LayergraphError
from layergraph_cli.new_plugin import create
from tests.environment import Environment, build, succeed

pytestmark = pytest.mark.slow

NAME = "Acme.scale-layers"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create(NAME, tmp_path_factory.mktemp("made"))


def test_it_is_a_package_of_that_name(made):
    assert made.name == NAME
    assert sorted(str(each.relative_to(made)) for each in made.rglob("*") if each.is_file()) == [
        "README.md",
        "pyproject.toml",
        "src/acme_scale_layers/__init__.py",
        "src/acme_scale_layers/py.typed",
        "tests/test_acme_scale_layers.py",
    ]
    assert not any("$" in each.read_text() for each in made.rglob("*") if each.is_file())
    assert list(made.parent.iterdir()) == [made]


def tool(*command, cwd):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_type_checkers_find_nothing(made, tmp_path):
    tool("mypy", "--strict", "--cache-dir", str(tmp_path), "src", "tests", cwd=made)


@pytest.mark.parametrize("name", ["a1", NAME, "acme-fixed-point-arithmetic-layers"])
def test_formatters_and_linters_find_nothing(name, tmp_path):
    made = create(name, tmp_path)
    tool("ruff", "format", "--isolated", "--no-cache", "--check", ".", cwd=made)
    rules = "E,F,I,B,UP,ANN"
    tool("ruff", "check", "--isolated", "--no-cache", "--select", rules, ".", cwd=made)


WHO = """
import json
import layergraph as lg
from layergraph.plugins import installed_plugins
winner = lg.explain("acme_scale_layers").chains[0].winner
print(json.dumps([winner and winner.distribution, len(installed_plugins())]))
"""


def test_installed_it_passes_its_own_tests_and_answers(
    made: Path, complete: Environment, tmp_path: Path
) -> None:
    no_one, before = complete.report(WHO)
    assert no_one is None
    build(tmp_path, made)
    (wheel,) = tmp_path.glob("*.whl")
    complete.pip("install", "--no-deps", wheel)
    try:
        assert complete.report(WHO) == ["acme-scale-layers", before + 1]
        code = (made / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
        shown = succeed(complete.python, "-c", code, cwd=complete.cwd)
        passed = complete.pytest(made / "tests", tmp_path / "tools")
    finally:
        complete.pip("uninstall", "--yes", NAME)
    assert "root: acme_scale_layers(features=3, factor=0.5)" in shown
    assert " passed" in passed
    assert "failed" not in passed
    assert complete.report(WHO) == [None, before]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "not the name of a distribution"),
        ("-scale", "not the name of a distribution"),
        ("../scale", "not the name of a distribution"),
        ("two words", "not the name of a distribution"),
        ("scàle", "not the name of a distribution"),
        ("layergraph", "reserved"),
        ("Layergraph_scale", "reserved"),
        ("3d-scale", "cannot import"),
        ("lambda", "cannot import"),
        ("json", "hide the installed one"),
        ("torch", "hide the installed one"),
        ("MultiheadAttention", "as a layer of torch"),
    ],
)
def test_names_that_cannot_be_are_refused(name, reason, tmp_path):
    with pytest.raises(LayergraphError, match=reason):
        create(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path):
    there = tmp_path / "acme-scale" / "mine.txt"
    there.parent.mkdir()
    there.write_text("mine")
    with pytest.raises(LayergraphError, match="exists already"):
        create("acme-scale", tmp_path)
    assert [each.name for each in there.parent.iterdir()] == ["mine.txt"]


def test_where_nothing_can_be_written_nothing_is(tmp_path, monkeypatch):
    with pytest.raises(LayergraphError, match="cannot be written"):
        create("acme-scale", tmp_path / "missing")
    # Fail as on a full disk, after half of the files.
    monkeypatch.setattr(Path, "rename", _no_space)
    with pytest.raises(LayergraphError, match="cannot be written: No space left"):
        create("acme-scale", tmp_path)
    assert not list(tmp_path.iterdir())


def _no_space(self, target):
    raise OSError(28, "No space left on device")
