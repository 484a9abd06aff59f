"""The text that points to a line of code."""

from __future__ import annotations

import linecache
import os


def line(filename: str, number: int, function: str) -> str:
    """A line of code, with its place."""
    text = linecache.getline(filename, number).strip()
    return f"{filename.rpartition(os.sep)[2]}, line {number}, in {function}: {text}"
