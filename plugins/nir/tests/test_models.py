"""Models as graphs of NIR: hierarchy, sums, states, shared layers, and what NIR cannot say."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError
from layergraph_backends import LoweringError
from layergraph_nir import from_nir, to_nir

ROW = (5, 4)


def written(model, *args):
    return to_nir(lg.to_ir(model, args), model.state_dict(), args)


def assert_same_over_time(model, rebuilt, shape=ROW, steps=20, scale=6):
    total = 0.0
    for _ in range(steps):
        x = torch.randn(shape) * scale
        expected = model(x)
        assert torch.equal(rebuilt(x), expected)
        total += expected.abs().sum()
    assert total > 0


def back(graph):
    return lg.to_torch(*from_nir(graph))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.lif = snn.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        return x + self.lif(self.fc(x))


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block()
        self.stack = nn.Sequential(Block(), nn.Dropout(0.5), nn.Linear(4, 4, bias=False))
        self.scale = nn.Parameter(torch.rand(4))

    def forward(self, x):
        y = self.first(x)
        z = self.stack(y) * self.scale
        return y + z + z


def test_composites_are_graphs_and_names_and_weights_are_kept(tmp_path):
    model = Nested().eval()
    ir, state = lg.to_ir(model, (torch.randn(ROW),)), model.state_dict()
    lg.save(ir, tmp_path / "it.nir", state, args=[ROW])
    graph = nir.read(tmp_path / "it.nir")
    assert isinstance(graph.nodes["stack"].nodes["0"].nodes["fc"], nir.Affine)
    rebuilt = lg.load_model(tmp_path / "it.nir")
    weights = [key for key in state if "fc" in key or "stack.2" in key]
    assert len(weights) == 5
    for key in weights:
        assert torch.equal(rebuilt.state_dict()[key], state[key])
    assert isinstance(rebuilt.get_submodule("stack.0.fc"), nn.Linear)
    assert_same_over_time(model, rebuilt, scale=3)


class TwoInputs(nn.Module):
    """A composite with two inputs stands in the graph around it."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 3), nn.Linear(2, 3)

        def forward(self, x, y):
            return self.left(x) + self.right(y)

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()
        self.last = nn.Linear(3, 2)

    def forward(self, x, a):
        z = self.inner(x, a)
        return {"sum": z, "last": self.last(z)}


def test_several_inputs_and_outputs_keep_their_order(tmp_path):
    model = TwoInputs()
    x, a = torch.randn(ROW), torch.randn(5, 2)
    ir = lg.to_ir(model, (x, a))
    lg.save(ir, tmp_path / "it.nir", model.state_dict(), args=(x, a))
    rebuilt = lg.load_model(tmp_path / "it.nir")
    assert {key: each.tolist() for key, each in rebuilt.state_dict().items()} == {
        key: each.tolist() for key, each in model.state_dict().items()
    }
    assert isinstance(rebuilt.inner.left, nn.Linear)
    found, expected = rebuilt(x, a), model(x, a)
    assert torch.equal(found[0], expected["sum"])
    assert torch.equal(found[1], expected["last"])


