"""Wrappers in one process, and the use of the hook ``unwrap`` in the core."""

from __future__ import annotations

import types

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import hookimpl
from layergraph.errors import CaptureError, PluginError, StateError
from layergraph.hook_types.wrapping import Unwrapped
from layergraph.plugins import Plugin, installed_plugins
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir

X = torch.randn(3, 4)
WRAPS = {
    "DataParallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "both": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
}


def net():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))


def without_annotations(ir):
    return {
        name: {key: each for key, each in said.items() if "." not in key}
        for name, said in ir.to_dict().items()
    }


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("around", [lambda model: model, nn.Sequential], ids=["alone", "inside"])
@pytest.mark.parametrize("args", [None, (X,), (X.to("meta"),)], ids=["symbols", "inputs", "meta"])
def test_the_ir_is_that_of_the_plain_model(wrap, around, args, tmp_path):
    plain = net()
    model = around(wrap(plain))
    ir = lg.to_ir(model, args)
    assert without_annotations(ir) == lg.to_ir(around(plain), args and (X,)).to_dict()
    state = model.state_dict()
    assert not set(state) & set(plain.state_dict())
    lg.save(ir, tmp_path / "model.safetensors", state)
    for rebuilt in (lg.to_torch(ir, state), lg.load_model(tmp_path / "model.safetensors")):
        assert list(rebuilt.state_dict()) == list(around(plain).state_dict())
        assert bitwise_equal(rebuilt.train()(X), plain.train()(X))
        rebuilt.load_state_dict(around(plain).state_dict())
        assert bitwise_equal(rebuilt.eval()(X), plain.eval()(X))


def test_a_wrapper_with_code_of_its_own_is_refused():
    class Scaled(nn.DataParallel):
        def forward(self, x):
            return super().forward(x) * 2

    hooked = nn.DataParallel(net())
    hooked.register_forward_hook(lambda *_: None)
    for model in (Scaled(net()), hooked):
        with pytest.raises(CaptureError, match=r"convert its \.module"):
            lg.to_ir(model, (X,))


@pytest.mark.parametrize("is_on_meta", [False, True])
def test_an_error_leaves_the_wrappers_in_place(is_on_meta):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.DataParallel(net())

        def forward(self, x):
            raise KeyError("on purpose")

    model = Fails()
    before = dict(model.named_modules()), dict(model.named_parameters())
    with pytest.raises(CaptureError, match="on purpose"):
        lg.to_ir(model, (X.to("meta") if is_on_meta else X,))
    after = dict(model.named_modules()), dict(model.named_parameters())
    assert all(
        list(was) == list(now) and all(was[name] is now[name] for name in was)
        for was, now in zip(before, after, strict=True)
    )
    assert type(model.inner) is nn.DataParallel


def test_inputs_on_meta_need_no_numbers():
    class Shifts(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)
            self.register_buffer("shift", torch.rand(4), persistent=False)

        def forward(self, x):
            return self.lin(x) + self.shift if x.shape[0] > 2 else x

    model = Shifts()
    assert lg.to_ir(model, (X.to("meta"),)) == lg.to_ir(model, (X,))
    assert not model.lin.weight.is_meta

    class Decides(Shifts):
        def forward(self, x):
            return x if self.shift.sum() > 0 else -x

    with pytest.raises(CaptureError, match="inputs with numbers if its code looks at these"):
        lg.to_ir(Decides(), (X.to("meta"),))


def test_a_recurrent_layer_on_meta():
    class Recurs(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 4)

        def forward(self, x):
            return self.lstm(x)[0]

    model = Recurs()
    flat = list(model.lstm._flat_weights)
    assert lg.to_ir(model, (X.to("meta"),)) == lg.to_ir(model, (X,))
    assert all(map(lambda one, other: one is other, model.lstm._flat_weights, flat))


def test_tensors_that_a_model_also_keeps_in_a_list():
    class Lists(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)
            self.both = [self.lin.weight, self.lin.bias]

        def forward(self, x):
            return nn.functional.linear(x, *self.both)

    model = Lists()
    both = model.both
    assert lg.to_ir(model, (X.to("meta"),)) == lg.to_ir(model, (X,))
    assert model.both is both
    assert both[0] is model.lin.weight


def test_a_state_dict_of_a_wrapped_model_is_read_under_plain_keys():
    class Has(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(4, 4)

        def forward(self, x):
            return self.module(x)

    model = Has()
    ir = lg.to_ir(model)
    state = nn.DataParallel(model).state_dict()
    assert list(state) == ["module.module.weight", "module.module.bias"]
    assert bitwise_equal(lg.to_torch(ir, state)(X), model(X))
    # The converter refuses an ambiguous key.
    twice = {**state, "_orig_mod.module.weight": torch.zeros(4, 4)}
    with pytest.raises(StateError, match=r"'module\.weight' is missing"):
        lg.to_torch(ir, twice)
    more = {**state, "module.module.scale": torch.zeros(1)}
    with pytest.raises(StateError, match=r"'module\.module\.scale' is not one of the model"):
        lg.to_torch(ir, more)


# --- the hook ---


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 1


def convert(answer, model):
    """Convert a model with a plugin that unwraps, beside the installed ones."""
    holder = types.ModuleType("acme")

    @hookimpl
    def unwrap(module):
        return answer(module)

    holder.unwrap = unwrap
    return Torch2Ir((*installed_plugins(), Plugin("acme", "1", "acme", holder))).convert(model)


def test_a_plugin_unwraps_its_own_wrapper():
    made = []

    def answer(module):
        if type(module) is Around:
            return Unwrapped(module.inner, annotations={"acme.wrapper": 1})
        if type(module) is nn.Linear and module.out_features == 4:
            attributes = {**vars(module), "out_features": 5}
            tensors = {"weight": weight, "bias": lambda: torch.ones(5)}
            return Unwrapped(module, attributes=attributes, tensors=tensors)
        return None

    def weight():
        made.append(1)
        return torch.ones(5, 4)

    model = Around(Around(nn.Linear(4, 4)))
    linear = model.inner.inner
    ir = convert(answer, model)
    assert ir["root"].attributes["out_features"] == 5
    assert ir["root"].data["acme.wrapper"] == 1
    assert linear.out_features == 4
    assert linear.weight.shape == (4, 4)
    assert made == [1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Unwrapped, "still wrapped after 64 answers"),
        (lambda module: 3, "returned 3; it must return an Unwrapped or None"),
    ],
)
def test_an_answer_that_is_wrong(answer, said):
    with pytest.raises(PluginError, match=said):
        convert(answer, net())
