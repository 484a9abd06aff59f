"""The handlers of a type."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from layergraph.errors import PluginError, near
from layergraph.ir import MODULE, Implementation
from layergraph.ir2torch.local_handlers import LocalHandlers
from layergraph.plugins import HookImplementation, Hooks
from layergraph_tools.explain.chain import Explanation, chain

HOOK = "ir_to_torch"


def explained(subject: str | Implementation, hooks: Hooks, own: LocalHandlers) -> Explanation:
    """Return all handlers of an implementation or a type, with their answers.

    Raises:
        PluginError: the subject is neither.
    """
    if isinstance(subject, str):
        implementation, say = Implementation(subject), _said_of_type
    elif isinstance(subject, Implementation):
        implementation, say = subject, _said_of
    else:
        raise PluginError(f"{subject!r} is neither an implementation nor the name of a type")
    kind = implementation.type
    found = chain(
        HOOK, kind, hooks, own.implementations(kind), partial(say, implementation=implementation)
    )
    if isinstance(subject, str):
        found = replace(found, answer=None)
    notes = []
    if kind == MODULE and found.winner is None:
        notes.append("the core builds the type 'module' itself, from its graph")
    elif found.winner is None:
        notes += near(kind, [*hooks.types(), *own.types(), MODULE])
    return Explanation(kind, tuple(notes), (found,))


def _said_of(asked: HookImplementation, implementation: Implementation) -> object:
    # On the meta device, layers take no memory.
    with torch.device("meta"):
        return asked.ask(implementation=implementation, children={})


def _said_of_type(asked: HookImplementation, implementation: Implementation) -> object:
    if asked.table is not None:
        return asked.table.find(implementation.type)
    try:
        return _said_of(asked, implementation)
    except Exception:  # it handles the type, and reads an attribute that is missing here
        return implementation
