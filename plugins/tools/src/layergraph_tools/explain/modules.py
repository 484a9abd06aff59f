"""The handlers of a module or a class of modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import nn

from layergraph.errors import PluginError
from layergraph.hook_types.declining import decline
from layergraph.ir import Implementation
from layergraph.plugins import HookImplementation, Hooks
from layergraph.torch2ir.indexing.overrides import changes_its_call
from layergraph.torch2ir.local_handlers import LocalHandlers
from layergraph_tools.explain.chain import Explanation, chain

HOOK = "torch_to_ir"


def explained(
    subject: nn.Module | type[nn.Module],
    hooks: Hooks,
    own: LocalHandlers,
    answer: Callable[[nn.Module], Implementation | None],
) -> Explanation:
    """Return all handlers of a module or a class, with their answers.

    Args:
        subject: the module, or the class.
        hooks: the plugins.
        own: the handlers that are registered on the converter.
        answer: returns the implementation that a conversion uses for a module.

    Raises:
        PluginError: the subject is neither, or a wrapper fails.
    """
    explanation = _explained(subject, hooks, own, answer)
    idle = hooks.idle_mark(subject if isinstance(subject, type) else type(subject))
    return explanation if not idle else replace(explanation, notes=(*explanation.notes, idle))


def _explained(
    subject: nn.Module | type[nn.Module],
    hooks: Hooks,
    own: LocalHandlers,
    answer: Callable[[nn.Module], Implementation | None],
) -> Explanation:
    if isinstance(subject, type) and issubclass(subject, nn.Module):
        named = f"{subject.__module__}.{subject.__qualname__}"
        bare = _bare(subject)
        say = partial(_said_of_class, bare)
        found = chain(HOOK, named, hooks, own.implementations(bare), say)
        return Explanation(named, (), (replace(found, answer=None),))
    if not isinstance(subject, nn.Module):
        raise PluginError(
            f"{subject!r} is neither a module nor a class of modules; pass one of these"
        )
    named = _named(subject)
    found = chain(HOOK, named, hooks, own.implementations(subject), partial(_said_of, subject))
    if changes_its_call(subject):
        note = "it has forward hooks or its own forward: no handler is called, it is traced through"
        return Explanation(named, (note,), (replace(found, answer=None),))
    if found.winner is None:
        return Explanation(named, ("no handler answers, so it is traced through",), (found,))
    final = answer(subject)
    notes = () if final == found.answer else (f"the wrappers change the answer to {final}",)
    return Explanation(named, notes, (replace(found, answer=final),))


def _named(module: nn.Module) -> str:
    try:
        return str(module).partition("\n")[0].removesuffix("(")
    except Exception:  # its extra_repr reads an attribute that is gone
        return type(module).__qualname__


def _bare(cls: type[nn.Module]) -> nn.Module:
    """Return an instance without attributes: its constructor does not run."""
    bare = cls.__new__(cls)
    nn.Module.__init__(bare)
    return bare


def _said_of(module: nn.Module, asked: HookImplementation) -> object:
    answer = asked.ask(module=module)
    if answer is None and asked.table is not None and asked.table.find(type(module)) is None:
        bases = [row.cls for row in asked.table if isinstance(module, row.cls)]
        if bases:
            decline(f"a subclass of {bases[0].__qualname__} may compute something else")
    return answer


def _said_of_class(bare: nn.Module, asked: HookImplementation) -> object:
    row = None if asked.table is None else asked.table.find(type(bare))
    if row is not None:
        return row
    try:
        return _said_of(bare, asked)
    except Exception:  # it handles the class, and reads an attribute that the bare instance lacks
        return bare
