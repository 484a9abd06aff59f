"""Rebuilt networks over time: trained, through a file, with state inside and in arguments."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal
from plugins.snntorch.tests.networks import (
    STEPS,
    Convolutional,
    ConvolutionalLstm,
    FeedForward,
    Hidden,
    Lstm,
    Recurrent,
    StateInAndOut,
    pictures,
    step_by_step,
    vectors,
)

TRAINING_STEPS = 20
NETWORKS = {
    "feed-forward": (FeedForward, vectors),
    "hidden": (Hidden, vectors),
    "convolutional": (Convolutional, pictures),
    "recurrent": (Recurrent, vectors),
    "lstm": (Lstm, vectors),
    "convolutional-lstm": (ConvolutionalLstm, pictures),
}


def lengths(captured):
    """Return the numbers of time steps that the rebuilt network accepts, captured with one of
    them."""
    return [captured, captured + 3, 2 * captured + 1]


def through_a_file(model, args, tmp_path):
    path = tmp_path / "network.safetensors"
    lg.save(lg.to_ir(model, args), path, model.state_dict())
    return lg.load_model(path)


def outputs(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [each for part in result for each in outputs(part)]


def same(one, other):
    ones, others = outputs(one), outputs(other)
    assert len(ones) == len(others)
    return all(map(bitwise_equal, ones, others))


def trained(model, call, make):
    """Return all losses and the weights after some steps of an optimizer."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(TRAINING_STEPS):
        optimizer.zero_grad()
        loss = sum(
            each.float().square().mean() * (place + 1)
            for place, each in enumerate(outputs(call(model, make())))
        )
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses, model.state_dict()


def assert_trains_alike(model, rebuilt, call, make, *, is_first=True):
    before = copy.deepcopy(model.state_dict())
    losses, weights = trained(model, call, make)
    other_losses, other_weights = trained(rebuilt, call, make)
    assert list(weights) == list(other_weights)
    assert all(map(bitwise_equal, losses, other_losses))
    assert all(map(bitwise_equal, weights.values(), other_weights.values()))
    moved = [key for key in weights if not torch.equal(weights[key], before[key])]
    assert {key for key, _ in model.named_parameters()} <= set(moved) or not is_first


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_to_the_same_bits(name, tmp_path):
    cls, make = NETWORKS[name]
    model = cls()
    rebuilt = through_a_file(model, (make(),), tmp_path)
    for steps in lengths(STEPS):
        is_first = steps == STEPS
        call = partial(make, steps)
        assert_trains_alike(model, rebuilt, lambda net, x: net(x), call, is_first=is_first)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_same_for_other_batches_and_in_evaluation(name, tmp_path):
    cls, make = NETWORKS[name]
    model = cls()
    rebuilt = through_a_file(model, (make(),), tmp_path)
    for steps in lengths(STEPS):
        for batch in (4, 7, 2):
            x = make(steps, batch)
            torch.manual_seed(2)
            expected = model(x)
            torch.manual_seed(2)
            assert same(expected, rebuilt(x))
        model.eval()
        rebuilt.eval()
        with torch.no_grad():
            for batch in (5, 5):
                x = make(steps, batch)
                assert same(model(x), rebuilt(x))
        model.train()
        rebuilt.train()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_trained_network_is_captured_as_well(name, tmp_path):
    cls, make = NETWORKS[name]
    model = cls()
    trained(model, lambda net, x: net(x), make)
    rebuilt = through_a_file(model, (make(),), tmp_path)
    model.eval()
    rebuilt.eval()
    for _ in range(2):
        x = make()
        assert same(model(x), rebuilt(x))


def test_the_caller_hands_states_in_and_out(tmp_path):
    model = StateInAndOut()
    _, state = model(vectors())
    state = tuple(tuple(each.detach() for each in part) for part in state)
    rebuilt = through_a_file(model, (vectors(), state), tmp_path)

    def in_two_parts(net, x):
        # Gradients flow through the states from one call to the next.
        spikes, between = net(x, state)
        more, after = net(x, between)
        return spikes, more, after

    assert_trains_alike(model, rebuilt, in_two_parts, vectors)


def over_time(net, x):
    """Call a network step by step, as the tutorials of snntorch do."""
    utils.reset(net)
    found = [net(each) for each in x]
    return torch.stack([spk for spk, _ in found]), torch.stack([mem for _, mem in found])


def test_a_network_of_one_step_keeps_its_state_between_calls(tmp_path):
    model = step_by_step()
    rebuilt = through_a_file(model, (pictures()[0],), tmp_path)
    assert all(isinstance(rebuilt.get_submodule(name), snn.Leaky) for name in ("2", "5"))
    for steps in (5, 7, 9):
        assert_trains_alike(model, rebuilt, over_time, partial(pictures, steps))


def test_it_is_captured_without_inputs_too():
    model = step_by_step()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert_trains_alike(model, rebuilt, over_time, pictures)


def test_the_state_that_calls_have_left_comes_along(tmp_path):
    model = step_by_step()
    x = pictures()
    for each in x[:2]:
        model(each)
    rebuilt = through_a_file(model, (x[0],), tmp_path)
    fresh = step_by_step()
    fresh.load_state_dict(model.state_dict())
    expected = model(x[2])
    assert same(expected, rebuilt(x[2]))
    assert not same(expected, fresh(x[2]))


def test_a_capture_leaves_the_states_as_they_were():
    model = step_by_step()
    x = pictures()
    model(x[0])
    states = [model[2].mem, model[5].mem]
    numbers = [each.detach().clone() for each in states]
    count = len(snn.SpikingNeuron.instances)
    lg.to_ir(model, (x[1],))
    assert model[2].mem is states[0]
    assert model[5].mem is states[1]
    assert all(map(bitwise_equal, states, numbers))
    assert len(snn.SpikingNeuron.instances) == count


def test_shapes_leave_no_fake_neurons_behind() -> None:
    """A reset in a model resets all neurons of the process, also those of lg.shapes."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif = snn.Leaky(beta=0.9, init_hidden=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            utils.reset(self)
            return self.lif(x)

    x = torch.rand(5, 3)
    ir = lg.to_ir(Network(), (x,))
    lg.shapes(ir, (x,))
    lg.cost(ir, (x,))
    assert not lg.diff(ir, lg.to_ir(Network(), (x,)))
