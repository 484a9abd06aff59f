"""Random inputs that models of several kinds have in common."""

from __future__ import annotations

import torch

from zoo.tiny import SPECIAL_TOKENS, VOCABULARY


def tokens(batch: int, length: int) -> torch.Tensor:
    """Texts of which no token is special."""
    return torch.randint(SPECIAL_TOKENS, VOCABULARY, (batch, length))


def padding(batch: int, length: int) -> torch.Tensor:
    """A mask of texts of which the first is the longest."""
    lengths = torch.randint(length // 2, length, (batch, 1))
    lengths[0] = length
    return (torch.arange(length) < lengths).long()


def pictures(batch: int, length: int) -> torch.Tensor:
    """Square pictures."""
    return torch.randn(batch, 3, length, length)
