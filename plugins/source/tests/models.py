"""Models of every kind, each with calls that it takes; the first is the one to capture."""

from __future__ import annotations

from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.nn import functional

Calls = list[tuple[Any, ...]]


class Block(nn.Module):
    """A block with two branches."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one = nn.Linear(width, inner)
        self.norm = nn.LayerNorm(inner)
        self.two = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add a branch."""
        return x + self.two(functional.gelu(self.norm(self.one(x))))


class Tower(nn.Module):
    """Equal blocks, and one that differs in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(4, 8), Block(4, 8), Block(4, 8)])
        self.last = Block(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run all."""
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class Modes(nn.Module):
    """Code that differs by the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop, and add noise, in training."""
        x = functional.dropout(self.fc(x), 0.5, self.training)
        if self.training:
            x = x + torch.rand_like(x)
        return x * 2


class Deciding(nn.Module):
    """Code that decides by numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute one thing or another."""
        if x.sum() > 0:
            x = self.fc(x).relu()
            y = x * 3
        else:
            y = x - 1
        return y + x


class Looping(nn.Module):
    """A loop over a size."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the cell on each step."""
        h = x.new_zeros(x.shape[1], 4)
        found = []
        for step in range(x.shape[0]):
            h = self.cell(x[step], h)
            found.append(h)
        return torch.stack(found)


class Tied(nn.Module):
    """Two layers with one weight, and one layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.inner = nn.ModuleDict({"a b": nn.Linear(4, 4), "c": nn.ReLU()})
        self.again = self.inner["a b"]
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed and classify."""
        return self.head(self.again(self.inner["c"](self.inner["a b"](self.embed(x)))))


class Tensors(nn.Module):
    """Parameters, buffers and constants of its own, of several dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, 3), 2.0))
        self.register_parameter("odd name", nn.Parameter(torch.ones(3)))
        self.register_buffer("shift", torch.tensor([0.1, float("inf"), -0.0]))
        self.register_buffer("table", torch.arange(300) * 3, persistent=False)
        self.register_buffer("small", torch.tensor(0.3, dtype=torch.float16), persistent=False)
        self.constant = torch.linspace(0, 1, 40)[:39].view(13, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.wide = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Use all."""
        x = self.frozen(x * self.scale + self.shift.nan_to_num(posinf=3.0))
        x = x + self.constant[2] + self.table[5:8] + self.small + self._parameters["odd name"]
        return self.wide(x.double())


class Regions(nn.Module):
    """Regions without gradients and with autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute in regions."""
        with torch.no_grad():
            y = self.fc(x).exp()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = self.fc(x)
        return y + z.float()


class Bodies(nn.Module):
    """Functions that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run functions."""
        rows = torch.vmap(lambda row: self.fc(row) * row.sum())(x)
        slopes = torch.func.grad(lambda each: (each**3).sum())(x)
        return rows + slopes


class InPlace(nn.Module):
    """Writes in place, and indices of all kinds."""

    def forward(self, x: torch.Tensor, scale: float = 0.5) -> dict[str, Any]:
        """Write."""
        y = x.clone()
        y[..., 0] = 1
        y[:, 1:-1] += scale
        y *= -(x**2) - -2
        return {"y": y, "parts": [y[None, ::2], y.shape[0] * 2 + 1], "none": None}


class Outputs(NamedTuple):
    """A named tuple."""

    first: torch.Tensor
    rest: Any


class Returning(nn.Module):
    """A named tuple, and one of torch."""

    def forward(self, input: torch.Tensor, len: torch.Tensor) -> Outputs:
        """Return both; the parameters have the names of builtins."""
        return Outputs(input.reshape(input.shape[0], -1), torch.max(len, 0))


class Objects(nn.Module):
    """Objects of classes of Python, numpy and torch."""

    def forward(self, set: torch.Tensor) -> Any:
        """Return them; the parameter has the name of a builtin."""
        y = set * 2
        return (
            OrderedDict(out=y, aux=deque([y + 1], maxlen=2)),
            defaultdict(list, a=[SimpleNamespace(b=y)], c=[ChainMap({"d": y})]),
            ({1, "e"}, frozenset({2.5}), Counter("aab"), np.float32(0.5)),
            Independent(Normal(y, y.exp()), 1),
            TransformedDistribution(Normal(y, 1.0), [TanhTransform(cache_size=1)]),
        )


class Kept(nn.Module):
    """A layer whose mode stays."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)

    def train(self, mode: bool = True) -> Kept:
        """Keep the norm as it is in evaluation."""
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise and drop."""
        return self.drop(self.norm(x))


def _float(*shape: int) -> torch.Tensor:
    return torch.rand(*shape) - 0.2


MODELS: dict[str, tuple[Callable[[], nn.Module], Calls]] = {
    "layer": (lambda: nn.Linear(3, 4), [(_float(2, 3),), (_float(5, 3),)]),
    "sequential": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten()),
        [(_float(2, 1, 5, 5),), (_float(3, 1, 6, 6),)],
    ),
    "tower": (Tower, [(_float(2, 4),), (_float(3, 4),)]),
    "modes": (Modes, [(_float(2, 3),), (_float(4, 3),)]),
    "deciding": (Deciding, [(_float(2, 3),), (-_float(2, 3) - 1,), (_float(3, 3),)]),
    "looping": (Looping, [(_float(4, 2, 3),), (_float(7, 1, 3),), (_float(2, 2, 3),)]),
    "tied": (Tied, [(torch.tensor([0, 3]),), (torch.tensor([[4, 1, 2]]),)]),
    "tensors": (Tensors, [(_float(2, 3),), (_float(5, 3),)]),
    "regions": (Regions, [(_float(2, 3),), (_float(5, 3),)]),
    "bodies": (Bodies, [(_float(2, 3),), (_float(5, 3),)]),
    "in place": (InPlace, [(_float(3, 4),), (_float(5, 6),)]),
    "returning": (Returning, [(_float(2, 3, 2), _float(4)), (_float(3, 3, 1), _float(5))]),
    "objects": (Objects, [(_float(2, 3),), (_float(5, 3),)]),
    "kept": (Kept, [(_float(4, 3),), (_float(5, 3),)]),
    "transformer": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", batch_first=True), 2
        ),
        [(_float(2, 3, 4),), (_float(3, 5, 4),)],
    ),
    "lstm": (lambda: nn.LSTM(3, 4, 2, bidirectional=True), [(_float(4, 2, 3),)]),
}
