"""Weights that wrap other tensors have no memory: a kernel that reads it ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from plugins.capture.tests.wrapped import cases


def test_layers_with_such_weights_come_back_and_the_process_lives():
    command = [sys.executable, "-m", "plugins.capture.tests.wrapped"]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(cases())
