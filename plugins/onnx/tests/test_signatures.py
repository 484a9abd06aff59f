"""The inputs and outputs of a file are the tensors that the model takes and returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from layergraph.testing import bitwise_equal
from plugins.onnx.tests.test_onnx import by_runtime, saved


class Given(nn.Module):
    """A model that takes texts and numbers, and returns the result of a function of them."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: torch.Tensor, way: str = "sum", count: int = 2) -> Any:
        return self.result(x) if way == "sum" else x * count


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (lambda x: x.topk(2), ["values", "indices"]),
        (lambda x: {"a": x + 1, "b": None, "c": [x * 2, None]}, ["a", "c_0"]),
        (lambda x: (None, (x.max(0), x)), None),
    ],
)
def test_outputs_are_named_after_their_places(result: Any, names: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    saved(Given(result), path, torch.randn(3, 4))
    x = torch.randn(3, 4)
    expected = [each for each in tree_leaves(result(x)) if each is not None]
    assert bitwise_equal(by_runtime(path, x), expected)
    model = onnx.load(str(path))
    assert [each.name for each in model.graph.input] == ["x"]
    assert names is None or {each.name for each in model.graph.output} == {*names}


def test_a_text_is_no_input(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    saved(Given(torch.sum), path, torch.randn(3, 4), "times", 3)
    assert [each.name for each in onnx.load(str(path)).graph.input] == ["x"]
