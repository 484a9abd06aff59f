"""What reaches the terminal: never a control character of somebody's file.

Nothing is cut off or wrapped. Colours are for terminals alone, and rich asks whether they are
wanted: ``NO_COLOR`` and its like are its affair.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text


def plain(text: str) -> str:
    """A text whose characters all print as one; others, line breaks too, are escaped."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def one_line(text: str) -> str:
    """A text of one line that prints as it is."""
    return plain(" ".join(text.split()))


# Remedies in messages are written for callers in Python; these are their names on the command line.
_IN_PYTHON = {
    "capture it with example inputs: to_ir(model, args)": "name a function that gives inputs by "
    "--inputs package.module:function",
    "convert with values='assume'": "convert with --values assume",
    "give args and kwargs as in a call": "let --inputs give a tuple of arguments",
    "give Limits(": "load it in Python and give limits=layergraph.Limits(",
}


def in_options(message: str) -> str:
    """A message with the options of this command for the arguments of layergraph's functions."""
    for said, option in _IN_PYTHON.items():
        message = message.replace(said, option)
    return message


def counted(count: int, what: str) -> str:
    """How many there are of something."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def line(*parts: str | tuple[str, str]) -> None:
    """Print one line.

    Args:
        parts: texts, each alone or with a style of rich.
    """
    shown = Text()
    for part in parts:
        text, style = part if isinstance(part, tuple) else (part, "")
        shown.append(plain(text), style)
    _console().print(shown)


def as_json(form: Any) -> None:
    """Print what a script asked for: one JSON text, and nothing else."""
    sys.stdout.write(json.dumps(form, indent=1, allow_nan=False) + "\n")


def warn(message: Warning | str) -> None:
    """Show a warning as this command shows all that goes wrong."""
    sys.stderr.write(f"layergraph: warning: {one_line(in_options(str(message)))}\n")


@functools.cache
def _console_of(stream: Any) -> Console:
    return Console(file=stream, soft_wrap=True, highlight=False, emoji=False, markup=False)


def _console() -> Console:
    return _console_of(sys.stdout)
