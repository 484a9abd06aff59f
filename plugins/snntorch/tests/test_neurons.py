"""The neurons of snntorch are leaves, with the arguments of their constructors."""

from __future__ import annotations

import warnings

import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from snntorch.functional import quant
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, CaptureError
from layergraph.testing import bitwise_equal

NUMBERS = torch.tensor([0.5, 0.6, 0.7, 0.8])

# Neurons, by their text in an IR.
NEURONS = {
    "leaky(beta=0.9)": lambda: snn.Leaky(0.9),
    "leaky(beta=0.5, threshold=1, surrogate_disable=True, reset_mechanism='none')": lambda: (
        snn.Leaky(0.5, threshold=1, surrogate_disable=True, reset_mechanism="none")
    ),
    "leaky(beta=[0.5, 0.25], threshold=0.3, init_hidden=True, learn_beta=True, "
    "learn_threshold=True, reset_mechanism='zero', output=True, graded_spikes_factor=2.0, "
    "learn_graded_spikes_factor=True, reset_delay=False)": lambda: snn.Leaky(
        torch.tensor([0.5, 0.25]),
        threshold=0.3,
        init_hidden=True,
        learn_beta=True,
        learn_threshold=True,
        reset_mechanism="zero",
        output=True,
        graded_spikes_factor=2.0,
        learn_graded_spikes_factor=True,
        reset_delay=False,
    ),
    "leaky(beta=0.9, spike_grad={'name': 'fast_sigmoid', 'slope': 10}, inhibition=True, "
    "state_quant=[-1.0, 2.0])": lambda: snn.Leaky(
        0.9,
        spike_grad=surrogate.fast_sigmoid(slope=10),
        inhibition=True,
        state_quant=quant.state_quant(num_bits=1, upper_limit=1),
    ),
    "synaptic(alpha=0.9, beta=0.8, init_hidden=True)": lambda: snn.Synaptic(
        0.9, 0.8, init_hidden=True
    ),
    "synaptic(alpha=[0.5, 0.25], beta=0.8, learn_alpha=True, reset_mechanism='zero')": lambda: (
        snn.Synaptic(torch.tensor([0.5, 0.25]), 0.8, learn_alpha=True, reset_mechanism="zero")
    ),
    "alpha(alpha=0.9, beta=0.8, reset_mechanism='subtract')": lambda: snn.Alpha(
        0.9, 0.8, reset_mechanism="subtract"
    ),
    "alpha(alpha=0.9, beta=0.8, init_hidden=True)": lambda: snn.Alpha(0.9, 0.8, init_hidden=True),
    "lapicque(beta=0.5)": lambda: snn.Lapicque(0.5),
    "lapicque(R=5.1, C=0.1)": lambda: snn.Lapicque(R=5.1, C=1e-1),
    "lapicque(beta=0.5, R=2)": lambda: snn.Lapicque(0.5, R=2),
    "lapicque(beta=[0.5], time_step=0.001)": lambda: snn.Lapicque(
        torch.tensor([0.5]), time_step=1e-3
    ),
    "rleaky(beta=0.9, linear_features=2)": lambda: snn.RLeaky(0.9, linear_features=2),
    "rleaky(beta=0.9, V=[0.5, 0.25], all_to_all=False, init_hidden=True)": lambda: snn.RLeaky(
        0.9, all_to_all=False, V=torch.tensor([0.5, 0.25]), init_hidden=True
    ),
    "rleaky(beta=0.9, conv2d_channels=1, kernel_size=(3, 5), learn_recurrent=False)": lambda: (
        snn.RLeaky(0.9, conv2d_channels=1, kernel_size=(3, 5), learn_recurrent=False)
    ),
    "rsynaptic(alpha=0.9, beta=0.8, linear_features=2, init_hidden=True)": lambda: snn.RSynaptic(
        0.9, 0.8, linear_features=2, init_hidden=True
    ),
    "rsynaptic(alpha=0.9, beta=0.8, V=0.5, all_to_all=False)": lambda: snn.RSynaptic(
        0.9, 0.8, all_to_all=False, V=0.5
    ),
    "slstm(input_size=2, hidden_size=2, bias=False, init_hidden=True, "
    "reset_mechanism='subtract')": lambda: snn.SLSTM(
        2, 2, bias=False, init_hidden=True, reset_mechanism="subtract"
    ),
    "sconv2dlstm(in_channels=1, out_channels=2, kernel_size=3, max_pool=2, "
    "reset_mechanism='zero')": lambda: snn.SConv2dLSTM(1, 2, 3, max_pool=2, reset_mechanism="zero"),
    "sconv2dlstm(in_channels=1, out_channels=2, kernel_size=3, avg_pool=2, "
    "spike_grad={'name': 'straight_through_estimator'}, init_hidden=True)": lambda: snn.SConv2dLSTM(
        1,
        2,
        3,
        avg_pool=2,
        spike_grad=surrogate.straight_through_estimator(),
        init_hidden=True,
    ),
}
SURROGATES = {
    "atan": {"alpha": 3.0},
    "fast_sigmoid": {"slope": 5},
    "sigmoid": {"slope": 7},
    "heaviside": {},
    "straight_through_estimator": {},
    "triangular": {"threshold": 2},
    "spike_rate_escape": {"beta": 2, "slope": 3},
    "SSO": {"mean": 0.1, "variance": 0.3},
    "SFS": {"slope": 3, "B": -1},
}


@pytest.fixture(autouse=True)
def _quiet():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # snntorch says that inhibition is unstable
        yield


def inputs_of(module):
    wants_pictures = any(isinstance(each, nn.Conv2d) for each in module.modules())
    return torch.rand(3, 1, 6, 6) * 3 if wants_pictures else torch.rand(3, 2) * 3


