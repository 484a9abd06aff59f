"""Files written with one version of torch and loaded with another: run by ``make test-versions``.

All versions make equal models, with weights that no random generator draws. The loading process
makes each model again, and compares the loaded weights and outputs with those.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

import layergraph as lg
from layergraph.testing import bitwise_equal


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1).to(memory_format=torch.channels_last),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        y = functional.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(y.mean(dim=(2, 3)))


class Texts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.rnn = nn.LSTM(8, 8, 2, batch_first=True)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("positions", torch.arange(64.0).reshape(8, 8) / 64, persistent=False)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x = self.embed(tokens) + self.positions[: tokens.shape[1]]
        mask = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()
        y = functional.scaled_dot_product_attention(x, x, x, attn_mask=~mask)
        z, _ = self.rnn(self.layer(y))
        return self.out(z), {"last": z[:, -1].to(torch.float64)}


class Dtypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3).double()
        self.frozen = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16), requires_grad=False)
        self.register_buffer("wide", torch.zeros(3, dtype=torch.complex128))
        self.register_buffer("narrow", torch.zeros(3).to(torch.float8_e4m3fn))
        self.constant = torch.tensor([1, 2, 3], dtype=torch.int16)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        y = self.linear(x) * self.constant + self.frozen
        return [y, y * self.wide, self.narrow.float()]


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "pictures": (Pictures, lambda: torch.arange(384.0).reshape(2, 3, 8, 8) / 384),
    "texts": (Texts, lambda: torch.arange(10).reshape(2, 5)),
    "dtypes": (Dtypes, lambda: torch.arange(6, dtype=torch.float64).reshape(2, 3)),
}


def model_of(name: str) -> nn.Module:
    """Return a model, with the same weights in all versions."""
    model = MODELS[name][0]().eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            numbers = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
            tensor.copy_(((numbers * 37 % 101) / 128).to(tensor.dtype))
    return model


def write(folder: Path) -> None:
    """Save every model, in each way."""
    for name, (_, inputs) in MODELS.items():
        model = model_of(name)
        ir = lg.to_ir(model, (inputs(),))
        lg.save(ir, folder / f"{name}.json")
        lg.save(ir, folder / f"{name}.safetensors", model.state_dict())
        lg.save(ir, folder / f"{name}-parts.safetensors", model.state_dict(), max_shard_size=60)


def read(folder: Path) -> None:
    """Load every model, and compare it with an original that this process makes."""
    for name, (_, inputs) in MODELS.items():
        model = model_of(name)
        ir = lg.load(folder / f"{name}.safetensors")
        _expect(ir == lg.load(folder / f"{name}.json"), f"{name}: the structures differ")
        for path in (f"{name}.safetensors", f"{name}-parts.safetensors.index.json"):
            loaded = lg.load_model(folder / path)
            state = loaded.state_dict()
            _expect(list(state) == list(model.state_dict()), f"{path}: other keys")
            for key, tensor in model.state_dict().items():
                _expect(bitwise_equal(tensor, state[key]), f"{path}: {key} differs")
            outputs = [pytree.tree_leaves(each(inputs())) for each in (model, loaded)]
            _expect(bitwise_equal(*outputs), f"{path}: other outputs")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        sys.exit(message)


def main() -> int:
    """Write with each of two Pythons, and read with the other."""
    first, second, *rest = sys.argv[1:]
    if not rest and first in ("write", "read"):
        print(torch.__version__, first)
        (write if first == "write" else read)(Path(second))
        return 0
    for writer, reader in ((first, second), (second, first)):
        with tempfile.TemporaryDirectory() as folder:
            for python, what in ((writer, "write"), (reader, "read")):
                done = subprocess.run([python, "-m", "tests.across", what, folder], check=False)
                if done.returncode:
                    return done.returncode
    print("files of each version of torch are the same models with the other")
    return 0


if __name__ == "__main__":
    sys.exit(main())
