"""Networks go to snntorch and nirtorch and come from there, with the same spikes."""

from __future__ import annotations

import contextlib
import io
import warnings

import nir
import nirtorch
import pytest
import snntorch as snn
import torch
from snntorch.export_nir import export_to_nir
from snntorch.import_nir import import_from_nir
from torch import nn

import layergraph as lg
from layergraph_nir import from_nir, reset, to_nir

STEPS = 15
ZERO = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}


def leaky(beta, *shape):
    # snntorch writes the sizes of a neuron only if its numbers have them.
    return snn.Leaky(beta=torch.full(shape, beta), threshold=torch.ones(shape), **ZERO)


def synaptic(alpha, beta, threshold, *shape):
    sizes = [torch.full(shape, each) for each in (alpha, beta)]
    return snn.Synaptic(*sizes, threshold=torch.full(shape, threshold), **ZERO)


def dense():
    return nn.Sequential(nn.Linear(4, 6), leaky(0.9, 6), nn.Linear(6, 3), leaky(0.8, 3))


def convolutional():
    front = [nn.Conv2d(1, 4, 3), leaky(0.9, 4, 6, 6), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*front, nn.Linear(36, 3, bias=False), leaky(0.8, 3))


def currents():
    front = [nn.Linear(4, 6), synaptic(0.6, 0.9, 1.0, 6)]
    return nn.Sequential(*front, nn.Linear(6, 3), synaptic(0.7, 0.8, 0.5, 3))


def recurrent():
    neuron = snn.RLeaky(beta=0.9, linear_features=6, **ZERO)
    # nirtorch leaves out the bias in the first step.
    neuron.recurrent.bias.data.zero_()
    return nn.Sequential(nn.Linear(4, 6), neuron, nn.Linear(6, 3), leaky(0.8, 3))


def one_to_one():
    neuron = snn.RLeaky(beta=0.9, all_to_all=False, V=torch.rand(6), **ZERO)
    return nn.Sequential(nn.Linear(4, 6), neuron, nn.Linear(6, 3))


def per_neuron():
    neuron = snn.Leaky(torch.linspace(0.5, 0.95, 6), threshold=torch.ones(6), **ZERO)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), neuron, nn.Linear(6, 3))


# The batch is 1 where snntorch flattens it too.
NETWORKS = {
    dense: (5, 4),
    convolutional: (1, 1, 8, 8),
    currents: (5, 4),
    recurrent: (5, 4),
    one_to_one: (5, 4),
    per_neuron: (1, 2, 2),
}
each_network = pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)


@pytest.fixture(autouse=True)
def _quiet():
    torch.manual_seed(0)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def case(make):
    """Return a network that fires, currents over time, and what it gives."""
    model, shape = make(), NETWORKS[make]
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.data *= 3
    xs = [torch.randn(shape) * 4 for _ in range(STEPS)]
    expected = [model(x).detach() for x in xs]
    assert sum(each.abs().sum() for each in expected) > 0
    reset_neurons(model)
    return model, xs, expected


def reset_neurons(model):
    for module in model.modules():
        if isinstance(module, snn.SpikingNeuron):
            module.reset_mem()


def run_with_state(model, xs):
    """Run a module of nirtorch, which hands the state through."""
    state, found = None, []
    for x in xs:
        y, state = model(x, state)
        found.append(y.detach())
    return found


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.reshape(other.shape), other)


@each_network
def test_snntorch_reads_what_we_write(make, tmp_path):
    model, xs, expected = case(make)
    lg.save(lg.to_ir(model), tmp_path / "it.nir", model.state_dict(), args=[xs[0]])
    theirs = import_from_nir(nir.read(tmp_path / "it.nir"))
    assert_same(run_with_state(theirs, xs), expected)


@each_network
def test_we_read_what_snntorch_writes(make, tmp_path):
    model, xs, expected = case(make)
    graph = export_to_nir(model, xs[0], ignore_dims=[0])
    nir.write(tmp_path / "it.nir", graph)
    ours = lg.load_model(tmp_path / "it.nir")
    for _ in range(2):
        reset(ours)
        assert_same([ours(x).detach() for x in xs], expected)


def _module(node):
    """Return one of our modules for a neuron of NIR."""
    graph = nir.NIRGraph.from_list(node)
    ir, state = from_nir(graph)
    (name,) = [each for each in ir if each != ir.root]
    return lg.to_torch(ir, state).get_submodule(name)


def _affine(node):
    module = nn.Linear(*reversed(node.weight.shape))
    module.weight.data, module.bias.data = map(torch.from_numpy, (node.weight, node.bias))
    return module


@each_network
def test_nirtorch_reads_what_we_write(make):
    model, xs, expected = case(make)
    graph = to_nir(lg.to_ir(model), model.state_dict(), [xs[0]])
    # nirtorch 2.6 does not set the bias of an Affine.
    maps = {nir.LIF: _module, nir.CubaLIF: _module, nir.Affine: _affine}
    theirs = nirtorch.nir_to_torch(graph, maps)
    assert_same(run_with_state(theirs, xs), expected)


@each_network
def test_we_read_what_nirtorch_writes(make):
    model, xs, expected = case(make)
    shape = tuple(xs[0].shape)
    written = to_nir(lg.to_ir(model), model.state_dict(), [xs[0]])
    maps = {}
    for name, module in model.named_children():
        maps.setdefault(type(module), {})[id(module)] = written.nodes[name]
    handlers = {cls: lambda module, known=known: known[id(module)] for cls, known in maps.items()}
    graph = nirtorch.torch_to_nir(model, handlers, default_dict={}, type_check=False)
    graph.nodes["input_1"].input_type = {"input": torch.tensor(shape[1:]).numpy()}
    ours = lg.to_torch(*from_nir(graph))
    assert_same([ours(x).detach() for x in xs], expected)
