"""The Python that elastic-ai.creator runs in: its graphs need a newer one than ours."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OLDEST = (3, 12)
HERE = Path(__file__).parent
VENV = HERE.parent / ".bench" / "creator"
PACKAGES = ("elasticai-creator", "typing_extensions")


@functools.cache
def creator_python() -> str:
    """Return an interpreter that can import the graphs of elastic-ai.creator.

    If the running interpreter is too old, a newer one makes a virtual environment in ``.bench``:
    one on ``PATH``, or one of pyenv.

    Raises:
        RuntimeError: there is no newer one, or pip cannot install the packages.
    """
    if sys.version_info >= OLDEST:
        return sys.executable
    python = VENV / "bin" / "python"
    if not _runs(python, "import elasticai.creator.graph"):
        newer = next(filter(_is_new, _interpreters()), None)
        if newer is None:
            raise RuntimeError("needs Python 3.12 or newer: none is on PATH or in pyenv")
        _work([newer, "-m", "venv", "--clear", str(VENV)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _work([*pip, "--no-deps", "-c", str(HERE / "requirements.txt"), *PACKAGES])
    return str(python)


def _interpreters() -> Iterator[str]:
    for minor in range(OLDEST[1], OLDEST[1] + 8):
        yield from filter(None, [shutil.which(f"python3.{minor}")])
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(root.glob("versions/3.*/bin/python")))


def _is_new(python: str) -> bool:
    # A shim of pyenv is on PATH also where its version is not selected, and then fails.
    return _runs(python, f"import sys, venv; assert sys.version_info >= {OLDEST}")


def _runs(python: str | Path, code: str) -> bool:
    try:
        return not subprocess.run([python, "-c", code], capture_output=True, check=False).returncode
    except OSError:
        return False


def _work(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"{command[0]} failed")
