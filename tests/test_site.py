"""The documentation builds, and a warning fails the build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text())


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=folder,
        # Block the network, so that the build cannot depend on it.
        env={**os.environ, "NO_COLOR": "1", "https_proxy": "http://0.0.0.0:1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files from which the site is built."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    for sources in (ROOT / "core/src", *(ROOT / "plugins").glob("*/src")):
        shutil.copytree(sources, folder / sources.relative_to(ROOT))
    return folder


@pytest.fixture(scope="module")
def site(checkout: Path) -> Path:
    built = build(checkout)
    assert built.returncode == 0, built.stdout + built.stderr
    # zensical reports problems in docstrings, but does not fail.
    assert built.stderr.split("\n") == ["No issues found", ""], built.stderr
    return checkout / "site"


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    def pages(nav: object) -> Iterator[str]:
        if isinstance(nav, str):
            yield nav
        else:
            for each in nav.values() if isinstance(nav, dict) else nav:
                yield from pages(each)

    listed = list(pages(CONFIG["project"]["nav"]))
    docs = ROOT / "docs"
    assert sorted(listed) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))
    for page in listed:
        name = page.removesuffix(".md").removesuffix("index")
        assert (site / name / "index.html").exists(), page


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"""<(?:link|script|img)\b[^>]*\b(?:href|src)="?(?:https?:)?//[^\s">]+""")
    for page in site.rglob("*.html"):
        assert not loaded.findall(page.read_text()), page


def test_the_reference_holds_what_docstrings_say(site: Path) -> None:
    hooks = (site / "reference/hooks/index.html").read_text()
    for said in ('id="layergraph.hookspecs.torch_to_ir"', "parents first"):
        assert said in hooks
    for page in (site / "reference").rglob("*.html"):
        assert not re.search(r":[a-z]+:<code>", page.read_text()), f"{page}: roles of Sphinx"


LINKS = {
    "[to no page](nowhere.md)": "page does not exist",
    "[to no heading](reference/ir.md#nowhere)": "anchor does not exist",
    "[to no object][layergraph.nowhere]": "unresolved autoref",
}
# A page, a mistake on it, and the message about the mistake.
MISTAKES = {
    "links": ("docs/index.md", "\n".join(LINKS), LINKS.values()),
    "docstrings": ("docs/reference/errors.md", "::: layergraph.nowhere", ["could not be found"]),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_fail_the_build(site: Path, checkout: Path, kind: str) -> None:
    name, text, said = MISTAKES[kind]
    page = checkout / name
    was = page.read_text()
    page.write_text(f"{was}\n{text}\n")
    try:
        built = build(checkout)
    finally:
        page.write_text(was)
    assert built.returncode != 0
    for each in said:
        assert each in built.stderr
