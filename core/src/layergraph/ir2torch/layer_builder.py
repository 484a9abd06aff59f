"""Calls of handlers, which make a module from the implementation of a layer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import nn

from layergraph.errors import BuildError, LayergraphError, Place, PluginError, brief, first_line
from layergraph.ir import Implementation
from layergraph.ir2torch.build_context import layer_of
from layergraph.ir2torch.deferred_init import DeferredInit
from layergraph.plugins import HookFailure, Hooks, distribution_for
from layergraph.torch_versions import NEWER_LAYERS, default_device, missing


class LayerBuilder:
    """Builds modules by their handlers.

    Args:
        hooks: the handlers.
        device: the device of the tensors.
        fills: defers the initial weights; None to compute them at once.
    """

    def __init__(
        self,
        hooks: Hooks,
        device: torch.device,
        fills: DeferredInit | None,
    ) -> None:
        self._hooks = hooks
        self._device = device
        self._fills = fills
        self._given: dict[int, tuple[Place, nn.Module]] = {}

    def build(
        self, implementation: Implementation, children: Mapping[str, nn.Module], where: Place
    ) -> nn.Module | None:
        """Return the module that a handler makes; None if no handler answers.

        Raises:
            BuildError: the handler refuses the attributes.
            PluginError: the handler breaks its contract.
        """
        layer = layer_of(implementation)
        while True:
            try:
                module = self._asked(implementation, children, layer)
            except LayergraphError:
                raise
            except Exception as raised:
                error = raised.error if isinstance(raised, HookFailure) else raised
                if not isinstance(error, Exception):
                    raise PluginError(f"{where}: {raised}") from error
                if self._fills is not None and not self._fills.accepts(None):
                    continue
                said = implementation.data.items()
                attributes = ", ".join(f"{key}={brief(value)}" for key, value in said)
                raise BuildError(
                    f"{where}: the handler for {implementation.type!r} refused ({attributes}): "
                    f"{type(error).__name__}: {first_line(error)}; correct the attributes"
                ) from error
            if self._fills is None or self._fills.accepts(module):
                break
        if module is not None:
            others = (each for each in children.values() if each is module)
            self._given.setdefault(id(module), (where, module))
            if self._given[id(module)][0] is not where or next(others, None) is not None:
                raise PluginError(
                    f"{where}: its handler returned a module that is another implementation's; "
                    "it must make a new one each time that it is asked"
                )
        return module

    def _asked(
        self, implementation: Implementation, children: Mapping[str, nn.Module], layer: object
    ) -> nn.Module | None:
        deferring = None if self._fills is None else self._fills.around(layer)
        with self._on_device or nullcontext(), deferring or nullcontext():
            module: nn.Module | None = self._hooks.ask.ir_to_torch(
                implementation=implementation, children=children
            )
            return module

    @functools.cached_property
    def _on_device(self) -> torch.device | None:
        """Return the device on which handlers make tensors; None if it is torch's default."""
        # On the meta device, what constructors compute besides parameters would be lost.
        device = torch.device("cpu") if self._device.type == "meta" else self._device
        return None if device == default_device() else device

    def unhandled(self, implementation: Implementation) -> str:
        """Return the message for a type that no handler knows."""
        kind = implementation.type
        asked = self._hooks.asked("ir_to_torch")
        of_torch = [cls for cls in vars(nn).values() if isinstance(cls, type)]
        homes = [cls.__module__ for cls in of_torch if cls.__name__.lower() == kind]
        wanted = distribution_for(homes[0]) if homes else None
        help_text = (
            f"pip install {wanted}"
            if wanted is not None
            else f"install the plugin that it came with, or register a handler: "
            f"Ir2Torch().register({kind!r}, …)"
        )
        lacking = missing(NEWER_LAYERS[kind]) if kind in NEWER_LAYERS else None
        help_text = help_text if lacking is None else f"{lacking}; install a newer one"
        return (
            f"implementation {implementation.name!r}: no handler for type {kind!r}; asked were "
            f"{', '.join(asked) or 'none'}; {help_text}"
        )
