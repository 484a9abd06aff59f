"""Calls of hooks whose first answer counts."""

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
        purpose: the purpose of the call for error messages: ``"for a capturer"``.
        kind: the required class of an answer, which may be abstract.
        wanted: this class for error messages: ``"a Capturer"``.
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
    except Exception as error:  # raised by a hook wrapper
        raise PluginError(
            f"asking the plugins {purpose} ends with {type(error).__name__}: {first_line(error)}; "
            f"mend or disable the plugin that wraps {hook!r}"
        ) from error
    if answer is None or isinstance(answer, kind):
        return answer
    raise PluginError(  # only a hook wrapper can return an unchecked answer
        f"a plugin that wraps the hook {hook!r} returned a {type(answer).__name__}; it must return "
        f"{wanted} or None; mend it, or disable the plugin"
    )
