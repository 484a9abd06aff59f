"""Random numbers, and branches on random numbers."""

# The traps use the code that the linter would rewrite.

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

import layergraph as lg
from core.tests.traps.harness import Base, Traps, check
from layergraph.errors import AssumptionError

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


@exact()
class OwnStream(Base):
    def forward(self, x):
        generator = torch.Generator().manual_seed(3)
        y = self.lin(x) + torch.rand(4, generator=generator) + torch.rand(4)
        y = y * torch.randn(4, generator=generator)
        other = generator.manual_seed(4)
        return y + torch.empty(4).normal_(generator=generator) + torch.rand(4, generator=other)


@exact()
class StreamOfSize(Base):
    def forward(self, x):
        generator = Generator(device=x.device)
        generator.manual_seed(x.shape[0] + 1)
        order = torch.randperm(4, generator=generator, device=x.device)
        noise = torch.bernoulli(torch.full_like(x, 0.5), generator=generator)
        return self.lin(x)[:, order] + noise


@exact()
class StreamInTraining(Base):
    def forward(self, x):
        generator = torch.Generator()
        assert isinstance(generator, torch.Generator)
        if self.training:
            x = x + torch.rand(4, generator=generator)
        return self.lin(x) + torch.rand(4, generator=generator)


@refused("seed of a random number generator")
class UnknownSeed(Base):
    def forward(self, x):
        generator = torch.Generator()
        generator.seed()
        return self.lin(x) + torch.rand(4, generator=generator)


@refused("state of a random number generator")
class StateOfStream(Base):
    def forward(self, x):
        generator = torch.Generator().manual_seed(1)
        state = generator.get_state()
        y = torch.rand(4, generator=generator)
        generator.set_state(state)
        return self.lin(x) + y + torch.rand(4, generator=generator)


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


class TakesGenerator(Base):
    def forward(self, x, generator=None):
        return self.lin(x) + torch.rand(4, generator=generator)


def test_a_generator_of_the_caller_draws_on(tmp_path):
    model, given = TakesGenerator(), torch.Generator().manual_seed(9)
    before = given.get_state()
    ir = lg.to_ir(model, (torch.randn(3, 4), given))
    assert torch.equal(given.get_state(), before)
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for built in (
        lg.to_torch(ir, model.state_dict()),
        lg.load_model(tmp_path / "m.safetensors"),
    ):
        one, other = (torch.Generator().manual_seed(2) for _ in range(2))
        for rows in (3, 5):
            x = torch.randn(rows, 4)
            assert torch.equal(model(x, one), built(x, other))
        assert torch.equal(one.get_state(), other.get_state())
        with pytest.raises(AssumptionError):
            built(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
