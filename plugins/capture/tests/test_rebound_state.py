"""Models whose forward replaces buffers and other tensors that they keep."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import BuildError, CaptureError
from layergraph.testing import bitwise_equal


class Running(Base):
    """It averages over its calls."""

    persistent = True

    def __init__(self):
        super().__init__()
        self.register_buffer("running", torch.zeros(()), persistent=self.persistent)

    def forward(self, x):
        y = self.lin(x)
        self.running = self.running * 0.9 + x.mean() * 0.1
        return y - self.running


class NotPersistent(Running):
    """No state dict holds the average."""

    persistent = False


class Norm(nn.Module):
    """A norm of its own, which updates its statistics in training only."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("calls", torch.tensor(0))
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        mean = self.mean
        if self.training:
            mean = x.mean(0)
            with torch.no_grad():
                self.mean = 0.9 * self.mean + 0.1 * mean
                self.calls = self.calls + 1
        return (x - mean) * self.weight


class Norms(Base):
    """Two norms in a Sequential, with dropout between."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(Norm(), nn.Dropout(0.5), nn.Linear(4, 4), Norm())

    def forward(self, x):
        return self.body(self.lin(x))


class Attribute(Base):
    """A plain attribute is the hidden state."""

    def __init__(self):
        super().__init__()
        self.h = torch.zeros(3, 4)

    def forward(self, x):
        h = torch.tanh(self.lin(x) + self.h)
        self.h = h.detach()
        return h


class Cell(nn.Module):
    """A cell that keeps its state between its calls, and the gradients with it."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("h", torch.zeros(3, 4))

    def forward(self, x):
        self.h = torch.tanh(self.lin(x) + self.h)
        return self.h


class Cells(nn.Module):
    """It calls cells several times, one of them under two names, and cuts their gradients."""

    def __init__(self):
        super().__init__()
        self.first = Cell()
        self.second = self.first
        self.others = nn.ModuleList([Cell(), Cell()])

    def forward(self, x):
        for cell in (self.first, *self.others, self.second):
            x = cell(x) * 0.5
        for cell in (self.first, *self.others):
            cell.h = cell.h.detach()
        return x + self.first.h


class OldAndNew(Base):
    """It reads the old tensor after it has set the new one, and swaps two."""

    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.ones(4))
        self.register_buffer("b", torch.zeros(4))

    def forward(self, x):
        old = self.a
        self.a = self.a + x.mean(0).detach()
        self.a, self.b = self.b, self.a
        return old * self.lin(x) + self.b


class InPlace(Base):
    """It replaces tensors and changes them in place, its own and those of a child."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.ones(4))
        self.inner = OldAndNew()

    def forward(self, x):
        self.kept = self.kept * 2
        self.kept.add_(x.detach().mean(0))
        self.inner.a.mul_(0.5)
        y = self.inner(x)
        self.inner.a.add_(1)
        return y + self.kept


class Cache(Base):
    """A cache of keys and values that grows with each call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("keys", torch.zeros(3, 0, 4), persistent=False)
        self.register_buffer("values", torch.zeros(3, 0, 4), persistent=False)

    def forward(self, x):
        keys = torch.cat([self.keys, self.lin(x).detach()[:, None]], 1)
        values = torch.cat([self.values, x.detach()[:, None]], 1)
        self.keys, self.values = keys, values
        y = F.scaled_dot_product_attention(self.lin(x)[:, None], keys, values)
        return y[:, 0] / self.keys.shape[1]


class Delay(Base):
    """It keeps the last inputs, as a causal convolution for streams."""

    def __init__(self):
        super().__init__()
        self.register_buffer("past", torch.zeros(3, 2, 4))

    def forward(self, x):
        last = torch.cat([self.past, x[:, None]], 1)
        self.past = last[:, 1:].detach()
        return self.lin(last).sum(1)


class WarmUp(Base):
    """It decides by the number of its calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls = self.calls + 1
        return self.lin(x) if self.calls > 2 else x * 0.5


class Initialised(Base):
    """Its first call makes its codes of the input."""

    def __init__(self):
        super().__init__()
        self.register_buffer("is_made", torch.tensor(False))
        self.register_buffer("codes", torch.zeros(4))

    def forward(self, x):
        if not self.is_made:
            self.codes = x.detach().mean(0)
            self.is_made = torch.tensor(True)
        if self.training:
            self.codes = self.codes * 0.9 + x.detach().mean(0) * 0.1
        return self.lin(x) - self.codes


class Decides(Base):
    """It averages positive inputs only."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running", torch.zeros(()))

    def forward(self, x):
        if x.sum() > 0:
            self.running = self.running * 0.5 + x.detach().mean()
        return self.lin(x) + self.running


