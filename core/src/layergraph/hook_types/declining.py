"""The reasons that handlers give for declining."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Never

_heard: ContextVar[list[str] | None] = ContextVar("_heard", default=None)


# The result is not plain None, because type checkers object to `return decline(…)` then.
def decline(reason: str) -> Never | None:  # noqa: RUF020
    """Return None from a handler, with a reason for :func:`layergraph.explain`.

    ``return decline("its weight is pruned")`` means ``return None``, and ``explain`` shows the
    reason. A conversion ignores the reason.

    Args:
        reason: the reason why the handler declines.

    Returns:
        Always None.

    Example:
        >>> import layergraph as lg
        >>> def torch_to_ir(module):
        ...     if module.training:
        ...         return lg.decline("it is in training mode")
        ...     return lg.Implementation("acme")
    """
    heard = _heard.get()
    if heard is not None:
        heard.append(reason)
    return None


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect the reasons that handlers give inside the context."""
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)
