"""Values of a graph with unusual origins."""

# The traps use the code that the linter would rewrite.

from __future__ import annotations

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


@refused("memory that an array of numpy")
class ThroughNumpyAndBack(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        array = np.zeros((3, 4), dtype=np.float32)
        torch.from_numpy(array).copy_(y[:3])
        return y + torch.tensor(array[0])


@refused("see|numpy|storage")
class ThroughStorage(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        y.untyped_storage().fill_(0)
        return y + x


@refused("see|pickle|save|copy|storage")
class ThroughPickle(Base):
    def forward(self, x):
        return pickle.loads(pickle.dumps(self.lin(x).detach())) * 2


@refused("set_|storage")
class DeepCopies(Base):
    def forward(self, x):
        return copy.deepcopy(self.lin(x).detach()) * 2 + copy.copy(x)


@exact()
class CopiesModule(Base):
    def forward(self, x):
        return copy.deepcopy(self.lin)(x)


@exact()
class MakesModule(Base):
    def forward(self, x):
        return nn.Softmax(1)(nn.LayerNorm(4)(self.lin(x)))


@exact()
class MakesModuleWithWeights(Base):
    def forward(self, x):
        return nn.Linear(4, 4)(self.lin(x))


class Wrapped(torch.Tensor):
    pass


@refused("subclass|Wrapped|see")
class Subclasses(Base):
    def forward(self, x):
        return self.lin(x).as_subclass(Wrapped) * 2


@exact()
class Sparse(Base):
    def forward(self, x):
        return torch.sparse.mm(x.relu().to_sparse(), self.lin.weight)


@exact()
class NestedTensor(Base):
    def forward(self, x):
        nested = torch.nested.nested_tensor([x, x[:1]])
        return self.lin(nested.to_padded_tensor(0.0))


@exact()
class Einsum(Base):
    def forward(self, x):
        return torch.einsum("ij,kj->ik", self.lin(x), x), torch.block_diag(x, x), torch.cdist(x, x)


@exact()
class Operators(Base):
    def forward(self, x):
        y = self.lin(x)
        y = 2 - y + 3 / (y + 9) + 2**y + (y > 0).float() + (5 // (y + 9)) + (7 % (y + 9)) - (-y)
        y @= torch.eye(4)
        y **= 2
        y //= 0.5
        y %= 3
        return y, y[None, ..., 1], y >= 0, y != x, abs(y), +y, divmod(y, 2) if False else y


@exact()
class DivmodOfTensor(Base):
    def forward(self, x):
        a, b = torch.div(x, 2, rounding_mode="floor"), torch.remainder(x, 2)
        return a, b, self.lin(x).__rsub__(1), torch.Tensor.add(x, 1), torch.add(x, x, alpha=2)


@exact()
class Partial(Base):
    def forward(self, x):
        act = partial(F.leaky_relu, negative_slope=0.3)
        table = {"relu": torch.relu, "gelu": F.gelu}
        return table["gelu"](act(self.lin(x)))


_FACTOR = torch.tensor([1.0, 2.0, 3.0, 4.0])


@exact()
class GlobalTensor(Base):
    def forward(self, x):
        return self.lin(x) * _FACTOR


@refused("register_buffer")
class ChangesGlobal(Base):
    def forward(self, x):
        _FACTOR.mul_(1.0)
        return self.lin(x) * _FACTOR


@refused("not registered", placed=False)
class ChangesViewOfConstant(Base):
    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(2, 4)

    def forward(self, x):
        self.cache[0].add_(1)
        return self.lin(x) + self.cache[0]


@refused("not registered", placed=False)
class ChangesConstantByData(Base):
    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(4)

    def forward(self, x):
        self.cache.data.add_(1)
        return self.lin(x) + self.cache


@refused("not registered", placed=False)
class ChangesConstantByOut(Base):
    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(4)

    def forward(self, x):
        torch.add(self.cache, 1, out=self.cache)
        return self.lin(x) + self.cache


@refused("not registered", placed=False)
class ChangesConstantInLeaf(Base):
    def __init__(self):
        super().__init__()
        self.cache = [torch.full((4,), -1.0)]
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        before = self.cache[0].clone()
        self.relu(self.cache[0])
        return self.lin(x) + before


@refused("not registered", placed=False)
class ChangesConstantByFunction(Base):
    def __init__(self):
        super().__init__()
        self.cache = [torch.full((4,), -1.0)]

    def forward(self, x):
        before = self.cache[0].clone()
        F.relu(self.cache[0], inplace=True)
        return self.lin(x) + before


@exact()
class TensorInDefault(Base):
    def forward(self, x, scale=_FACTOR):
        return self.lin(x) * scale


@exact()
class DefaultDevice(Base):
    def forward(self, x):
        return self.lin(x).to(x.device) + torch.zeros(4, device=self.lin.weight.device)


@exact()
class AsksDeviceEqual(Base):
    def forward(self, x):
        return self.lin(x) * 2 if x.device == torch.device("cpu") else self.lin(x)


@exact()
class TwiceModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.norm(x) + 1)


@exact((torch.randn(3, 4),), [(torch.randn(5, 4),)])
class BatchNormByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        norm = self.norm
        y = F.batch_norm(x, norm.running_mean, norm.running_var, training=self.training)
        return y + norm.running_mean


@exact((torch.randn(3, 4),), [(torch.randn(5, 4),)])
class InstanceNormByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        return F.instance_norm(x.t()[None], self.mean[:3], self.var[:3]) if False else x + self.mean


@exact((torch.tensor([[1, 2], [3, 0]]),), [(torch.tensor([[1], [3]]),)])
class EmbeddingWithMaxNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4, max_norm=0.5)
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        return self.table(x) + F.embedding(x, self.weight.detach(), max_norm=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
