"""The code of a model reads and assigns the hidden states of its neurons."""

from __future__ import annotations

import copy

import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal


class Network(nn.Module):
    """A layer, and a neuron that keeps its state."""

    output = False

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.lif = snn.Leaky(beta=0.9, init_hidden=True, output=self.output)


class ReadsWhatACallLeaves(Network):
    def forward(self, x):
        self.lif.reset_mem()
        found = []
        for _ in range(3):
            self.lif(self.fc(x))
            found.append(self.lif.mem)
        return torch.stack(found)


class ReadsBeforeAndUsesAfter(Network):
    def forward(self, x):
        before = self.lif.mem
        return self.lif(self.fc(x)), before + 1


class ResetsBetweenCalls(Network):
    def forward(self, x):
        first = self.lif(self.fc(x)), self.lif(self.fc(x))
        self.lif.reset_mem()
        return *first, self.lif(self.fc(x))


class ChangesInPlace(Network):
    output = True

    def forward(self, x):
        self.lif.reset_mem()
        spk, mem = self.lif(self.fc(x))
        mem.detach_().mul_(0.5)
        return spk, mem, *self.lif(self.fc(x))


class DecidesByAState(Network):
    def forward(self, x):
        spk = self.lif(self.fc(x))
        if self.lif.mem.sum() > 0:
            spk = spk * 2
        return spk


class ScalesTheState(Network):
    def forward(self, x):
        first = self.lif(self.fc(x))
        self.lif.mem = self.lif.mem * 0.5
        return self.lif(first)


class AssignsAConstant(Network):
    def __init__(self):
        super().__init__()
        self.initial = torch.full((5, 4), 0.9)

    def forward(self, x):
        self.lif.mem = self.initial
        return self.lif(self.fc(x))


class HasOneNeuronTwice(Network):
    def __init__(self):
        super().__init__()
        self.again = self.lif

    def forward(self, x):
        self.again.reset_mem()
        return self.lif(self.fc(x)), self.again(self.fc(x))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.lif = snn.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        self.lif.reset_mem()
        return self.lif(x) + self.lif(x)


class CallsABlockTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.block = Block()

    def forward(self, x):
        return self.block(self.fc(x)) + self.block(self.fc(x) * 2)


class ReadsItsMode(Network):
    def forward(self, x):
        self.lif.reset_mem()
        spk = self.lif(self.fc(x))
        if self.training:
            spk = spk * 2
        return spk + self.lif(self.fc(x))


class CallsWithoutGradients(Network):
    def forward(self, x):
        utils.reset(self)
        with torch.no_grad():
            self.lif(self.fc(x))
        return self.lif(self.fc(x))


class PassesNone(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.lif = snn.Synaptic(alpha=0.9, beta=0.8)

    def forward(self, x):
        self.lif.reset_mem()
        first = self.lif(self.fc(x), None, None)
        return *first, *self.lif(self.fc(x), None, mem=first[2])


NETWORKS = [
    ReadsWhatACallLeaves,
    ReadsBeforeAndUsesAfter,
    ResetsBetweenCalls,
    ChangesInPlace,
    DecidesByAState,
    ScalesTheState,
    AssignsAConstant,
    HasOneNeuronTwice,
    CallsABlockTwice,
    ReadsItsMode,
    CallsWithoutGradients,
    PassesNone,
]


def called(net, x):
    """Return outputs and gradients, or the class of the error of the model's own code."""
    try:
        result = net(x)
    except RuntimeError as error:
        return [type(error).__name__]
    outputs = [result] if isinstance(result, torch.Tensor) else list(result)
    net.zero_grad()
    wanted = [each for each in outputs if each.requires_grad]
    gradients = torch.autograd.grad(
        sum(each.sum() for each in wanted), list(net.parameters()), retain_graph=True
    )
    return [*outputs, *gradients]


def assert_same(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert bitwise_equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("cls", NETWORKS)
def test_a_network_comes_back(cls, used, tmp_path):
    torch.manual_seed(0)
    model, x = cls(), torch.randn(5, 3) * 2
    if used:
        # An IR contains the numbers of a state, but no gradients of earlier calls.
        with torch.no_grad():
            model(x)
    path = tmp_path / "network.safetensors"
    lg.save(lg.to_ir(model, (x,)), path, model.state_dict())
    rebuilt = lg.load_model(path)
    for mode in (True, False):
        model.train(mode)
        rebuilt.train(mode)
        for batch in (5, 5, 2, 2, 5):
            x = torch.randn(batch, 3) * 2
            assert_same(called(model, x), called(rebuilt, x))


@pytest.mark.parametrize("cls", NETWORKS)
def test_without_inputs_it_is_refused(cls):
    with pytest.raises(CaptureError, match=r"hidden state|lasts for a call|reset_mem"):
        lg.to_ir(cls())


def test_a_reset_of_all_neurons_leaves_those_of_other_models_alone():
    torch.manual_seed(0)
    other = snn.Leaky(beta=0.9, init_hidden=True)
    other(torch.rand(2, 3))
    kept = other.mem
    model, x = CallsWithoutGradients(), torch.randn(5, 3)
    ir = lg.to_ir(model, (x,))
    assert other.mem is kept
    assert not [name for name in ir["root"].tensors if name.startswith("_constant")]
    assert [node.type for node in ir["root"].nodes.values()].count("state") == 1


class ResetsAtTheEnd(Network):
    def forward(self, x):
        spk = self.lif(self.fc(x))
        self.lif.reset_mem()
        return spk


class DecidesByTheFirstCall(Network):
    def forward(self, x):
        if self.lif.mem.numel() == 0:
            x = x * 2
        return self.lif(self.fc(x))


OTHER = snn.Leaky(beta=0.5, init_hidden=True)


class ReadsAnotherModel(Network):
    def forward(self, x):
        return self.lif(self.fc(x)) + OTHER.mem


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (ResetsAtTheEnd, r"assigns lif\.mem, a hidden state, after the last call of 'lif'"),
        (DecidesByTheFirstCall, "'lif'"),
        (ReadsAnotherModel, "a hidden state of a layer that is not part of the model"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(cls, message):
    OTHER(torch.rand(5, 4))
    with pytest.raises(CaptureError, match=message):
        lg.to_ir(cls(), (torch.randn(5, 3),))


def test_a_file_cannot_give_a_state_more_numbers_than_it_holds():
    ir = lg.to_ir(snn.Leaky(beta=0.9))
    ir["root"].tensors["mem"].shape = (1 << 40,)
    with pytest.raises(lg.errors.BuildError, match="mem"):
        lg.to_torch(ir)


class Warming(nn.Module):
    """Calls a neuron twice. It ignores the value of the first call, and uses its state."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.neuron = snn.Leaky(0.9, init_hidden=True)

    def forward(self, x):
        self.neuron(self.linear(x))
        return self.neuron(self.linear(x))


@pytest.mark.parametrize("name", ["dead-code", "common-subexpressions"])
def test_a_pass_keeps_calls_that_change_hidden_state(name):
    torch.manual_seed(0)
    model = Warming()
    ir = lg.to_ir(copy.deepcopy(model), (torch.rand(2, 4),))
    other, state, _ = lg.run_passes(ir, [name], model.state_dict())
    built = lg.to_torch(other, state)
    for _ in range(4):
        x = torch.rand(2, 4) * 3
        assert bitwise_equal(built(x), model(x))
