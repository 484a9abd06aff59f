"""Pages with shell commands, which the tests run to the letter in a clean environment.

The tutorial creates its environment itself. The other pages begin with layergraph installed. The
tests download nothing: a new virtual environment sees the files of PyTorch and of the other
requirements in the environment that runs the tests.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment import closure, installed, tops
from tests.pages import PAGES, ROOT, Shell, blocks, environment, follow

pytestmark = pytest.mark.slow

TUTORIAL = ROOT / "docs/tutorial.md"
# Pages that other tests run.
ELSEWHERE = {
    ROOT / "docs/reference/command-line.md": "test_command_line.py",
    ROOT / "examples/acme-fixed-point/README.md": "test_examples.py",
}
SCRIPTS = [
    page for page in PAGES if any(each.language == "console" or each.title for each in blocks(page))
]
# The distributions that pip would download: for layergraph, for the pages, and to build wheels.
DOWNLOADED = "layergraph rich typer numpy pytest flit_core hatchling setuptools".split()


def reader(folder: Path, *path: Path) -> dict[str, str]:
    """Return a reader's environment, whose PATH begins with a folder of programs."""
    return environment(
        PATH=os.pathsep.join(
            [*map(str, path), str(Path(sys.executable).parent), os.environ["PATH"]]
        ),
        HOME=str(folder),
        # The reader has no pip configuration of this machine, and sees no notice of a new pip.
        PIP_CONFIG_FILE=os.devnull,
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_INDEX="1",
        PIP_NO_BUILD_ISOLATION="0",  # for pip, this value means off
        PYTEST_ADDOPTS="-p no:cacheprovider",
    )


def checkout(folder: Path) -> None:
    """Copy the installed parts of the checkout into a folder."""
    ignored = shutil.ignore_patterns("tests", "__pycache__", "*.egg-info")
    for part in ("core", "plugins"):
        shutil.copytree(ROOT / part, folder / "layergraph" / part, ignore=ignored)
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, folder / "layergraph" / part)


def download(environment: Path) -> None:
    """Let a new virtual environment see the distributions that pip would download."""
    (site_packages,) = environment.glob("lib/python*/site-packages")
    # Python before 3.12 installs an old setuptools, which cannot build the packages.
    for old in [*site_packages.glob("setuptools*"), *site_packages.glob("pkg_resources")]:
        shutil.rmtree(old)
    for name, distribution in closure(installed(), *DOWNLOADED).items():
        if not name.startswith("layergraph"):
            for top in tops(distribution):
                link = site_packages / top.name
                if not link.exists():
                    link.symlink_to(top)


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    checkout(tmp_path)

    def after(command: str) -> None:
        if command == "python3 -m venv .venv":
            download(tmp_path / "work/.venv")

    follow(TUTORIAL, tmp_path, reader(tmp_path), after)
    assert (tmp_path / "work/.venv").exists()


@pytest.fixture(scope="module")
def layergraph_is_installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a virtual environment as the tutorial does."""
    folder = tmp_path_factory.mktemp("machine")
    checkout(folder)
    shell = Shell(folder, reader(folder, folder / ".venv/bin"))
    try:
        shell.run("python3 -m venv .venv")
        download(folder / ".venv")
        shell.run("cd layergraph && pip install --quiet . ./core ./plugins/*")
    finally:
        shell.close()
    return folder / ".venv"


@pytest.fixture
def programs(layergraph_is_installed: Path) -> Iterator[Path]:
    """Yield the programs of such an environment, and restore it afterwards."""
    (site_packages,) = layergraph_is_installed.glob("lib/python*/site-packages")
    before = installed(site_packages).keys()
    yield layergraph_is_installed / "bin"
    added = installed(site_packages).keys() - before
    if added:
        env = reader(layergraph_is_installed, layergraph_is_installed / "bin")
        shell = Shell(layergraph_is_installed, env)
        try:
            shell.run(f"pip uninstall --yes {' '.join(added)}")
        finally:
            shell.close()


@pytest.mark.parametrize(
    "page",
    [page for page in SCRIPTS if page not in (TUTORIAL, *ELSEWHERE)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_a_page_does_what_it_says(page: Path, programs: Path, tmp_path: Path) -> None:
    follow(page, tmp_path, reader(tmp_path, programs))


def test_pages_that_are_done_elsewhere_are_known_there() -> None:
    assert {*ELSEWHERE, TUTORIAL} < set(SCRIPTS)
    for page, test in ELSEWHERE.items():
        assert page.name in (ROOT / "tests" / test).read_text()
