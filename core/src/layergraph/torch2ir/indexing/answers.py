"""The answers of the handlers for the modules of a model."""

from __future__ import annotations

import warnings

from torch import nn

from layergraph.errors import LayergraphError, PluginError, PluginWarning, first_line
from layergraph.ir import Implementation
from layergraph.plugins import HookFailure, Hooks
from layergraph.torch2ir.indexing.module_refusals import (
    Found,
    Noted,
    place_of,
    refuse_unheld,
    refuse_unseen,
)
from layergraph.torch2ir.indexing.overrides import changes_its_call


def ask(hooks: Hooks, found: Found, module: nn.Module, path: str) -> Implementation | None:
    """Return the answer of the handlers for a module; record refusals in ``found``."""
    with Noted(found, module, path):
        refuse_unseen(module, path)
    answer = answer_of(hooks, module, path)
    if answer is None and (idle := hooks.idle_mark(type(module))):
        warnings.warn(f"{idle}; it is traced through", PluginWarning, stacklevel=2)
    if answer is None or answer.children is not None:
        with Noted(found, module, path):
            refuse_unheld(module, path)
    return answer


def answer_of(hooks: Hooks, module: nn.Module, path: str) -> Implementation | None:
    """Return the answer of the handlers for a module.

    Raises:
        PluginError: a handler failed, or broke its contract.
    """
    if changes_its_call(module):
        return None
    try:
        answer = hooks.ask.torch_to_ir(module=module)
    except LayergraphError:
        raise
    except HookFailure as failure:
        raise PluginError(f"{place_of(module, path)}: {failure}{_asked(hooks)}") from failure.error
    except Exception as error:  # raised by a hook wrapper
        raise PluginError(
            f"{place_of(module, path)}: asking the plugins ends with {type(error).__name__}: "
            f"{first_line(error)}{_asked(hooks)}"
        ) from error
    if answer is None or isinstance(answer, Implementation):
        return answer
    raise PluginError(  # only a hook wrapper can return an unchecked answer
        f"{place_of(module, path)}: a plugin that wraps the hook 'torch_to_ir' returned a "
        f"{type(answer).__name__}; it must return an Implementation or None{_asked(hooks)}"
    )


def _asked(hooks: Hooks) -> str:
    return f"; asked were {', '.join(hooks.asked('torch_to_ir'))}"
