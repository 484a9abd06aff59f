"""Python code that reads numbers from tensors, and branches on the numbers."""

# The traps use the code that the linter would rewrite.
# ruff: noqa: RUF017

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes = TRAPS.exact, TRAPS.assumes
refused = partial(TRAPS.refused, values="refuse")


@refused("read out")
class Item(Base):
    def forward(self, x):
        return self.lin(x) * x.sum().item()


@refused("read out")
class TruthOfTensor(Base):
    def forward(self, x):
        return self.lin(x) if bool(x.sum() > 0) else x


@refused("read out")
class IfTensor(Base):
    def forward(self, x):
        return self.lin(x) if x.sum() > 0 else x


@assumes(values="assume")
class IfTensorAssumed(Base):
    def forward(self, x):
        return self.lin(x) if x.sum() > 0 else x


@assumes(values="assume")
class ItemAssumed(Base):
    def forward(self, x):
        return self.lin(x) * x.sum().item()


@assumes(values="assume")
class IntAssumed(Base):
    def forward(self, x):
        return self.lin(x) * int(x.sum()) + float(x.max())


@assumes(values="assume")
class TolistAssumed(Base):
    def forward(self, x):
        return self.lin(x) * sum(sum(x.tolist(), []))


@refused("read out")
class Tolist(Base):
    def forward(self, x):
        return self.lin(x) * sum(sum(x.tolist(), []))


@refused("numpy")
class Numpy(Base):
    def forward(self, x):
        return self.lin(x) * float(x.detach().numpy().sum())


@refused("numpy|array")
class NumpyAsarray(Base):
    def forward(self, x):
        return self.lin(x) * float(np.asarray(x).sum())


@refused("numpy|array|axis")
class NumpyOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * float(np.sum(x.detach().cpu()))


@refused("numpy", values="assume")
class NumpyAssumed(Base):
    def forward(self, x):
        return self.lin(x) * float(x.detach().numpy().sum())


@refused("read out of a tensor")
class Contains(Base):
    def forward(self, x):
        return self.lin(x) if 0.0 in x else x


@exact(others=[(torch.ones(3, 4),)])
class TorchEqual(Base):
    def forward(self, x):
        return self.lin(x) if not torch.equal(x, torch.ones(3, 4)) else x


@exact(others=[(torch.ones(3, 4),)])
class Allclose(Base):
    def forward(self, x):
        return self.lin(x) if not torch.allclose(x, torch.ones(3, 4)) else x


@exact(others=[(torch.ones(3, 4),)])
class AllcloseByName(Base):
    def forward(self, x):
        return self.lin(x) if not torch.allclose(x, torch.ones(4), atol=1e-3) else x


@refused("read out")
class AllOfTensor(Base):
    def forward(self, x):
        return self.lin(x) if (x > -99).all() else x


@exact()
class Mask(Base):
    def forward(self, x):
        y = self.lin(x)
        return y[y > 0], torch.where(y > 0, y, x), y.masked_select(x > 0)


@exact()
class Nonzero(Base):
    def forward(self, x):
        y = self.lin(x)
        return (y > 0).nonzero(), torch.nonzero(y > 0, as_tuple=True), torch.where(y > 0)


@exact()
class SizeOfNonzero(Base):
    def forward(self, x):
        y = self.lin(x)
        found = y[y > 0]
        return found.view(found.shape[0], 1) / max(1.0, 2.0) * found.numel()


@exact(None, [(TRAPS.draw(5, 4),), (torch.ones(60, 4),)])
class BranchOnNonzero(Base):
    def forward(self, x):
        found = (x > 0).nonzero()
        return self.lin(x) if len(found) > 100 else x * found.shape[0]


@exact(others=[(torch.randn(3, 4) * 5,)])
class Unique(Base):
    def forward(self, x):
        values, index, counts = torch.unique(
            (x * 3).long(), return_inverse=True, return_counts=True
        )
        return self.lin(x), values, index, counts


@exact()
class Prints(Base):
    def forward(self, x):
        print("shape", x.dtype, x.device)
        return self.lin(x)


