"""Helpers on models that several measures share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import layergraph as lg
from zoo import Entry

NO_CALLS = ("input", "output", "state")


def without_cache(model: nn.Module) -> nn.Module:
    """The model, asked not to return a cache: objects to remember things in are no tensors, and
    torch.export would refuse most models of text."""
    # A decoder inside may have a configuration of its own.
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "use_cache"):
            config.use_cache = False
    return model


def with_inputs(entry: Entry) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """Return a model of the zoo, and its inputs."""
    model = without_cache(entry.model())
    args, kwargs = entry.inputs(entry.sizes.batch, entry.sizes.length, 1)
    return model, args, kwargs


def captured(entry: Entry) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any], lg.Ir]:
    """Return a model of the zoo, its inputs, and its IR in both modes.

    Raises:
        LayergraphError: the model cannot be captured.
    """
    model, args, kwargs = with_inputs(entry)
    with torch.no_grad():
        return model, args, kwargs, lg.to_ir(model, args, kwargs, values="assume")


def call_count(ir: lg.Ir) -> int:
    """Return the number of calls of functions and modules in an IR."""
    graphs = [graph for implementation in ir.values() for graph in implementation.graphs]
    return sum(node.type not in NO_CALLS for graph in graphs for node in graph.nodes.values())


def tensors(outputs: Any) -> list[torch.Tensor]:
    """Return the tensors in a model's result."""
    return [each for each in pytree.tree_leaves(outputs) if isinstance(each, torch.Tensor)]


def assert_close(expected: Any, actual: Any) -> None:
    """Raise unless a rebuilt model returns close outputs.

    Raises:
        AssertionError: the outputs differ.
    """
    ones, others = tensors(expected), tensors(actual)
    if len(ones) != len(others):
        raise AssertionError(f"gives {len(others)} tensors instead of {len(ones)}")
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3, msg="gives other numbers")