def run(module, x):
    """Return the results of three calls, the first state between them, and the gradients."""
    x = x.clone().requires_grad_()
    found = []
    states = ()
    torch.manual_seed(1)
    for _ in range(3):
        result = module(x, *states)
        result = result if isinstance(result, tuple) else (result,)
        states = () if module.init_hidden else result[-(len(result) - 1) :]
        found += result
    loss = sum((each + 1).square().sum() for each in found)
    if not loss.requires_grad:
        return found
    learned = [each for each in module.parameters() if each.requires_grad]
    gradients = torch.autograd.grad(loss, [x, *learned], allow_unused=True)
    return [*found, *[each for each in gradients if each is not None]]


def assert_same(module, rebuilt):
    weights, others = module.state_dict(), rebuilt.state_dict()
    assert list(weights) == list(others)
    assert all(map(bitwise_equal, weights.values(), others.values()))
    x = inputs_of(module)
    ones, others = run(module, x), run(rebuilt, x)
    assert len(ones) == len(others)
    assert all(map(bitwise_equal, ones, others))


@pytest.mark.parametrize("said", NEURONS)
def test_a_neuron_is_a_leaf_with_its_arguments(said, tmp_path):
    module = NEURONS[said]()
    ir = lg.to_ir(module)
    assert str(ir).splitlines()[0] == f"root: {said}"
    path = tmp_path / "neuron.safetensors"
    lg.save(ir, path, module.state_dict())
    rebuilt = lg.load_model(path)
    assert isinstance(rebuilt, type(module))
    assert_same(module, rebuilt)
    assert lg.to_ir(rebuilt)["root"].attributes == ir["root"].attributes


@pytest.mark.parametrize("name", SURROGATES)
def test_a_surrogate_gradient_is_named_with_its_parameters(name):
    parameters = SURROGATES[name]
    module = snn.Leaky(0.9, spike_grad=getattr(surrogate, name)(**parameters), threshold=0.5)
    ir = lg.to_ir(module)
    assert ir["root"].attributes["spike_grad"] == {"name": name, **parameters}
    assert_same(module, lg.to_torch(ir, module.state_dict()))


def test_the_gradients_differ_between_surrogates():
    # Otherwise the tests above could not detect a wrong surrogate.
    x = torch.rand(3, 2) * 3 - 1
    of_all = {}
    for name, parameters in SURROGATES.items():
        spike_grad = getattr(surrogate, name)(**parameters)
        module = snn.Leaky(0.9, spike_grad=spike_grad, threshold=0.5)
        *_, gradient = run(module, x)
        of_all[name] = tuple(gradient.flatten().tolist())
    assert len(set(of_all.values())) == len(SURROGATES)


def own_surrogate(x):
    return surrogate.FastSigmoid.apply(x, 25)


def explained(module):
    return str(lg.explain(module))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda each: setattr(each, "spike_grad", own_surrogate), "own_surrogate"),
        (
            lambda each: setattr(each, "spike_grad", surrogate.custom_surrogate(own_surrogate)),
            "custom_surrogate",
        ),
        (
            lambda each: setattr(each, "spike_grad", surrogate.atan(torch.tensor(2.0))),
            "surrogate gradient, atan",
        ),
        (lambda each: setattr(each, "state_quant", own_surrogate), "own_surrogate"),
        (lambda each: setattr(each, "reset_mechanism", "zero"), "changed after its construction"),
        (lambda each: setattr(each, "state_function", each._base_zero), "changed after"),
        (
            lambda each: setattr(each, "state_function", snn.Leaky(0.9).state_function),
            "changed after",
        ),
    ],
)
def test_what_its_arguments_do_not_say_is_declined(change, reason):
    module = snn.Leaky(0.9)
    change(module)
    assert reason in explained(module)
    with pytest.raises(CaptureError):
        lg.to_ir(nn.Sequential(module), (torch.rand(2, 3),))


def test_a_subclass_is_declined():
    class Own(snn.Leaky):
        def forward(self, input_, mem=None):
            return super().forward(input_ * 2, mem)

    with pytest.raises(CaptureError):
        lg.to_ir(nn.Sequential(Own(0.9)), (torch.rand(2, 3),))


def test_an_unknown_surrogate_in_an_ir_is_refused():
    ir = lg.to_ir(snn.Leaky(0.9, spike_grad=surrogate.heaviside()))
    for name in ("custom_surrogate", "torch", "StraightThroughEstimator", "none"):
        ir["root"].data["spike_grad"] = {"name": name}
        with pytest.raises(BuildError):
            lg.to_torch(ir)


def test_snntorch_lists_the_rebuilt_neurons_and_no_others():
    model = nn.Sequential(nn.Linear(2, 2), snn.Leaky(0.9, init_hidden=True))
    before = list(snn.SpikingNeuron.instances)
    ir = lg.to_ir(model, (torch.rand(3, 2),))
    assert snn.SpikingNeuron.instances == before
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert snn.SpikingNeuron.instances == [*before, rebuilt.get_submodule("1")]


def test_other_dtypes_and_casts():
    model = nn.Sequential(nn.Linear(2, 2), snn.Leaky(torch.tensor(0.9, dtype=torch.float64)))
    model = model.double()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.rand(3, 2).double(),)), model.state_dict())
    x = torch.rand(4, 2).double()
    for cast in (torch.float64, torch.float32, torch.bfloat16):
        ones, others = model.to(cast)(x.to(cast)), rebuilt.to(cast)(x.to(cast))
        assert all(map(bitwise_equal, ones, others))
        assert all(
            one.dtype is other.dtype
            for one, other in zip(
                model.state_dict().values(), rebuilt.state_dict().values(), strict=True
            )
        )
