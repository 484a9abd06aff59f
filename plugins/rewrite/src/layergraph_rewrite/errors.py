"""The errors of edits, selections and rewrites."""

from __future__ import annotations

from layergraph.errors import LayergraphError


class EditError(LayergraphError):
    """An edit, a selection or a rule cannot be applied. The message says where and why."""
