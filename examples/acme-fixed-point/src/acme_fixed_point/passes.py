"""A pass that rounds weights to a fixed-point format, with a rule that removes double ReLU."""

from __future__ import annotations

import torch

import layergraph as lg
from layergraph_rewrite import Edit, Match, Rule, apply_rules, layer


def acme_round_weights(edit: Edit, *, frac_bits: int = 4) -> None:
    """Round the weights of linear layers to multiples of a power of two; remove double ReLU."""
    steps = 2**frac_bits

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        return (weight * steps).round() / steps

    for name in edit.select("linear").layers:
        edit.set(name, tensors={"weight": rounded})
        edit.report.add(edit.calls(name)[0], f"rounded to {frac_bits} bits")
    apply_rules(edit, [ONE_RELU])


def _first_relu(match: Match) -> object:
    return layer("relu")(match["x"])


ONE_RELU = Rule(lambda x: layer("relu")(layer("relu")(x)), _first_relu, name="one-relu")


@lg.hookimpl
def passes() -> list[lg.Pass]:
    """List the pass."""
    return [lg.Pass("acme-round-weights", acme_round_weights)]
