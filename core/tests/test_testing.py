"""The checks for authors of plugins see what they are for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layergraph import testing
from layergraph.testing import Case, LayerTests

WORDS = torch.tensor([[1, 2], [1, 0]])


CASES = {
    "sparse": Case(lambda: nn.Embedding(5, 3, sparse=True), [WORDS]),
    "by name": Case(lambda: nn.Embedding(5, 3), [], kwargs={"input": WORDS}),
}


class TestCases(LayerTests):
    cases = CASES


def sparse(indices, values):
    return torch.sparse_coo_tensor([indices], values, (4,), check_invariants=True)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (sparse([0, 1], [1.0, 2.0]), True),
        (sparse([1, 0], [2.0, 1.0]), True),
        (sparse([0, 1, 1], [1.0, 1.5, 0.5]), True),
        (sparse([0, 2], [1.0, 2.0]), False),
        (sparse([0, 1], [1.0, 3.0]), False),
        (sparse([0, 1], [1.0, 2.0]).to_dense(), False),
    ],
)
def test_sparse_tensors_are_compared_by_what_is_in_them(other, same):
    assert testing._same(sparse([0, 1], [1.0, 2.0]), other) == same
