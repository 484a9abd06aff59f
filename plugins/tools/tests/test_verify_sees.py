"""Each kind of fault that changed a rebuilt model: inserted again, and found by ``verify``."""

from __future__ import annotations

import functools
import os
import random

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import literals as symbols
from layergraph.ir2torch import load as weights
from layergraph.tensors.memory import same_bytes
from layergraph.testing import bitwise_equal
from layergraph.torch2ir.indexing import tensor_specs
from layergraph.torch2ir.tracing import proxy
from layergraph.torch2ir.tracing import tracer as capture
from layergraph_files import load as files_load
from layergraph_tools.verification import round_trip
from layergraph_tools.verification.comparison import difference, told
from layergraph_tools.verification.subject import Subject
from layergraph_tools.verification.surroundings import OTHER_SETTINGS

X = torch.randn(3, 4)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.linear(x)) + torch.rand(4)


class Given(nn.Module):
    def forward(self, given):
        return given["x"] * 2


def _failed(report):
    return [check.name for check in report.checks if check.status == "failed"]


def _own(base=Net, **methods):
    return type("Own", (base,), methods)()


def _is_frozen(self, mode=True):
    nn.Module.train(self, mode)
    self.norm.eval()
    return self


def _keeps_float(self, fn, recurse=True):
    nn.Module._apply(self, fn, recurse)
    self.norm.float()
    return self


def _freezes_some(self, wanted=True):
    self.linear.requires_grad_(wanted)
    return self


OVERRIDDEN = {
    "train": (_is_frozen, "train() and eval()"),
    "_apply": (_keeps_float, "casts"),
    "requires_grad_": (_freezes_some, "casts"),
}


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_a_lost_override(name, monkeypatch):
    method, check = OVERRIDDEN[name]
    model = _own(**{name: method})
    assert name != "train" or lg.verify(model, (X,)).ok
    monkeypatch.setattr(tensor_specs, "kept_modes", lambda *_, **__: {})
    assert check in _failed(lg.verify(model, (X,)))


@pytest.mark.parametrize("returned", [torch.sort, lambda x: {"shape": [x.shape]}])
def test_a_lost_type(returned, monkeypatch):
    model = _own(nn.Module, forward=lambda self, x: returned(x))
    assert lg.verify(model, (X,)).ok
    monkeypatch.setattr(symbols, "record_of", lambda _: None)
    monkeypatch.setattr(capture, "size_record", tuple)
    assert "given inputs" in _failed(lg.verify(model, (X,)))


def test_weights_of_a_file_at_odd_addresses(monkeypatch):
    def moved(path, *, device):
        model = lg.load_model(path, device=device)
        memory = torch.empty(17)
        model.linear.weight.data = memory[1:].view(4, 4).copy_(model.linear.weight.detach())
        return model

    monkeypatch.setattr(files_load, "load_model", moved)
    assert _failed(lg.verify(Net(), (X,))) == ["through a file"]


def test_a_bit_lost_in_a_file(monkeypatch):
    def changed(path, *, device):
        model = lg.load_model(path, device=device)
        model.norm.running_mean[0] = -0.0
        return model

    monkeypatch.setattr(files_load, "load_model", changed)
    assert _failed(lg.verify(Net(), (X,))) == ["through a file"]


# Side effects that a faulty rebuilt model may have, as code around a call of the model.


def _seeds(_, args):
    torch.manual_seed(0)


def _draws(*_):
    torch.rand(1)


def _draws_from_python(*_):
    random.random()


def _leaves_another_dtype(*_):
    torch.set_default_dtype(torch.float64)


def _by_gradients(_, args, output):
    return output if torch.is_grad_enabled() else output * 2


def _by_inference(_, args, output):
    return output * 2 if torch.is_inference_mode_enabled() else output


def _by_default_dtype(_, args, output):
    return output if torch.get_default_dtype() is torch.float32 else output * 2


def _by_determinism(_, args, output):
    return output * 2 if torch.are_deterministic_algorithms_enabled() else output


