"""Layout of Python lines as by ``ruff format``, with at most 100 characters per line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WIDTH = 100
INDENT = "    "

_OPEN, _CLOSE = "([{", ")]}"


def laid_out(line: str, indent: str = "") -> list[str]:
    """Return the lines for one logical line: itself if it fits, else split at its brackets.

    Args:
        line: a simple statement, or the head of a compound one, on one line.
        indent: the indentation to put before it.
    """
    if len(indent) + len(line) <= WIDTH:
        return [indent + line]
    found = _last_bracket(line)
    if found is None:
        return [indent + line]
    start, end = found
    inside = line[start + 1 : end]
    items = _items(inside)
    head, tail = indent + line[: start + 1], indent + line[end:]
    deeper = indent + INDENT
    if not line[start + 1 : end].strip() or not items:
        return [indent + line]
    is_tuple_of_one = line[start] == "(" and inside.rstrip().endswith(",")
    if len(deeper) + len(inside) <= WIDTH and not is_tuple_of_one and not _is_display(line, start):
        return [head, *laid_out(inside.rstrip(", "), deeper), tail]
    if len(items) == 1 and (" for " in items[0] or _is_operation(line, start)):
        return [head, *laid_out(items[0], deeper), tail]
    is_unpacked = items[-1].startswith("*") and _is_def(line)
    lines = [head]
    for number, item in enumerate(items):
        comma = "" if is_unpacked and number == len(items) - 1 else ","
        lines += laid_out(f"{item}{comma}", deeper)
    return [*lines, tail]


def _is_display(line: str, start: int) -> bool:
    """Return whether a bracket begins a list, dict or tuple, whose items get a line each."""
    return line[start] in "[{" and (start == 0 or not (line[start - 1].isalnum()))


def _is_def(line: str) -> bool:
    return line.startswith("def ")


def _is_operation(line: str, start: int) -> bool:
    """Return whether a bracket only groups: it follows no name."""
    return line[start] == "(" and (start == 0 or line[start - 1] in " ([{*-~")


def _last_bracket(line: str) -> tuple[int, int] | None:
    """Return the places of the last bracket at the top level and of its partner."""
    depth, begin, found = 0, 0, None
    for at, character in outside_strings(line):
        if character in _OPEN:
            if depth == 0:
                begin = at
            depth += 1
        elif character in _CLOSE:
            depth -= 1
            if depth == 0 and at > begin + 1:
                found = begin, at
    return found


def _items(inside: str) -> list[str]:
    """Return the parts between the commas at the top level."""
    parts, depth, begin = [], 0, 0
    for at, character in outside_strings(inside):
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(inside[begin:at].strip())
            begin = at + 1
    parts.append(inside[begin:].strip())
    return [part for part in parts if part]


def outside_strings(text: str) -> Iterable[tuple[int, str]]:
    """Yield the characters outside of string literals, with their places."""
    quote, escaped = "", False
    for at, character in enumerate(text):
        if not quote:
            if character in "\"'":
                quote = character
            else:
                yield at, character
        elif escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == quote:
            quote = ""


def indented(lines: Sequence[str]) -> list[str]:
    """Return the lines of a block inside a block."""
    return [f"{INDENT}{line}" for line in lines]


def laid_lines(lines: Sequence[str], indent: str) -> list[str]:
    """Lay out lines that are indented relatively to a block."""
    found: list[str] = []
    for line in lines:
        plain = line.lstrip(" ")
        found += laid_out(plain, indent + line[: len(line) - len(plain)])
    return found
