"""Gradients that a graph computes in tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import handle_torch_function

from layergraph.control_flow.choices import is_recorded

NAMES = ("backward", "gradient")
"""The functions here that may be nodes."""


def backward(
    tensors: Any,
    gradients: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Call ``torch.autograd.backward``, which adds gradients to leaves and parameters."""
    if is_recorded(tensors):
        given = tensors, gradients, retain_graph, create_graph, inputs
        handle_torch_function(backward, (tensors,), *given)
        return
    torch.autograd.backward(tensors, gradients, retain_graph, create_graph, inputs=inputs)


def gradient(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return the attribute ``grad`` of a tensor.

    Args:
        tensor: the tensor.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.gradients import backward, gradient
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> backward(x * x)
        >>> gradient(x)
        tensor(6.)
    """
    if is_recorded(tensor):
        found: torch.Tensor | None = handle_torch_function(gradient, (tensor,), tensor)
        return found
    return tensor.grad
