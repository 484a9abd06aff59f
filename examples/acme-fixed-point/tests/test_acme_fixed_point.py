"""Acme's layers, wrappers, quantizers, pass, subcommand and header."""

from functools import partial

import pytest
import torch
from acme_fixed_point import (
    Binarize,
    FixedPointLinear,
    ObservedLinear,
    RoundToFixedPoint,
    Ternarize,
    UnknownUnitError,
    c_header,
    choose_widths,
    to_fixed_point,
)
from acme_fixed_point.command_line import bits
from torch import nn

import layergraph as lg
from layergraph.errors import FileError
from layergraph.ir2torch import Ir2Torch
from layergraph.testing import Case, LayerTests, bitwise_equal


def with_widths(make):
    made = make()
    made.fixed_point = (8, 4)
    return made


FIXED = {
    "wide": Case(lambda: FixedPointLinear(3, 2, 16, 8), [(5, 3)]),
    "narrow": Case(lambda: FixedPointLinear(3, 2, 4, 2, bias=False), [(5, 3)]),
}
LINEAR = {
    f"{cls.__name__} {what}": Case(make, [(5, 3)], kind="linear", rebuilt=ObservedLinear)
    for cls in (nn.Linear, ObservedLinear)
    for what, make in {
        "plain": partial(cls, 3, 2),
        "with widths": partial(with_widths, partial(cls, 3, 2, bias=False)),
    }.items()
}


class TestFixedPointLinear(LayerTests):
    distribution = "acme-fixed-point"
    classes = (FixedPointLinear,)
    cases = FIXED


class TestLinear(LayerTests):
    """Checks of the type `linear`, which this package overrides."""

    distribution = "acme-fixed-point"
    classes = (nn.Linear, ObservedLinear)
    derived = ("largest",)
    cases = LINEAR


def model_and_inputs():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(100, 4)


def observed():
    model, inputs = model_and_inputs()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert bitwise_equal(rebuilt(inputs), model(inputs))
    return rebuilt


def test_observed_layers_are_captured_while_they_observe():
    model, inputs = observed(), model_and_inputs()[1]
    before = model[0].largest
    ir = lg.to_ir(model, (inputs * 10,))
    assert model[0].largest == before
    assert ir.keys() == lg.to_ir(model).keys()


def test_what_is_rounded_is_what_the_bits_can_say():
    layer = FixedPointLinear(1, 1, total_bits=4, frac_bits=1, bias=False)
    nn.init.ones_(layer.weight)
    given = torch.tensor([[0.24], [0.25], [0.75], [-1.3], [9.0], [-9.0]])
    assert layer(given).flatten().tolist() == [0.0, 0.0, 1.0, -1.5, 3.5, -4.0]


def test_widths_come_back():
    model = observed()
    choose_widths(model, 8)
    ir = lg.to_ir(model)
    assert ir["0"].data["acme.total_bits"] == 8
    rebuilt = lg.to_torch(ir, model.state_dict())
    widths = [each.fixed_point for each in model if isinstance(each, nn.Linear)]
    assert [each.fixed_point for each in rebuilt if isinstance(each, nn.Linear)] == widths
    # Without this package, the built-in plugin makes the layers.
    plain = Ir2Torch(disable=["acme-fixed-point"]).convert(ir, model.state_dict())
    assert type(plain[0]) is nn.Linear


def test_more_bits_are_closer():
    model, inputs = model_and_inputs()
    errors = []
    for total_bits in (6, 10, 14):
        found = observed()
        choose_widths(found, total_bits)
        fixed = lg.to_torch(to_fixed_point(lg.to_ir(found)), model.state_dict())
        assert type(fixed[2]) is FixedPointLinear
        errors.append((fixed(inputs) - model(inputs)).abs().max())
    assert errors[0] > errors[1] > errors[2]


def test_bits_prints_the_widths_of_both_kinds_of_layers(tmp_path, capsys):
    model = nn.Sequential(with_widths(partial(nn.Linear, 3, 2)), FixedPointLinear(2, 2, 16, 9))
    lg.save(lg.to_ir(model), tmp_path / "model.json")
    assert bits(tmp_path / "model.json") == 0
    assert capsys.readouterr().out == (
        "'0': 8 bits, 4 after the point\n'1': 16 bits, 9 after the point\n"
    )
    lg.save(lg.to_ir(nn.Sequential(nn.Linear(1, 1))), tmp_path / "plain.json")
    assert bits(tmp_path / "plain.json") == 1
    assert capsys.readouterr().out == ""


