"""What a graph was captured under, checked when it runs."""

from __future__ import annotations

from layergraph.errors import AssumptionError


def assume(value: object, expected: object, where: str) -> None:
    """Raise if something that decided which graph was captured is now different.

    Args:
        value: what it is now.
        expected: what it was at the capture.
        where: what it is, and which line of the model's code read it.

    Raises:
        AssumptionError: the two differ.
    """
    if value != expected:
        raise AssumptionError(
            f"{where} was {expected!r} when this model was captured, and now it is {value!r}: the "
            f"original may compute something else then; set it back, or capture the model so"
        )
