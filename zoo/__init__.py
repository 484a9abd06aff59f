"""Models of others, converted and compared: run by ``make zoo``."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from zoo.entry import Entry
from zoo.mixed import mixed_entries
from zoo.pictures import picture_entries
from zoo.sound import sound_entries
from zoo.text import text_entries
from zoo.vision import vision_entries

__all__ = ["Entry", "all_entries", "matching"]


def all_entries() -> list[Entry]:
    """Every model of the zoo. None is built before it is asked for."""
    return [
        *vision_entries(),
        *text_entries(),
        *picture_entries(),
        *sound_entries(),
        *mixed_entries(),
    ]


def matching(entries: Iterable[Entry], pattern: str) -> list[Entry]:
    """Those whose name or family is like a shell's pattern, in whatever case."""
    wanted = pattern.lower()
    return [
        each
        for each in entries
        if fnmatchcase(each.name.lower(), wanted) or fnmatchcase(each.family.lower(), wanted)
    ]
