"""Docstrings are written for Sphinx and for `help()`; this makes Markdown of them for the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

# :func:`layergraph.to_ir`, :class:`~layergraph.Ir`
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?(?P<target>[^`]+)`")
# griffe reads the lines of Python of the section "Examples" as code.
EXAMPLE = re.compile(r"^Example::?$", re.MULTILINE)
LITERAL_BLOCK = re.compile(r"::$", re.MULTILINE)


class Roles(griffe.Extension):
    """Writes roles as code, examples as code, and ``::`` before a literal block as a colon."""

    def on_instance(self, *, obj: griffe.Object, **_kwargs: Any) -> None:
        """Change the docstring of what was collected."""
        if obj.docstring is not None:
            text = ROLE.sub(r"`\g<target>`", obj.docstring.value)
            text = EXAMPLE.sub("Examples:", text)
            obj.docstring.value = LITERAL_BLOCK.sub(":", text)
