"""A composite that changes its input in place changes the tensor of all its callers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

import layergraph as lg

Tensor = torch.Tensor

CHANGES: dict[str, Callable[[Tensor], object]] = {
    "whole": lambda x: x.add_(1.0),
    "part": lambda x: x[0].add_(1.0),
    "assigned": lambda x: x.__setitem__((slice(None), 1), 5.0),
    "through a view": lambda x: x.t()[1].mul_(3.0),
}
GIVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda x: x,
    "a view": lambda x: x.view(3, 2),
    "a slice": lambda x: x[:, :2],
}


class Inner(nn.Module):
    def __init__(self, change: str) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        doubled = x * 2
        CHANGES[self.change](x)
        return doubled


class Middle(nn.Module):
    """Does not read its input again after the call that changes it."""

    def __init__(self, change: str, given: str) -> None:
        super().__init__()
        self.inner, self.given = Inner(change), given

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(GIVEN[self.given](x)).sum()


class Outer(nn.Module):
    def __init__(self, change: str, given: str) -> None:
        super().__init__()
        self.middle = Middle(change, given)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = x * 1
        row = own[1]
        return self.middle(own), own * 1, row * 1


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("change", CHANGES)
def test_the_change_reaches_all_callers(change: str, given: str, tmp_path: Path) -> None:
    model, x = Outer(change, given).eval(), torch.randn(2, 3)
    path = tmp_path / "it.onnx"
    lg.save(lg.to_ir(model, (x,)), path, model.state_dict(), args=(x,))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fresh = torch.randn(2, 3)
    found = session.run(None, {session.get_inputs()[0].name: fresh.numpy()})
    for one, other in zip(model(fresh), found, strict=True):
        torch.testing.assert_close(one, torch.from_numpy(other))
