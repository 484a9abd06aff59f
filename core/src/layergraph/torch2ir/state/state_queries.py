"""Patches that record or refuse reads and writes of torch's state, by any reference.

``query_homes.py`` finds the functions that report this state in the globals of all modules; the
patches put stand-ins of ``query_stand_ins.py`` in these places. ``reached_code.py`` does so in the
places that the model's code reaches otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import backends

from layergraph.torch2ir.state.query_homes import homes
from layergraph.torch2ir.state.query_stand_ins import (
    current,
    property_asked,
    property_set,
    stand_in_of,
)
from layergraph.torch2ir.tracing.patches import ENTRIES, Patch

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer


def state_queries(capture: Tracer) -> Iterator[Patch]:
    """Yield the patches that record reads and writes of the state of torch."""
    yield current, "capture", capture
    whole, parts = homes()
    for members, replaced in whole:
        yield members, ENTRIES, replaced
    for holder, name, value in parts:
        yield holder, name, stand_in_of(value)
    yield backends.ContextProp, "__get__", property_asked(capture)
    yield backends.ContextProp, "__set__", property_set(capture)
