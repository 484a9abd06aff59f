"""Models that several test files use."""

from __future__ import annotations

import random

import torch
from torch import nn


class Of(nn.Module):
    """A model of a function of its layers and inputs."""

    def __init__(self, code, **layers):
        super().__init__()
        for name, each in layers.items():
            setattr(self, name, each)
        self.code = code

    def forward(self, x):
        return self.code(self, x)


LAYERS = {
    "fc": lambda: nn.Linear(4, 4),
    "fc2": lambda: nn.Linear(4, 4, bias=False),
    "act": nn.ReLU,
    "act_": lambda: nn.ReLU(inplace=True),
    "drop": nn.Dropout,
    "norm": lambda: nn.BatchNorm1d(4),
    "same": nn.Identity,
}
FUNCTIONS = {
    "add": lambda a, b: a + b,
    "zero": lambda a, b: a + 0,
    "neg": lambda a, b: torch.neg(a),
    "relu": lambda a, b: torch.relu(a),
    "clone": lambda a, b: a.clone(),
    "view": lambda a, b: a.view(-1, 4),
    "mul_": lambda a, b: a.mul_(0.5),
    "add_": lambda a, b: a.add_(b),
}


class Random(nn.Module):
    """A model of a random program, maybe with another one for evaluation.

    Attributes:
        start: whether the program begins with a copy of the input, which it may change in place.
    """

    def __init__(self, seed, depth=1):
        super().__init__()
        choose = random.Random(seed)
        self.layers = nn.ModuleDict({name: make() for name, make in LAYERS.items()})
        if choose.random() < 0.3:
            self.layers["fc2"].weight = self.layers["fc"].weight
        if depth:
            self.layers["inner"] = Random(choose.random(), depth - 1)
        self.start = choose.random() < 0.5
        first = self.program(choose)
        self.programs = first, self.program(choose) if choose.random() < 0.3 else first

    def program(self, choose):
        names = [*self.layers, *FUNCTIONS, *FUNCTIONS]
        return [
            (choose.choice(names), choose.randrange(9), choose.randrange(9))
            for _ in range(choose.randint(2, 9))
        ]

    def forward(self, x):
        values = [x * 2 if self.start else x]
        for name, one, other in self.programs[0] if self.training else self.programs[1]:
            a, b = values[-1 - one % min(3, len(values))], values[other % len(values)]
            values.append(self.layers[name](a) if name in self.layers else FUNCTIONS[name](a, b))
        return values[-1] + values[len(values) // 2]
