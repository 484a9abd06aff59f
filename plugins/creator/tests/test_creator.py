"""The fixed-point layers of elasticai-creator are leaves, with their bit widths."""

from __future__ import annotations

import elasticai.creator.nn as creator
import pytest
import torch
from elasticai.creator.arithmetic import FxpArithmetic, FxpParams
from elasticai.creator.nn import fixed_point
from elasticai.creator.nn.fixed_point import MathOperations
from elasticai.creator.nn.fixed_point.lstm.layer import (
    FixedPointLSTMWithHardActivations,
    LSTMNetwork,
)
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, CaptureError
from layergraph.testing import bitwise_equal

ROW = (5, 4)
SIGNAL = (5, 2, 10)
# By what an IR says of it, a layer, and the shape of its inputs.
LAYERS = {
    "fixed_point_linear(in_features=4, out_features=3, total_bits=8, frac_bits=4)": (
        lambda: fixed_point.Linear(4, 3, total_bits=8, frac_bits=4),
        ROW,
    ),
    "fixed_point_linear(in_features=4, out_features=3, total_bits=6, frac_bits=2, bias=False)": (
        lambda: fixed_point.Linear(4, 3, 6, 2, bias=False),
        ROW,
    ),
    "fixed_point_batchnormed_linear(total_bits=8, frac_bits=4, in_features=4, out_features=3)": (
        lambda: fixed_point.BatchNormedLinear(8, 4, 4, 3),
        ROW,
    ),
    "fixed_point_batchnormed_linear(total_bits=8, frac_bits=4, in_features=4, out_features=3, "
    "bias=False, bn_eps=0.1, bn_momentum=0.2, bn_affine=False)": (
        lambda: fixed_point.BatchNormedLinear(8, 4, 4, 3, False, 0.1, 0.2, bn_affine=False),
        ROW,
    ),
    "fixed_point_conv1d(total_bits=8, frac_bits=4, in_channels=2, out_channels=3, "
    "signal_length=10, kernel_size=(3,))": (
        lambda: fixed_point.Conv1d(8, 4, 2, 3, 10, 3),
        SIGNAL,
    ),
    "fixed_point_batchnormed_conv1d(total_bits=8, frac_bits=4, in_channels=2, out_channels=3, "
    "signal_length=10, kernel_size=(3,), stride=(2,), padding=(1,))": (
        lambda: fixed_point.BatchNormedConv1d(8, 4, 2, 3, 10, 3, stride=2, padding=1),
        SIGNAL,
    ),
    "fixed_point_lstm(total_bits=8, frac_bits=4, input_size=4, hidden_size=3, bias=True)": (
        lambda: FixedPointLSTMWithHardActivations(8, 4, 4, 3, bias=True),
        (5, 6, 4),
    ),
    "fixed_point_hardsigmoid(total_bits=8, frac_bits=4)": (
        lambda: fixed_point.HardSigmoid(8, 4),
        ROW,
    ),
    "fixed_point_hardtanh(total_bits=8, frac_bits=4)": (lambda: fixed_point.HardTanh(8, 4), ROW),
    "fixed_point_hardtanh(total_bits=4, frac_bits=3, max_val=0.5)": (
        lambda: fixed_point.HardTanh(4, 3, min_val=-2.0, max_val=0.5),
        ROW,
    ),
    "fixed_point_relu(total_bits=8, use_clock=True)": (lambda: fixed_point.ReLU(8, True), ROW),
    **{
        f"fixed_point_{kind}(total_bits=8, frac_bits=4, num_steps=16, "
        "sampling_intervall=(-8.0, 7.9375))": (
            lambda cls=cls: cls(8, 4, num_steps=16),
            ROW,
        )
        for kind, cls in {
            "prelu": fixed_point.PReLU,
            "sigmoid": fixed_point.Sigmoid,
            "silu": fixed_point.SiLU,
            "tanh": fixed_point.Tanh,
            "adaptable_silu": fixed_point.AdaptableSiLU,
        }.items()
    },
    "fixed_point_tanh(total_bits=6, frac_bits=3, num_steps=32, sampling_intervall=(-2.0, 1.75))": (
        lambda: fixed_point.Tanh(6, 3, 32, (-2.0, 1.75)),
        ROW,
    ),
    "fixed_point_sigmoid(total_bits=4, frac_bits=2, num_steps=16, "
    "sampling_intervall=(-2.0, 1.75))": (lambda: fixed_point.Sigmoid(4, 2, 320), ROW),
    "buffered_identity(num_input_features=4, total_bits=8)": (
        lambda: creator.BufferedIdentity(4, 8),
        ROW,
    ),
    "bufferless_identity(total_bits=8)": (lambda: creator.BufferlessIdentity(8), ROW),
}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def outputs_and_gradients(module, x):
    x = x.clone().requires_grad_()
    result = module(x)
    outputs = [result] if isinstance(result, torch.Tensor) else [result[0], *result[1]]
    loss = sum((each * each + each).sum() for each in outputs)
    gradients = torch.autograd.grad(loss, [x, *module.parameters()], allow_unused=True)
    return [*outputs, *[each for each in gradients if each is not None]]


