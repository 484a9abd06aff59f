"""Why a handler says that something is not its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Never

_heard: ContextVar[list[str] | None] = ContextVar("_heard", default=None)


# Not plainly None: type checkers object to giving back what a function of no result gives.
def decline(reason: str) -> Never | None:  # noqa: RUF020
    """Answer a hook with None, and say why.

    ``return decline("its weight is pruned")`` is ``return None`` with a reason, which
    :func:`layergraph.explain` shows; a conversion takes no notice of it.

    Args:
        reason: what keeps the handler from answering, as the end of a sentence.
    """
    heard = _heard.get()
    if heard is not None:
        heard.append(reason)
    return None


@contextmanager
def listening() -> Iterator[list[str]]:
    """The reasons that are given meanwhile."""
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)