@exact()
class PrintsTensor(Base):
    def forward(self, x):
        print(x, repr(x), str(x), f"{x}")
        return self.lin(x)


@exact()
class PrintsShape(Base):
    def forward(self, x):
        print(x.shape)
        return self.lin(x)


@refused("read out", others=[(-torch.randn(3, 4).abs(),)])
class Asserts(Base):
    def forward(self, x):
        assert (x < 100).all()
        return self.lin(x)


@refused("read out", others=[(torch.randn(3, 4) + 200,)])
class TorchAsserts(Base):
    def forward(self, x):
        torch._assert((x < 100).sum() >= 0, "large")
        return self.lin(x)


@refused("read out|format|text")
class FormatsItem(Base):
    def forward(self, x):
        return self.lin(x) * float(f"{x.sum():.2f}")


@refused("read out|format|text")
class KeyOfTensor(Base):
    def forward(self, x):
        factors = {f"factor_{number}": float(number) for number in range(4)}
        return self.lin(x) * factors[f"factor_{x[0].argmax()}"]


@refused("read out")
class IndexByTensor(Base):
    def forward(self, x):
        return self.lin(x) * [1.0, 2.0, 3.0, 4.0][x[0].argmax()]


@refused("read out")
class RangeOfTensor(Base):
    def forward(self, x):
        for _ in range(x[0].argmax()):
            x = self.lin(x)
        return x


@exact()
class SliceByTensor(Base):
    def forward(self, x):
        return self.lin(x)[: x[0].argmax()]


@exact()
class IndexTensorByTensor(Base):
    def forward(self, x):
        y = self.lin(x)
        return y[x[0].argmax() % 1], y[:, x.argmax(1)], y[torch.arange(x.shape[0]), x.argmax(1)]


@refused("read out")
class MathOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * math.sqrt(x.abs().sum()) + math.exp(x.sum() * 0)


@refused("read out")
class MaxOfTensors(Base):
    def forward(self, x):
        return self.lin(x) * max(x.sum(), x.mean())


@exact()
class FullOfItem(Base):
    def forward(self, x):
        return self.lin(x) + torch.full((4,), x.sum())


@exact()
class TensorOfTensors(Base):
    def forward(self, x):
        return self.lin(x) + torch.tensor(x.shape[0] * 0.5) + torch.stack([x.sum(), x.mean()]).sum()


@exact()
class TensorOfTensorList(Base):
    def forward(self, x):
        return self.lin(x) + torch.tensor([x.sum(), x.mean()]).sum()


@exact()
class DictByTensor(Base):
    def forward(self, x):
        return self.lin(x) * {x: 2.0}[x]


@exact()
class DictByTensorIdentity(Base):
    def forward(self, x):
        y = self.lin(x)
        return y * {id(y): 2.0}[id(y)] if y in [y] and x is not y else y


@refused("data_ptr")
class DataPointer(Base):
    def forward(self, x):
        return self.lin(x) * (2 if x.data_ptr() == self.lin.weight.data_ptr() else 1)


@refused("read out")
class MaxOfPython(Base):
    def forward(self, x):
        return self.lin(x) * sorted([x.sum(), x.mean()])[0]