def _by_a_switch(_, args, output):
    return output if torch._C._get_deterministic_fill_uninitialized_memory() else output * 2


def _in_autocast(_, args, output):
    return output.to(torch.get_autocast_dtype("cpu")).float()


def _leaves_a_switch(*_):
    torch.backends.cudnn.benchmark = True


def _by_autocast(_, args, output):
    return output * 2 if torch.is_autocast_enabled("cpu") else output


def _by_calls(_, args, output, *, calls):
    calls.append(1)
    return output + len(calls)


OUTSIDE = {
    "a seed of its own": ("pre", _seeds, "given inputs"),
    "a number drawn more": ("post", _draws, "given inputs"),
    "a number of Python drawn": ("post", _draws_from_python, "given inputs"),
    "a default dtype left": ("post", _leaves_another_dtype, "given inputs"),
    "gradients that decide": ("post", _by_gradients, "other settings"),
    "a default dtype that decides": ("post", _by_default_dtype, "other settings"),
    "determinism that decides": ("post", _by_determinism, "other settings"),
    "inference mode that decides": ("post", _by_inference, "other settings"),
    "another setting left": ("post", _leaves_a_switch, "given inputs"),
    "a switch that decides": ("post", _by_a_switch, "other settings"),
    "a dtype of autocast that decides": ("post", _in_autocast, "other settings"),
    "autocast that decides": ("post", _by_autocast, "autocast"),
    "calls that count": ("post", _by_calls, "called again"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_state_outside_of_the_model(name, monkeypatch):
    when, hook, check = OUTSIDE[name]
    if hook is _by_calls:
        hook = functools.partial(hook, calls=[])

    def to_torch(*args):
        rebuilt = lg.to_torch(*args)
        register = rebuilt.register_forward_pre_hook if when == "pre" else None
        (register or rebuilt.register_forward_hook)(hook)
        return rebuilt

    python, benchmark = random.getstate(), torch.backends.cudnn.benchmark
    assert lg.verify(Net(), (X,)).ok
    monkeypatch.setattr(round_trip, "to_torch", to_torch)
    assert check in _failed(lg.verify(Net(), (X,)))
    assert random.getstate() == python
    assert torch.get_default_dtype() is torch.float32
    assert torch.backends.cudnn.benchmark == benchmark


def _by_number(self, x):
    return self.linear(x) * float(os.environ.get("ACME_SCALE", "3"))


def _by_text(self, x):
    return self.linear(x) * float(os.path.expandvars("$ACME_SCALE"))


def _by_switch(self, x):
    return self.linear(x) * (2 if os.environ.get("ACME_SCALE") == "on" else 3)


@pytest.mark.parametrize(
    ("forward", "value"),
    [(_by_number, None), (_by_number, "4"), (_by_text, "4"), (_by_switch, "on")],
)
def test_a_number_of_the_environment(forward, value, monkeypatch):
    if value is not None:
        monkeypatch.setenv("ACME_SCALE", value)
    model = _own(forward=forward)
    monkeypatch.setattr(capture, "environment", lambda _: iter(()))
    before = dict(os.environ)
    report = lg.verify(model, (X,))
    assert _failed(report) == ["other environment"]
    assert "ACME_SCALE: output: 12 of 12 numbers differ" in str(report)
    assert dict(os.environ) == before


def test_a_variable_that_is_noted_is_refused_where_it_differs():
    model = _own(forward=lambda self, x: x * 2 if os.environ.get("ACME_SWITCH") else x)
    statuses = {check.name: check.status for check in lg.verify(model, (X,)).checks}
    assert statuses["other environment"] == "refused"


def _takes_rows(self, x):
    one, two, three = x.unbind(0)
    return self.linear(one) * two + three


def _takes_parts(self, x):
    one, two, three = x.split(1)
    return self.linear(one) * two + three


@pytest.mark.parametrize("forward", [_takes_rows, _takes_parts])
def test_a_length_that_is_not_checked(forward, monkeypatch):
    model = _own(forward=forward)
    assert lg.verify(model, (X,)).ok
    monkeypatch.setattr(proxy, "_ASSUME_LENGTH", "builtins.len")
    monkeypatch.setattr(proxy, "code_place", lambda: None)
    monkeypatch.setattr(
        proxy.Proxy, "__iter__", lambda self: iter([self[index] for index in range(3)])
    )
    report = lg.verify(model, (X,))
    assert _failed(report) == ["another batch size"]
    assert "too many values to unpack (expected 3); the model of a capture without inputs" in str(
        report
    )


def test_what_only_a_capture_without_inputs_computes(monkeypatch):
    model = _own(forward=lambda self, x: self.linear(x) * 2)

    def to_ir(model, args=None, kwargs=None, **options):
        if args is None and kwargs is None:
            return lg.to_ir(_own(forward=lambda self, x: self.linear(x) * 3))
        return lg.to_ir(model, args, kwargs, **options)

    assert lg.verify(model, (X,)).ok
    monkeypatch.setattr(round_trip, "to_ir", to_ir)
    assert _failed(lg.verify(model, (X,))) == ["captured without inputs"]


def test_two_values_for_one_tensor(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert lg.verify(model).ok
    monkeypatch.setattr(weights, "_says_the_same", lambda *_: True)
    assert _failed(lg.verify(model)) == ["ties"]


def test_more_than_the_original_takes(monkeypatch):
    def takes_three(self, x):
        if x.shape[0] != 3:
            raise ValueError("three rows, please")
        return self.linear(x)

    model = _own(forward=takes_three)
    assert lg.verify(model, (X,)).ok
    monkeypatch.setattr(round_trip, "to_ir", lambda *_, **__: lg.to_ir(_own(forward=_linear)))
    report = lg.verify(model, (X,))
    assert _failed(report) == ["another batch size"]
    assert "ValueError: three rows, please; the rebuilt model accepts them" in str(report)


def _linear(self, x):
    return self.linear(x)


class Keeps(Net):
    """Caches a table in the default dtype of its first call, as many models do."""

    def __init__(self):
        super().__init__()
        self.hooked = False
        self.register_buffer("table", None)

    def forward(self, x):
        if not self.hooked:
            self.hooked = True
            self.linear.register_forward_hook(lambda _, __, output: output * 2)
        if self.table is None or self.table.dtype is not torch.get_default_dtype():
            self.table = torch.arange(4) / 3
        return self.linear(x) * self.table


def test_what_a_call_keeps_of_other_settings_is_forgotten():
    subject = Subject(Keeps(), Keeps(), ())
    first = subject.seen(((X,), {}), 1)["output"].clone()
    table = subject.module.table
    with_others = OTHER_SETTINGS["another default dtype"]
    assert subject.seen(((X,), {}), 1, within=with_others)["output"].dtype is torch.float64
    assert subject.module.table is table
    assert bitwise_equal(subject.seen(((X,), {}), 1)["output"], first)


def test_what_is_like_torch_is_cast_without_copying_graphs():
    rebuilt = lg.to_torch(lg.to_ir(Net(), (X,)))
    members = {name: vars(each).copy() for name, each in rebuilt.named_modules()}
    tensors = list(map(id, rebuilt.state_dict(keep_vars=True).values()))
    found = Subject(rebuilt, rebuilt, ()).casts()
    assert found["linear.weight after double(): dtype"] is torch.float64
    assert not found["linear.weight after requires_grad_(False): requires_grad"]
    assert list(map(id, rebuilt.state_dict(keep_vars=True).values())) == tensors
    assert {name: vars(each) for name, each in rebuilt.named_modules()} == members
    assert rebuilt.linear.weight.dtype is torch.float32


def test_a_dict_of_the_caller(monkeypatch):
    def to_torch(*args):
        rebuilt = lg.to_torch(*args)
        rebuilt.register_forward_hook(lambda _, args, __: args[0].update(y=1))
        return rebuilt

    assert lg.verify(Given(), ({"x": X},)).ok
    monkeypatch.setattr(round_trip, "to_torch", to_torch)
    report = lg.verify(Given(), ({"x": X},))
    assert "given inputs" in _failed(report)
    assert "a dict of 1" in str(report)


class Pair(tuple):
    pass


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2).sort(), (torch.zeros(2), torch.arange(2))),
        (torch.zeros(2).sort(), torch.zeros(2, 1).max(1)),
        (torch.Size([1]), (1,)),
        (Pair((1,)), (1,)),
        ([1], (1,)),
        (1, True),
        (0.0, -0.0),
        (torch.zeros(1), -torch.zeros(1)),
        (torch.zeros(1), torch.zeros(1, requires_grad=True)),
        (torch.tensor([torch.inf]), torch.tensor([-torch.inf])),
        (torch.zeros(1), torch.zeros(1, dtype=torch.float64)),
        (torch.zeros(1), torch.zeros(1, 1)),
    ],
)
def test_what_is_not_the_same(one, other):
    was, now = dict(told("", one)), dict(told("", other))
    assert any(difference(was[name], now.get(name)) for name in was)
    assert not any(difference(each, was[name]) for name, each in was.items())


