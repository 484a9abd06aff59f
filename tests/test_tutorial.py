"""Pages whose commands are for a shell, done to the letter in a clean environment.

Nothing is downloaded: after a page has made a virtual environment, that sees the files of PyTorch and
of what else is asked for, those of the environment that runs the tests.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, blocks, environment, follow
from tests.test_wheels import closure, installed, tops

# Pages that stand for themselves, from an empty folder beside a checkout named layergraph.
SCRIPTS = [page for page in PAGES if any(each.language == "console" for each in blocks(page))]
# What pip would download: what layergraph and the pages need, and what builds wheels.
DOWNLOADED = ("layergraph", "numpy", "pytest", "hatchling", "editables", "setuptools")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder that holds a checkout, as far as it is installed, and nothing else."""
    ignored = shutil.ignore_patterns("tests", "__pycache__", "*.egg-info")
    for part in ("core", "plugins"):
        shutil.copytree(ROOT / part, tmp_path / "layergraph" / part, ignore=ignored)
    return tmp_path


def download(folder: Path) -> None:
    """Let the new virtual environment in a folder see what pip would download for it."""
    (site_packages,) = folder.glob("*/.venv/lib/python*/site-packages")
    # Pythons before 3.12 bring one that is too old to build with, as pip would not do here.
    for old in [*site_packages.glob("setuptools*"), *site_packages.glob("pkg_resources")]:
        shutil.rmtree(old)
    for name, distribution in closure(installed(), *DOWNLOADED).items():
        if not name.startswith("layergraph"):
            for top in tops(distribution):
                link = site_packages / top.name
                if not link.exists():
                    link.symlink_to(top)


def test_there_are_scripts() -> None:
    assert ROOT / "docs/tutorial.md" in SCRIPTS


@pytest.mark.parametrize("page", SCRIPTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page: Path, machine: Path) -> None:
    env = environment(
        PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        HOME=str(machine),
        # A configuration of this machine is none of the reader's, and pip's notices are about pip.
        PIP_CONFIG_FILE=os.devnull,
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_INDEX="1",
        PIP_NO_BUILD_ISOLATION="0",  # pip reads it the other way round: off
        PYTEST_ADDOPTS="-p no:cacheprovider",
    )
    follow(page, machine, env, lambda done: download(machine) if "-m venv" in done else None)
