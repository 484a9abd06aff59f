"""Views that are told by memory give the numbers that they give in torch, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal
from layergraph_backends import LoweringError
from plugins.onnx.tests.test_onnx import by_runtime, saved


class Taking(nn.Module):
    def __init__(self, take: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.take = take

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.take(x) + 1


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x.as_strided((3, 2, 4), (4, 4, 1)),
        lambda x: (x * 2).t().as_strided((3, 2, 4), (4, 4, 1)),
        lambda x: torch.as_strided((x * 2).view(2, 2, 6).transpose(0, 1), (2, 5), (12, 1)),
    ],
)
def test_places_in_memory(take: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    saved(Taking(take), path, torch.randn(6, 4))
    x = torch.randn(6, 4)
    assert bitwise_equal(by_runtime(path, x), [take(x) + 1])


@pytest.mark.parametrize(
    "take",
    [
        lambda x: (x * 2)[:, ::2].as_strided((6, 4), (4, 1)),
        lambda x: (x * 2)[:2].as_strided((6, 4), (4, 1)),
        lambda x: (x * 2).as_strided((2, 4), (4, 1), 4),
    ],
)
def test_memory_of_others_is_refused(
    take: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    x = torch.randn(6, 4)
    ir = lg.to_ir(Taking(take), (x,))
    with pytest.raises(LoweringError, match="memory"):
        lg.save(ir, tmp_path / "m.onnx", {}, args=(x,))
    assert not [*tmp_path.iterdir()]
