"""The round trip of torchvision's resnet18.

Converts the model, with random weights, to its IR, prints the IR, rebuilds the model, and compares
the two models bit for bit. Exits with 1 if anything differs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
import torchvision
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal

# Use other batch sizes and image sizes than those of the capture.
SHAPES = [(1, 3, 224, 224), (4, 3, 224, 224), (2, 3, 97, 131)]


def differences(
    original: nn.Module, rebuilt: nn.Module, inputs: Iterable[torch.Tensor]
) -> list[str]:
    """Return the differences between two models, a sentence for each."""
    found = []
    states = original.state_dict(), rebuilt.state_dict()
    if list(states[0]) != list(states[1]):
        found.append(f"the state-dict keys differ: {sorted(states[0].keys() ^ states[1].keys())}")
    found += [
        f"the tensor {key!r} differs"
        for key in states[0].keys() & states[1].keys()
        if not bitwise_equal(states[0][key], states[1][key])
    ]
    with torch.no_grad():
        for given in inputs:
            # Copy the input for each model, because layers may change it in place.
            outputs = original(given.clone()), rebuilt(given.clone())
            if not bitwise_equal(*outputs):
                found.append(f"the outputs for an input of shape {tuple(given.shape)} differ")
    return found


def main() -> int:
    """Run the demo, and return the exit status."""
    model = torchvision.models.resnet18().eval()
    ir = lg.to_ir(model)
    print(ir)
    rebuilt = lg.to_torch(ir, model.state_dict())
    found = differences(model, rebuilt, (torch.randn(shape) for shape in SHAPES))
    print()
    for difference in found:
        print(f"  {difference}")
    if found:
        print("FAILED: the rebuilt resnet18 is not the original")
        return 1
    print(
        f"OK: resnet18 came back from {len(ir)} implementations: {len(model.state_dict())} "
        f"state-dict keys and the outputs for {len(SHAPES)} fresh inputs are the same, bit for bit"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
