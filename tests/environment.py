"""Wheels, and clean environments to install them into.

Nothing downloads PyTorch again: an environment sees torch, torchvision and other distributions of
the environment that runs the tests, with their dependencies and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent
PLUGINS = sorted(each.parent for each in CHECKOUT.glob("plugins/*/pyproject.toml"))
PACKAGES = [CHECKOUT / "core", *PLUGINS]
THIRD_PARTY = sorted(
    each.parent
    for where in ("tests/third_party", "examples")
    for each in CHECKOUT.glob(f"{where}/*/pyproject.toml")
)


def build(folder: Path, *packages: Path) -> None:
    """Build the wheels of packages into a folder."""
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", folder)
    succeed(sys.executable, "-m", "pip", "wheel", *options, *packages, cwd=folder)


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        # PYTHONPATH and its like would let the checkout in.
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(*command: object, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


Distributions = dict[str, importlib.metadata.Distribution]


def installed(*path: Path) -> Distributions:
    """Return the distributions in folders, by normalised name; by default, those of the tests."""
    where = {"path": [str(each) for each in path]} if path else {}
    return {canonicalize_name(one.name): one for one in importlib.metadata.distributions(**where)}


def closure(present: Distributions, *names: str) -> Distributions:
    """Return distributions with everything that they require."""
    pending = [Requirement(name) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        wanted = pending.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen:
            continue
        seen.add(key)
        for line in present[key[0]].requires or ():
            required = Requirement(line)
            if required.marker is None or any(
                required.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)
            ):
                pending.append(required)
    return {name: present[name] for name, _ in seen}


def tops(distribution: importlib.metadata.Distribution) -> Iterable[Path]:
    """Return the files and folders directly in site-packages that belong to a distribution."""
    assert distribution.files, f"{distribution.name} does not list its files"
    names = {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}
    return (Path(str(distribution.locate_file(name))) for name in names)


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and an empty folder to run commands in."""

    python: Path
    site_packages: Path
    cwd: Path

    @classmethod
    def create(cls, folder: Path, *downloaded: str) -> Environment:
        venv, cwd = folder / "venv", folder / "elsewhere"
        cwd.mkdir()
        # Without pip: the pip of the tests can install into it, which is seconds faster.
        succeed(sys.executable, "-m", "venv", "--without-pip", venv, cwd=cwd)
        python = venv / "bin" / "python"
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site_packages = Path(succeed(python, "-c", where, cwd=cwd).strip())
        needed = closure(installed(), "torch", "torchvision", *downloaded).values()
        for top in {top for distribution in needed for top in tops(distribution)}:
            (site_packages / top.name).symlink_to(top)
        return cls(python, site_packages, cwd)

    @property
    def layergraph(self) -> Path:
        """Return the path of the installed command."""
        return self.python.with_name("layergraph")

    def pip(self, *arguments: object) -> str:
        pip = (sys.executable, "-m", "pip", "--python", self.python, "--quiet")
        return succeed(*pip, *arguments, cwd=self.cwd)

    def report(self, code: str) -> Any:
        """Return the parsed JSON that a script prints."""
        return json.loads(
            succeed(self.python, "-W", "error::UserWarning", "-c", code, cwd=self.cwd)
        )

    def demo(self) -> subprocess.CompletedProcess[str]:
        # A copy, because the folder of a script is on its sys.path.
        script = shutil.copy(TESTS / "demo.py", self.cwd / "demo.py")
        return run(self.python, script, cwd=self.cwd)

    def pytest(self, folder: Path, tools: Path) -> str:
        """Run the tests in a folder, with the pytest of this process's environment."""
        if not tools.exists():
            tools.mkdir()
            for top in {
                top for each in closure(installed(), "pytest").values() for top in tops(each)
            }:
                (tools / top.name).symlink_to(top)
        code = (
            f"import sys; sys.path.append({str(tools)!r}); import pytest; sys.exit(pytest.main())"
        )
        return succeed(
            self.python, "-c", code, "-q", "-p", "no:cacheprovider", folder, cwd=self.cwd
        )
