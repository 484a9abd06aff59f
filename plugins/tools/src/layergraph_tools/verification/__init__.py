"""The round trip of a model through the IR, and a comparison of everything observable."""

from layergraph_tools.verification.api import verify
from layergraph_tools.verification.report import Check, Report, Status

__all__ = ["Check", "Report", "Status", "verify"]
