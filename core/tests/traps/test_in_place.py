"""Tensors that models change in place."""

# The traps use the code that the linter would rewrite.

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


@exact()
class InPlaceAll(Base):
    def forward(self, x):
        y = self.lin(x)
        z = y
        y += 1
        y.mul_(2)
        y[:, 0] = 0
        y[y > 1] = 0.5
        y -= x
        y /= 2
        return y * z


@exact()
class InPlaceOnView(Base):
    def forward(self, x):
        y = self.lin(x).clone()
        part = y[:, :2]
        y.add_(1)
        part.zero_()
        view = y.view(-1)
        view[0] = 9
        y[0].mul_(3)
        return y, part, view


@exact()
class InPlaceOnInput(Base):
    def forward(self, x):
        x.add_(1)
        return self.lin(x)


@exact()
class SetsInput(Base):
    def forward(self, x):
        x[0] = 0
        x.t_()
        return self.lin(x.t())


@exact()
class InPlaceOnViewOfInput(Base):
    def forward(self, x):
        part = x[:1]
        part += 1
        return self.lin(x), part


@exact()
class ReluResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.lin(x)
        z = self.relu(y)
        return y + z


@exact()
class ReluOnInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(x) + x


@exact()
class FunctionalReluInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        z = F.relu(y, inplace=True)
        w = F.dropout(y, 0.5, self.training, inplace=True)
        return y + z + F.leaky_relu_(w)


@exact()
class DropoutInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5, inplace=True)

    def forward(self, x):
        y = self.lin(x)
        self.drop(y)
        return y