@pytest.mark.parametrize("size", [1, 5000, 5003])
@pytest.mark.parametrize("begin", [0, 3, 8])
def test_every_byte_counts(size, begin):
    one = torch.zeros(begin + size, dtype=torch.uint8)[begin:]
    for place in (0, size // 2, size - 1):
        other = torch.zeros(size, dtype=torch.uint8)
        assert same_bytes(one, other)
        other[place] = 1
        assert not same_bytes(one, other)


def test_bits_of_a_nan_count_where_nothing_is_computed():
    one, other = torch.tensor([torch.nan]), torch.tensor([-torch.nan])
    assert not difference(one, other)
    assert difference(one, other, exact=True) == "the bits of a nan differ"


@pytest.mark.parametrize("name", ["args", "kwargs"])
def test_a_tensor_in_the_place_of_arguments(name):
    with pytest.raises(TypeError, match=f"{name} is a Tensor; give a"):
        lg.verify(Net(), **{name: X})


def test_a_compiled_model_is_verified_as_it_was_written():
    report = lg.verify(torch.compile(Net(), backend="eager"), (X,))
    assert report.ok, report


@pytest.mark.parametrize("home", [round_trip, files_load], ids=["built", "loaded"])
def test_another_order_in_memory(home, monkeypatch):
    name = "to_torch" if home is round_trip else "load_model"
    build = getattr(home, name)

    def contiguous(*args, **kwargs):
        return build(*args, **kwargs).to(memory_format=torch.contiguous_format)

    model = nn.Sequential(nn.Conv2d(3, 3, 3)).to(memory_format=torch.channels_last)
    assert lg.verify(model, (torch.randn(2, 3, 8, 8),)).ok
    monkeypatch.setattr(home, name, contiguous)
    assert _failed(lg.verify(model, (torch.randn(2, 3, 8, 8),)))


def test_a_lost_gradient_of_an_input(monkeypatch):
    def detached(*args, build=round_trip.to_torch, **kwargs):
        model = build(*args, **kwargs)
        model.register_forward_pre_hook(lambda _, given: (given[0].detach(),))
        return model

    x = torch.randn(2, 4, requires_grad=True)
    assert lg.verify(nn.Linear(4, 4), (x,)).ok
    monkeypatch.setattr(round_trip, "to_torch", detached)
    assert _failed(lg.verify(nn.Linear(4, 4), (x,))) == ["training"]


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 1)],
    ids=str,
)
@pytest.mark.parametrize("format_", [torch.channels_last, torch.contiguous_format], ids=str)
def test_the_strides_of_kernels_of_one_channel_or_pixel_stay(conv, format_):
    model = nn.Sequential(conv).to(memory_format=format_)
    report = lg.verify(model, (torch.randn(2, conv.in_channels, 8, 8),))
    assert report.ok, report
    assert report.rebuilt[0].weight.stride() == model[0].weight.stride()
