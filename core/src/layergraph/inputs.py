"""Example inputs for models, from plugins."""

from __future__ import annotations

from typing import Any

from torch import nn

from layergraph.api import default_torch2ir
from layergraph.errors import CaptureError, PluginError


def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return inputs to capture a model with: ``lg.to_ir(model, *lg.example_inputs(model))``.

    Args:
        model: the model, of a class that an installed plugin knows.

    Returns:
        The positional arguments of a call, and its arguments by name. Tensors are on the device of
        the model's parameters.

    Raises:
        CaptureError: no plugin knows the class.
        PluginError: a plugin failed, or broke the contract of the hook ``example_inputs``.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph.errors import CaptureError
        >>> try:
        ...     lg.example_inputs(torch.nn.Linear(2, 3))
        ... except CaptureError as error:
        ...     print(error)
        no plugin knows example inputs for Linear; give inputs of your own
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
