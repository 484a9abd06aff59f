"""Layers that keep tensors from one call to the next."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layergraph.errors import CaptureError
from layergraph.ir2torch import Ir2Torch
from layergraph.layers import Layer
from layergraph.tensors.hidden_states import hidden_states
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir

LAYERS: list[nn.Module] = []


class Memory(nn.Module):
    """Adds what it is given to what it was given before."""

    def __init__(self, decay: float = 0.5) -> None:
        super().__init__()
        self.decay = decay
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("kept", torch.zeros(0), persistent=False)
        self.seen = None
        LAYERS.append(self)

    def forward(self, x, kept=None):
        if kept is not None:
            self.kept = kept
        if self.kept.shape != x.shape:
            self.kept = torch.zeros_like(x)
        self.kept = self.kept * self.decay + x * self.scale
        self.seen = self.kept.detach()
        return self.kept.relu()


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.memory = Memory()


class Keeps(Network):
    def forward(self, x):
        return self.memory(self.fc(x)) + self.memory(self.fc(x))


class Resets(Network):
    def forward(self, x):
        self.memory.kept = torch.zeros_like(self.memory.kept)
        return self.memory(self.fc(x)), self.memory.kept


class ResetsAll(Network):
    def forward(self, x):
        for each in LAYERS:
            each.kept = torch.zeros_like(each.kept)
        return self.memory(self.fc(x))


class Hands(Network):
    def forward(self, x):
        self.memory.kept = x.new_ones(1)  # the argument takes its place
        first = self.memory(self.fc(x), x[:, :3])
        return first + self.memory(self.fc(x), kept=first)


class TakesBackAnAttribute(Network):
    def forward(self, x):
        self.memory.seen = None
        return self.memory(self.fc(x))


class Forgets(Network):
    def forward(self, x):
        result = self.memory(self.fc(x))
        self.memory.kept = torch.zeros_like(self.memory.kept)
        return result


ROW = Layer(Memory, derived=["seen"])
TO_IR, TO_TORCH = Torch2Ir(), Ir2Torch()
TO_IR.register(Memory, ROW.to_ir)
TO_TORCH.register("memory", ROW.to_torch)


@pytest.fixture(autouse=True)
def _alone():
    torch.manual_seed(0)
    LAYERS.clear()
    yield
    LAYERS.clear()


def called(net, x):
    result = net(x)
    outputs = result if isinstance(result, tuple) else (result,)
    loss = sum(each.square().sum() for each in outputs)
    return *outputs, *torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("cls", [Keeps, Resets, ResetsAll, Hands])
def test_a_rebuilt_layer_keeps_its_state(cls, used):
    model = cls()
    if used:
        with torch.no_grad():
            model(torch.randn(2, 4))
    ir = TO_IR.convert(model, (torch.randn(2, 4),))
    rebuilt = TO_TORCH.convert(ir, model.state_dict())
    LAYERS[:] = [model.memory]
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    for batch in (2, 2, 5, 5, 2):
        x = torch.randn(batch, 4)
        assert all(map(bitwise_equal, called(model, x), called(rebuilt, x)))


def test_the_graph_passes_what_code_assigns():
    ir = TO_IR.convert(Resets(), (torch.randn(2, 4),))
    (call,) = [node for node in ir["root"].nodes.values() if node.type == "memory"]
    assert list(call.kwargs) == ["kept"]
    assert ir["memory"].tensors["kept"].shape == (0,)


def test_states_of_other_models_are_left_out():
    other, model = Memory(), ResetsAll()
    other(torch.ones(2, 3))
    kept = other.kept
    ir = TO_IR.convert(model, (torch.randn(2, 4),))
    assert other.kept is kept
    assert not ir["root"].tensors


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Forgets, r"it assigns memory\.kept, a hidden state, after the last call of 'memory'"),
        (TakesBackAnAttribute, "'memory' assigns self"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(cls, message):
    with pytest.raises(CaptureError, match=message):
        TO_IR.convert(cls(), (torch.randn(2, 4),))


@pytest.mark.parametrize("cls", [Resets, ResetsAll, Hands])
def test_without_inputs_a_hidden_state_is_not_read(cls):
    with pytest.raises(CaptureError):
        TO_IR.convert(cls())


def test_only_buffers_that_forward_takes_are_hidden_states():
    assert hidden_states(Memory()) == ("kept",)
    assert hidden_states(nn.BatchNorm1d(2)) == ()
    module = Memory()
    module.register_buffer("other", torch.zeros(1), persistent=False)
    assert hidden_states(module) == ("kept",)


def test_a_row_compares_the_methods_that_a_layer_keeps():
    class Switch(nn.Module):
        def __init__(self, fast: bool = False) -> None:
            super().__init__()
            self.fast = fast
            self.register_buffer("number", torch.ones(1))
            # The meta device has no numbers.
            self.run = self.one if self.number == 1 and fast else self.two

        def one(self, x):
            return x

        def two(self, x):
            return x * 2

    row = Layer(Switch, type="switch")
    module = Switch()
    assert row.to_ir(module) is not None
    module.run = module.one
    assert row.to_ir(module) is None
    module.run = Switch().run
    assert row.to_ir(module) is None
