"""Files that torch.onnx wrote become layers, or are refused by the name of a node."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import layergraph as lg
from layergraph.errors import FileError


def exported(model: nn.Module, path: Path, *args: torch.Tensor) -> None:
    program = torch.onnx.export(model.eval(), args, dynamo=True, verbose=False)
    assert program is not None
    program.save(str(path))


def test_a_convolutional_network_becomes_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 4, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
        nn.Softmax(-1),
    )  # fmt: skip
    path, x = tmp_path / "m.onnx", torch.randn(2, 3, 8, 8)
    exported(model, path, x)
    types = {each.type for each in lg.load(path).values()}
    assert {"conv2d", "convtranspose2d", "relu", "maxpool2d", "linear", "softmax"} <= types
    torch.testing.assert_close(lg.load_model(path).eval()(x), model(x))


def test_a_product_and_a_sum_become_a_linear_layer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
    path, x = tmp_path / "m.onnx", torch.randn(2, 3, 4)
    exported(model, path, x)
    assert [each.type for each in lg.load(path).values()].count("linear") == 2
    torch.testing.assert_close(lg.load_model(path).eval()(x), model(x))


def made(path: Path, node: onnx.NodeProto) -> None:
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 2]) for name in ("x", "y")
    ]
    path.write_bytes(
        helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
        .SerializeToString()
    )  # fmt: skip


def test_what_is_no_layer_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    made(path, helper.make_node("Det", ["x"], ["y"], name="my determinant"))
    with pytest.raises(FileError, match="my determinant"):
        lg.load(path)


@pytest.mark.parametrize(
    "name", ["__import__('os').system('true')", "x\nimport os", "forward", "_modules", "class", "0"]
)
def test_names_of_a_stranger_are_in_no_code(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    made(path, helper.make_node("Relu", ["x"], ["y"], name=name))
    model = lg.load_model(path)
    x = torch.randn(2, 2)
    assert torch.equal(model(x), x.relu())
