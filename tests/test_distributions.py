"""The distributions describe themselves, and ask for each other."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.environment import CHECKOUT, PACKAGES, PLUGINS

ALL = [CHECKOUT, *PACKAGES]


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


VERSION = project(CHECKOUT)["version"]


def test_one_install_gives_all() -> None:
    builtins = {f"layergraph-{each.name}=={VERSION}" for each in PLUGINS}
    wanted = {f"layergraph-core=={VERSION}", *builtins}
    assert set(project(CHECKOUT)["dependencies"]) == wanted


@pytest.mark.parametrize("folder", ALL, ids=lambda each: each.name)
def test_a_distribution_tells_who_may_use_it_and_where_it_is_from(folder: Path) -> None:
    said, model = project(folder), project(CHECKOUT)
    for key in ("version", "license", "license-files", "authors", "classifiers", "urls"):
        assert said[key] == model[key], key
    assert said["license"] == "MIT"
    assert (folder / "LICENSE").read_text() == (CHECKOUT / "LICENSE").read_text()
    assert said["description"]
    assert (folder / said["readme"]).exists()


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda each: each.name)
def test_a_plugin_asks_for_the_core_of_its_own_version(folder: Path) -> None:
    family = [each for each in project(folder)["dependencies"] if each.startswith("layergraph")]
    assert family == [f"layergraph-core=={VERSION}"]
    assert project(folder)["name"] == f"layergraph-{folder.name}"


@pytest.mark.slow
def test_the_core_imports_no_plugin_and_nothing_of_the_command_line() -> None:
    for file in (CHECKOUT / "core" / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                assert top not in ("rich", "typer"), f"{file}:{node.lineno}"
                assert not top.startswith("layergraph_"), f"{file}:{node.lineno}"


def test_the_changelog_has_a_section_for_what_comes_and_for_the_version() -> None:
    headings = re.findall(r"^## \[(.+)\]", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert VERSION in headings
