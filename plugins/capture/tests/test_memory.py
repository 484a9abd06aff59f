"""A capture keeps no result for longer than a run without gradients does."""

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layergraph as lg
from layergraph_capture.trackers.tensors import Tensors

X = torch.randn(2, 6, 8)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.drop(self.lin(x).sin() * 2)
        y = F.scaled_dot_product_attention(y, y, y, attn_mask=y @ y.mT)
        y = F.dropout(y.view(2, -1), 0.5, self.training).exp().view(x.shape)
        return x + y.max(-1, keepdim=True).values


class Chain(nn.Module):
    def __init__(self, length):
        super().__init__()
        self.blocks = nn.ModuleList([Block() for _ in range(length)])

    def forward(self, x):
        for each in self.blocks:
            x = each(x)
        return x


@pytest.fixture
def peak(monkeypatch):
    """The most bytes that results took at once since the last call."""
    storages = {}
    most = [0]
    bound = Tensors.bound

    def counted(self, result, value, before):
        if isinstance(result, torch.Tensor):
            with torch._C.DisableTorchFunction():
                storage = result.untyped_storage()
                storages[weakref.ref(storage)] = storage.nbytes()
            del storage
        living = sum(size for each, size in storages.items() if each() is not None)
        most.append(max(most[-1], living))
        return bound(self, result, value, before)

    def taken():
        storages.clear()
        taken, most[:] = most[-1], [0]
        return taken

    monkeypatch.setattr(Tensors, "bound", counted)
    return taken


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("modes", ["own", "both"])
def test_a_longer_chain_keeps_no_more(modes, training, peak):
    taken = []
    for length in (3, 12):
        lg.to_ir(Chain(length).train(training), (X,), modes=modes)
        taken.append(peak())
    assert 0 < taken[0] == taken[1]


def test_gradients_keep_no_more(peak):
    with torch.no_grad():
        lg.to_ir(Chain(3), (X,))
    without = peak()
    lg.to_ir(Chain(3), (X,))
    assert peak() == without


def test_a_result_that_the_model_holds_is_there_until_it_drops_it(peak):
    class Skips(Chain):
        def forward(self, x):
            return sum([each(x) for each in self.blocks])

    lg.to_ir(Skips(3), (X,))
    few = peak()
    lg.to_ir(Skips(12), (X,))
    assert peak() == few + 9 * X.nbytes


# --- gradients that code computes by itself ---


class Scales(torch.autograd.Function):
    """Its forward takes the gradient of something else."""

    @staticmethod
    def forward(ctx, x):
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad((y.sin() ** 2).exp().sum(), y)
        return slope

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Applies(nn.Module):
    def forward(self, x):
        return Scales.apply(x * 2)


class Transforms(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def forward(self, x):
        energy = torch.func.grad(lambda y: (y.sin() ** 2).exp().sum())
        return energy(self.lin(x)) + torch.vmap(torch.sin)(x)


class Asks(nn.Module):
    """It asks what gradients there will be, and goes a way of its own without any."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def forward(self, x):
        y = self.lin(x)
        y = F.scaled_dot_product_attention(y, y, y)
        y += 1
        return y.exp() if y.requires_grad and y.grad_fn is not None else y


class Reverses(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def forward(self, x):
        y = self.lin(x).exp().sin()
        (slope,) = torch.autograd.grad(y.sum(), self.lin.weight)
        return x @ slope


@pytest.mark.parametrize("cls", [Applies, Transforms, Asks])
def test_gradients_are_as_they_were(cls):
    report = lg.verify(cls(), (X,))
    assert report.ok, str(report)


def test_a_model_that_computes_gradients_is_verified():
    # Without gradients, the model itself fails.
    ir = lg.to_ir(Reverses(), (X,))
    model = Reverses()
    assert lg.testing.bitwise_equal(lg.to_torch(ir, model.state_dict())(X), model(X))


def test_hooks_of_the_caller_are_left_alone():
    seen = []

    def pack(tensor):
        seen.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        lg.to_ir(Chain(1), (X,))
        assert not seen
        X.clone().requires_grad_().exp()
    assert seen
