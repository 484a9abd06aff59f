"""Comparing two IRs: what was added, removed and changed. Needs no PyTorch."""

from layergraph_tools.difference.compare import diff
from layergraph_tools.difference.report import ABSENT, Absent, Change, Difference

__all__ = ["ABSENT", "Absent", "Change", "Difference", "diff"]
