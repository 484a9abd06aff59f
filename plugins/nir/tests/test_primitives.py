"""Each primitive of NIR comes back as a layer that computes its equation, and as the same node."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional

import layergraph as lg
from layergraph_backends import LoweringError
from layergraph_nir import from_nir, reset, to_nir
from plugins.nir.tests.equations import DT, step

STEPS, BATCH, SHAPE = 12, 3, (4,)
IMAGE = (2, 6, 7)


def numbers(*shape):
    return np.random.default_rng(0).uniform(0.5, 2, shape).astype(np.float32)


def _taus(count):
    return (DT / np.linspace(0.1, 0.6, count)).astype(np.float32)


V = {"v_leak": numbers(4) - 1, "r": numbers(4)}
FIRE = {"v_threshold": numbers(4), "v_reset": -numbers(4) / 4}
CUBA = {"tau_syn": _taus(4), "tau_mem": _taus(4)[::-1].copy(), "w_in": numbers(4), **V}
NEURONS = {
    "LI": {"tau": _taus(4), **V},
    "LIF": {"tau": _taus(4), **V, **FIRE},
    "I": {"r": numbers(4) / DT / 4},
    "IF": {"r": numbers(4) / DT / 4, **FIRE},
    "CubaLI": CUBA,
    "CubaLIF": {**CUBA, **FIRE},
}


def pair(one, other):
    return np.array([one, other])


# By name, the node, the shape of its input, and its value.
STATELESS = {
    "Affine": (
        nir.Affine(weight=numbers(3, 4), bias=numbers(3)),
        SHAPE,
        lambda x, n: functional.linear(x, n["weight"], n["bias"]),
    ),
    "Linear": (
        nir.Linear(weight=numbers(3, 4)),
        SHAPE,
        lambda x, n: functional.linear(x, n["weight"]),
    ),
    "Conv1d": (
        nir.Conv1d(9, numbers(4, 1, 3), 2, 1, 1, 2, numbers(4)),
        (2, 9),
        lambda x, n: functional.conv1d(x, n["weight"], n["bias"], 2, 1, 1, 2),
    ),
    "Conv1d same": (
        nir.Conv1d(9, numbers(4, 2, 3), 1, "same", 2, 1, numbers(4)),
        (2, 9),
        lambda x, n: functional.conv1d(x, n["weight"], n["bias"], 1, "same", 2),
    ),
    "Conv2d": (
        nir.Conv2d((6, 7), numbers(3, 2, 2, 3), (2, 1), (1, 0), (1, 2), 1, numbers(3)),
        IMAGE,
        lambda x, n: functional.conv2d(x, n["weight"], n["bias"], (2, 1), (1, 0), (1, 2)),
    ),
    "AvgPool2d": (
        nir.AvgPool2d(pair(2, 3), pair(2, 1), pair(1, 0)),
        IMAGE,
        lambda x, _: functional.avg_pool2d(x, (2, 3), (2, 1), (1, 0)),
    ),
    "SumPool2d": (
        nir.SumPool2d(pair(2, 3), pair(2, 1), pair(1, 0)),
        IMAGE,
        lambda x, _: functional.avg_pool2d(x, (2, 3), (2, 1), (1, 0), divisor_override=1),
    ),
    "Flatten": (nir.Flatten(np.array(IMAGE), 1, 2), IMAGE, lambda x, _: x.flatten(2, 3)),
    "Flatten all": (nir.Flatten(np.array(IMAGE), 0, -1), IMAGE, lambda x, _: x.flatten(1)),
    "Scale": (nir.Scale(numbers(4)), SHAPE, lambda x, n: x * n["scale"]),
    "Threshold": (
        nir.Threshold(numbers(4)),
        SHAPE,
        lambda x, n: (x > n["threshold"]).float(),
    ),
}


def around(node, shape):
    """Return a graph of one node."""
    nodes = {
        "input": nir.Input(np.array(shape)),
        "it": node,
        "output": nir.Output(np.array(shape)),
    }
    return nir.NIRGraph(nodes, [("input", "it"), ("it", "output")], type_check=False)


def both(graph, shape, tmp_path):
    """Return the models of a graph: directly, and after a way back and through a file of ours."""
    ir, state = from_nir(graph)
    lg.save(ir, tmp_path / "it.nir", state, args=[(BATCH, *shape)])
    again = from_nir(to_nir(ir, state, [(BATCH, *shape)]))
    assert again[0] == ir
    assert_same(state, again[1])
    return [lg.to_torch(ir, state), lg.load_model(tmp_path / "it.nir")]


def assert_same(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def assert_same_node(one, other):
    assert type(one) is type(other)
    for name, value in one.to_dict().items():
        if name not in ("metadata", "input_shape"):
            assert np.array_equal(np.asarray(value), np.asarray(other.to_dict()[name])), name


@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_computes_its_equation(name, tmp_path):
    node = getattr(nir, name)(**{key: each.copy() for key, each in NEURONS[name].items()})
    p = {key: each.astype(np.float64) for key, each in NEURONS[name].items()}
    for model in both(around(node, SHAPE), SHAPE, tmp_path):
        for _ in range(2):
            reset(model)
            torch.manual_seed(1)
            state, some = np.zeros((BATCH, 4)), 0.0
            for _ in range(STEPS):
                x = torch.randn(BATCH, 4) * 3 + 1
                y, state = step(name, x.double().numpy(), state, p)
                assert np.allclose(model(x).numpy(), y, rtol=1e-4, atol=1e-5)
                some += abs(y).sum()
            assert some > 5


@pytest.mark.parametrize("name", STATELESS)
def test_a_primitive_without_a_state_computes_its_equation(name, tmp_path):
    node, shape, value = STATELESS[name]
    n = {
        key: torch.from_numpy(each)
        for key, each in vars(node).items()
        if key not in _TYPES and isinstance(each, np.ndarray)
    }
    for model in both(around(node, shape), shape, tmp_path):
        for batch in (BATCH, 1, 5):
            x = torch.randn(batch, *shape) * 3
            assert torch.equal(model(x), value(x, n))


_TYPES = ("input_type", "output_type", "metadata")


@pytest.mark.parametrize("name", [*NEURONS, *STATELESS])
def test_a_node_is_the_same_after_both_ways_and_a_file(name, tmp_path):
    node, shape = (
        STATELESS[name][:2] if name in STATELESS else (getattr(nir, name)(**NEURONS[name]), SHAPE)
    )
    graph = around(node, shape)
    ir, state = from_nir(graph)
    lg.save(ir, tmp_path / "it.nir", state, args=[(BATCH, *shape)])
    assert_same_node(node, nir.read(tmp_path / "it.nir", type_check=False).nodes["it"])
    nir.write(tmp_path / "theirs.nir", graph)
    assert lg.load(tmp_path / "theirs.nir") == ir
    assert_same(
        lg.load_model(tmp_path / "theirs.nir").state_dict(), lg.to_torch(ir, state).state_dict()
    )


def test_a_delay_gives_what_came_in_before(tmp_path):
    node = nir.Delay(np.array([0, DT, 3 * DT, DT * 1.4], np.float32))
    for model in both(around(node, SHAPE), SHAPE, tmp_path):
        xs = torch.randn(8, BATCH, 4)
        for t, x in enumerate(xs):
            y = model(x)
            for place, steps in enumerate((0, 1, 3, 1)):
                expected = xs[t - steps, :, place] if t >= steps else torch.zeros(BATCH)
                assert torch.equal(y[:, place], expected)
    assert_same_node(node, to_nir(*from_nir(around(node, SHAPE)), [(1, 4)]).nodes["it"])


def test_a_neuron_can_be_trained():
    model = lg.to_torch(*from_nir(around(nir.LIF(**NEURONS["LIF"]), SHAPE)))
    x = torch.randn(BATCH, 4, requires_grad=True)
    sum(model(x) for _ in range(3)).sum().backward()
    assert x.grad.abs().sum() > 0
    with torch.no_grad():
        reset(model)
        assert set(model(x * 5).unique().tolist()) <= {0.0, 1.0}


def test_a_step_of_another_length():
    node = nir.LI(
        tau=np.full(4, 0.02, np.float32), r=np.ones(4, np.float32), v_leak=np.zeros(4, np.float32)
    )
    ir, state = from_nir(around(node, SHAPE), dt=1e-3)
    assert torch.allclose(lg.to_torch(ir, state)(torch.ones(1, 4)), torch.full((1, 4), 0.05))
    assert from_nir(to_nir(ir, state, [(1, 4)]))[0] == ir
    with pytest.raises(LoweringError, match=r"its dt is 0.001, and that of the graph 0.0001"):
        to_nir(ir, state, [(1, 4)], dt=1e-4)


def test_layers_come_back_from_a_captured_model(tmp_path):
    model = lg.to_torch(*from_nir(around(nir.LIF(**NEURONS["LIF"]), SHAPE)))
    lg.save(lg.to_ir(model), tmp_path / "it.safetensors", model.state_dict())
    again = lg.load_model(tmp_path / "it.safetensors")
    for _ in range(3):
        x = torch.randn(2, 4) * 4
        assert torch.equal(model(x), again(x))
