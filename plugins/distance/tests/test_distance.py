"""Distance functions: to an IR and back."""

import math

import torch
from torch import nn

import layergraph as lg
from layergraph.testing import Case, LayerTests, layers_of

SIZES = [(5, 4, 3)] * 2


CASES = {
    "CosineSimilarity": Case(nn.CosineSimilarity, SIZES),
    "CosineSimilarity otherwise": Case(lambda: nn.CosineSimilarity(-1, eps=0.5), SIZES),
    "CosineSimilarity broadcast": Case(nn.CosineSimilarity, [(5, 4, 1), (1, 4, 3)]),
    "PairwiseDistance": Case(nn.PairwiseDistance, SIZES),
    "PairwiseDistance otherwise": Case(
        lambda: nn.PairwiseDistance(1, eps=0.5, keepdim=True), SIZES
    ),
    "PairwiseDistance infinite": Case(lambda: nn.PairwiseDistance(math.inf), SIZES),
}


class TestDistance(LayerTests):
    distribution = "layergraph-distance"
    classes = layers_of(torch.nn.modules.distance)
    cases = CASES


def test_the_norm_is_said_by_the_name_of_its_argument():
    assert lg.to_ir(nn.PairwiseDistance(3.0))["root"].data == {"p": 3.0, "eps": 1e-06}


def test_a_model_that_calls_one_with_two_values_comes_back(round_trip):
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(4, 3)
            self.distance = nn.PairwiseDistance(keepdim=True)
            self.similarity = nn.CosineSimilarity(dim=-1)

        def forward(self, x, y):
            x, y = self.embed(x), self.embed(y)
            return self.distance(x, y), self.similarity(x1=x, x2=y)

    ir, rebuilt = round_trip(Siamese(), torch.randn(5, 4), torch.randn(5, 4))
    assert ir["distance"].type == "pairwisedistance"
    assert repr(rebuilt.similarity) == repr(nn.CosineSimilarity(dim=-1))
