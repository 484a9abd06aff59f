"""A call that is like one before is described as if it had been made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph_shapes import propagation


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = self.inner(self.fc(x)) * self.scale
        return {"y": y.t().t(), "x": x, "pair": [y.sum(1), None]}


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        x = self.fc(x)
        x = x.abs() if x.sum() > 0 else x
        return {"y": x}


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        found = torch.nonzero(self.fc(x))
        return {"y": x[: x.shape[0]] * found.sum(), "found": found}


class Turning(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"y": self.fc(x).t_()}


class Chain(nn.Module):
    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block() for _ in range(4))
        self.after = nn.ModuleList(block().eval() for _ in range(2))

    def forward(self, x: torch.Tensor) -> list[Any]:
        results = []
        for each in [*self.blocks, self.blocks[0], *self.after]:
            results.append(each(x))
            x = results[-1]["y"]
        return results


@pytest.mark.parametrize(
    ("block", "sizes"),
    [
        (Block, (8, 8)),
        (Block, ("batch", 8)),
        (Deciding, (8, 8)),
        (Deciding, ("batch", 8)),
        (Counting, (8, 8)),
        (Counting, ("batch", 8)),
        (Turning, (8, 8)),
    ],
)
def test_a_repeat_is_described_as_the_call(
    block: type[nn.Module], sizes: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ir = lg.to_ir(Chain(block), (torch.randn(8, 8),))
    found = lg.shapes(ir, [sizes])
    monkeypatch.setattr(propagation._Described, "takes_repeats", False)
    expected = lg.shapes(ir, [sizes])
    assert str(found) == str(expected)
    assert found.calls == expected.calls
    assert found.modes == expected.modes
    assert found.decisions == expected.decisions


def test_equal_calls_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ir = lg.to_ir(Chain(Block).eval(), (torch.randn(8, 8),))
    made = []
    original = nn.Linear.forward
    monkeypatch.setattr(
        nn.Linear, "forward", lambda self, x: made.append(self) or original(self, x)
    )
    lg.shapes(ir, [(8, 8)])
    assert len(made) == 2