class Rebuffered(Base):
    """Names that code cannot spell, and a Buffer."""

    def __init__(self):
        super().__init__()
        self.buffer = nn.Buffer(torch.zeros(4))
        self.register_buffer("in", torch.ones(4))
        setattr(self, "class", torch.zeros(4))

    def forward(self, x):
        self.buffer = self.buffer + x.detach().mean(0)
        setattr(self, "in", getattr(self, "in") * 2)
        setattr(self, "class", getattr(self, "class") + 1)
        return self.lin(x) * getattr(self, "in") + self.buffer - getattr(self, "class")


class Checkpointed(Base):
    """The gradients of a checkpoint run its layer again, on the tensor that it has kept."""

    def __init__(self):
        super().__init__()
        self.inner = Attribute()

    def forward(self, x):
        return checkpoint(self.inner, self.lin(x), use_reentrant=False)


class FromParameter(Base):
    """It keeps what follows from a parameter, with gradients."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.zeros(4))
        self.start = nn.Parameter(torch.ones(4))

    def forward(self, x):
        y = self.lin(x) * self.kept
        self.kept = self.start * 1.0
        return y


MODELS = [
    *(Running, NotPersistent, Norms, Attribute, Cells, OldAndNew, InPlace, Cache, Delay, WarmUp),
    *(Initialised, Decides, Rebuffered, FromParameter),
]


def same_calls(one, other, inputs):
    """Assert that calls in a row give the same bits, gradients and states, in both modes."""
    for number, x in enumerate(inputs):
        for module in (one, other):
            module.train(number % 3 != 2)
        results = []
        for module in (one, other):
            given = x.clone().requires_grad_()
            with torch.set_grad_enabled(number % 4 != 3):
                torch.manual_seed(number)
                result = module(given)
            named = [each for _, each in module.named_parameters()]
            gradients = ()
            if result.requires_grad:
                gradients = torch.autograd.grad(
                    result, [given, *named], torch.ones_like(result), allow_unused=True
                )
            results.append((result.detach(), result.requires_grad, gradients))
        assert bitwise_equal(*results), number
        states = [module.state_dict() for module in (one, other)]
        assert list(states[0]) == list(states[1])
        assert bitwise_equal(*states), number


def inputs(count=5, rows=3):
    torch.manual_seed(7)
    return [torch.randn(rows, 4) + 0.3 * (-1) ** number for number in range(count)]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_calls_in_a_row_give_the_same(make, training, tmp_path):
    torch.manual_seed(0)
    model = make().train(training)
    before = copy.deepcopy(model.state_dict())
    ir = lg.to_ir(model, (torch.randn(3, 4),))
    assert bitwise_equal(model.state_dict(), before)  # the capture leaves it as it was
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict())
    assert lg.load(path) == ir
    built = lg.to_torch(ir, model.state_dict())
    others = [built, lg.load_model(path), copy.deepcopy(built), pickle.loads(pickle.dumps(built))]
    for other in others:
        # A tensor with gradients of an earlier call cannot be copied, so each copy is made here.
        same_calls(copy.deepcopy(model), other, inputs())


@pytest.mark.parametrize("make", [Running, Norms, Decides, WarmUp, Initialised, Rebuffered])
def test_other_sizes(make):
    model = make()
    built = lg.to_torch(lg.to_ir(model, (torch.randn(3, 4),)), model.state_dict())
    same_calls(model, built, [*inputs(2), *inputs(2, rows=5), *inputs(2, rows=1)])


@pytest.mark.parametrize("make", [Running, Norms, Cells, Cache])
def test_flat_graph_computes_the_same(make):
    model = make()
    flat = lg.to_ir(model, (torch.randn(3, 4),)).flatten()
    assert any(node.sets_state for node in flat[flat.root].nodes.values())
    same_calls(model, lg.to_torch(flat, model.state_dict()), inputs())


def test_each_module_sets_its_own_tensor():
    ir = lg.to_ir(Norms(), (torch.randn(3, 4),))
    assert ir["body"].type == "sequential"
    assert any(" = state body.0.mean = " in line for line in str(ir).splitlines())
    assert [node.sets_state for node in ir["body.0"].evaluation.nodes.values()].count(True) == 0


def test_a_loop_keeps_the_state_in_each_turn():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = Cell()
            self.lin = nn.Linear(4, 4)

        def forward(self, x):
            found = [self.lin(self.cell(x[step]).detach()) for step in range(x.shape[0])]
            self.cell.h = self.cell.h.detach()
            return torch.stack(found)

    model = Steps()
    ir = lg.to_ir(model, (torch.randn(5, 3, 4),))
    built = lg.to_torch(ir, model.state_dict())
    same_calls(model, built, [torch.randn(5, 3, 4), torch.randn(5, 3, 4)])


class Tied(Base):
    """Two names of one buffer, of which only one is replaced."""

    def __init__(self):
        super().__init__()
        kept = torch.zeros(4)
        self.register_buffer("a", kept)
        self.register_buffer("b", kept)

    def forward(self, x):
        self.a = self.a + 1
        return self.lin(x) + self.a + self.b


class FromNone(Base):
    """The first call makes the tensor."""

    h = None

    def forward(self, x):
        self.h = x if self.h is None else self.h * 0.5 + x
        return self.lin(self.h)


class ToNone(Base):
    """It forgets its tensor if the input is negative."""

    def __init__(self):
        super().__init__()
        self.register_buffer("h", torch.zeros(4))

    def forward(self, x):
        self.h = self.h + x.mean(0).detach()
        y = self.lin(x) + self.h
        if x.sum() < 0:
            self.h = None
        return y


class Mapped(Base):
    """The function that ``vmap`` runs replaces the tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("h", torch.zeros(4))

    def forward(self, x):
        def step(row):
            self.h = self.h + 1
            return row + self.h

        return torch.vmap(step)(x)


