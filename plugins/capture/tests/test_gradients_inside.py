"""Models that compute gradients in forward, such as forces from an energy."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal


class Energy(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.drop, self.two = nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 1)

    def energy(self, x):
        return self.two(self.drop(torch.tanh(self.one(x))))

    def forward(self, x):
        x.requires_grad_(True)
        energy = self.energy(x)
        more = {"create_graph": self.training, "retain_graph": True}
        (slope,) = torch.autograd.grad(energy.sum(), x, **more)
        return energy, -slope


class Second(Energy):
    """It computes second derivatives, one for each column."""

    def forward(self, x):
        x = x.clone().requires_grad_(True)
        value = self.energy(x)
        one = torch.ones_like(value)
        slope = torch.autograd.grad(value, x, one, create_graph=True, retain_graph=True)[0]
        columns = [
            torch.autograd.grad(slope[:, column].sum(), x, create_graph=True)[0][:, column]
            for column in range(x.shape[1])
        ]
        return value, slope, torch.stack(columns).sum(0)


class Steps(Energy):
    """It follows the gradient with gradients on, whatever the caller has chosen."""

    def forward(self, x):
        for _ in range(3):
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                slope = torch.autograd.grad(self.energy(x).sum(), [x])[0]
            x = x - 0.1 * slope + 0.01 * torch.randn_like(x)
        return x


class Inner(Energy):
    """It takes a step of its weights before it computes the result."""

    def forward(self, x):
        weights = dict(self.one.named_parameters())
        loss = self.energy(x).square().mean()
        slopes = torch.autograd.grad(loss, [*weights.values(), x], create_graph=True)
        named = zip(weights.items(), slopes[:-1], strict=True)
        new = {name: each - 0.1 * slope for (name, each), slope in named}
        return torch.func.functional_call(self.one, new, (x,)) + slopes[-1].sum()


class Part(nn.Module):
    def forward(self, value, given):
        one = torch.ones_like(value)
        found = torch.autograd.grad(value, given, one, create_graph=True, allow_unused=True)
        return [torch.zeros(1) if each is None else each for each in found]


class Parts(Energy):
    """A part of it computes the gradients, and one of them does not exist."""

    def __init__(self):
        super().__init__()
        self.part, self.norm = Part(), nn.BatchNorm1d(4)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x):
        normed = self.norm(x)
        return self.part(
            checkpoint(self.energy, normed, use_reentrant=False), [normed, self.unused]
        )


class Attention(Energy):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x):
        y = self.layer(x[:, None].expand(-1, 3, -1))
        # Torch has no second derivatives of its fused attention.
        return torch.autograd.grad(y.square().sum(), x)[0]


@pytest.mark.parametrize("make", [Energy, Second, Steps, Inner, Parts, Attention])
def test_the_rebuilt_model_computes_the_same_gradients(make, tmp_path):
    model = make()
    ir = lg.to_ir(model, (torch.rand(3, 4, requires_grad=True),))
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for training in (True, False):
        for rows in (3, 2, 7):
            given, results = torch.rand(rows, 4), []
            rebuilt = lg.to_torch(ir, model.state_dict())
            for each in (model, rebuilt, lg.load_model(tmp_path / "m.safetensors")):
                each.load_state_dict(rebuilt.state_dict())
                x = given.clone().requires_grad_(True)
                torch.manual_seed(rows)
                result = each.train(training)(x)
                tensors = [result] if isinstance(result, torch.Tensor) else result
                loss = sum(part.square().sum() for part in tensors)
                given_to = [x, *each.parameters()] if loss.requires_grad else []
                slopes = given_to and torch.autograd.grad(loss, given_to, allow_unused=True)
                results.append((result, slopes))
            assert bitwise_equal(results[0], results[1])
            assert bitwise_equal(results[0], results[2])


def test_without_gradients_steps_are_the_same():
    model = Steps()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.rand(3, 4),)), model.state_dict())
    x, results = torch.rand(2, 4), []
    for each in (model, rebuilt):
        torch.manual_seed(0)
        with torch.no_grad():
            results.append(each(x))
    assert bitwise_equal(*results)


class Backward(Energy):
    """It leaves gradients on its weights, which outlive the call."""

    def forward(self, x):
        self.energy(x).sum().backward()
        return self.one.weight.grad.sum()


def test_gradients_that_outlive_the_call_are_refused():
    model = Backward()
    with pytest.raises(CaptureError, match="'grad' of a tensor that requires gradients"):
        lg.to_ir(model, (torch.rand(3, 4),))
    assert model.one.weight.grad is None


class Energy(Base):
    """It takes steps down the gradient of an energy, by backward."""

    def forward(self, x):
        y = x.detach().clone().requires_grad_(True)
        for _ in range(3):
            if y.grad is not None:
                raise RuntimeError
            self.lin(y).square().sum().backward()
            y = (y - 0.1 * y.grad).detach().requires_grad_()
        return y


class EnergyOfInputs(Base):
    """Other names of the function; the second gradient adds to the first one."""

    def forward(self, x):
        with torch.enable_grad():
            y = x.detach()
            y.requires_grad = True
            energy = self.lin(y).tanh()
            torch.autograd.backward([energy], [torch.ones_like(energy)], inputs=[y])
            first = y.grad.clone()
            self.lin(y).square().mean().backward(inputs=y)
        return first * y.grad


class EnergyInTraining(Base):
    """It differs by mode, and its result has gradients of gradients."""

    def forward(self, x):
        y = x.detach().requires_grad_()
        if self.training:
            self.lin(y).pow(3).sum().backward(create_graph=True, inputs=[y])
            return self.lin(x) + y.grad
        return self.lin(y)


def _grads(module):
    return [None if each.grad is None else each.grad.clone() for each in module.parameters()]


@pytest.mark.parametrize("make", [Energy, EnergyOfInputs, EnergyInTraining])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore:Using backward")
def test_backward_inside_leaves_the_same_gradients(make, training, tmp_path):
    torch.manual_seed(0)
    model = make().train(training)
    for number, each in enumerate(model.parameters()):
        each.grad = torch.full_like(each, number + 1.0) if number else None
    before = [each.grad for each in model.parameters()]
    numbers = _grads(model)
    ir = lg.to_ir(model, (torch.randn(3, 4),))
    assert all(each.grad is was for each, was in zip(model.parameters(), before, strict=True))
    assert bitwise_equal(_grads(model), numbers)
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for built in (
        lg.to_torch(ir, model.state_dict()),
        lg.load_model(tmp_path / "m.safetensors"),
    ):
        for mode in (training, not training):
            for rows in (3, 5):
                x = torch.randn(rows, 4)
                results = []
                for each in (model, built):
                    each.train(mode).zero_grad()
                    result = each(x)
                    if result.requires_grad:
                        result.sum().backward()
                    results.append((result.detach(), _grads(each)))
                assert bitwise_equal(*results)
