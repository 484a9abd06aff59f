"""Code that compares sizes to raise an error: the rebuilt model takes what passes the check."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import distributions

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal


class Drawn(Base):
    """Distributions compare each size of a sample with 1, and with their own."""

    def forward(self, x, y):
        drawn = distributions.Normal(self.lin(x), self.lin(y).exp())
        sample = drawn.rsample()
        kind = distributions.Categorical(logits=x)
        return sample, drawn.log_prob(sample), drawn.entropy(), kind.log_prob(kind.sample())


class Raises(Base):
    def forward(self, x, y):
        if x.shape[0] != 1 and y.shape[0] != 1 and x.shape[0] != y.shape[0]:
            raise ValueError("the batches differ")
        return self.lin(x) + self.lin(y)


class Asserts(Base):
    def forward(self, x, y):
        for one, other in zip(x.shape, y.shape, strict=True):
            # pytest would write an assert in another form.
            if not (one == 1 or other == 1 or one == other):
                raise AssertionError
        return self.lin(x) + self.lin(y)


class Flagged(Base):
    """A condition between the sizes is no size."""

    strict = True

    def forward(self, x, y):
        if x.shape[0] != 1 and self.strict and x.shape[0] != y.shape[0]:
            raise ValueError("the batches differ")
        return self.lin(x).sum() + self.lin(y).sum()


class Lenient(Flagged):
    strict = False


class Caught(Base):
    """The error selects another way."""

    def forward(self, x, y):
        try:
            if x.shape[0] != 1 and y.shape[0] != 1 and x.shape[0] != y.shape[0]:
                raise ValueError("the batches differ")  # noqa: TRY301
        except ValueError:
            return self.lin(x).sum() - self.lin(y).sum()
        return self.lin(x).sum() + self.lin(y).sum()


class Either(Base):
    """Each of two comparisons leads to the error."""

    def forward(self, x, y):
        if x.shape[0] > 4 or x.shape[0] != y.shape[0]:
            raise ValueError("too many, or they differ")
        return self.lin(x).sum() + self.lin(y).sum()


class Chosen(Base):
    """After the check, the code uses one of its comparisons."""

    def forward(self, x, y):
        if x.shape[0] != 1 and y.shape[0] != 1 and x.shape[0] != y.shape[0]:
            raise ValueError("the batches differ")
        scale = 2 if x.shape[0] != 1 else 3
        return self.lin(x) * scale + self.lin(y)


class InBothModes(Raises):
    def forward(self, x, y):
        result = super().forward(x, y)
        return result * 2 if self.training else result


class Nested(Base):
    """A function makes the check for several tensors, with and without a flag."""

    @staticmethod
    def check(one, other, flag):
        if one != 1 and flag and one != other:
            raise ValueError("the batches differ")

    def forward(self, x, y):
        self.check(x.shape[0], 3, False)
        self.check(2, y.shape[0], False)
        self.check(y.shape[0], x.shape[0], True)
        return self.lin(x).sum() + self.lin(y).sum()


SHAPES = [(3, 3), (1, 3), (3, 1), (1, 1), (4, 4), (4, 3), (6, 6), (2, 3), (1, 6)]
MAKES = [
    *(Drawn, Raises, Asserts, Flagged, Lenient, Caught, Either, Chosen, InBothModes, Nested),
]


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("given", [(3, 3), (4, 3)])
def test_the_rebuilt_model_raises_where_the_original_does(make, given, tmp_path):
    model = make()
    try:
        model(*(torch.rand(each, 4) for each in given))
    except (ValueError, AssertionError, RuntimeError):
        return
    ir = lg.to_ir(model, tuple(torch.rand(each, 4) for each in given))
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    loaded = lg.load_model(tmp_path / "m.safetensors")
    for training in (True, False):
        for shape in SHAPES:
            args = [torch.rand(each, 4) for each in shape]
            outcomes = []
            for each in (model, lg.to_torch(ir, model.state_dict()), loaded):
                torch.manual_seed(0)
                try:
                    outcomes.append(each.train(training)(*copy.deepcopy(args)))
                except (ValueError, AssertionError, RuntimeError, AssumptionError) as error:
                    outcomes.append(error)
            is_error = [isinstance(each, Exception) for each in outcomes]
            if is_error[0]:
                assert all(is_error)
            for is_guarded, each in zip(is_error[1:], outcomes[1:], strict=True):
                assert is_guarded or bitwise_equal(each, outcomes[0])


@pytest.mark.parametrize("make", [Drawn, Raises, Asserts, InBothModes])
def test_the_rebuilt_model_takes_what_passes_the_check(make):
    model = make()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.rand(3, 4), torch.rand(3, 4))), model.state_dict())
    for shape in [(3, 3), (1, 3), (3, 1), (1, 1), (6, 6)]:
        args = [torch.rand(each, 4) for each in shape]
        torch.manual_seed(0)
        expected = model(*args)
        torch.manual_seed(0)
        assert bitwise_equal(rebuilt(*args), expected)
