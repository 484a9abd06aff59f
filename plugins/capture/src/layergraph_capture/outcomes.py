"""The outcome of a call of a model: its results, and the state that it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from layergraph.ir.values import parts
from layergraph.outputs import Output
from layergraph.tensors.memory import same_bits
from layergraph.torch2ir.results import opened


def leaves_of(result: Any) -> Iterator[Any]:
    """Yield the tensors and plain values of a result, and the names of the fields of its outputs.

    Args:
        result: what a model, or a rebuilt model, returns.
    """
    pending = [opened(result)]
    while pending:
        value = pending.pop()
        inside = [[*value], *dict.values(value)] if isinstance(value, Output) else parts(value)
        if inside is None:
            yield value
        else:
            pending += reversed(inside)


def buffers_left(model: nn.Module) -> list[torch.Tensor]:
    """Return copies of the tensors in the state dict of a model, except for its parameters."""
    parameters = {id(each) for each in model.parameters()}
    state = model.state_dict(keep_vars=True).values()
    return [each.clone() for each in state if id(each) not in parameters]


def without_graph(value: Any) -> Any:
    """Return a tensor without the graph of autograd, which holds all that the call computed."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().requires_grad_(value.requires_grad)


def are_same(ours: list[Any], theirs: list[Any]) -> bool:
    """Return whether two lists have equal values: tensors with the same bits and gradients."""
    return len(ours) == len(theirs) and all(map(_is_same, ours, theirs))


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return same_bits(one.detach(), other.detach()) and one.requires_grad == other.requires_grad
    return type(one) is type(other) and bool(one == other)
