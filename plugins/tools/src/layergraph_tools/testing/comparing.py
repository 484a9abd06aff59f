"""Comparison of a layer with the rebuilt one: features, outputs and state after a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from layergraph_tools.testing.bitwise import bitwise_equal
from layergraph_tools.testing.cases import Case, expect

_FEATURES: dict[str, Callable[[nn.Module], object]] = {
    "class": type,
    "repr": repr,
    "mode": lambda module: module.training,
    "state dict": lambda module: list(module.state_dict()),
    "parameters": lambda module: [
        (k, p.dtype, p.requires_grad) for k, p in module.named_parameters()
    ],
    "buffers": lambda module: [(k, b.dtype) for k, b in module.named_buffers()],
}

_MODES = ("evaluating", "training")
_ADVICE = (
    "each argument that decides about it must be an attribute of the IR, and ir_to_torch must pass "
    "it to the constructor"
)


def compare_features(module: nn.Module, rebuilt: nn.Module, case: Case, variant: str) -> None:
    """Compare the classes, modes, parameters and buffers of two modules.

    Raises:
        AssertionError: they differ.
    """
    for what, tell in _FEATURES.items():
        was, now = tell(module), tell(rebuilt)
        if case.rebuilt is not None and what in ("class", "repr"):
            was = now if what == "repr" else case.rebuilt
        expect(
            was == now,
            f"{variant}: its {what} was {was}, and is {now}; keep in the IR what decides about it, "
            "or decline",
        )


def compare_runs(
    module: nn.Module, rebuilt: nn.Module, case: Case, what: str, modes: Sequence[str] = _MODES
) -> None:
    """Compare the outputs, gradients and state of two modules, in two runs for each mode.

    Raises:
        AssertionError: a bit differs.
    """
    dtypes = {tensor.dtype for tensor in module.state_dict().values()}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    for mode, seed in itertools.product(modes, (0, 1)):
        draw = torch.Generator().manual_seed(seed)
        inputs = [
            torch.randn(given, generator=draw, dtype=dtype) if isinstance(given, tuple) else given
            for given in case.inputs
        ]
        was, now = (
            _run(each.train(mode == "training"), inputs, case.kwargs) for each in (module, rebuilt)
        )
        same = was.keys() == now.keys()
        expect(same, f"{what}, {mode}: a run returned {list(was)}, and now {list(now)}; {_ADVICE}")
        changed = [name for name in was if not bitwise_equal(was[name], now[name], strides=False)]
        expect(not changed, f"{what}, {mode}: other bits in {', '.join(changed)}; {_ADVICE}")


def _run(
    module: nn.Module, inputs: Sequence[torch.Tensor], kwargs: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Return the outputs, gradients and state after a call, by name."""
    given = [tensor.clone().requires_grad_(tensor.is_floating_point()) for tensor in inputs]
    module.zero_grad()
    with torch.random.fork_rng(devices=[]):
        # Seed the CPU only: seeding all devices takes longer than the run.
        torch.default_generator.manual_seed(0)
        # Pass copies: an in-place layer may not change a leaf that requires a gradient.
        outputs = pytree.tree_leaves(module(*[tensor.clone() for tensor in given], **kwargs))
        differentiable = [output for output in outputs if output.requires_grad]
        # Use random output gradients: with ones, a normalised output has no gradient.
        torch.autograd.backward(differentiable, [torch.randn_like(each) for each in differentiable])
    sources = [(f"input {index}", tensor) for index, tensor in enumerate(given)]
    sources += module.named_parameters()
    return {
        **{f"output {index}": output for index, output in enumerate(outputs)},
        **{f"gradient of {name}": x.grad for name, x in sources if x.grad is not None},
        **{f"buffer {name}": buffer for name, buffer in module.named_buffers()},
    }