@exact()
class BufferInPlace(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
                self.steps += 1
        return self.lin(x) - self.mean / (self.steps + 1)


@exact()
class BufferCopied(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        before = self.last.clone()
        self.last.copy_(x.detach().mean(0))
        self.last[0] = 3
        return self.lin(x) + before + self.last


@exact()
class BufferData(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        self.last.data.add_(x.detach().mean(0))
        return self.lin(x) + self.last


@exact()
class BufferSetData(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        self.last.data = self.last + x.detach().mean(0)
        return self.lin(x) + self.last


@exact()
class BufferByView(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(3, 4))

    def forward(self, x):
        row = self.table[1]
        row += x.detach().sum(0)
        self.table.t()[0, 2] = 1.0
        return self.lin(x) + self.table.sum(0)


@exact()
class BufferOut(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        torch.sum(x.detach(), 0, out=self.last)
        return self.lin(x) + self.last


@exact()
class ParameterInPlace(Base):
    def forward(self, x):
        with torch.no_grad():
            self.lin.weight.mul_(0.5)
            self.lin.bias.data.clamp_(-0.1, 0.1)
        return self.lin(x)


@exact()
class ParameterDataCopied(Base):
    def forward(self, x):
        self.lin.weight.data.copy_(self.lin.weight.data / self.lin.weight.data.norm())
        return self.lin(x)


@exact()
class ParameterSetData(Base):
    def forward(self, x):
        self.lin.weight.data = self.lin.weight.data / 2
        return self.lin(x)


@exact()
class ParameterSetItem(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        with torch.no_grad():
            self.weight[0] = 1.0
            self.weight[1].fill_(2)
        return x @ self.weight


@exact()
class MaskedFillInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        y.masked_fill_(x > 0, -1.0)
        y.index_fill_(1, torch.tensor([1]), 3.0)
        y.index_add_(0, torch.tensor([0]), x[:1])
        y.scatter_(1, torch.zeros(x.shape[0], 1, dtype=torch.long), 7.0)
        return y.clamp_(-2, 2)


@exact()
class OutArgument(Base):
    def forward(self, x):
        out = torch.empty(x.shape[0], 4)
        torch.add(x.detach(), 1, out=out)
        result = torch.mul(out, 2, out=out)
        return self.lin(out) + result


@exact()
class OutTuple(Base):
    def forward(self, x):
        values, index = torch.empty(0), torch.empty(0, dtype=torch.long)
        torch.max(x.detach(), 1, out=(values, index))
        return self.lin(x) + values.unsqueeze(1) + index.unsqueeze(1)


@exact()
class OutOfView(Base):
    def forward(self, x):
        out = torch.zeros(x.shape[0], 8)
        torch.neg(x.detach(), out=out[:, :4])
        return self.lin(x), out


@exact((torch.randn(3, 1, 4),), [(torch.randn(5, 1, 4),)])
class SqueezesBetween(Base):
    def forward(self, x):
        y = self.lin(x)
        n, one = y.shape[0], y.shape[1]
        m = y.size(1)
        y.squeeze_(1)
        return y.view(n, one, 4) * m + y.shape[1] + y.dim()


@exact()
class TransposesInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        n = y.shape[0]
        y.t_()
        m = y.shape[0]
        y.unsqueeze_(0)
        return y * n + m + y.shape[0] + y.shape[2]


@exact()
class InPlaceOnNothing(Base):
    def forward(self, x):
        y = self.lin(x)
        z = y.contiguous()
        z.add_(1)
        w = z.to(torch.float32)
        w.mul_(2)
        v = w.float().detach()
        v.sub_(1)
        return y, z, w


@exact((torch.randn(3, 4),), [(torch.randn(4, 5).t(),), (torch.randn(4, 3).t(),)])
class ContiguousInput(Base):
    def forward(self, x):
        y = x.contiguous()
        y.add_(1)
        return self.lin(x) + y


@exact((torch.randn(3, 4),), [(torch.randn(4, 5).t(),), (torch.randn(4, 3).t(),)])
class ReshapedInput(Base):
    def forward(self, x):
        y = x.reshape(-1)
        y.add_(1)
        return self.lin(x), y


@exact((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.randn(3, 4).bfloat16(),)])
class ToFloatInput(nn.Module):
    def forward(self, x):
        y = x.float()
        y.add_(1)
        return x * 2, y


@exact()
class DataInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        y.data.add_(1)
        y.detach().mul_(2)
        return y * 3


@exact()
class DetachInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        z = y * 2
        z.detach_()
        return y, z


@exact()
class RequiresGradInPlace(Base):
    def forward(self, x):
        y = self.lin(x).detach().requires_grad_()
        return y * 2


@exact()
class SetsRequiresGrad(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        y.requires_grad = True
        return y * 2


@refused("attribute")
class SetsDataOfResult(Base):
    def forward(self, x):
        y = self.lin(x)
        y.data = x.detach() * 2
        return y * 2


@exact()
class InPlaceInSubmodule(Base):
    def __init__(self):
        super().__init__()
        self.change = AddsOne()

    def forward(self, x):
        y = self.lin(x).clone()
        view = y[:, 1:]
        self.change(y)
        self.change(view)
        return y, view


class AddsOne(nn.Module):
    def forward(self, x):
        x.add_(1)
        x[:, 0] *= 2


@exact()
class UnusedInPlace(Base):
    """Changes a tensor in place without reading the result; the change is not dead code."""

    def __init__(self):
        super().__init__()
        self.inner = ChangesViewOfBuffer()

    def forward(self, x):
        self.inner(x)
        return self.lin(x)


class ChangesViewOfBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        self.seen[:2].add_(x.detach().sum())


@exact()
class AssignsSlice(Base):
    def forward(self, x):
        out = torch.zeros(x.shape[0], 8)
        out[:, :4] = self.lin(x)
        out[:, 4:] += x
        out[x.shape[0] - 1, ...] = x.shape[0]
        out[:, [0, 2]] = 0
        return out


@exact(others=[])
class ResizeInPlace(Base):
    def forward(self, x):
        y = torch.zeros(2)
        y.resize_(4)
        y.fill_(1)
        return self.lin(x) + y


@refused("set_")
class SetStorage(Base):
    def forward(self, x):
        y = torch.zeros(2)
        y.set_(x.detach())
        return self.lin(x) + y


@exact()
class SwapsInPlace(Base):
    def forward(self, x):
        y, z = self.lin(x), x * 2
        y, z = z, y
        y[0], z[0] = z[0].clone(), y[0].clone()
        return y, z


@exact((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(5, 4), torch.randn(5, 4))])
class OneTensorTwoParameters(Base):
    def __init__(self):
        super().__init__()
        self.both = AddsToFirst()

    def forward(self, x, y):
        z = self.lin(x)
        first = self.both(z, z)
        second = self.both(z, y)
        return first, second, z, y


class AddsToFirst(nn.Module):
    def forward(self, a, b):
        a.mul_(2)
        return a + b


_SHARED = torch.randn(3, 4)


@exact((_SHARED, _SHARED), [(_SHARED, torch.randn(3, 4))])
class SameTensorGivenTwice(Base):
    def forward(self, x, y):
        x.add_(1)
        return self.lin(x) + y


@refused("one object is twice among the arguments", (_SHARED, _SHARED), [])
class AsksIdentityOfInputs(Base):
    def forward(self, x, y):
        return self.lin(x) if x is y else self.lin(y) * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
