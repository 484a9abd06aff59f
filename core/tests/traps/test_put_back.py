"""State that models change and restore in one call."""

# The traps use the code that the linter would rewrite.

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


class WithDropout(Base):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)


@refused("drop|assigns|changes|p")
class ChangesLeafForAWhile(WithDropout):
    def forward(self, x):
        self.drop.p = 0.0
        y = self.drop(self.lin(x))
        self.drop.p = 0.5
        return y


@exact()
class ChangesModeForAWhile(WithDropout):
    def forward(self, x):
        was = self.drop.training
        self.drop.eval()
        y = self.drop(self.lin(x))
        self.drop.train(was)
        return y


@refused("lin|forward|assigns")
class ChangesForwardForAWhile(Base):
    def forward(self, x):
        was = self.lin.forward
        self.lin.forward = lambda each: was(each) * 5
        y = self.lin(x)
        del self.lin.forward
        return y


@refused("lasts for a call")
class HooksForAWhile(Base):
    def forward(self, x):
        handle = self.lin.register_forward_hook(lambda module, args, out: out * 5)
        y = self.lin(x)
        handle.remove()
        return y


@refused("weight|assigns|lin")
class SwapsWeightForAWhile(Base):
    def forward(self, x):
        weight = self.lin.weight
        del self.lin._parameters["weight"]
        self.lin.weight = weight * 2
        y = self.lin(x)
        del self.lin.weight
        self.lin._parameters["weight"] = weight
        return y


@exact()
class ChoosesKernel(Base):
    def forward(self, x):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return F.scaled_dot_product_attention(x[None], x[None], x[None])[0]


@refused("autocast")
class SetsAutocast(Base):
    def forward(self, x):
        torch.set_autocast_enabled("cpu", True)
        y = self.lin(x)
        torch.set_autocast_enabled("cpu", False)
        return y


@refused("saved_tensors|hook")
class SavedTensorsHooks(Base):
    def forward(self, x):
        with torch.autograd.graph.saved_tensors_hooks(lambda each: each * 2, lambda each: each):
            return self.lin(x) ** 2


@refused("default dtype|default_dtype")
class AsksDefaultDtype(Base):
    def forward(self, x):
        kind = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        y = x * torch.ones(4)
        torch.set_default_dtype(kind)
        return y


@refused("apply_")
class AppliesFunction(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        y.apply_(lambda each: each * 2)
        return y


@refused("catches an error of torch")
class CatchesError(Base):
    def forward(self, x):
        y = self.lin(x)
        try:
            return y + torch.ones(5, 4)
        except RuntimeError:
            return y


@refused("catches an error of child: for other inputs")
class CatchesErrorOfChild(Base):
    """Catches the error of a child. Later calls must not count as calls of that child."""

    class Child(nn.Module):
        def forward(self, x):
            raise ValueError

    def __init__(self):
        super().__init__()
        self.child = self.Child()

    def forward(self, x):
        y = self.lin(x)
        try:
            return self.child(y)
        except ValueError:
            return y + 1


@exact()
class PadsSequences(Base):
    """The sizes of the tensors in a list are those of the inputs."""

    def forward(self, x):
        return nn.utils.rnn.pad_sequence([self.lin(x), x[:1]], batch_first=True)


@assumes()
class PadsAround(Base):
    """Calls a function without a name in the IR, after the guard of the sizes that it needs."""

    def forward(self, x):
        y = x * 2
        part = self.lin(x).chunk(2, -1)[0]
        return torch._C._nn.pad(part, (1, 1), "circular") + y.sum()


@exact()
class PowerOfSize(Base):
    def forward(self, x):
        return self.lin(x) ** x.shape[0]


@exact()
class SizeOverTensor(Base):
    def forward(self, x):
        return x.shape[0] / self.lin(x)


@exact()
class SizeAgainstTensor(Base):
    def forward(self, x):
        n, y = x.shape[0], self.lin(x)
        return n - y, n + y, n * y, n > y, n**y, n // (y + 9), n % (y + 9), y.__rsub__(n), y == n


@exact()
class AtenFull(Base):
    def forward(self, x):
        return torch.ops.aten.full([x.shape[0], 4], 1.0) * self.lin(x).sum()


@exact()
class UnbindsCopies(Base):
    def forward(self, x):
        return sum((i + 1) * each for i, each in enumerate(torch.unbind_copy(self.lin(x))))


@assumes()
class SplitsCopies(Base):
    def forward(self, x):
        return sum((i + 1) * each.sum() for i, each in enumerate(torch.split_copy(x, 2)))


@assumes()
class SplitsByOperation(Base):
    def forward(self, x):
        return sum((i + 1) * each.sum() for i, each in enumerate(torch.ops.aten.split.Tensor(x, 2)))


@exact()
class HSplitsBySize(Base):
    def forward(self, x):
        return sum((i + 1) * each.sum() for i, each in enumerate(x.t().hsplit(x.shape[0])))


@exact()
class SplitsTensorByOperation(Base):
    def forward(self, x):
        return torch.ops.aten.tensor_split(self.lin(x), 2)[0]


@exact()
class RepeatsByOperation(Base):
    def forward(self, x):
        return torch.ops.aten.repeat_interleave(self.lin(x), 2, 0)


@exact()
class DropsFeaturesByOperation(Base):
    def forward(self, x):
        return torch.ops.aten.feature_dropout(self.lin(x), 0.5, True)


@exact()
class MaxPools(nn.Module):
    def forward(self, x):
        return F.max_pool1d(x[None], 2), F.adaptive_max_pool1d(x[None], 2)


@exact()
class PicklesOperators(Base):
    def forward(self, x):
        y = self.lin(x)
        return y**2, 3 / y


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
