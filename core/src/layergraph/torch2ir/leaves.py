"""What makes a leaf behave as it does: noted before the model runs, and compared at each call."""

from __future__ import annotations

import operator
from typing import Any

from layergraph.torch2ir.changes import are_one, are_the_same
from layergraph.torch2ir.survey import Survey, Surveyed


def note_leaves(survey: Survey) -> dict[Surveyed, bool]:
    """Note what makes each leaf behave as it does; give whether each module is training."""
    for each in survey:
        if each.is_leaf:
            each.as_found = each.as_found or _noted(_members(each))
    return {each: each.module.training for each in survey}


def is_changed(surveyed: Surveyed, trains: dict[Surveyed, bool]) -> bool:
    """Whether code has given a leaf another mode, or other attributes, for a call."""
    return vars(surveyed.module)["training"] != trains[surveyed] or not is_as_found(surveyed)


def is_as_found(surveyed: Surveyed) -> bool:
    """Whether nobody else has changed what makes a leaf behave as it does, but for its mode."""
    if is_untouched(surveyed):
        return True
    now = _members(surveyed)
    return are_one(now, surveyed.as_found) or are_one(now, surveyed.as_left)


def is_untouched(surveyed: Surveyed) -> bool:
    """Whether a leaf holds the very objects that it held when it was found: nearly all do."""
    return all(map(are_the_same, _members(surveyed), surveyed.as_found))


def note_left(surveyed: Surveyed) -> None:
    """See what a leaf has noted down in its attributes, in a call of its own.

    That is its own affair, as long as its handler says the same of it: what is rebuilt notes it
    down as well.
    """
    now, before = _members(surveyed), surveyed.as_found
    if are_one(now, before):
        return
    if are_one(_registered(now), _registered(before)) and surveyed.is_still_answered():
        surveyed.as_left = _noted(now)


def _noted(members: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    return tuple(map(_copied, members))


def _registered(members: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of what makes a leaf behave as it does, what is no plain attribute."""
    step = len(_REGISTERED) + 1
    return tuple(each for place, each in enumerate(members) if place % step)


def _members(surveyed: Surveyed) -> tuple[dict[str, Any], ...]:
    """What makes a leaf behave as it does, but for its mode."""
    found: list[dict[str, Any]] = []
    for each in surveyed.inside:
        members = vars(each)
        found += [members | _ANY_MODE, *_registries(members)]
    return tuple(found)


_ANY_MODE = {"training": None}
_REGISTERED = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
_registries = operator.itemgetter(*_REGISTERED)
_copied = operator.methodcaller("copy")
