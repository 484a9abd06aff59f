"""The mode of each implementation: in memory all say it, texts only where it changes."""

from __future__ import annotations

from collections.abc import Mapping

from layergraph.ir.graph import Implementation


def modes(implementations: Mapping[str, Implementation], root: str) -> dict[str, tuple[bool, bool]]:
    """By name, whether an implementation trains, and whether the one around it does.

    An implementation that does not say takes after the first one around it; the root trains.
    """
    found: dict[str, tuple[bool, bool]] = {}
    stack = [(root, True)]
    while stack:
        name, around = stack.pop()
        implementation = implementations.get(name)
        if name in found or implementation is None:
            continue
        training = around if implementation.training is None else implementation.training
        found[name] = training, around
        children = implementation.children or {}
        stack += [(child, training) for child in reversed(children.values())]
    return found


def changes_of_mode(
    implementations: Mapping[str, Implementation], root: str
) -> dict[str, bool | None]:
    """The mode to write for each implementation; None for those that evaluate inside another."""
    said = {name: each.training for name, each in implementations.items()}
    if False in said.values():
        for name, mode in modes(implementations, root).items():
            if mode == (False, False):
                said[name] = None
    return said


def own_mode(*, training: bool, around: bool) -> bool | None:
    """The mode to write for an implementation, so that it keeps it wherever it is put.

    Only that it trains as the one around it does goes without saying.
    """
    return None if training and around else training
