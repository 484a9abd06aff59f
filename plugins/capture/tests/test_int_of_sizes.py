"""Code that makes a plain int of a size: the IR serves other sizes, or refuses them."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal


class Halves(nn.Module):
    def forward(self, x):
        length: int = int(x.shape[1] * 0.5)
        return x[:, :length] * int(x.shape[1] // 2), torch.zeros(int(length))


class Square(nn.Module):
    def forward(self, x):
        side = int(math.sqrt(x.size(1)))
        # pytest takes an assertion apart, and int is no type that is only called then.
        if not isinstance(side, int):
            raise TypeError(side)
        return x[:, : side * side].reshape(-1, side, side)


class Texts(nn.Module):
    def forward(self, x):
        return x * int("11", base=2) + int(True) + int(2.9) + 0


class NumberOfTensor(nn.Module):
    def forward(self, x):
        return x[:, : int(x.sum().item() * 0 + 2.5)]


@pytest.mark.parametrize("model", [Halves, Square, Texts, NumberOfTensor])
def test_an_int_of_a_size_serves_other_sizes(model, tmp_path):
    original = model()
    lg.save(lg.to_ir(original, (torch.randn(2, 9),)), tmp_path / "m.json")
    rebuilt = lg.to_torch(lg.load(tmp_path / "m.json"))
    for length in (4, 9, 17, 40):
        x = torch.randn(2, length)
        assert bitwise_equal(rebuilt(x), original(x)), length


TELLING = """
import torch

class Tells(torch.nn.Module):
    def forward(self, x):
        kind = {use}
        return x[:, : int(x.shape[1] * 0.5)] * (1 if kind is not None else 2)
"""


@pytest.mark.parametrize(
    "use",
    [
        "1 if type(3) is int else None",
        "{int: 1}.get(type(3))",
        "getattr(int, 'from_bytes', None)",
    ],
)
def test_code_that_could_tell_keeps_the_int_of_python(use, tmp_path):
    file = tmp_path / "telling.py"
    file.write_text(TELLING.format(use=use))
    spec = importlib.util.spec_from_file_location("telling", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    original = module.Tells()
    rebuilt = lg.to_torch(lg.to_ir(original, (torch.randn(2, 9),)))
    x = torch.randn(2, 9)
    assert bitwise_equal(rebuilt(x), original(x))
    with pytest.raises(AssumptionError, match=r"int\(x.shape\[1\]"):
        rebuilt(torch.randn(2, 12))
    assert module.__dict__.keys().isdisjoint({"int"})


LATER = """
import functools
import torch

def doubled(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args) * 2
    return call

@doubled
def half(x):
    return int(x.shape[1] * 0.5)

class Later(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        x = x * 2
        return x[:, : half(x)] + [each for each in (float(n) for n in x.shape[1:])][0]
"""


def test_functions_that_forward_calls_later_may_name_int_first(tmp_path):
    file = tmp_path / "later.py"
    file.write_text(LATER)
    spec = importlib.util.spec_from_file_location("later", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    original = module.Later()
    original.calls = 1
    rebuilt = lg.to_torch(lg.to_ir(original, (torch.randn(2, 9),)))
    for length in (3, 9, 16, 41):
        x = torch.randn(2, length)
        assert bitwise_equal(rebuilt(x), original(x)), length
    assert vars(module).keys().isdisjoint({"int", "float", "type"})
