"""Tensors and modules that code compares by identity."""

# The traps use the code that the linter would rewrite.
# ruff: noqa: RET501

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


@exact(others=[(torch.randn(5, 4),), (torch.randn(4, 3).t(),)])
class NoOps(nn.Module):
    def forward(self, x):
        a = x.contiguous()
        b = x.to(torch.float32)
        c = x.float()
        d = F.dropout(x, 0.5, False)
        return a, b, c, d, x.view(x.shape), x.expand(x.shape), x.reshape(-1, 4), x.squeeze()


@exact()
class IdentityModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Identity()
        self.two = Returns()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.one(x)
        z = self.two(y)
        w = self.drop(z)
        z.add_(1)
        return x, y, z, w


class Returns(nn.Module):
    def forward(self, x):
        return x


@exact((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(5, 4), torch.randn(5, 4))])
class ReturnsInputsAlone(nn.Module):
    def forward(self, x, y):
        return (y, x)


@exact((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(5, 4), torch.randn(5, 4))])
class SubmoduleReturnsTuple(Base):
    def __init__(self):
        super().__init__()
        self.swap = ReturnsInputsAlone()

    def forward(self, x, y):
        a, b = self.swap(x, y)
        a, b = self.swap(a, b)
        a += 1
        return self.lin(a) - b, a


class Doubles(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, how="a", extra=None):
        y = self.lin(x)
        if how == "b":
            y = y * 2
        return y if extra is None else y + extra


@exact()
class CallsDifferently(nn.Module):
    def __init__(self):
        super().__init__()
        self.two = Doubles()
        self.again = self.two

    def forward(self, x):
        y = self.two(x)
        y = self.two(y, "b")
        y = self.again(y, "a", extra=x)
        y = self.again(y, how="b", extra=2)
        return self.two(y)


class Recurses(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, depth=3):
        return self.lin(x) if depth == 0 else torch.relu(self(self.lin(x), depth - 1))


@exact()
class Recursion(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = Recurses()

    def forward(self, x):
        return self.one(x) + self.one(x, depth=1)


@exact()
class RecursionOfRoot(Base):
    def forward(self, x, depth=2):
        return self.lin(x) if depth == 0 else self.lin(self(x, depth - 1))


class Collects(nn.Module):
    def forward(self, x, into, key=None):
        into.append(x * 2)
        return None


@exact()
class MutatesList(Base):
    def __init__(self):
        super().__init__()
        self.collect = Collects()

    def forward(self, x):
        into = [x]
        self.collect(self.lin(x), into)
        self.collect(x, into, key="z")
        return into, torch.cat(into)


class FillsDict(nn.Module):
    def forward(self, x, into):
        into["y"] = x.relu()
        into["n"] = x.shape[0]


@exact()
class MutatesDict(Base):
    def __init__(self):
        super().__init__()
        self.fill = FillsDict()

    def forward(self, x):
        into = {}
        self.fill(self.lin(x), into)
        return into["y"] * into["n"], into


class Saves(nn.Module):
    def __init__(self, store):
        super().__init__()
        self.store = store
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        self.store["x"] = x
        return self.lin(x)


class Loads(nn.Module):
    def __init__(self, store):
        super().__init__()
        self.store = store

    def forward(self, y):
        return y + self.store["x"]


@exact()
class StoresForAnother(nn.Module):
    def __init__(self):
        super().__init__()
        store = {}
        self.save, self.load = Saves(store), Loads(store)

    def forward(self, x):
        return self.load(self.save(x))


@refused("store|keeps|assigns", placed=False)
class StoresFromCallToCall(nn.Module):
    def __init__(self):
        super().__init__()
        self.store = {"x": torch.zeros(4)}
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        y = self.lin(x) + self.store["x"]
        self.store["x"] = y.detach().mean(0)
        return y


@refused("store|keeps|assigns", placed=False)
class CountsInList(Base):
    def __init__(self):
        super().__init__()
        self.counts = [0]

    def forward(self, x):
        self.counts[0] += 1
        return self.lin(x) * self.counts[0]


@refused("store|keeps|assigns", placed=False)
class AppendsToHistory(Base):
    def __init__(self):
        super().__init__()
        self.history = []

    def forward(self, x):
        self.history.append(x.mean())
        return self.lin(x) + sum(self.history)


class Tally:
    def __init__(self):
        self.n = 0


@refused("store|keeps|assigns", placed=False)
class CountsInObject(Base):
    def __init__(self):
        super().__init__()
        self.counter = Tally()

    def forward(self, x):
        self.counter.n += 1
        return self.lin(x) * self.counter.n


@refused("store|keeps|assigns|class")
class CountsInClass(Base):
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return self.lin(x) * type(self).calls


_CALLS = [0]


@refused("store|keeps|assigns|global")
class CountsInGlobal(Base):
    def __init__(self):
        super().__init__()
        _CALLS[0] = 0

    def forward(self, x):
        _CALLS[0] += 1
        return self.lin(x) * _CALLS[0]


class Yields(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        for i in range(3):
            yield self.lin(x) * i


@exact()
class Generators(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = Yields()

    def forward(self, x):
        total = 0
        for part in self.parts(x):
            total = total + part.relu()
        return total


@exact()
class Views(Base):
    def forward(self, x):
        return x[:1], x.t(), x.view(-1), x.unsqueeze(0), x.detach(), x.diagonal(), x.unbind(1)[0]


@exact()
class AsksIdentityInSubmodule(Base):
    def __init__(self):
        super().__init__()
        self.asks = AsksWhetherSame()

    def forward(self, x):
        return self.asks(self.lin.weight, self.lin.weight) + self.asks(x, x).sum()


class AsksWhetherSame(nn.Module):
    def forward(self, x, y):
        return x * 2 if x is y else x * 3


@exact()
class DefaultDictState(Base):
    def forward(self, x):
        groups = defaultdict(list)
        for i, part in enumerate(self.lin(x).unbind(1)):
            groups[i % 2].append(part)
        return {key: torch.stack(each) for key, each in groups.items()}


@exact()
class ParametersByName(Base):
    def forward(self, x):
        for name, each in self.named_parameters():
            x = x + each.sum() if name.endswith("weight") else x * each
        return x + sum(p.norm() for p in self.state_dict().values())


@exact()
class ParameterTwice(Base):
    def __init__(self):
        super().__init__()
        self.both = AddsOut()

    def forward(self, x):
        return self.both(self.lin.weight, self.lin.weight) + self.both(self.lin.bias, x).sum()


class AddsOut(nn.Module):
    def forward(self, a, b):
        return a * 2 + b


@exact()
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4, bias=False)
        self.b = nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.c = nn.ModuleList([self.a, self.b])

    def forward(self, x):
        return self.c[1](self.a(x)) @ self.b.weight


@exact()
class OutOfOrder(nn.Module):
    def __init__(self):
        super().__init__()
        self.outer = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.never = nn.Linear(2, 2)

    def forward(self, x):
        y = self.outer[2](x)
        y = self.outer(y)
        return self.outer[0](y) + self.outer[1:](y)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
