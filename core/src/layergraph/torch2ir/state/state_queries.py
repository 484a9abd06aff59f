"""Patches that record or refuse reads and writes of torch's state, by any reference.

``query_homes.py`` finds the places of the functions that report this state; the patches put
stand-ins of ``query_stand_ins.py`` in these places.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import backends

from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.state.query_homes import Home, homes, homes_in_scope, kept_homes, scopes
from layergraph.torch2ir.state.query_stand_ins import (
    GENERATOR,
    call_method,
    current,
    property_asked,
    property_set,
    stand_ins,
)
from layergraph.torch2ir.tracing.patches import ENTRIES, Patch

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer


def state_queries(capture: Tracer, module_index: ModuleIndex) -> Iterator[Patch]:
    """Yield the patches that record reads and writes of the state of torch."""
    yield current, "capture", capture
    whole, parts = homes()
    for members, replaced in whole:
        yield members, ENTRIES, replaced
    yield from _replaced([*parts, *module_index.once(kept_homes)])
    yield backends.ContextProp, "__get__", property_asked(capture)
    yield backends.ContextProp, "__set__", property_set(capture)


def queries_of(module_index: ModuleIndex, scope: dict[str, Any]) -> Iterator[Patch]:
    """Yield the patches for globals of code that is about to run; nothing if already searched."""
    if id(scope) not in module_index.once(_ids):
        yield from _replaced(list(homes_in_scope(scope)))


def _ids(module_index: ModuleIndex) -> list[int]:
    return [id(each) for each in module_index.once(scopes)]


def _replaced(places: list[Home]) -> Iterator[Patch]:
    others = stand_ins()
    generator = others[id(GENERATOR)]

    def stand_in(value: Any) -> Any:
        if type(value) is tuple:
            return tuple([stand_in(each) or each for each in value])
        if type(value) is dict:
            return {name: stand_in(each) or each for name, each in value.items()}
        found = others.get(id(value))
        if found is None and type(value) is staticmethod:
            return staticmethod(stand_in(value.__func__))
        if found is None and type(value) is functools.partial:
            inner = stand_in(value.func)
            return inner and functools.partial(inner, *value.args, **value.keywords)
        if found is None and getattr(value, "__self__", None) is GENERATOR:
            return functools.partial(call_method, generator, value.__name__)
        return found

    for holder, name, value in places:
        other = stand_in(value)
        if other is not None:
            yield holder, name, other