class HandedThrough(nn.Module):
    """The caller keeps the states."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.lif = snn.Synaptic(alpha=0.7, beta=0.8)

    def forward(self, x, syn, mem):
        spikes, syn, mem = self.lif(self.fc(x), syn, mem)
        return spikes, syn, mem


def test_states_of_the_caller_become_states_of_neurons():
    model = HandedThrough()
    states = torch.zeros(2, 5, 3)
    graph = written(model, torch.randn(ROW), *states)
    assert [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)] == ["x"]
    rebuilt, total = back(graph), 0.0
    for _ in range(20):
        x = torch.randn(ROW) * 4
        spikes, *states = model(x, *states)
        assert torch.equal(rebuilt(x), spikes)
        total += spikes.sum()
    assert total > 0


NEURONS = {
    "subtract": lambda: snn.Leaky(beta=0.9, init_hidden=True),
    "zero": lambda: snn.Leaky(beta=0.6, init_hidden=True, reset_mechanism="zero"),
    "none": lambda: snn.Leaky(beta=0.9, init_hidden=True, reset_mechanism="none"),
    "integrate": lambda: snn.Leaky(beta=1.0, init_hidden=True),
    "integrate and fire": lambda: snn.Leaky(beta=1.0, init_hidden=True, reset_mechanism="zero"),
    "factor": lambda: snn.Leaky(beta=0.9, init_hidden=True, graded_spikes_factor=0.3),
    "surrogate": lambda: snn.Leaky(0.8, spike_grad=surrogate.fast_sigmoid(), init_hidden=True),
    "learned": lambda: snn.Leaky(torch.rand(4) / 2 + 0.5, learn_beta=True, init_hidden=True),
    "lapicque": lambda: snn.Lapicque(R=2.0, C=4.0, time_step=0.5, init_hidden=True),
    "synaptic": lambda: snn.Synaptic(alpha=0.7, beta=0.8, init_hidden=True),
    "rleaky": lambda: snn.RLeaky(beta=0.9, linear_features=4, init_hidden=True),
    "rleaky, zero": lambda: snn.RLeaky(
        beta=0.9, linear_features=4, init_hidden=True, reset_mechanism="zero", reset_delay=False
    ),
    "rleaky, one to one": lambda: snn.RLeaky(
        beta=0.9, all_to_all=False, V=torch.rand(4), init_hidden=True
    ),
    "rsynaptic": lambda: snn.RSynaptic(0.7, 0.8, linear_features=4, init_hidden=True),
}


@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_of_snntorch_fires_at_the_same_steps(name, tmp_path):
    neuron = NEURONS[name]()
    model = nn.Sequential(nn.Linear(4, 4), neuron)
    lg.save(lg.to_ir(model), tmp_path / "it.nir", model.state_dict(), args=[ROW])
    assert_same_over_time(model, lg.load_model(tmp_path / "it.nir"), steps=40)


def test_a_recurrent_convolution():
    neuron = snn.RLeaky(beta=0.9, conv2d_channels=2, kernel_size=3, init_hidden=True)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), neuron)
    graph = to_nir(lg.to_ir(model), model.state_dict(), [(2, 1, 5, 5)])
    assert isinstance(graph.nodes["1"].nodes["recurrent"], nir.Conv2d)
    assert_same_over_time(model, back(graph), (2, 1, 5, 5))


def test_a_soft_reset_can_be_written_as_a_hard_one():
    model = nn.Sequential(nn.Linear(4, 4), snn.Leaky(beta=0.9, init_hidden=True))
    graph = to_nir(lg.to_ir(model), model.state_dict(), [ROW], soft_resets="zero")
    assert isinstance(graph.nodes["1"], nir.LIF)
    hard = snn.Leaky(beta=0.9, init_hidden=True, reset_mechanism="zero")
    assert_same_over_time(nn.Sequential(model[0], hard), back(graph))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.lif = snn.Leaky(beta=0.9, init_hidden=True, reset_mechanism="zero")

    def forward(self, x):
        return self.lif(self.fc(self.fc(x)))


def test_a_layer_that_is_called_twice_stays_one_layer(tmp_path):
    model = Shared()
    lg.save(lg.to_ir(model), tmp_path / "it.nir", model.state_dict(), args=[ROW])
    graph = nir.read(tmp_path / "it.nir")
    assert sorted(graph.nodes) == ["fc", "fc_1", "input", "lif", "output"] or len(graph.nodes) == 5
    rebuilt = lg.load_model(tmp_path / "it.nir")
    assert [name for name, _ in rebuilt.named_parameters()] == ["fc.weight", "fc.bias"]
    assert_same_over_time(model, rebuilt)


def test_nodes_that_differ_are_two_layers():
    graph = written(Shared(), torch.randn(ROW))
    graph.nodes["fc_1"].weight += 1
    names = [name for name, _ in back(graph).named_parameters()]
    assert names == ["fc.weight", "fc.bias", "fc_1.weight", "fc_1.bias"]


class Twice(Shared):
    def forward(self, x):
        return self.lif(self.lif(self.fc(x)))


class Reset(Shared):
    def forward(self, x):
        self.lif.reset_mem()
        return self.lif(self.fc(x))


class OverTime(Shared):
    def forward(self, x):
        return torch.stack([self.lif(self.fc(x[step])) for step in range(x.shape[0])])


class Product(nn.Module):
    def forward(self, x):
        return x * x


def sequence(*layers):
    return lambda: nn.Sequential(*layers)


# By what the message says, a model and the shape of its input.
REFUSED = {
    r"root:_1: relu: NIR has no primitive for it\n.*root:_2: softmax: NIR has no primitive": (
        sequence(nn.Linear(4, 4), nn.ReLU(), nn.Softmax(1)),
        ROW,
    ),
    r"root:_1: batchnorm1d: NIR has no normalization; fold it": (
        sequence(nn.Linear(4, 4), nn.BatchNorm1d(4)),
        ROW,
    ),
    r"root:_0: maxpool2d: NIR has no primitive": (sequence(nn.MaxPool2d(2)), (1, 1, 4, 4)),
    r"the model calls the neuron 'lif' again": (Twice, ROW),
    r"the model computes its state|the model sets its state|no primitive": (Reset, ROW),
    r"its padding_mode is 'reflect'": (
        sequence(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")),
        (1, 1, 5, 5),
    ),
    r"its ceil_mode is True": (sequence(nn.AvgPool2d(2, ceil_mode=True)), (1, 1, 5, 5)),
    r"its count_include_pad is False": (
        sequence(nn.AvgPool2d(3, padding=1, count_include_pad=False)),
        (1, 1, 5, 5),
    ),
    r"its divisor_override is 3": (
        sequence(nn.AvgPool2d(2, divisor_override=3)),
        (1, 1, 4, 4),
    ),
    r"it flattens the batch too": (sequence(nn.Flatten(0)), (2, 3)),
    r"take vectors; flatten it first": (sequence(nn.Linear(4, 3)), (2, 5, 4)),
    r"it multiplies two signals": (Product, ROW),
    r"reset_delay=False": (
        sequence(snn.Leaky(beta=0.9, init_hidden=True, reset_delay=False)),
        ROW,
    ),
    r"root:_0: synaptic: it sets its membrane to zero in the step after": (
        sequence(snn.Synaptic(alpha=0.7, beta=0.9, init_hidden=True, reset_mechanism="zero")),
        ROW,
    ),
    r"its inhibition is set": (
        sequence(snn.Leaky(beta=0.9, init_hidden=True, inhibition=True)),
        ROW,
    ),
    r"its threshold is below zero": (
        sequence(snn.Leaky(beta=0.9, init_hidden=True, threshold=-1.0)),
        ROW,
    ),
    r"root:_0: alpha: NIR has no primitive": (
        sequence(snn.Alpha(alpha=0.9, beta=0.8, init_hidden=True)),
        ROW,
    ),
    r"numbers of torch.bfloat16": (
        lambda: nn.Sequential(nn.Linear(4, 3)).bfloat16(),
        ROW,
    ),
}


@pytest.mark.filterwarnings("ignore:Inhibition")
@pytest.mark.parametrize("reason", REFUSED)
def test_layers_that_nir_lacks_are_refused_by_name(reason, tmp_path):
    make, shape = REFUSED[reason]
    model = make()
    dtype = next((each.dtype for each in model.parameters()), torch.float32)
    ir = lg.to_ir(model, (torch.randn(shape, dtype=dtype),))
    with pytest.raises(LoweringError, match=f"(?s){reason}"):
        lg.save(ir, tmp_path / "it.nir", model.state_dict(), args=[torch.randn(shape, dtype=dtype)])
    assert not list(tmp_path.iterdir())


def test_a_network_over_time_is_refused():
    ir = lg.to_ir(OverTime(), (torch.randn(6, *ROW),))
    with pytest.raises(LoweringError, match=r"convert the network of one step|again"):
        to_nir(ir, None, [(6, *ROW)])


def test_shapes_are_needed():
    ir = lg.to_ir(nn.Sequential(nn.Linear(4, 3)))
    with pytest.raises(ArgumentError, match="give args"):
        to_nir(ir)
    with pytest.raises(LoweringError, match="take vectors"):
        to_nir(ir, None, [(4,)])
    assert to_nir(ir, None, [("batch", 4)]).nodes["input"].input_type["input"].tolist() == [4]
    with pytest.raises(ArgumentError, match="soft_resets"):
        to_nir(ir, None, [ROW], soft_resets="soft")


def test_a_convolution_without_a_bias_comes_back_without_one():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False, groups=2, padding="same"))
    graph = to_nir(lg.to_ir(model), model.state_dict(), [(1, 2, 6, 6)])
    assert not graph.nodes["0"].bias.any()
    _, state = from_nir(graph)
    assert list(state) == ["0.weight"]
    graph.nodes["0"].bias += 1
    assert list(from_nir(graph)[1]) == ["0.weight", "0.bias"]


def _lif():
    ones = np.ones(3, np.float32)
    return nir.LIF(tau=ones, r=ones, v_leak=ones, v_threshold=ones)


def graph_of(edges, **nodes):
    ends = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
    return nir.NIRGraph({**ends, **nodes}, edges, type_check=False)


CHAIN = [("input", "a"), ("a", "output")]
BROKEN = {
    "names no node 'b'": lambda: graph_of([*CHAIN, ("a", "b")], a=_lif()),
    "an edge twice": lambda: graph_of([*CHAIN, ("a", "output")], a=_lif()),
    "into an Input": lambda: graph_of([*CHAIN, ("a", "input")], a=_lif()),
    r"'b' \(LIF\): no edge leads to it": lambda: graph_of(CHAIN, a=_lif(), b=_lif()),
    r"'output' \(Output\): no edge": lambda: graph_of([("input", "a")], a=_lif()),
    "no Input or no Output": lambda: nir.NIRGraph({"a": _lif()}, [], type_check=False),
    "not a valid path of a module": lambda: graph_of(
        [("input", "a."), ("a.", "output")], **{"a.": _lif()}
    ),
    "is a path inside another node": lambda: graph_of(
        [("input", "a"), ("a", "a.b"), ("a.b", "output")], **{"a": _lif(), "a.b": _lif()}
    ),
    r"takes the shape \(4,\), and gets \(3,\)": lambda: graph_of(
        CHAIN, a=nir.Linear(weight=np.ones((3, 4)))
    ),
    r"have the shape \(3,\), and its input \(2,\)": lambda: graph_of(
        [("input", "l"), ("l", "a"), ("a", "output")], a=_lif(), l=nir.Linear(np.ones((2, 3)))
    ),
    "its tau is not above zero": lambda: graph_of(CHAIN, a=nir.LI(*np.zeros((3, 3)))),
    "a weight of 2": lambda: graph_of(CHAIN, a=nir.Linear(weight=np.ones((2, 3, 3)))),
    "its groups is": lambda: graph_of(
        CHAIN, a=nir.Conv1d(None, np.ones((1, 1, 1)), 1, 0, 1, -1, np.ones(1))
    ),
    "a graph in a graph|2 inputs": lambda: graph_of(
        CHAIN,
        a=nir.NIRGraph(
            {
                "x": nir.Input(np.array([3])),
                "y": nir.Input(np.array([3])),
                "z": nir.Output(np.array([3])),
            },
            [("x", "z"), ("y", "z")],
            type_check=False,
        ),
    ),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_graph_that_breaks_a_rule_is_refused(reason):
    with pytest.raises(ArgumentError, match=reason):
        from_nir(BROKEN[reason]())


def test_cycles_of_every_kind():
    scale = nir.Scale(np.full(3, 0.5, np.float32))
    graph = graph_of(
        [("input", "a"), ("a", "a"), ("a", "b"), ("b", "s"), ("s", "a"), ("b", "output")],
        a=nir.I(r=np.full(3, 1e4, np.float32)),
        b=nir.Threshold(np.full(3, 2, np.float32)),
        s=scale,
    )
    model = back(graph)
    a_before = b_before = v = torch.zeros(1, 3)
    for _ in range(6):
        v = v + 1 + a_before + b_before * 0.5
        a_before, b_before = v, (v > 2).float()
        assert torch.equal(model(torch.ones(1, 3)), b_before)
    again = to_nir(*from_nir(graph), [(1, 3)])
    assert sorted(again.edges) == sorted(graph.edges)


def test_the_way_out_for_a_batch_norm_works():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    model[1].running_mean += 0.5
    ir, state, _ = lg.run_passes(lg.to_ir(model), ["fold-batchnorm"], model.state_dict())
    rebuilt = back(to_nir(ir, state, [(1, 1, 5, 5)]))
    x = torch.randn(3, 1, 5, 5)
    assert torch.allclose(rebuilt(x), model(x), atol=1e-6)


def test_passes_keep_the_edges_that_close_cycles():
    model = nn.Sequential(nn.Linear(4, 4), snn.RLeaky(0.9, linear_features=4, init_hidden=True))
    ir, state = from_nir(written(model, torch.randn(ROW)))
    ir, state, _ = lg.run_passes(ir, ["dead-code"], state)
    assert_same_over_time(model, lg.to_torch(ir, state))
