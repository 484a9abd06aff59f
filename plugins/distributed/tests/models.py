"""A model for the tests and for the programs that the tests start."""

from __future__ import annotations

import torch
from torch import nn


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(10, 6), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.rand(6), persistent=False)

    def forward(self, x):
        return self.head(self.norm(self.embed(x)) * self.scale)
