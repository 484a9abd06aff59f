"""The errors of edits, selections and rewrites."""

from __future__ import annotations

from layergraph.errors import LayergraphError


class EditError(LayergraphError):
    """An edit, a selection or a rule cannot be applied. The message says where and why."""


class Refused(Exception):  # noqa: N818 it is no error, but an answer
    """A replacement does not apply to a match; the message gives the reason for the report."""
