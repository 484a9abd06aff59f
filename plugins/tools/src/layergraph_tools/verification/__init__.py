"""The round trip of a model, and a comparison of everything that can be observed of it."""

from layergraph_tools.verification.api import verify
from layergraph_tools.verification.report import Check, Report, Status

__all__ = ["Check", "Report", "Status", "verify"]
