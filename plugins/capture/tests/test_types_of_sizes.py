"""Code that asks for the type of a size or of a number read from a tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal

FACTORS = {int: 2.0, float: 3.0}


class Is(nn.Module):
    def forward(self, x):
        return x * 2 if type(x.size(0)) is int else x


class Equals(nn.Module):
    def forward(self, x):
        return x * 2 if type(x.size(0)) == int else x  # noqa: E721 - the code that users write


class IsAmong(nn.Module):
    def forward(self, x):
        return x * 2 if type(x.shape[0]) in (int, float) else x


class InDict(nn.Module):
    def forward(self, x):
        return x * FACTORS.get(type(x.shape[0]), 5.0)


class ByMap(nn.Module):
    def forward(self, x):
        return x * 2 if list(map(type, x.shape)) == [int, int] else x


class Name(nn.Module):
    def forward(self, x):
        return x * 2 if type(x.numel()).__name__ == "int" else x


class Subclass(nn.Module):
    def forward(self, x):
        return x * 2 if issubclass(type(x.shape[0]), int) else x


class OfNumber(nn.Module):
    def forward(self, x):
        return x * 2 if type(x.sum().item()) is float else x


class AlsoAsType(nn.Module):
    """Uses ``type`` as a type as well, and makes a class."""

    def forward(self, x):
        made = type("Made", (), {"factor": 2})
        return x * made.factor if isinstance(made, type) and type(x.shape[0]) is int else x


def local():
    """Return a model whose class is in no module."""

    class Local(nn.Module):
        def forward(self, x):
            return x * 2 if type(x.shape[0]) is int else x

    return Local()


CASES = [Is, Equals, IsAmong, InDict, ByMap, Name, Subclass, OfNumber, AlsoAsType, local]


@pytest.mark.parametrize("make", CASES)
def test_the_type_of_a_symbolic_number_is_that_of_the_number(make):
    model = make()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.randn(3, 4),)))
    for rows in (3, 5):
        x = torch.randn(rows, 4)
        assert bitwise_equal(rebuilt(x), model(x))
