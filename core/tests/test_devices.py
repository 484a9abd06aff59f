"""The device of a build, and models on the meta device, which get their memory later."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, StateError
from layergraph.ir import TensorSpec
from layergraph.ir2torch import Ir2Torch
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir


class Everything(nn.Module):
    """Has all kinds of tensors, in a composite and in leaves, some of them under several names."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(10, 4, padding_idx=0)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.again = self.body
        self.double_one = nn.Linear(4, 4, bias=False, dtype=torch.float64)
        self.lm_head = nn.Linear(4, 10, bias=False)
        self.lm_head.weight = self.wte.weight
        self.scale = nn.Parameter(torch.rand(4), requires_grad=False)
        self.register_buffer("shift", torch.rand(4))
        self.register_buffer("turned", torch.rand(4, 2).t(), persistent=False)
        self.register_buffer("same_turned", self.turned, persistent=False)
        self.constant = torch.rand(4)
        self.many = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))])

    def forward(self, ids):
        x = self.again(self.body(self.wte(ids)))
        x = self.double_one(x.double()).float() * self.scale + self.shift
        return self.lm_head(x), x @ self.turned.t() + self.constant[:2], self.same_turned.sum()


IDS = torch.tensor([1, 0, 3, 9])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Everything()


def _tensors(model):
    # named_buffers() and its like would leave out further names of a tensor.
    return {
        f"{path}.{name}": tensor
        for path, module in model.named_modules(remove_duplicate=False)
        for held in (module._parameters, module._buffers)
        for name, tensor in held.items()
        if tensor is not None
    }


def _assert_all_alike(model, rebuilt):
    mine, theirs = _tensors(model), _tensors(rebuilt)
    assert {rebuilt.lm_head.weight, rebuilt.wte.weight} == {rebuilt.wte.weight}
    assert rebuilt.again is rebuilt.body
    assert rebuilt.same_turned is rebuilt.turned
    assert rebuilt.turned.stride() == model.turned.stride()
    for name, tensor in mine.items():
        assert theirs[name].dtype is tensor.dtype, name
        assert theirs[name].requires_grad == tensor.requires_grad, name
        assert bitwise_equal(theirs[name], tensor), name
    for one, other in zip(model(IDS), rebuilt(IDS), strict=True):
        assert bitwise_equal(one, other)


def test_nothing_is_left_out(model, round_trip):
    _, rebuilt = round_trip(model, IDS)
    _assert_all_alike(model.eval(), rebuilt.eval())


def test_on_meta_nothing_takes_memory_and_it_runs(model):
    rebuilt = lg.to_torch(lg.to_ir(model), device="meta")
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    for name, tensor in _tensors(model).items():
        mine = _tensors(rebuilt)[name]
        assert mine.is_meta, name
        assert mine.dtype is tensor.dtype, name
        assert mine.shape == tensor.shape, name
        assert mine.stride() == tensor.stride(), name
        assert mine.requires_grad == tensor.requires_grad, name
        assert type(mine) is type(tensor), name
    for one, other in zip(rebuilt(IDS.to("meta")), model(IDS), strict=True):
        assert one.is_meta
        assert one.shape == other.shape


def _without_duplicates(state):
    return {key: value for key, value in state.items() if not key.startswith(("again", "lm_head"))}


COPIES = {
    "itself": lambda model: model,
    "a copy": copy.deepcopy,
    "a pickle": lambda model: pickle.loads(pickle.dumps(model)),
}

LOADS = {
    "assigned": lambda model, state: model.load_state_dict(state, assign=True),
    "copied": lambda model, state: model.to_empty(device="cpu").load_state_dict(state),
    "as a child": lambda model, state: nn.ModuleList([model]).load_state_dict(
        {f"0.{key}": value for key, value in state.items()}, assign=True
    ),
    "in two parts": lambda model, state: [
        model.load_state_dict(dict(part), strict=False, assign=True)
        for part in (list(state.items())[:5], list(state.items())[5:])
    ],
}


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("duplicates", [True, False])
def test_from_meta_to_memory(model, make, load, duplicates):
    rebuilt = COPIES[make](lg.to_torch(lg.to_ir(model), device="meta"))
    state = model.eval().state_dict()
    LOADS[load](rebuilt, state if duplicates else _without_duplicates(state))
    _assert_all_alike(model, rebuilt.eval())
    assert all(isinstance(tensor, nn.Parameter) for tensor in rebuilt.parameters())


def test_values_are_given_once(model):
    rebuilt = lg.to_torch(lg.to_ir(model), device="meta")
    rebuilt.load_state_dict(model.state_dict(), assign=True)
    rebuilt.turned.zero_()
    rebuilt.load_state_dict(model.state_dict(), assign=True)
    assert not rebuilt.turned.any()
    assert rebuilt.lm_head.weight is rebuilt.wte.weight


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_tie_that_is_cut_stays_cut(model, device):
    rebuilt = lg.to_torch(lg.to_ir(model), device=device)
    rebuilt.load_state_dict(model.state_dict(), assign=True)
    rebuilt.lm_head.weight = nn.Parameter(torch.zeros(10, 4))
    rebuilt.load_state_dict(model.state_dict(), assign=True)
    assert rebuilt.lm_head.weight is not rebuilt.wte.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("way", ["to_torch", *LOADS])
