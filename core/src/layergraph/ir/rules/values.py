"""Rules of values: plain, nested to a limit, with integers of a limited length."""

from __future__ import annotations

from layergraph.errors import brief
from layergraph.ir.rules.problems import Problems, Where
from layergraph.ir.values import (
    ATOMS,
    MAX_INTEGER_BITS,
    MAX_NESTING,
    MAX_NUMBER_KEYS,
    Body,
    Record,
    Ref,
    Symbol,
    Value,
    is_key,
    parts,
)

# Types of which every value is allowed.
_SOUND = ATOMS - {Ref, Body, Symbol, int}
_ONLY_IN_ARGUMENTS = frozenset({Ref, Body})


# A quick check: most integers are small, and a comparison is faster than a call.
_EASY = 2**53


def check_value(problems: Problems, place: Where, what: str, which: object, value: Value) -> None:
    """Check an attribute or argument and all values inside it.

    Args:
        problems: the list of problems, which grows.
        place: the place of the implementation, node or edge.
        what: ``attribute`` or ``argument``.
        which: its name or index.
        value: the value.
    """
    kind = type(value)
    if kind in _SOUND or (kind is int and -_EASY <= value <= _EASY):
        return
    if kind is Ref and what == "argument" and type(value.node) is str:
        return
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if type(item) is int:
            if not _is_short(item):
                problems.add(
                    place,
                    f"its {what} {which!r} holds an integer of {item.bit_length()} bits",
                    f"use integers of up to {MAX_INTEGER_BITS} bits",
                )
            continue
        inside = parts(item)
        if not _is_sound(item) or (type(item) in _ONLY_IN_ARGUMENTS and what != "argument"):
            problems.add(
                place,
                f"its {what} {which!r} holds {brief(item)}, a {type(item).__name__}",
                "use plain values: numbers, strings, None, lists, tuples, dicts, slices",
            )
        elif inside is None:
            continue
        elif type(item) is dict and sum(type(key) is not str for key in item) > MAX_NUMBER_KEYS:
            problems.add(
                place,
                f"its {what} {which!r} holds a dict with {len(item)} keys, most of them no strings",
                f"use strings as keys, or up to {MAX_NUMBER_KEYS} others",
            )
        elif depth == MAX_NESTING:
            message = f"its {what} {which!r} is nested too deeply"
            problems.add(place, message, f"nest {MAX_NESTING} deep")
            return
        else:
            stack += [
                (each, depth + 1)
                for each in inside
                if type(each) not in _SOUND and not (type(each) is int and -_EASY <= each <= _EASY)
            ]


def _is_short(number: int) -> bool:
    return -_EASY <= number <= _EASY or number.bit_length() <= MAX_INTEGER_BITS


def _is_sound(item: Value) -> bool:
    """Return whether a value has a plain type, without checking the values inside it."""
    kind = type(item)
    if kind is Ref:
        return type(item.node) is str
    if kind is Symbol:
        return type(item.name) is str
    if kind is Body:
        return type(item.implementation) is str
    if kind is Record:
        named = type(item.type) is str and type(item.fields) is dict
        return named and all(type(name) is str for name in item.fields)
    if kind is dict:
        return all(map(_is_key, item))
    return kind in ATOMS or kind in (list, tuple, slice)


def _is_key(key: Value) -> bool:
    return is_key(key) and all(
        type(each) is not int or _is_short(each) for each in (key if type(key) is tuple else (key,))
    )
