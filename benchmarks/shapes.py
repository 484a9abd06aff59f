"""Models of one shape with any number of layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

WIDTH = 2


class Wide(nn.Module):
    """Layers side by side, all of which read the input."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([layer(x) for layer in self.layers]).sum(0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.linear(x)) + x


class Shared(nn.Module):
    """One block, called many times."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count // 2
        self.block = Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.count):
            x = self.block(x)
        return x


def chain(count: int) -> nn.Module:
    layers = [nn.ReLU() if index % 2 else nn.Linear(WIDTH, WIDTH) for index in range(count)]
    return nn.Sequential(*layers)


# A depth that torch supports at its own recursion, with a margin: see measures/depth.py.
LEVELS = 100


def nested(count: int) -> nn.Module:
    """Towers of modules in modules, one after the other, each as deep as torch can run it."""
    return nn.Sequential(*[tower(min(LEVELS, count)) for _ in range(max(1, count // LEVELS))])


def tower(levels: int) -> nn.Module:
    module: nn.Module = nn.Linear(WIDTH, WIDTH)
    for _ in range(levels - 1):
        module = nn.Sequential(module)
    return module


SHAPES: dict[str, Callable[[int], nn.Module]] = {
    "chain": chain,
    "nested": nested,
    "wide": Wide,
    "shared": Shared,
}


def example() -> torch.Tensor:
    return torch.randn(1, WIDTH)
