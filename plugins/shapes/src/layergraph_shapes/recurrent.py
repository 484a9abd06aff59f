"""Shapes of recurrent layers without running their steps, which is slow and fixes sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_GATES: dict[type[nn.Module], int] = {nn.RNN: 1, nn.LSTM: 4, nn.GRU: 3}


class Recurrent:
    """A stand-in for a call of a recurrent layer, which returns empty tensors.

    Args:
        layer: a layer for which :func:`is_recurrent` is True.
    """

    def __init__(self, layer: nn.Module) -> None:
        recurrent: Any = layer
        self._layer = recurrent
        self._directions = 2 if recurrent.bidirectional else 1
        self._width = recurrent.proj_size or recurrent.hidden_size

    def __call__(self, inputs: torch.Tensor, hx: Any = None) -> Any:
        """Return tensors of the shapes that the layer returns.

        Raises:
            ValueError, RuntimeError: the layer does not take the arguments.
        """
        layer = self._layer
        if inputs.dim() not in (2, 3):
            raise ValueError(f"the input has {inputs.dim()} dimensions, and not 2 or 3")
        is_batched = inputs.dim() == 3
        at = 0 if layer.batch_first and is_batched else 1
        self._check(inputs if is_batched else inputs.unsqueeze(at), hx, is_batched=is_batched)
        batch = [inputs.shape[at]] if is_batched else []
        outputs = inputs.new_empty([*inputs.shape[:-1], self._directions * self._width])
        is_lstm = isinstance(layer, nn.LSTM)
        sizes = (self._width, layer.hidden_size) if is_lstm else (self._width,)
        rows = self._directions * layer.num_layers
        last = [inputs.new_empty([rows, *batch, each]) for each in sizes]
        return outputs, tuple(last) if is_lstm else last[0]

    def _check(self, inputs: torch.Tensor, hx: Any, *, is_batched: bool) -> None:
        layer = self._layer
        if inputs.dtype != layer.weight_ih_l0.dtype:
            raise ValueError(f"the input is of {inputs.dtype}")
        if hx is None:
            layer.check_input(inputs, None)
            return
        states = hx if isinstance(hx, tuple) else (hx,)
        if any(each.dim() != (3 if is_batched else 2) for each in states):
            raise ValueError("the states have another number of dimensions than the input")
        if not is_batched:
            states = tuple(each.unsqueeze(1) for each in states)
        layer.check_forward_args(inputs, states if isinstance(layer, nn.LSTM) else states[0], None)

    def flops(self, inputs: torch.Tensor) -> Any:
        """Return the FLOPs: in each step two products for each gate, and the projection."""
        layer = self._layer
        steps = inputs.numel() // inputs.shape[-1]
        gates = _GATES[type(layer)] * layer.hidden_size
        products = 0
        for number in range(layer.num_layers):
            taken = self._directions * self._width if number else layer.input_size
            products += gates * (taken + self._width) + layer.proj_size * layer.hidden_size
        return 2 * steps * self._directions * products


def is_recurrent(module: nn.Module, args: tuple[Any, ...]) -> bool:
    """Return whether :class:`Recurrent` supports a call; it takes no packed sequences.

    Args:
        module: a layer.
        args: the positional arguments of the call.
    """
    return type(module) in _GATES and bool(args) and isinstance(args[0], torch.Tensor)
