"""Embeddings: to an IR and back."""

from functools import partial

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import LayergraphError
from layergraph.testing import Case, LayerTests, bitwise_equal, layers_of

WORDS = torch.tensor([[1, 2, 0, 4], [4, 0, 4, 3]])
FLAT = torch.tensor([1, 2, 0, 4, 4, 0, 3])
STARTS = torch.tensor([0, 2, 2, 5])
ENDS_TOO = torch.tensor([0, 2, 2, 7])
BOTH = {
    "default": {},
    "padded": {"padding_idx": 0},
    "padded from the end": {"padding_idx": -1},
    "limited": {"max_norm": 0.5},
    "limited otherwise": {"max_norm": 0.5, "norm_type": 1.0},
    "scaled": {"scale_grad_by_freq": True},
    "sparse": {"sparse": True},
}
BAGS = {
    "sum": {"mode": "sum"},
    "max": {"mode": "max", "padding_idx": 2},
}
CASES = {
    **{
        f"Embedding {name}": Case(partial(nn.Embedding, 5, 3, **arguments), [WORDS])
        for name, arguments in BOTH.items()
    },
    **{
        f"EmbeddingBag {name}": Case(partial(nn.EmbeddingBag, 5, 3, **arguments), [WORDS])
        for name, arguments in (BOTH | BAGS).items()
    },
    "EmbeddingBag with starts": Case(lambda: nn.EmbeddingBag(5, 3), [FLAT, STARTS]),
    "EmbeddingBag with ends": Case(
        lambda: nn.EmbeddingBag(5, 3, include_last_offset=True), [FLAT, ENDS_TOO]
    ),
    "EmbeddingBag of int32": Case(
        lambda: nn.EmbeddingBag(5, 3, mode="sum"), [FLAT.int(), STARTS.int()]
    ),
    "Embedding of one word": Case(lambda: nn.Embedding(5, 3), [torch.tensor(2)]),
    "Embedding given": Case(
        lambda: nn.Embedding.from_pretrained(torch.randn(5, 3), padding_idx=1), [WORDS]
    ),
    "Embedding given, to be trained": Case(
        lambda: nn.Embedding.from_pretrained(torch.randn(5, 3), freeze=False, max_norm=1), [WORDS]
    ),
    "EmbeddingBag given": Case(
        lambda: nn.EmbeddingBag.from_pretrained(torch.randn(5, 3), mode="sum"), [WORDS]
    ),
}


class TestSparse(LayerTests):
    distribution = "layergraph-sparse"
    classes = layers_of(torch.nn.modules.sparse)
    cases = CASES

    def check_what_a_call_leaves_behind(self, case):
        """Compare the weights after a call: a maximum norm changes them in place."""
        module = case.make()
        rebuilt = lg.to_torch(lg.to_ir(module), module.state_dict())
        before = module.weight.detach().clone()
        module(*case.inputs)
        rebuilt(*case.inputs)
        assert bitwise_equal(module.weight, rebuilt.weight)
        assert bitwise_equal(module.weight.detach(), before) == (module.max_norm is None)


def test_weights_for_each_word_come_back(round_trip):
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag = nn.EmbeddingBag(5, 3, mode="sum", padding_idx=0)

        def forward(self, words, starts, weights):
            return self.bag(words, starts, per_sample_weights=weights)

    ir, _ = round_trip(Weighted(), FLAT, STARTS, torch.randn(7))
    assert ir["bag"].data["mode"] == "sum"


def test_the_padding_row_keeps_what_it_was_given():
    given = torch.randn(5, 3)
    module = nn.Embedding.from_pretrained(given, padding_idx=1)
    rebuilt = lg.to_torch(lg.to_ir(module), module.state_dict())
    assert bitwise_equal(rebuilt.weight.detach(), given)
    assert not rebuilt.weight.requires_grad


def test_an_embedding_that_shares_its_weight_comes_back_sharing(round_trip):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 3, padding_idx=0)
            self.out = nn.Linear(3, 5, bias=False)
            self.out.weight = self.embedding.weight

        def forward(self, words):
            return self.out(self.embedding(words))

    _, rebuilt = round_trip(Tied(), WORDS)
    assert rebuilt.out.weight is rebuilt.embedding.weight


def test_neither_weights_nor_freezing_are_attributes():
    data = lg.to_ir(nn.Embedding.from_pretrained(torch.randn(5, 3)))["root"].data
    assert data == {"num_embeddings": 5, "embedding_dim": 3, "padding_idx": None}


def test_an_embedding_of_integers_is_traced_through():
    module = nn.Embedding.from_pretrained(torch.arange(15).reshape(5, 3))
    ir = lg.to_ir(module)
    assert ir["root"].type == "module"
    assert bitwise_equal(lg.to_torch(ir, module.state_dict())(WORDS), module(WORDS))


def test_padding_beyond_the_words_is_refused():
    ir = lg.to_ir(nn.Embedding(5, 3, padding_idx=1))
    ir["root"].data["padding_idx"] = 5
    with pytest.raises(LayergraphError, match="within num_embeddings"):
        lg.to_torch(ir)
