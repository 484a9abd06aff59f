"""Models with inputs, for the tests of shapes and of costs."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Pair = namedtuple("Pair", "first second")


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        y = F.relu(self.norm(self.conv1(x)))
        y = y + self.conv2(y)
        return self.fc(torch.flatten(self.pool(y), 1))


class Attention(nn.Module):
    def __init__(self, width=16, heads=4):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-2, -1) / 2.0, -1)
        return self.out((scores @ v).transpose(1, 2).reshape(batch, length, width))


class Fused(Attention):
    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (
            each.view(batch, length, self.heads, -1).transpose(1, 2)
            for each in self.qkv(x).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(12, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, ids):
        y, (h, c) = self.lstm(self.embed(ids))
        y, last = self.gru(y)
        return {"tags": self.head(y).argmax(-1), "states": [h, (c, last)], "pair": Pair(y, 1)}


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 4, stride=2, padding=1)
        self.mid = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1)

    def forward(self, x):
        y = F.gelu(self.down(x))
        y = torch.cat([y, self.mid(y)], 1)
        a, b = y.split(4, 1)
        up = F.interpolate(self.up(a * b), scale_factor=0.5)
        return F.pad(up, (1, 1)), up.mean((2, 3), keepdim=True).squeeze()


class Containers(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 6)))
        self.table = nn.Parameter(torch.randn(7, 6))
        self.register_buffer("steps", torch.arange(7))

    def forward(self, x, scale=None, *, flags=(True, 2)):
        y = self.body(x)
        if scale is not None:
            y = y * scale["by"][0]
        return y @ self.table.T + self.steps, y.shape[0] * flags[1]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv1d(2, 2, 3), nn.ReLU())

    def forward(self, x):
        return self.block(self.block(x))


class Regions(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            y = self.fc(x)
            with torch.no_grad():
                z = y @ x.T
        return self.out(y.float()), y, z


def transformer(**kwargs: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **kwargs)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], dict[str, Any]]] = {
    "residual": (Residual, (torch.randn(2, 3, 16, 20),), {}),
    "attention": (Attention, (torch.randn(2, 6, 16),), {}),
    "fused attention": (Fused, (torch.randn(2, 6, 16),), {}),
    "tagger": (Tagger, (torch.randint(0, 11, (2, 7)),), {}),
    "unet": (UNet, (torch.randn(2, 1, 8, 12),), {}),
    "containers": (Containers, (torch.randn(3, 4),), {}),
    "nested inputs": (
        Containers,
        (torch.randn(3, 4),),
        {"scale": {"by": [torch.randn(3, 1)]}, "flags": (True, 2)},
    ),
    "twice": (Twice, (torch.randn(2, 2, 9),), {}),
    "encoder": (transformer, (torch.randn(2, 6, 16),), {}),
    "one layer": (lambda: nn.Linear(4, 5), (torch.randn(2, 3, 4),), {}),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, padding="same"), (torch.randn(2, 2, 9),), {}),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3, stride=2), (torch.randn(2, 2, 9, 8, 7),), {}),
    "transposed": (
        lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2, output_padding=1),
        (torch.randn(2, 4, 9),),
        {},
    ),
    "unbatched convolution": (lambda: nn.Conv2d(3, 4, 3), (torch.randn(3, 9, 9),), {}),
    "projected lstm": (lambda: nn.LSTM(4, 6, 2, proj_size=3), (torch.randn(5, 2, 4),), {}),
    "unbatched gru": (lambda: nn.GRU(4, 6, bidirectional=True), (torch.randn(5, 4),), {}),
    "lstm with states": (
        lambda: nn.LSTM(4, 6),
        (torch.randn(5, 2, 4), (torch.randn(1, 2, 6), torch.randn(1, 2, 6))),
        {},
    ),
    "rnn with a state": (lambda: nn.RNN(4, 6), (torch.randn(5, 2, 4), torch.randn(1, 2, 6)), {}),
    "cell": (lambda: nn.LSTMCell(4, 6), (torch.randn(2, 4),), {}),
    "multihead": (
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        (torch.randn(2, 5, 8), torch.randn(2, 6, 8), torch.randn(2, 6, 8)),
        {},
    ),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5), (torch.randn(2, 3), torch.randn(2, 4)), {}),
    "regions": (Regions, (torch.randn(3, 4),), {}),
    "half": (lambda: nn.Linear(4, 5).to(torch.bfloat16), (torch.randn(2, 4).bfloat16(),), {}),
}
