"""Errors that list the constructs of a model that a graph cannot hold."""

from __future__ import annotations

from collections.abc import Sequence

from layergraph.errors import CaptureError, Unsupported


def unsupported(found: Sequence[Unsupported], hint: str = "") -> CaptureError:
    """Return one error that lists all refusals."""
    advice = f"; {hint}" if hint else ""
    if len(found) == 1:
        return CaptureError(f"{found[0]}{advice}", found)
    head = f"the model does {len(found)} things that a graph cannot hold"
    return CaptureError("\n  ".join([f"{head}{advice}:", *map(str, found)]), found)


def refusal_before(error: BaseException | None) -> CaptureError | None:
    """Return the refusal during whose cleanup an error came up; None if there is none."""
    while error is not None and not isinstance(error, CaptureError):
        error = error.__context__
    return error
