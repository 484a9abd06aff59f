"""Arrays of numpy in forward: their numbers are constants of the graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import layergraph as lg
from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


@exact()
class FromNumpy(Base):
    def forward(self, x):
        return self.lin(x) * torch.from_numpy(np.linspace(0, 1, 4)).float()


@exact()
class Copies(Base):
    """A copy may change in place: each call makes its own."""

    def forward(self, x):
        scale = torch.tensor(np.arange(4), dtype=x.dtype, device=x.device)
        scale += 1
        return self.lin(x) * scale


@exact()
class AsTensor(Base):
    def forward(self, x):
        mask = torch.as_tensor(np.tri(4)[1], dtype=torch.bool)
        return self.lin(x).masked_fill(mask, 2.0) + torch.asarray(np.ones(4, "f"))


@exact()
class OfItsOwn(Base):
    def __init__(self):
        super().__init__()
        self.mean = np.array([1, 2, 3, 4], "f")

    def forward(self, x):
        return self.lin(x) - torch.from_numpy(self.mean).to(x.device)


@exact()
class Indexes(Base):
    def forward(self, x):
        y = self.lin(x)[:, np.array([2, 0, 3])]
        z = y.clone()
        z[..., np.array([True, False, True])] = 1
        return y, z


@exact()
class Loops(Base):
    def forward(self, x):
        y = self.lin(x)
        for scale in np.linspace(0, 1, 5, dtype="f"):
            y = y * scale + np.float32(0.1) * torch.from_numpy(np.full(4, scale))
        return y


@assumes()
class OfASize(Base):
    def forward(self, x):
        return self.lin(x) + torch.from_numpy(np.arange(x.shape[0], dtype="f"))[:, None]


@assumes(others=[(torch.full((3, 4), 2.0),)])
class OfANumber(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(np.array([x.sum().item()], "f"))


@refused("memory that an array")
class ChangesTheArray(Base):
    def forward(self, x):
        array = np.zeros(4, "f")
        shared = torch.from_numpy(array)
        array[:] = 3
        return self.lin(x) * shared


@refused("memory that an array")
class ChangesTheTensor(Base):
    def forward(self, x):
        array = np.zeros(4, "f")
        torch.as_tensor(array).add_(3)
        return self.lin(x) * array.sum()


@refused("ndarray")
class NeedsAGradient(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(np.ones(4, "f"), requires_grad=True)


@refused("random", placed=False)
class Draws(Base):
    def forward(self, x):
        return self.lin(x) * torch.from_numpy(np.random.rand(4))


@refused("ndarray", placed=False)
class Returns(Base):
    def forward(self, x):
        return self.lin(x), np.arange(3)


@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])


def test_through_a_file(tmp_path):
    model, x = OfItsOwn(), torch.randn(3, 4)
    path = tmp_path / "model.safetensors"
    lg.save(lg.to_ir(model, (x,)), path, model.state_dict())
    assert torch.equal(lg.load_model(path)(x), model(x))
