"""The handlers that are registered on one converter, as an implementation of ``ir_to_torch``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from layergraph.hookspecs import hookimpl
from layergraph.ir import Implementation
from layergraph.plugins import HookImplementation, Level
from layergraph.registration import Registry


class LocalHandlers:
    """The implementation of ``ir_to_torch`` that asks the handlers of a converter."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @hookimpl
    def ir_to_torch(
        self, implementation: Implementation, children: Mapping[str, nn.Module]
    ) -> nn.Module | None:
        """Return the answer of the first handler that does not decline."""
        for each in self.implementations(implementation.type):
            module: nn.Module | None = each.function(implementation, children)
            if module is not None:
                return module
        return None

    def types(self) -> list[str]:
        """Return the types that have a handler."""
        return self._registry.types()

    def implementations(self, type_name: str) -> Iterator[HookImplementation]:
        """Yield the handlers for a type, each as an implementation of the hook."""
        for each in self._registry.find(type_name):
            level = Level.OVERRIDE if each.is_override else Level.REGISTERED
            yield HookImplementation(
                "ir_to_torch", level, partial(_call, each.handler), each.handler
            )


def _call(
    handler: Callable[..., Any], implementation: Implementation, children: Mapping[str, nn.Module]
) -> Any:
    try:
        parameters = inspect.signature(handler).parameters
    except (TypeError, ValueError):
        return handler(implementation)
    named = parameters.get("children")
    if named is not None and named.kind is not named.POSITIONAL_ONLY:
        return handler(implementation, children=children)
    required = [
        each
        for each in parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        and each.default is each.empty
    ]
    return handler(implementation, children) if len(required) > 1 else handler(implementation)
