"""Templates: the common text of instances of one class, with holes where they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Hole:
    """A place for an expression that may differ between instances.

    Attributes:
        wish: the name for a parameter in this place.
        owner: the name of the child that the argument belongs to.
        text: the expression of this instance.
    """

    wish: str = field(compare=False)
    owner: str = field(compare=False)
    text: str


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a call.

    Attributes:
        prefix: the name with an equals sign, or nothing.
        value: the value.
        is_default: True if the argument equals its default.
    """

    prefix: str
    value: Template
    is_default: bool = False


Template: TypeAlias = "tuple[str | Hole | Argument, ...]"


def holes(template: Template) -> Iterator[Hole]:
    """Yield the holes of a template in order."""
    for piece in template:
        if isinstance(piece, Hole):
            yield piece
        elif isinstance(piece, Argument):
            yield from holes(piece.value)


def skeleton(template: Template) -> tuple[object, ...]:
    """Return a key that is equal for templates that differ only in their holes."""
    return tuple([_shape(piece) for piece in template])


def _shape(piece: str | Hole | Argument) -> object:
    if isinstance(piece, Argument):
        return piece.prefix, skeleton(piece.value)
    return piece if isinstance(piece, str) else None


def rendered(
    templates: Sequence[Template], fill: Callable[[int], str], start: int = 0
) -> tuple[str, int]:
    """Return the text of templates that have one skeleton.

    Args:
        templates: one for each instance.
        fill: returns the expression for the hole of a number.
        start: the number of the first hole.

    Returns:
        The text, and the number after the last hole.
    """
    parts: list[str] = []
    number, is_listed = start, False
    for pieces in zip(*templates, strict=True):
        first = pieces[0]
        if isinstance(first, Argument):
            arguments = [piece for piece in pieces if isinstance(piece, Argument)]
            text, number = rendered([each.value for each in arguments], fill, number)
            if all(each.is_default for each in arguments):
                continue
            parts.append(f"{', ' if is_listed else ''}{first.prefix}{text}")
            is_listed = True
        elif isinstance(first, Hole):
            parts.append(fill(number))
            number += 1
        else:
            parts.append(first)
            is_listed = False
    return "".join(parts), number
