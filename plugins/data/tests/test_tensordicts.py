"""Run the tests of tensordicts in a new process, because the library replaces functions of
torch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("tensordict_cases.py")


@pytest.mark.skipif(importlib.util.find_spec("tensordict") is None, reason="no tensordict here")
def test_tensordicts(tmp_path: Path) -> None:
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path}/t",
    )
    done = subprocess.run([*command, CASES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
