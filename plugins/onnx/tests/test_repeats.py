"""Equal composites are lowered once, and each is given its own tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import StateError
from layergraph.testing import bitwise_equal
from layergraph_backends import Step, lower
from layergraph_onnx.target import Onnx
from plugins.onnx.tests.test_onnx import check_same, saved


class Doubled(nn.Module):
    """A block with two layers, of which one is called twice, and a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.two(torch.relu(self.one(self.one(x)))) * self.scale + y, x


class Nested(nn.Module):
    """A block in which two layers are equal, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Scaled(), Scaled()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.sin(self.first(x)))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.scale = nn.Linear(8, 8), nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * self.scale


class Chain(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Doubled() for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.sin(x)
        for each in self.blocks:
            x, y = each(x, y)
        x, y = self.blocks[0](x, y[:1])
        return x + y


def test_equal_blocks_are_lowered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Chain(5).eval(), torch.randn(3, 8)
    told: list[str] = []
    original = Onnx.composite
    monkeypatch.setattr(
        Onnx,
        "composite",
        lambda self, step, lower: told.append(step.name) or original(self, step, lower),
    )
    saved(model, tmp_path / "m.onnx", x)
    # The last call gives a tensor of another shape, which is another call.
    assert len(told) == 2
    check_same(model, tmp_path / "m.onnx", torch.randn(3, 8))
    names = {each.name for each in onnx.load(str(tmp_path / "m.onnx")).graph.initializer}
    assert names == {*model.state_dict()}


def test_equal_blocks_of_equal_blocks(tmp_path: Path) -> None:
    model = nn.Sequential(*(Nested() for _ in range(3))).eval()
    saved(model, tmp_path / "m.onnx", torch.randn(3, 8))
    check_same(model, tmp_path / "m.onnx", torch.randn(3, 8))


@pytest.mark.parametrize("block", [0, 2])
def test_weights_that_share_memory_in_one_of_equal_blocks(tmp_path: Path, block: int) -> None:
    model, x = Chain(4).eval(), torch.randn(3, 8)
    ir = lg.to_ir(model, (x,))
    state = model.state_dict()
    state[f"blocks.{block}.two.weight"] = state[f"blocks.{block}.one.weight"]
    path = tmp_path / "m.onnx"
    lg.save(ir, path, state, args=(x,))
    model.load_state_dict(state)
    check_same(model, path, torch.randn(3, 8))
    again = lg.load_model(path)
    assert bitwise_equal(again(x), model(x))


def test_a_handler_of_another_package_sees_each_block(tmp_path: Path) -> None:
    model, x = Chain(3).eval(), torch.randn(3, 8)
    seen = []

    def lower_linear(step: Step, backend: Onnx) -> Any:
        seen.append(float(step.tensors["weight"].sum()))
        return lg.decline("it looks at the numbers only")

    handlers = [lg.Lowering("onnx", lower_linear, layers=["linear"])]
    ir = lg.to_ir(model, (x,))
    lower(ir, Onnx(20), model.state_dict(), (x,), handlers=handlers)
    assert len(set(seen)) == 6


def test_the_weights_of_the_caller_stay(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    state = {key: each.clone() for key, each in model.state_dict().items()}
    with torch.inference_mode():
        mixed = {key: each.clone() for key, each in state.items()}
    for given in (state, mixed, {f"module.{key}": each for key, each in state.items()}):
        lg.save(lg.to_ir(model), tmp_path / "m.onnx", given, args=((2, 4),))
        x = torch.randn(2, 4)
        assert bitwise_equal(lg.load_model(tmp_path / "m.onnx").eval()(x), model(x))
    assert bitwise_equal(state, dict(model.state_dict()))
    meta = {key: each.to("meta") for key, each in state.items()}
    with pytest.raises(StateError, match="has no values"):
        lg.save(lg.to_ir(model), tmp_path / "n.onnx", meta, args=((2, 4),))
    assert not (tmp_path / "n.onnx").exists()
