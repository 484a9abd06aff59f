"""Comparing two IRs: what was added, removed and changed. Needs no PyTorch."""

from layergraph.difference.compare import diff
from layergraph.difference.report import ABSENT, Absent, Change, Difference

__all__ = ["ABSENT", "Absent", "Change", "Difference", "diff"]
