"""Comparison of two IRs: added, removed and changed items. It needs no PyTorch."""

from layergraph_tools.difference.compare import diff
from layergraph_tools.difference.report import ABSENT, Absent, Change, Difference

__all__ = ["ABSENT", "Absent", "Change", "Difference", "diff"]
