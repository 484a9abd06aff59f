"""Calls of autograd.Function that take functions and modules of the model."""

from __future__ import annotations

import pytest
import torch

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal


class Recomputed(torch.autograd.Function):
    """A checkpoint of its own: backward runs the function again."""

    @staticmethod
    def forward(ctx, function, x, factor, *parameters):
        ctx.function, ctx.factor, ctx.count = function, factor, len(parameters)
        ctx.save_for_backward(x, *parameters)
        with torch.no_grad():
            return function(x) * (1 if factor is None else factor)

    @staticmethod
    def backward(ctx, grad):
        x, *parameters = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.function(x) * (1 if ctx.factor is None else ctx.factor)
        found = torch.autograd.grad(y, (x, *parameters), grad, allow_unused=True)
        return None, found[0], None, *found[1:]


class FixedPoint(torch.autograd.Function):
    """An implicit layer: it calls a function of a number and a tensor, many times."""

    @staticmethod
    def forward(ctx, function, x):
        with torch.no_grad():
            for _ in range(5):
                x = function(0.5, x)
        return x

    @staticmethod
    def backward(ctx, grad):
        return None, grad


class FixedPointOfSize(FixedPoint):
    """The number depends on the input."""

    @staticmethod
    def forward(ctx, function, x):
        with torch.no_grad():
            return function(x.shape[0], x)


class Later(torch.autograd.Function):
    """Only its backward calls the function."""

    @staticmethod
    def forward(ctx, function, x):
        ctx.function = function
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return None, ctx.function(grad)


class OfLayer(Base):
    def forward(self, x):
        return Recomputed.apply(self.lin, x, None, *self.lin.parameters())


class OfLambda(Base):
    def forward(self, x):
        mean = x.mean().detach()
        inner = lambda y: (self.lin(y) * mean).tanh()
        return Recomputed.apply(inner, x, 3, *self.lin.parameters()) + x


class OfFunctionOfTorch(Base):
    def forward(self, x):
        return self.lin(Recomputed.apply(torch.sin, x, None))


class Implicit(Base):
    def forward(self, x):
        return FixedPoint.apply(lambda step, y: y - step * self.lin(y), x) + self.lin(x)


@pytest.mark.parametrize("make", [OfLayer, OfLambda, OfFunctionOfTorch, Implicit])
@pytest.mark.parametrize("training", [True, False])
def test_functions_become_bodies(make, training):
    torch.manual_seed(0)
    model = make().train(training)
    built = lg.to_torch(lg.to_ir(model, (torch.randn(3, 4),)), model.state_dict())
    for rows in (3, 5):
        x = torch.randn(rows, 4)
        results = []
        for each in (model, built):
            given = x.clone().requires_grad_()
            result = each(given)
            gradients = torch.autograd.grad(
                result.square().sum(), [given, *each.parameters()], allow_unused=True
            )
            results.append((result.detach(), gradients))
        assert bitwise_equal(*results)
    with torch.no_grad():
        assert bitwise_equal(model(x), built(x))


class OfSize(Base):
    def forward(self, x):
        return FixedPointOfSize.apply(lambda rows, y: y * rows, x) + self.lin(x)


def test_other_numbers_for_the_function_are_refused():
    model = OfSize()
    built = lg.to_torch(lg.to_ir(model, (torch.randn(3, 4),)), model.state_dict())
    x = torch.randn(3, 4)
    assert bitwise_equal(model(x), built(x))
    with pytest.raises(AssumptionError):
        built(torch.randn(5, 4))


class CalledLater(Base):
    def forward(self, x):
        return Later.apply(torch.sin, self.lin(x))


def test_a_function_that_only_backward_calls_is_refused_by_name():
    with pytest.raises(CaptureError, match="forward does not call"):
        lg.to_ir(CalledLater(), (torch.randn(3, 4),))
