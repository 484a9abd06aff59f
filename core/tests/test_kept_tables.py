"""Tables that a model keeps for calls of the same size: a graph computes them in each call."""

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError


class Table(nn.Module):
    """Caches a table for the shape of its last input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.shape = None
        self.table = None

    def compute(self, x):
        return torch.arange(x.shape[1]).float() / 3

    def is_stale(self, x):
        return self.shape != x.shape

    def forward(self, x):
        if self.is_stale(x):
            self.table = self.compute(x)
            self.shape = x.shape
        return self.layer(x) + self.table[None, :, None]


class Grid(Table):
    def compute(self, x):
        grid = torch.meshgrid(torch.arange(x.shape[1]), torch.arange(3), indexing="ij")
        return torch.stack(grid).type_as(x).sum((0, 2)) + 0.5


class OfLength(Table):
    def is_stale(self, x):
        return self.table is None or len(self.table) != x.shape[1]


class WithStrides(Table):
    """Reads an unregistered tensor, as detectors do."""

    def __init__(self):
        super().__init__()
        self.strides = torch.tensor([8.0, 16.0])

    def compute(self, x):
        return x.new_full((x.shape[1],), self.strides[1].item()) * self.strides[0]


@pytest.mark.parametrize("cls", [Table, Grid, OfLength, WithStrides])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_computed_in_each_call(cls, training):
    model = cls().train(training)
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.randn(2, 5, 4),)), model.state_dict())
    for shape in [(2, 5, 4), (2, 5, 4), (3, 7, 4), (1, 2, 4), (2, 5, 4)]:
        x = torch.randn(shape)
        assert torch.equal(rebuilt(x), model(x))


def test_the_model_is_left_without_a_table():
    model = Table()
    lg.to_ir(model, (torch.randn(2, 5, 4),))
    assert model.table is None
    assert model.shape is None


class Forever(Table):
    """Never recomputes its table, even for another size."""

    def is_stale(self, x):
        return self.table is None


class Growing(Table):
    def is_stale(self, x):
        return self.table is None or x.shape[1] > len(self.table)

    def forward(self, x):
        return super().forward(x)


class ComparesAnother(Table):
    """Caches a factor for its first length, and also compares a size."""

    def is_stale(self, x):
        return self.table is None

    def compute(self, x):
        return torch.full((1,), 1.0) / x.shape[1]

    def forward(self, x):
        if x.shape[0] == 2:
            x = x + 1
        return super().forward(x)


class ComparesOneOfTwo(Table):
    def compute(self, x):
        return torch.full((x.shape[1],), 1.0) / x.shape[0]

    def is_stale(self, x):
        return self.table is None or len(self.table) != x.shape[1]


class OfNumbers(Table):
    def compute(self, x):
        return x.sum((0, 2))


class OfWeights(Table):
    def compute(self, x):
        return torch.arange(x.shape[1]) * self.layer.bias.sum()


class Random(Table):
    def compute(self, x):
        return torch.rand(x.shape[1])


class Counting(Table):
    """Computes something else in the second call with one size."""

    def forward(self, x):
        again = not self.is_stale(x)
        result = super().forward(x)
        return result * 2 if again else result


class Swapping(Table):
    """Reads another tensor in later runs than the one that the first run computed."""

    def forward(self, x):
        result = super().forward(x)
        self.table = self.table + 1
        return result


@pytest.mark.parametrize(
    "cls",
    [
        *(Forever, Growing, ComparesAnother, ComparesOneOfTwo),
        *(OfNumbers, OfWeights, Random, Counting, Swapping),
    ],
)
def test_what_another_call_would_not_compute_is_refused(cls):
    with pytest.raises(CaptureError, match="keeps from one call to the next"):
        lg.to_ir(cls(), (torch.randn(2, 5, 4),))
