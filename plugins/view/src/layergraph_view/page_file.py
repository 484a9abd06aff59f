"""The page: one HTML file that needs no network.

Its policy lets a browser run the script of the page, by its hash, and nothing else: no other
script, no request, no form. Text of the model is in the data, which is base64, and in the title,
which is escaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import importlib.resources
from string import Template

from layergraph_view.document import Document
from layergraph_view.page_data import encoded

_SCRIPTS = "items layout picture panels search main keys".split()


def page(made: Document) -> str:
    """Return the HTML page of a document."""
    script = _dagre() + "".join(_file(f"{each}.js") for each in _SCRIPTS)
    styles = _file("picture.css"), _file("page.css")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {' '.join(map(_hash, styles))}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )
    return Template(_file("page.html")).substitute(
        title=html.escape(made.title),
        policy=policy,
        picture_style=styles[0],
        page_style=styles[1],
        data=encoded(made),
        script=script,
    )


def _dagre() -> str:
    """Return the source of dagre with its licence text, which the licence requires.

    The reference to a source map is removed, because the page does not have that file.
    """
    code, _, _ = _file("dagre.min.js").partition("//# sourceMappingURL")
    return f"/*! dagre 3.1.3\n\n{_file('dagre-LICENSE.txt')}*/\n{code}"


def _hash(text: str) -> str:
    """Return the content-security-policy source for a script or style with this text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@functools.cache
def _file(name: str) -> str:
    """Return the text of a file of the page, with Unix line ends, because its hash needs them."""
    folder = importlib.resources.files("layergraph_view").joinpath("page")
    return folder.joinpath(name).read_text("utf-8").replace("\r\n", "\n")
