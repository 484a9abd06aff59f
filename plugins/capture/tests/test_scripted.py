"""Scripted functions that make tensors out of numbers, which torch does beneath all modes."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer releases of torch want other ways

    @torch.jit.script
    def a_number(x, k: int):
        return torch.where(x < torch.tensor(k).type_as(x), torch.tensor(k - 1.5), x)

    @torch.jit.script
    def a_dtype(x, k: int):
        return x * torch.tensor(k, dtype=torch.float64)

    @torch.jit.script
    def a_list(x, k: int):
        return x * torch.tensor([1.0, 2.0, 3.0, 4.0]) + torch.tensor([k, 2, 3, 4])

    @torch.jit.script
    def in_a_loop(x, k: int):
        parts: list[torch.Tensor] = []
        for i in range(k):
            parts.append(x * torch.tensor(i))  # noqa: PERF401 scripted code knows no other way
        return torch.stack(parts).sum(0)

    @torch.jit.script
    def operators(x, k: int):
        return x + torch.full([4], k) + torch.scalar_tensor(2.0) + torch.arange(4)

    @torch.jit.script
    def nested(x, k: int):
        return x * torch.tensor([[1.0, 2.0, 3.0, 4.0]])

    @torch.jit.script
    def changed(x, k: int):
        numbers = [1, 2, 3, 4]
        numbers[0] = k
        return x * torch.tensor(numbers)

    @torch.jit.script
    def a_truth(x, k: int):
        return x * torch.tensor(k > 2)

    @torch.jit.script
    def as_tensor(x, k: int):
        return x * torch.as_tensor(3.0)


class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.function = function

    def forward(self, x):
        return self.function(self.lin(x), 3)


@pytest.mark.parametrize(
    "function", [a_number, a_dtype, a_list, in_a_loop, operators], ids=lambda each: each.name
)
def test_they_are_right(function, tmp_path):
    model = Net(function)
    ir = lg.to_ir(model, (torch.randn(3, 4),))
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    # In a loop, the sizes that the code asks for are guarded.
    x = torch.randn(3, 4)
    for rebuilt in (
        lg.to_torch(ir, model.state_dict()),
        lg.load_model(tmp_path / "m.safetensors"),
    ):
        assert bitwise_equal(rebuilt(x), model(x))


@pytest.mark.parametrize(
    "function", [nested, changed, a_truth, as_tensor], ids=lambda each: each.name
)
def test_invisible_changes_are_refused_by_name(function):
    with pytest.raises(CaptureError, match=r"aten::(as_)?tensor in scripted code"):
        lg.to_ir(Net(function), (torch.randn(3, 4),))
