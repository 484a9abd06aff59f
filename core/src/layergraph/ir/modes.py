"""The mode of each implementation, training or evaluating, and how an IR states it.

In memory each implementation that evaluates says so. Texts say it only where the mode changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from layergraph.ir.graph import Implementation


def modes(implementations: Mapping[str, Implementation], root: str) -> dict[str, tuple[bool, bool]]:
    """Return, for each implementation, whether it trains, and whether its parent trains.

    An implementation that does not state its mode has that of its first parent. The default of the
    root is training.
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
    """Return the mode to write for each implementation; None if its parent evaluates too."""
    written = {name: each.training for name, each in implementations.items()}
    if False in written.values():
        for name, mode in modes(implementations, root).items():
            if mode == (False, False):
                written[name] = None
    return written


def own_mode(*, training: bool, around: bool) -> bool | None:
    """Return the mode to state for an implementation, so that it keeps the mode if it is moved.

    None if both the implementation and its parent train, which is the default.
    """
    return None if training and around else training
