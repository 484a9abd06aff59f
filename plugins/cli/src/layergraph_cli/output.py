"""Print to the terminal, and escape the control characters of files.

The functions neither cut nor wrap lines. rich prints colours only to a terminal, and respects
``NO_COLOR``.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text


def plain(text: str) -> str:
    """Escape the characters of a text that do not print, including line breaks."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def one_line(text: str) -> str:
    """Put a text on one line, and escape characters that do not print."""
    return plain(" ".join(text.split()))


# Messages name arguments of Python functions in their remedies. The command has these options.
_IN_PYTHON = {
    "capture it with example inputs: to_ir(model, args)": "name a function that gives inputs by "
    "--inputs package.module:function",
    "convert with values='both'": "convert with --values both",
    "give args and kwargs as in a call": "let --inputs give a tuple of arguments",
    "give Limits(": "load it in Python and give limits=layergraph.Limits(",
}


def in_options(message: str) -> str:
    """Replace arguments of Python functions in a message with options of the command."""
    for argument, option in _IN_PYTHON.items():
        message = message.replace(argument, option)
    return message


def counted(count: int, what: str) -> str:
    """Return a count with its noun: ``2 layers``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def line(*parts: str | tuple[str, str]) -> None:
    """Print one line.

    Args:
        parts: plain texts, or pairs of a text and a rich style.
    """
    shown = Text()
    for part in parts:
        text, style = part if isinstance(part, tuple) else (part, "")
        shown.append(plain(text), style)
    _console().print(shown)


def as_json(form: Any) -> None:
    """Print one JSON text, for scripts."""
    sys.stdout.write(json.dumps(form, indent=1, allow_nan=False) + "\n")


def warn(message: Warning | str) -> None:
    """Print a warning in one line on standard error."""
    sys.stderr.write(f"layergraph: warning: {one_line(in_options(str(message)))}\n")


@functools.cache
def _console_of(stream: Any) -> Console:
    return Console(file=stream, soft_wrap=True, highlight=False, emoji=False, markup=False)


def _console() -> Console:
    return _console_of(sys.stdout)