def test_recurrent_layers_run_on_the_tensors_that_they_register(way, dtype):
    # These layers also hold their parameters in a list.
    model = nn.Sequential(nn.LSTM(4, 4, num_layers=2), nn.GRU(4, 4)).to(dtype)
    model[0].weight_hh_l1 = model[0].weight_ih_l1
    model[0].bias_hh_l0.requires_grad_(False)
    to_ir, to_torch = Torch2Ir(), Ir2Torch()
    to_ir.register_override(nn.LSTM, lambda module: {"type": "own_lstm"})
    to_ir.register_override(nn.GRU, lambda module: {"type": "own_gru"})
    to_torch.register("own_lstm", lambda implementation: nn.LSTM(4, 4, num_layers=2))
    to_torch.register("own_gru", lambda implementation: nn.GRU(4, 4))
    # Put each into its own Sequential, because these layers return tuples.
    for layer in model:
        ir = to_ir.convert(nn.Sequential(layer))
        state = nn.Sequential(layer).state_dict()
        if way == "to_torch":
            rebuilt = to_torch.convert(ir, state)
        else:
            rebuilt = to_torch.convert(ir, device="meta")
            LOADS[way](rebuilt, state)
        inner = rebuilt[0]
        assert [id(each) for each in inner._flat_weights] == [
            id(getattr(inner, name)) for name in inner._flat_weights_names
        ]
        if isinstance(inner, nn.LSTM):
            assert inner.weight_hh_l1 is inner.weight_ih_l1
            assert not inner.bias_hh_l0.requires_grad
        assert {p.dtype for p in inner.parameters()} == {dtype}
        x = torch.randn(3, 2, 4, dtype=dtype)
        assert bitwise_equal(rebuilt(x)[0], layer(x)[0])


def test_a_leaf_alone_on_meta():
    batch_norm = nn.BatchNorm1d(4)
    rebuilt = lg.to_torch(lg.to_ir(batch_norm), device="meta")
    assert all(tensor.is_meta for tensor in rebuilt.state_dict().values())
    rebuilt.load_state_dict(batch_norm.state_dict(), assign=True)
    x = torch.randn(3, 4)
    assert bitwise_equal(rebuilt(x), batch_norm(x))


class Window(nn.Module):
    """Makes tensors without naming a device."""

    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.from_numpy(torch.ones(4).numpy()), persistent=False)
        self.register_buffer("saved", torch.ones(4, device="cpu"))
        self.weight = nn.Parameter(torch.from_numpy(torch.ones(4).numpy()))
        self.same_weight = self.weight

        self.plain = torch.ones(4)

    def forward(self, x):
        return x * self.window * self.weight * self.saved * self.plain


def test_tensors_made_elsewhere_are_brought():
    to_torch = Ir2Torch()
    to_torch.register("window", lambda implementation: Window())
    said = torch.full((4,), 2.0).numpy().tobytes()
    spec = TensorSpec(persistent=False, value=said)
    ir = lg.Ir([lg.Implementation("window", name="root", tensors={"window": spec})])
    rebuilt = to_torch.convert(ir, device="meta")
    assert all(tensor.is_meta for tensor in _tensors(rebuilt).values())
    assert rebuilt.same_weight is rebuilt.weight
    state = Window().state_dict()
    rebuilt.load_state_dict(state, assign=True)
    assert bitwise_equal(rebuilt(torch.ones(4)), torch.full((4,), 2.0))
    with torch.device("meta"):
        again = to_torch.convert(ir, state, device="cpu")
    assert bitwise_equal(again(torch.ones(4)), torch.full((4,), 2.0))


@pytest.mark.parametrize("state", [True, False])
def test_the_default_is_that_of_torch(model, state):
    ir = lg.to_ir(model)
    with torch.device("meta"):
        rebuilt = lg.to_torch(ir, model.state_dict() if state else None)
        here = lg.to_torch(ir, model.state_dict(), device=torch.device("cpu"))
    assert all(tensor.is_meta for tensor in _tensors(rebuilt).values())
    _assert_all_alike(model.eval(), here.eval())


def test_a_state_dict_without_values_is_refused(model):
    state = lg.to_torch(lg.to_ir(model), device="meta").state_dict()
    with pytest.raises(StateError, match=r"'scale' is on the meta device"):
        lg.to_torch(lg.to_ir(model), state)
    assert lg.to_torch(lg.to_ir(model), state, device="meta").scale.is_meta


def test_on_meta_a_state_dict_is_checked(model):
    with pytest.raises(StateError, match="'scale' is missing"):
        lg.to_torch(lg.to_ir(model), {}, device="meta")


@pytest.mark.parametrize("device", ["cdu", "cuda:77", 3.5, "vulkan", object()])
def test_devices_that_are_none(device):
    with pytest.raises(BuildError, match=r"nothing can be built on .*; name a device"):
        lg.to_torch(lg.to_ir(nn.Linear(2, 2)), device=device)
