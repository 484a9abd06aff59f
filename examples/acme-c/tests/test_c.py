"""The compiled C source computes the same as the model."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from acme_c.source import write
from torch import nn

import layergraph as lg
from layergraph_backends import LoweringError

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.norm(self.conv(x)) + x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, (3, 5), stride=2, dilation=(1, 2), padding=(1, 2))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 10)
        )

    def forward(self, x):
        x = self.pool(torch.relu(self.stem(x)))
        features = self.blocks(x)
        return self.head(features), features.view(x.shape[0], -1)


def trained() -> Net:
    torch.manual_seed(0)
    model = Net()
    for _ in range(3):
        model(torch.randn(4, 3, 32, 32))
    return model.eval()


def compiled(folder: Path) -> ctypes.CDLL:
    library = folder / "net.so"
    command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "net.c", "-lm", "-o", library]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(library))


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def test_the_compiled_source_computes_the_same(tmp_path: Path) -> None:
    model, x = trained(), torch.randn(2, 3, 32, 32)
    write(lg.to_ir(model, (x,)), tmp_path / "net.c", model.state_dict(), args=((2, 3, 32, 32),))
    expected = model(x)
    found = [torch.full_like(each, float("nan")) for each in expected]
    compiled(tmp_path).net(pointer(x), *map(pointer, found))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_all_that_the_target_lacks_is_listed_and_nothing_is_written(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding_mode="reflect"), nn.GELU(), nn.ReLU())
    with pytest.raises(LoweringError) as caught:
        write(lg.to_ir(model), tmp_path / "net.c", model.state_dict(), args=((1, 3, 8, 8),))
    said = [(each.path, each.kind) for each in caught.value.lacks]
    assert said == [("root:_0", "conv2d"), ("root:_1", "gelu")]
    assert "its padding is not a number of zeros" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_names_of_a_stranger_stay_comments(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("a*/\\\nint evil; //", nn.Linear(2, 3))
    write(lg.to_ir(model), tmp_path / "net.c", model.state_dict(), args=((1, 2),))
    assert "\nint evil" not in (tmp_path / "net.c").read_text()
    x, out = torch.randn(1, 2), torch.zeros(1, 3)
    compiled(tmp_path).net(pointer(x), pointer(out))
    torch.testing.assert_close(out, model(x))
