"""The subcommand ``layergraph targets``. This module imports no torch, so that help is fast."""

from __future__ import annotations

from collections.abc import Callable

from layergraph.hookspecs import hookimpl


@hookimpl
def commands() -> list[Callable[..., None]]:
    """List the subcommand ``targets``."""
    return [targets]


def targets(target: str = "") -> None:
    """List the targets of back ends.

    With --target NAME, list the layers and functions of one target, each with the package whose
    handler is asked first.
    """
    from layergraph.errors import ArgumentError, near
    from layergraph_backends import handlers_of
    from layergraph_backends import targets as known

    found = known()
    if not target:
        for name, owners in found.items():
            print(f"{name}: {', '.join(owners)}")  # noqa: T201 the subcommand prints
        return
    if target not in found:
        hints = near(target, found) or [f"there is {', '.join(found) or 'none'}"]
        raise ArgumentError("; ".join([f"no installed package has the target {target!r}", *hints]))
    handlers = handlers_of(target)
    for name, handler in (*handlers.layers.items(), *handlers.functions.items()):
        owner = handler.plugin.distribution if handler.plugin else "the caller"
        print(f"{name}: {owner}")  # noqa: T201 the subcommand prints
