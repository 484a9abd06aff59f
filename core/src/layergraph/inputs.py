"""Inputs that plugins know for models."""

from __future__ import annotations

from typing import Any

from torch import nn

from layergraph.api import default_torch2ir
from layergraph.errors import CaptureError, PluginError


def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs to capture a model with: ``lg.to_ir(model, *lg.example_inputs(model))``.

    Args:
        model: the model; a plugin has to know its class.

    Returns:
        The positional arguments of a call, and its arguments by name.

    Raises:
        CaptureError: no plugin knows the class.
        PluginError: a plugin failed, or broke the contract of the hook ``example_inputs``.
    """
    kind = type(model).__qualname__
    try:
        inputs = default_torch2ir().hooks.ask.example_inputs(model=model)
    except Exception as error:
        raise PluginError(
            f"no plugin gives example inputs for {kind}: {error}; give inputs of your own"
        ) from error
    if inputs is None:
        raise CaptureError(f"no plugin knows example inputs for {kind}; give inputs of your own")
    return inputs  # type: ignore[no-any-return]