def test_layers_of_both_modes_are_replaced():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = with_widths(partial(nn.Linear, 3, 3))

        def forward(self, x):
            return self.fc(x) + 1 if self.training else self.fc(self.fc(x))

    model, inputs = Noisy(), torch.randn(5, 3)
    ir = to_fixed_point(lg.to_ir(model, (inputs,)))
    fixed = lg.to_torch(ir, model.state_dict())
    assert type(fixed.fc) is FixedPointLinear
    assert bitwise_equal(fixed.train()(inputs), fixed.fc(inputs) + 1)
    assert bitwise_equal(fixed.eval()(inputs), fixed.fc(fixed.fc(inputs)))


def test_what_has_no_unit_is_refused():
    with pytest.raises(UnknownUnitError, match="0: it has no widths"):
        c_header(lg.to_ir(nn.Sequential(nn.Linear(1, 1))))
    with pytest.raises(UnknownUnitError, match="0: there is no unit for tanh"):
        c_header(lg.to_ir(nn.Sequential(nn.Tanh())))


def test_the_header_is_a_file_format(tmp_path):
    model, inputs = model_and_inputs()
    observed = lg.to_torch(lg.to_ir(model), model.state_dict())
    observed(inputs)
    choose_widths(observed, total_bits=16)
    ir = lg.to_ir(observed)
    path = tmp_path / "model.h"
    lg.save(ir, path)
    assert path.read_text() == c_header(ir)
    with pytest.raises(FileError, match="holds no weights"):
        lg.save(ir, path, observed.state_dict())
    with pytest.raises(FileError, match=r"no installed package reads files of that suffix"):
        lg.load(path)


def test_its_pass_runs_by_its_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU())
    ir, state, report = lg.run_passes(
        lg.to_ir(model), [("acme-round-weights", {"frac_bits": 2})], model.state_dict()
    )
    assert torch.equal(state["0.weight"] * 4, (model[0].weight * 4).round())
    assert [each.type for each in ir.values()].count("relu") == 1
    assert [entry.by for entry in report.applied] == ["acme-round-weights", "one-relu"]


class Quantized(nn.Module):
    """Fixed-point inputs, binary weights, ternary activations."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(4, 8) / 2)
        self.second = nn.Parameter(torch.randn(8, 2) / 2)

    def forward(self, x):
        x = RoundToFixedPoint.apply(x, 8, 4)
        hidden = Ternarize.apply(x @ Binarize.apply(self.first), 0.1)
        return hidden @ Binarize.apply(self.second)


def trained(model, inputs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (model(inputs) - inputs[:, :2]).pow(2).mean().backward()
        optimizer.step()
    return [each.detach().clone() for each in model.parameters()]


def test_gradients_pass_the_quantizers_where_numbers_are_in_range():
    given = [-9.0, -0.5, 0.03, 0.5, 9.0]
    for quantize, wanted, passed in [
        (Binarize.apply, [-1, -1, 1, 1, 1], [0, 1, 1, 1, 0]),
        (lambda x: Ternarize.apply(x, 0.1), [-1, -1, 0, 1, 1], [0, 1, 1, 1, 0]),
        (lambda x: RoundToFixedPoint.apply(x, 8, 4), [-8, -0.5, 0, 0.5, 7.9375], [0, 1, 1, 1, 0]),
    ]:
        x = torch.tensor(given, requires_grad=True)
        y = quantize(x)
        y.sum().backward()
        assert y.tolist() == wanted
        assert x.grad.tolist() == passed


@pytest.mark.parametrize("example", [(torch.randn(3, 4),), None], ids=["run", "traced"])
def test_a_quantized_model_trains_alike_through_a_file(tmp_path, example):
    torch.manual_seed(0)
    model, inputs = Quantized(), torch.randn(16, 4)
    before = [each.detach().clone() for each in model.parameters()]
    ir = lg.to_ir(model, example)
    assert [each.implementation for each in ir["root"].nodes.values()].count(
        "acme_fixed_point.quantizers.Binarize"
    ) == 2
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    loaded = lg.load_model(path)
    assert bitwise_equal(loaded(inputs), model(inputs))
    wanted = trained(model, inputs)
    assert bitwise_equal(trained(loaded, inputs), wanted)
    assert not any(map(torch.equal, wanted, before))


def test_a_fixed_point_layer_can_be_trained():
    layer = FixedPointLinear(3, 2, 16, 8)
    layer(torch.randn(5, 3)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
