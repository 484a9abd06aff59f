"""The handlers that are registered on one converter, as implementations of ``torch_to_ir``."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from layergraph.hookspecs import hookimpl
from layergraph.ir import Implementation
from layergraph.plugins import HookImplementation, Level
from layergraph.registration import Registered, Registry


class LocalHandlers:
    """Implements the hook ``torch_to_ir`` with the handlers of a converter."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @hookimpl
    def torch_to_ir(self, module: nn.Module) -> Implementation | None:
        """Return the first answer of a handler that is not None."""
        for each in self.implementations(module):
            answer: Implementation | None = each.function(module)
            if answer is not None:
                return answer
        return None

    def implementations(self, module: nn.Module) -> Iterator[HookImplementation]:
        """Yield the handlers for a module, each as an implementation of the hook."""
        cls: Any = type(module)
        for each in self._registry.find(cls, *_names(cls.__name__)):
            level = Level.OVERRIDE if each.is_override else Level.REGISTERED
            yield HookImplementation("torch_to_ir", level, partial(_answered, each), each.handler)


def _answered(registered: Registered, module: nn.Module) -> Implementation | None:
    answer = registered.handler(module)
    if isinstance(answer, Mapping):
        data = dict(answer)
        key = registered.key
        kind = key if isinstance(key, str) else type(module).__name__.lower()
        answer = Implementation(type=data.pop("type", kind), data=data)
    return answer  # type: ignore[no-any-return]


@functools.cache
def _names(name: str) -> list[str]:
    with_underscores = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return list(dict.fromkeys([name, name.lower(), with_underscores.lower()]))
