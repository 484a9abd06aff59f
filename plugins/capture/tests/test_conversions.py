"""``int()`` and ``float()`` of sizes and of numbers in tensors, in code that runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal


class Sizes(nn.Module):
    def forward(self, x):
        batch, side = int(x.shape[0]), int(math.sqrt(x.shape[1]))
        kept = x[:, : int(x.shape[1] * 0.5)].reshape(batch, -1) * float(x.shape[1]) ** -0.5
        return kept + side, tuple(int(size) for size in x.shape), list(map(int, x.shape))


class Numbers(nn.Module):
    def forward(self, x, index):
        groups = int(index.max()) + 1
        sums = x.new_zeros(groups, x.shape[1]).index_add(0, index, x)
        return sums * float(index.sum()) + int(x.sum() * 10)


class Asked(nn.Module):
    """Its code asks for the type too, and may give it away."""

    def forward(self, x):
        count = int(x.shape[0])
        # No assert: pytest would write another use of the types.
        known = isinstance(count, int) and isinstance(1.5, (int, float))
        if not known or isinstance("1", float) or not issubclass(bool, int):
            raise TypeError
        return x * count + int("3") + int("11", 2) + float("0.5")


CASES = {
    "sizes": (Sizes(), (torch.randn(2, 16),), (torch.randn(3, 25),)),
    "numbers": (
        Numbers(),
        (torch.randn(6, 2), torch.tensor([0, 0, 1, 1, 2, 2])),
        (torch.randn(7, 2), torch.tensor([0, 0, 1, 1, 2, 4, 3])),
    ),
    "asked": (Asked(), (torch.randn(2, 3),), (torch.randn(5, 4),)),
}


@pytest.mark.parametrize("case", CASES)
def test_another_size_or_number_is_served(case, tmp_path):
    model, args, others = CASES[case]
    ir = lg.to_ir(model, args)
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for rebuilt in (lg.to_torch(ir), lg.load_model(tmp_path / "m.safetensors")):
        for given in (args, others):
            assert bitwise_equal(rebuilt(*given), model(*given))


def test_the_globals_of_the_code_are_as_before():
    lg.to_ir(Sizes(), (torch.randn(2, 16),))
    assert {"int", "float"}.isdisjoint(globals())


def test_plain_numbers_are_as_before():
    class Plain(nn.Module):
        def forward(self, x):
            return x + int(2.7) + float(3) + int(self.weight) + int(True)

        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.tensor(2.5))

    model = Plain()
    x = torch.randn(3)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    assert bitwise_equal(rebuilt(x), model(x))


_TYPED = "def typed(x):\n    count = int(x.shape[0])\n    return x + (type(count) is int)\n"


def test_code_that_takes_the_type_gets_it():
    scope = {"__name__": "typed_code"}
    exec(compile(_TYPED, "typed_code.py", "exec"), scope)

    class Typed(nn.Module):
        def forward(self, x):
            return scope["typed"](x)

    x = torch.randn(3)
    rebuilt = lg.to_torch(lg.to_ir(Typed(), (x,)))
    assert bitwise_equal(rebuilt(x), x + 1)
    with pytest.raises(AssumptionError, match="was 3"):
        rebuilt(torch.randn(4))


class Array(nn.Module):
    def forward(self, x):
        sizes = np.asarray([int(size) for size in x.shape])
        if not np.issubdtype(sizes.dtype, np.integer):
            raise ValueError("no integers")
        return x * int(sizes[0])


def test_code_that_needs_plain_numbers_gets_them():
    model, x = Array(), torch.randn(3, 2)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)))
    assert bitwise_equal(rebuilt(x), model(x))
    with pytest.raises(AssumptionError, match="was 3"):
        rebuilt(torch.randn(4, 2))
