"""Random numbers, and branches on random numbers."""

# The traps use the code that the linter would rewrite.

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


@exact()
class Dropouts(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.alpha = nn.AlphaDropout(0.3)

    def forward(self, x):
        x = F.dropout(self.alpha(self.drop(x)), 0.2, self.training)
        return F.dropout(x, training=True) + F.feature_alpha_dropout(x, 0.1, self.training)


@exact()
class Draws(Base):
    def forward(self, x):
        n = x.shape[0]
        y = self.lin(x) + torch.rand(n, 4) + torch.randn_like(x) + torch.rand(x.shape)
        y = y + torch.bernoulli(torch.full_like(x, 0.5)) + torch.normal(0.0, 1.0, (n, 1))
        y = y + torch.randint(0, 9, (n, 1)) + torch.empty(n, 1).exponential_()
        y = y + torch.multinomial(torch.ones(n, 5), 4) + torch.poisson(torch.ones(n, 1))
        y = y + torch.empty_like(x).normal_() + torch.randint_like(x, 7) + x.new_empty(4).uniform_()
        return y[torch.randperm(n)] + torch.zeros(4).random_(5) + torch.zeros(4).cauchy_()


@refused("Generator|generator")
class GivenGenerator(Base):
    def forward(self, x):
        generator = torch.Generator().manual_seed(3)
        return self.lin(x) + torch.rand(4, generator=generator)


@refused("Generator|generator")
class OwnGenerator(Base):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, x):
        return self.lin(x) + torch.rand(4, generator=self.generator)


@refused("seed")
class SeedsInside(Base):
    def forward(self, x):
        torch.manual_seed(3)
        return self.lin(x) + torch.rand(4)


@refused("seed|random")
class ForksRandom(Base):
    def forward(self, x):
        with torch.random.fork_rng():
            y = self.lin(x) + torch.rand(4)
        return y + torch.rand(4)


@refused("seed|random")
class InitialSeed(Base):
    def forward(self, x):
        return self.lin(x) * (torch.initial_seed() % 100)


@refused("random numbers", placed=False)
class PythonRandom(Base):
    def forward(self, x):
        return self.lin(x) * random.random()


@refused("random numbers", placed=False)
class NumpyRandom(Base):
    def forward(self, x):
        return self.lin(x) * float(np.random.rand())


@exact()
class StochasticDepth(Base):
    def forward(self, x):
        keep = (torch.rand(x.shape[0], 1) < 0.8).float()
        return x + self.lin(x) * keep.div_(0.8)


@exact()
class Permutes(Base):
    def forward(self, x):
        order = torch.randperm(x.shape[0], device=x.device)
        back = torch.argsort(order)
        return self.lin(x)[order][back] + x[order]


@exact()
class RandomLeaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.RReLU(0.1, 0.9)

    def forward(self, x):
        return self.act(x) + F.rrelu(x, training=self.training)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
