"""A capture restores the memory, the shape and the gradients of the model's tensors."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("seen", torch.zeros(0))
        self.register_buffer("mean", torch.zeros(4))
        self.constant = torch.zeros(4)


class Resizes(Base):
    """Resizes a buffer in its first call, as observers do."""

    def forward(self, x):
        self.seen.resize_(x.shape[1]).copy_(x.amin(0))
        return x - self.seen


class Shrinks(Base):
    def forward(self, x):
        self.mean.resize_(2).fill_(3)
        return x


class ResizesAConstant(Base):
    def forward(self, x):
        self.constant.resize_(8)
        return x


class Replaces(Base):
    def forward(self, x):
        self.weight.data = torch.zeros(2)
        return x


class ReplacesBuffer(Base):
    def forward(self, x):
        self.mean.data = x.mean(0).double()
        return x


class Reshapes(Base):
    def forward(self, x):
        self.mean.unsqueeze_(0)
        return x + self.mean


class Empties(Base):
    """Frees the memory of a weight, as FSDP does."""

    def forward(self, x):
        self.weight.untyped_storage().resize_(0)
        return x


class Learns(Base):
    """Gives its buffer an autograd history."""

    def forward(self, x):
        self.mean += self.weight * x.mean()
        return x + self.mean


class Freezes(Base):
    def forward(self, x):
        self.weight.requires_grad = False
        return x * self.weight


def state(model):
    return {
        name: (
            tensor,
            tensor.untyped_storage().nbytes(),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.dtype,
            tensor.requires_grad,
            tensor.is_leaf,
            tensor.tolist(),
        )
        for name, tensor in (*model.state_dict(keep_vars=True).items(), ("c", model.constant))
    }


EVERY = [
    *(Resizes, Shrinks, ResizesAConstant, Replaces, ReplacesBuffer, Reshapes, Empties),
    *(Learns, Freezes),
]


@pytest.mark.parametrize("cls", EVERY)
@pytest.mark.parametrize("fails", [False, True])
def test_the_original_is_as_it_was(cls, fails):
    class Model(cls):
        def forward(self, x):
            result = super().forward(x)
            if fails:
                raise ValueError("after all that")
            return result

    model = Model()
    model.seen, model.mean = model.seen, model.mean
    before = state(model)
    alias = model.mean.detach()
    with contextlib.suppress(CaptureError):
        lg.to_ir(model, (X,))
    after = state(model)
    for name, was in before.items():
        assert after[name][0] is was[0]
        assert after[name][1:] == was[1:], name
    # Another view of the same memory is still valid.
    assert alias.data_ptr() == model.mean.data_ptr()


@pytest.mark.parametrize(
    ("cls", "key"), [(Resizes, "seen"), (Shrinks, "mean"), (Replaces, "weight")]
)
def test_a_change_of_shape_is_refused_by_key(cls, key):
    with pytest.raises(CaptureError, match=rf"resizes {key}, or gives it other memory"):
        lg.to_ir(cls(), (X,))
    assert any(key in each.reason for each in lg.preflight(cls(), (X,)).unsupported)


def test_what_is_only_computed_with_is_not_refused():
    model = Learns()
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