def assert_same(module, rebuilt, shape):
    assert list(module.state_dict()) == list(rebuilt.state_dict())
    for mode in (True, False):
        module.train(mode)
        rebuilt.train(mode)
        for batch in (5, 3):
            x = torch.randn(batch, *shape[1:]) * 2
            ones, others = outputs_and_gradients(module, x), outputs_and_gradients(rebuilt, x)
            assert len(ones) == len(others)
            assert all(map(bitwise_equal, ones, others))
    module.train()
    rebuilt.train()


@pytest.mark.parametrize("said", LAYERS)
def test_a_layer_is_a_leaf_with_its_arguments(said, tmp_path):
    make, shape = LAYERS[said]
    module = make()
    ir = lg.to_ir(module, (torch.randn(shape),))
    assert str(ir).splitlines()[0] == f"root: {said}"
    path = tmp_path / "layer.safetensors"
    lg.save(ir, path, module.state_dict())
    rebuilt = lg.load_model(path)
    assert type(rebuilt) is type(module)
    assert_same(module, rebuilt, shape)
    assert lg.to_ir(rebuilt) == ir


def network():
    return creator.Sequential(
        fixed_point.Linear(4, 6, 8, 4),
        fixed_point.Tanh(8, 4, 32),
        fixed_point.BatchNormedLinear(8, 4, 6, 3),
        fixed_point.ReLU(8),
    )


def trained(module):
    """Return the losses of ten steps."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(10):
        loss = (module(torch.randn(16, 4)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def test_a_network_trains_to_the_same_bits_and_gives_the_same_hardware():
    module = network()
    ir = lg.to_ir(module)
    assert ir["root"].type == "creator_sequential"
    rebuilt = lg.to_torch(ir, module.state_dict())
    assert type(rebuilt) is creator.Sequential
    losses, others = trained(module), trained(rebuilt)
    assert all(map(bitwise_equal, losses, others))
    assert len({float(each) for each in losses}) == len(losses)
    for one, other in zip(module, rebuilt, strict=True):
        if hasattr(one, "get_params_quant"):
            assert one.get_params_quant() == other.get_params_quant()


def test_other_containers_are_traced_through():
    module = LSTMNetwork(
        [FixedPointLSTMWithHardActivations(8, 4, 4, 3, bias=True), fixed_point.Linear(3, 2, 8, 4)]
    )
    ir = lg.to_ir(module, (torch.randn(5, 6, 4),))
    assert {each.type for each in ir.values()} >= {"fixed_point_lstm", "fixed_point_linear"}
    assert_same(module, lg.to_torch(ir, module.state_dict()), (5, 6, 4))


def operations(bits):
    return MathOperations(FxpArithmetic(FxpParams(bits, 2)))


class OwnOperations(MathOperations):
    def quantize(self, a):
        return a * 2


@pytest.mark.parametrize(
    "change",
    [
        lambda each: setattr(each, "_operations", operations(5)),
        lambda each: setattr(each, "_operations", OwnOperations(each._config)),
        lambda each: setattr(each, "_config", FxpArithmetic(FxpParams(4, 2))),
        lambda each: setattr(each, "_params", FxpParams(8, 4, signed=False)),
    ],
)
def test_a_layer_whose_bit_widths_were_changed_is_declined(change):
    module = fixed_point.Linear(4, 3, 8, 4)
    change(module)
    assert "total_bits" in str(lg.explain(module))
    try:
        ir = lg.to_ir(nn.Sequential(module), (torch.randn(ROW),))
    except CaptureError:
        return
    # No function of elasticai-creator is left in it.
    assert ir["0"].type == "module"
    assert_same(
        nn.Sequential(module),
        lg.to_torch(ir, {"0.weight": module.weight, "0.bias": module.bias}),
        ROW,
    )


def test_an_edited_graph_is_not_run_by_a_sequential():
    ir = lg.to_ir(network())
    root = ir["root"]
    last, returned = [*root.nodes][-2:]
    # It returns what the last layer but one gives.
    before = root.nodes[last].sources()[0]
    root.nodes[returned].read_instead(last, before)
    del root.edges[last, returned]
    root.edges[before, returned] = lg.ir.Edge(before, returned)
    with pytest.raises(BuildError, match="give it the type 'module'"):
        lg.to_torch(ir)