@pytest.mark.parametrize("make", [Tied, FromNone, Mapped, Checkpointed])
def test_what_a_graph_cannot_set_is_refused(make):
    with pytest.raises(CaptureError):
        lg.to_ir(make(), (torch.randn(3, 4),))


def test_a_tensor_that_becomes_none_on_another_way_is_a_guard():
    model = ToNone()
    x = torch.ones(3, 4)
    built = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    same_calls(model, built, [x, x * 2])
    with pytest.raises(lg.errors.AssumptionError):
        built(-x)


def test_compiled_models_keep_the_tensor():
    model = Norms()
    built = lg.to_torch(lg.to_ir(model, (torch.randn(3, 4),)), model.state_dict())
    compiled = torch.compile(built, backend="eager")
    x = torch.randn(3, 4)
    for _ in range(2):
        torch.manual_seed(0)
        expected = model(x)
        torch.manual_seed(0)
        assert bitwise_equal(compiled(x), expected)
    assert bitwise_equal(built.state_dict(), model.state_dict())


def test_torchscript_refuses_it_by_name():
    built = lg.to_torch(lg.to_ir(Running(), (torch.randn(3, 4),)))
    with pytest.raises(BuildError, match="sets no buffer"):
        torch.jit.script(built)


def test_shapes_follow_a_cache_that_grows():
    model = Cells()
    ir = lg.to_ir(model, (torch.randn(3, 4),))
    assert lg.shapes(ir, (torch.randn(3, 4),))


def test_passes_keep_the_nodes_that_set_a_tensor():
    model = Running()
    ir, state = lg.run_passes(
        lg.to_ir(model, (torch.randn(3, 4),)), ["dead-code", "canonicalize"], model.state_dict()
    )[:2]
    same_calls(model, lg.to_torch(ir, state), inputs(3))


def test_targets_refuse_it_by_name(tmp_path):
    pytest.importorskip("onnx_ir", reason="the plugin for ONNX imports it")
    ir = lg.to_ir(Running(), (torch.randn(3, 4),))
    with pytest.raises(lg.errors.LayergraphError, match="sets a tensor of the model"):
        lg.save(ir, tmp_path / "m.onnx", Running().state_dict(), args=(torch.randn(3, 4),))