@refused("read out")
class StateDecides(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("initted", torch.tensor([False]))

    def forward(self, x):
        if not self.initted:
            self.initted.fill_(True)
            return x
        return self.lin(x)


@assumes(values="assume", fickle=True)
class StateDecidesAssumed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        return self.lin(x) if self.calls.item() < 2 else x


_COUNTS = torch.tensor([2, 1])


@refused("read out of a tensor")
class ConstantDecides(Base):
    def __init__(self):
        super().__init__()
        self.counts = torch.tensor([2, 3])

    def forward(self, x):
        for _ in range(self.counts[0].item()):
            x = self.lin(x)
        return x * self.counts.tolist()[1] if self.counts[0] > 1 else x


@exact()
class GlobalDecides(Base):
    def forward(self, x):
        return self.lin(x) * int(_COUNTS[0])


@exact()
class MadeHereDecides(Base):
    def forward(self, x):
        steps = torch.linspace(0, 0.5, 3).tolist()
        rates = [each.item() for each in torch.arange(3)]
        return self.lin(x) * steps[1] + rates[2]


@refused("read out")
class RandomDecides(Base):
    def forward(self, x):
        return self.lin(x) if torch.rand(1) < 0.5 else x


@refused("read out")
class RandintDecides(Base):
    def forward(self, x):
        return self.lin(x) * int(torch.randint(0, 5, (1,)))


@refused("read out")
class RandpermDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.randperm(4)[0].item()


@assumes(values="assume", fickle=True)
class RandomDecidesAssumed(Base):
    def forward(self, x):
        return self.lin(x) if torch.rand(1) < 0.5 else x


@refused("read out")
class UniformDecides(Base):
    def forward(self, x):
        return self.lin(x) if torch.zeros(1).uniform_() < 0.5 else x


@refused("read out")
class GeometricDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.zeros(1).geometric_(0.3).item()


@refused("read out")
class CauchyDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.zeros(1).cauchy_().item()


@refused("read out")
class BinomialDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.binomial(torch.tensor([9.0]), torch.tensor([0.5])).item()


@refused("read out")
class LogNormalDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.zeros(1).log_normal_().item()


@refused("read out")
class RandomUnderscoreDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.zeros(1).random_(0, 9).item()


@refused("read out")
class GumbelDecides(Base):
    def forward(self, x):
        return self.lin(x) * F.gumbel_softmax(torch.zeros(4)).argmax().item()


@refused("read out")
class OutDecides(Base):
    def forward(self, x):
        out = torch.zeros(())
        torch.sum(x, out=out) if False else torch.add(x.sum().detach(), 0, out=out)
        return self.lin(x) * out.item()


@refused("read out")
class SetItemDecides(Base):
    def forward(self, x):
        out = torch.zeros(2)
        out[0] = x.sum().detach()
        return self.lin(x) * out[0].item()


@refused("read out")
class InPlaceDecides(Base):
    def forward(self, x):
        out = torch.zeros(2)
        out.add_(x.sum().detach())
        return self.lin(x) * out.tolist()[0]


@refused("read out")
class ViewOfInPlaceDecides(Base):
    def forward(self, x):
        out = torch.zeros(2)
        view = out[:1]
        view.add_(x.sum().detach())
        return self.lin(x) * out[0].item()


@refused("read out")
class BaseOfInPlaceDecides(Base):
    def forward(self, x):
        out = torch.zeros(2)
        view = out[:1]
        out.add_(x.sum().detach())
        return self.lin(x) * view.item()


@refused("read out")
class CopiedDecides(Base):
    def forward(self, x):
        out = torch.zeros(3)
        out.copy_(x[:3, 0].detach()) if False else out.fill_(x.sum().detach())
        return self.lin(x) * out[0].item()


@refused("read out")
class DeviceSizeDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.ones(x.shape[0]).sum().item()


@refused("read out")
class ArangeOfSizeDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.arange(x.shape[0]).tolist()[-1]


@refused("read out")
class TensorOfSizeDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(x.shape[0]).item()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])


# By default, a graph holds both branches of most models that are refused above. In these, Python
# needs the value of a number, or the branch is on a number of the state, not of the inputs.
GUARDED = {
    "ArangeOfSizeDecides",
    "FormatsItem",
    "KeyOfTensor",
    "IndexByTensor",
    "MathOfTensor",
    "RangeOfTensor",
    "Tolist",
}
# These leave torch, and no option allows that.
REFUSED = {
    "DataPointer": "data_ptr",
    "Numpy": "numpy",
    "NumpyAsarray": "__array__",
    "NumpyAssumed": "numpy",
    "NumpyOfTensor": "raises TypeError",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [each for each in TRAPS if TRAPS[each].expect == "refused"])
def test_goes_both_ways_by_default(name):
    trap = replace(TRAPS[name], values="both", expect="exact")
    if name in GUARDED:
        trap = replace(trap, expect="assumes")
    elif name in REFUSED:
        trap = replace(trap, expect="refused", reason=REFUSED[name])
    check(trap)
