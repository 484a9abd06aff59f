"""The metadata and the dependencies of the distributions."""

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


def names_imported(file: Path) -> list[str]:
    """Return the modules that a file imports when it runs, without those for type checkers only."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


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


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda each: each.name)
def test_no_file_has_the_name_of_a_function_of_its_package(folder: Path) -> None:
    # The import of package.commands would put this module in place of the hook package.commands.
    for file in folder.glob("src/**/__init__.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                assert not (file.parent / f"{node.name}.py").exists(), file


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda each: each.name)
def test_a_plugin_asks_for_what_it_imports_of_its_own_version(folder: Path) -> None:
    family = {each for each in project(folder)["dependencies"] if each.startswith("layergraph")}
    imported = {
        name.partition(".")[0]
        for file in (folder / "src").rglob("*.py")
        for name in names_imported(file)
        if name.startswith("layergraph") and not name.startswith(f"layergraph_{folder.name}")
    }
    wanted = {"layergraph-core", *(each.replace("_", "-") for each in imported)} - {"layergraph"}
    assert {each.partition("==")[0] for each in family} >= wanted
    assert all(each.endswith(f"=={VERSION}") for each in family)
    kits = set("adapters backends cli creator distributed index nir onnx passes tools view".split())
    assert folder.name in kits or wanted == {"layergraph-core"}
    assert project(folder)["name"] == f"layergraph-{folder.name}"


@pytest.mark.slow
def test_the_core_imports_no_plugin_and_nothing_of_the_command_line() -> None:
    for file in (CHECKOUT / "core" / "src").rglob("*.py"):
        for name in names_imported(file):
            top = name.partition(".")[0]
            assert top not in ("rich", "typer"), file
            assert not top.startswith("layergraph_"), file


def test_the_changelog_has_a_section_for_what_comes_and_for_the_version() -> None:
    headings = re.findall(r"^## \[(.+)\]", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert VERSION in headings
