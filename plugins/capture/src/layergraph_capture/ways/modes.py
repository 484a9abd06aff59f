"""The other mode of a model with several ways."""

from __future__ import annotations

from collections.abc import Sequence

from layergraph.torch2ir.tracing.other_mode import OtherMode


def merged_modes(others: Sequence[OtherMode | None]) -> OtherMode | None:
    """Return the differences of the other mode on all ways; None if they are not known.

    They are unknown if a module makes other calls in the other mode, because the interface of its
    calls differs between ways.

    Args:
        others: the differences on each way.
    """
    known = [each for each in others if each is not None and not each.replaced]
    if len(known) < len(others):
        return None
    readings = {reading for each in known for reading in each.readings}
    return OtherMode(readings, [changed for each in known for changed in each.changed], [])
