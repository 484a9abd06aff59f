"""Patches of the code that a run reaches, put in place just before this code runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from layergraph.torch2ir.indexing.reached import Listener, Place
from layergraph.torch2ir.state.changes import Unchanged
from layergraph.torch2ir.state.query_stand_ins import stand_in_of
from layergraph.torch2ir.tracing.applied_functions import seen_again
from layergraph.torch2ir.tracing.patches import Patch, Patcher
from layergraph.torch2ir.tracing.uncached import uncached

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer


class ReachedCode(Listener):
    """Patches globals and cached functions as the search of the model's code finds them.

    Args:
        observer: records what the patched code does.
        patcher: undoes the patches at the end of the run.
        outside: the state of the model's code, in which a patch is no change.
        scope_patches: gives the patches of the way of tracing for globals.
        name_patches: gives those for globals that code names.
    """

    def __init__(
        self,
        observer: Tracer,
        patcher: Patcher,
        outside: Unchanged,
        scope_patches: Callable[[dict[str, Any]], Iterator[Patch]],
        name_patches: Callable[[dict[str, Any], Collection[str]], Iterator[Patch]],
    ) -> None:
        self._observer = observer
        self._patcher = patcher
        self._outside = outside
        self._scope_patches = scope_patches
        self._name_patches = name_patches

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Patch what is reached, until the context ends."""
        reach = self._observer.module_index.reach
        reach.listen(self)
        try:
            yield
        finally:
            reach.listeners.remove(self)

    def entered(self, members: dict[str, Any]) -> None:
        """See :class:`reached.Listener`."""
        for patch in list(self._scope_patches(members)):
            self._put(patch)

    def named(self, members: dict[str, Any], names: Collection[str]) -> None:
        """See :class:`reached.Listener`."""
        for patch in list(self._name_patches(members, names)):
            self._put(patch)

    def found_callable(self, place: Place, function: Any) -> None:
        """See :class:`reached.Listener`."""
        new = seen_again(function) or stand_in_of(function) or uncached(self._observer, function)
        self._put((*place, new))

    def _put(self, patch: Patch) -> None:
        self._patcher.put(*patch)
        self._outside.patched(*patch)
