"""Run work in a new interpreter, with its own memory and imports."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.run import prepare

ROOT = Path(__file__).parents[1]
_UNCOMPILED = "PYTHONDONTWRITEBYTECODE"
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h


class FreshError(Exception):
    """The other process failed."""


def run_code(code: str) -> str:
    """Run a program, and return what it prints."""
    return _run(["-c", code])


def run_function(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module; arguments and result must be JSON values.

    Raises:
        FreshError: the function failed, or the system killed the process.
    """
    said = json.dumps([function.__module__, function.__qualname__, *arguments])
    return json.loads(_run(["-m", "benchmarks.fresh", said]).splitlines()[-1])


def run_module(name: str, *arguments: str) -> str:
    """Run a module as a program, and return what it prints."""
    return _run(["-m", name, *arguments])


def _run(arguments: list[str]) -> str:
    # Without bytecode caches, we would measure Python's compiler.
    environment = {key: said for key, said in os.environ.items() if key != _UNCOMPILED}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise FreshError(f"the process ended with {done.returncode}: {last}")
    return done.stdout


def peak_memory() -> int:
    """Return the peak memory of the process since ``forget_peak``, in bytes, from Linux."""
    return _memory("VmHWM")


def forget_peak() -> int:
    """Reset the peak memory, and return the current memory.

    Freed memory goes back to the system first, and from now on large blocks do so when freed.
    Otherwise the next step would reuse the heap and seem to need no memory, or heap gaps would
    count as used.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, 128 * 1024)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(kind: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def main() -> None:
    module, name, *arguments = json.loads(sys.argv[1])
    prepare()
    print(json.dumps(getattr(importlib.import_module(module), name)(*arguments)))


if __name__ == "__main__":
    main()
