"""The widths of linear layers: an attribute of modules, and annotations in an IR.

A module has the attribute ``module.fixed_point = (total_bits, frac_bits)``. Two wrappers convert it
to annotations and back, whichever plugin handles the layer. The names of annotations contain a dot,
so layergraph also rebuilds the layers if this package is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace

from torch import nn

from acme_fixed_point.layers import ObservedLinear
from layergraph import Implementation, hookimpl

TOTAL, FRAC = "acme.total_bits", "acme.frac_bits"


def choose_widths(model: nn.Module, total_bits: int) -> None:
    """Set the widths of each linear layer: the largest number that it recorded must fit.

    Args:
        model: a model that was rebuilt with this package installed, and has run since then.
        total_bits: the number of bits of each number, including its sign.
    """
    for module in model.modules():
        if isinstance(module, ObservedLinear):
            before = max(0, math.floor(math.log2(module.largest)) + 1) if module.largest else 0
            frac_bits = max(0, total_bits - 1 - before)
            module.fixed_point = (total_bits, frac_bits)  # type: ignore[assignment]


@hookimpl(wrapper=True)
def torch_to_ir(
    module: nn.Module,
) -> Generator[None, Implementation | None, Implementation | None]:
    """Add the widths of a linear layer to its annotations."""
    answer = yield
    widths = getattr(module, "fixed_point", None)
    if answer is None or answer.type != "linear" or widths is None:
        return answer
    total_bits, frac_bits = widths
    return replace(answer, data={**answer.data, TOTAL: total_bits, FRAC: frac_bits})


@hookimpl(wrapper=True)
def ir_to_torch(
    implementation: Implementation,
) -> Generator[None, nn.Module | None, nn.Module | None]:
    """Set the widths of a rebuilt linear layer."""
    module = yield
    data = implementation.data
    if module is not None and implementation.type == "linear" and TOTAL in data:
        module.fixed_point = (data[TOTAL], data[FRAC])  # type: ignore[assignment]
    return module
