"""Asking the plugins for one answer, by a hook whose first answer counts."""

from __future__ import annotations

from typing import Any

from layergraph.errors import LayergraphError, PluginError, first_line
from layergraph.plugins import HookFailure, Hooks


def first_answer(
    hooks: Hooks, hook: str, purpose: str, kind: Any, wanted: str, **given: Any
) -> Any:
    """Return the first answer to a hook; None if all plugins decline.

    Args:
        hooks: the hooks to ask.
        hook: the name of the hook.
        purpose: what the plugins are asked for, for errors: ``"for a capturer"``.
        kind: the class of an answer, which may be abstract.
        wanted: the same, for errors: ``"a Capturer"``.
        given: the arguments of the hook.

    Raises:
        PluginError: a plugin failed, or broke the contract of the hook.
        LayergraphError: a plugin refuses.
    """
    try:
        answer = getattr(hooks.ask, hook)(**given)
    except LayergraphError:
        raise
    except HookFailure as failure:
        raise PluginError(f"{failure}; mend it, or disable the plugin") from failure.error
    except Exception as error:  # of what is between the implementations
        raise PluginError(
            f"asking the plugins {purpose} ends with {type(error).__name__}: {first_line(error)}; "
            f"mend or disable the plugin that wraps {hook!r}"
        ) from error
    if answer is None or isinstance(answer, kind):
        return answer
    raise PluginError(  # only a wrapper gives an answer that is not checked
        f"a plugin that wraps the hook {hook!r} gave a {type(answer).__name__}; it must give "
        f"{wanted} or None; mend it, or disable the plugin"
    )
