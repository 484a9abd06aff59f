"""The example of a back end, as a package that users install, use and uninstall."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environment import CHECKOUT, Environment, run, succeed

pytestmark = pytest.mark.slow

NAME = "acme-c"
FOLDER = CHECKOUT / "examples" / NAME

SAVE = """
import torch
import layergraph as lg
model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
lg.save(lg.to_ir(model), "net.c", model.state_dict(), args=((1, 2),))
"""


@pytest.fixture(scope="module")
def installed(complete: Environment, wheel: Callable[[str], Path]) -> Iterator[Environment]:
    complete.pip("install", wheel(NAME))
    try:
        yield complete
    finally:
        complete.pip("uninstall", "--yes", NAME)
    done = run(complete.python, "-c", SAVE, cwd=complete.cwd)
    assert "ArgumentError: 'args' is not an option for this path" in done.stderr
    assert done.returncode == 1


def test_it_passes_its_own_tests(installed: Environment, tmp_path: Path) -> None:
    passed = installed.pytest(FOLDER / "tests", tmp_path / "tools")
    assert re.search(r"^\d+ passed", passed, re.MULTILINE)


def test_its_suffix_and_its_target_are_there(installed: Environment) -> None:
    succeed(installed.python, "-c", SAVE, cwd=installed.cwd)
    written = installed.cwd / "net.c"
    assert "void net(const float *x0, float *out0)" in written.read_text()
    written.unlink()
    listed = succeed(installed.layergraph, "targets", "--target", "c", cwd=installed.cwd)
    assert "conv2d: acme-c" in listed.splitlines()


def test_it_is_small() -> None:
    lines = [file.read_text().splitlines() for file in (FOLDER / "src").rglob("*.py")]
    assert sum(map(len, lines)) <= 300
