"""The text form of a selection: ``layer*.* conv2d[groups>1]``."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from layergraph.errors import brief
from layergraph_rewrite.errors import EditError

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_TEST = re.compile(r"\s*([\w.]+)\s*(?:(<=|>=|!=|==?|<|>)\s*([^<>=!].*?))?\s*$")
_WORDS = {"true": True, "false": False, "null": None}
_FORM = "write it as PATH TYPE[NAME=VALUE, …], as in layer*.* conv2d[groups>1]"


class AttributeTest(NamedTuple):
    """A comparison of an attribute with a value; without an operator, the attribute exists."""

    name: str
    operator: str
    value: Any

    def holds(self, value: Any) -> bool:
        """Return whether a value passes. A value of another type does not."""
        if not self.operator:
            return True
        try:
            return bool(_OPERATORS[self.operator](value, self.value))
        except TypeError:
            return False


def attribute_tests(attributes: Mapping[str, Any]) -> list[AttributeTest]:
    """Return the comparisons for attributes by name."""
    return [AttributeTest(name, "=", value) for name, value in attributes.items()]


def parsed(text: str) -> tuple[str, str, list[AttributeTest]]:
    """Return the path, the type and the comparisons of a text; each may be empty.

    Raises:
        EditError: the text has another form.

    Example:
        >>> from layergraph_rewrite.conditions import parsed
        >>> parsed("layer* conv2d[groups>1]")
        ('layer*', 'conv2d', [AttributeTest(name='groups', operator='>', value=1)])
    """
    body, bracket, rest = text.partition("[")
    if bracket and not rest.rstrip().endswith("]"):
        raise EditError(f"{text!r} selects nothing: a bracket is not closed; {_FORM}")
    words = body.split()
    if len(words) > 2 or not (words or bracket) or "]" in body:
        raise EditError(f"{text!r} selects nothing; {_FORM}")
    tests = [_test(text, each) for each in _split(rest.rstrip()[:-1])] if bracket else []
    if len(words) == 2:
        return words[0], words[1], tests
    return "", words[0] if words else "", tests


def _split(text: str) -> list[str]:
    """Split a text at commas outside of brackets and quotes."""
    parts, depth, quote, part = [], 0, "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += (letter in "([") - (letter in ")]") if not quote else 0
        if letter == "," and depth == 0 and not quote:
            parts.append(part)
            part = ""
        else:
            part += letter
        if depth < 0:
            break
    if depth or quote:
        raise EditError(f"{text!r}: a bracket or quote stands alone; {_FORM}")
    return [*parts, part]


def _test(text: str, part: str) -> AttributeTest:
    found = _TEST.match(part)
    if found is None:
        raise EditError(f"{text!r}: {brief(part.strip())} is no comparison; {_FORM}")
    name, sign, value = found.groups()
    return AttributeTest(name, {None: "", "==": "="}.get(sign, sign), _literal(value))


def _literal(text: str | None) -> Any:
    """Return the value of a literal of Python or JSON; any other word is a string."""
    if text is None:
        return None
    if text in _WORDS:
        return _WORDS[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
