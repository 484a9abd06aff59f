"""Known limits: models that a capture may get wrong, because it cannot see their decision."""

# The traps use the code that the linter would rewrite.

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import layergraph as lg
from core.tests.traps.harness import Base, observe, watched
from layergraph.errors import LayergraphError

X = torch.randn(3, 4)


@dataclass
class Limit:
    """A model that a capture may silently get wrong, because it cannot see the model's decision."""

    reason: str
    given: tuple[Any, ...]
    others: list[tuple[Any, ...]]
    kwargs: dict[str, Any]
    device: str


LIMITS: dict[type[nn.Module], Limit] = {}


def limit(reason, given=(X,), others=None, kwargs=None, device="cpu"):
    """A limit that is known and accepted: capture cannot see it."""

    def register(cls):
        LIMITS[cls] = Limit(reason, given, others or [(given, kwargs or {})], kwargs or {}, device)
        return cls

    return register


@limit("a size passes for an int, except where code asks for torch's symbolic ints")
class AsksForSymInt(Base):
    def forward(self, x):
        return x if isinstance(x.shape[0], torch.SymInt) else self.lin(x)


@limit("the text of a shape is for messages", (X,), [((torch.randn(5, 4),), {})])
class ShapeAsText(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if str(x.shape) == "torch.Size([3, 4])" else 1.0)


@limit("a function that gives its argument back, gives another object for it", (X, X + 1))
class AsksIdentity(Base):
    def forward(self, x, y):
        z = x.contiguous()
        return self.lin(z) if z is x else self.lin(y)


@limit("a function that gives its argument back, gives another object for it")
class AsksIdentityOfOwn(Base):
    def __init__(self):
        super().__init__()
        self.same = nn.Identity()

    def forward(self, x):
        y = self.lin(x)
        return y * 2 if self.same(y) is y else y


@limit("likewise: a dict finds tensors by which object they are")
class KeyedByTensor(Base):
    def forward(self, x):
        y = self.lin(x)
        known = {y: 1.0}
        return y * known.get(y.contiguous(), 2.0)


@limit("tensors are printed all the time, so that their text is no decision", others=[((-X,), {})])
class TextOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * len(str(x.sum() > 0))


@limit("tensors are printed all the time, so that their text is no decision", others=[((-X,), {})])
class ReprOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * (2 if "-" in repr(x[0, 0]) else 1)


@limit("the operating system tells it, and there is nothing to compare")
class AsksClock(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if time.time() > 0 else 1.0)


@limit("the operating system tells it, and there is nothing to compare")
class AsksForBytes(Base):
    def forward(self, x):
        return self.lin(x) * len(os.urandom(2)) * len(uuid.uuid4().bytes)


@limit("the operating system tells it, and there is nothing to compare")
class ReadsFile(Base):
    def forward(self, x):
        with Path(__file__).open() as file:
            return self.lin(x) * len(file.readline())


@limit("a second run is no other than the first, and a hundredth is not tried")
class CountsCalls(Base):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.lin(x) * (2.0 if self.calls % 100 == 0 else 1.0)


GETTERS = [torch.is_grad_enabled]


@limit("getters are looked for by their names, and not in what is in lists")
class AsksByListedGetter(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if GETTERS[0]() else 1.0)


@limit(
    "Python binds names to parameters, and their order is gone",
    (X,),
    [((X,), {"b": X + 1, "a": X})],
    {"a": X, "b": X + 1},
)
class OrderOfNames(Base):
    def forward(self, x, **named):
        for index, value in enumerate(named.values()):
            x = x + value * index
        return x


@limit(
    "the parameters of a graph have no kinds: a name can do without",
    (X,),
    [((X, 2.0), {})],
    {"scale": 2.0},
)
class KeywordOnly(Base):
    def forward(self, x, *, scale=2.0):
        return self.lin(x) * scale


@limit(
    "that there was no error for these inputs, does not show that one would be caught",
    others=[((torch.randn(5, 4),), {})],
)
class CatchesNoError(Base):
    def forward(self, x):
        y = self.lin(x)
        try:
            return y.view(3, 4) * 2
        except RuntimeError:
            return y


@limit("the device is free to change, for graphs are captured on meta", device="meta")
class AsksDevice(Base):
    def forward(self, x):
        return self.lin(x) if x.device.type == "meta" else self.lin(x) * 2


@limit("the device is free to change, for graphs are captured on meta", device="meta")
class AsksDeviceAsText(Base):
    def forward(self, x):
        return self.lin(x) if str(x.device) == "meta" else self.lin(x) * 2


@limit("the device is free to change, for graphs are captured on meta", device="meta")
class AsksIsCpu(Base):
    def forward(self, x):
        return self.lin(x) * 2 if x.is_cpu else self.lin(x)


@pytest.mark.parametrize("cls", LIMITS)
def test_limits_do_no_damage(cls):
    known = LIMITS[cls]
    model = cls().to(known.device)
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda each: each.to(known.device), (known.given, known.kwargs)
    )

    def capture():
        try:
            return lg.to_ir(model, args, kwargs)
        except LayergraphError:
            return None

    ir, touched = watched(model, args, kwargs, capture)
    assert not touched
    if ir is not None:
        model = cls()
        rebuilt = lg.to_torch(ir, model.state_dict())
        for given, named in [(known.given, known.kwargs), *known.others]:
            assert observe(rebuilt, given, named, training=True)
