"""Many layers, in a row and in depth: no limit but memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal
from layergraph.torch2ir.tracing.patches import with_room_for

pytestmark = pytest.mark.slow

COUNT = 10_000


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 1


class Loop(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(count))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def _nested(wrap):
    model = nn.Linear(2, 2)
    for _ in range(COUNT - 1):
        model = wrap(model)
    return model


MODELS = {
    "in a row": lambda: nn.Sequential(*(nn.Linear(2, 2) for _ in range(COUNT))),
    "in a loop": lambda: Loop(COUNT),
    "compositions in a row": lambda: nn.Sequential(
        *(Around(nn.Linear(2, 2)) for _ in range(COUNT // 4))
    ),
    "sequentials in depth": lambda: _nested(nn.Sequential),
    "compositions in depth": lambda: _nested(Around),
}


@pytest.mark.parametrize("name", MODELS)
def test_ten_thousand(name):
    model = MODELS[name]()
    ir = lg.to_ir(model)
    assert lg.Ir.from_dict(ir.to_dict()) == ir
    assert sum(each.type == "linear" for each in ir.values()) in (1, COUNT // 4, COUNT)
    flat = ir.flatten()
    calls = sum(node.is_call for node in flat["root"].nodes.values())
    assert calls == sum(each.type == "linear" for each in ir.values())

    def run():
        # torch's own recursion needs the deep stack. Its walk over a state dict is quadratic in
        # the depth, so the weights are compared by hand.
        rebuilt = lg.to_torch(ir)
        with torch.no_grad():
            for source, target in zip(_linears(model), _linears(rebuilt), strict=True):
                target.weight.copy_(source.weight)
                target.bias.copy_(source.bias)
        x = torch.randn(3, 2)
        return bitwise_equal(model(x), rebuilt(x))

    assert with_room_for(COUNT, run)


def _linears(model):
    found, stack = [], [model]
    while stack:
        module = stack.pop()
        if isinstance(module, nn.Linear):
            found.append(module)
        stack.extend(module._modules.values())
    return found
