"""State dicts: the same keys, the same objects under several of them, the same tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, StateError
from layergraph.tensors.state import all_tensors, with_tensors_like
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.again = self.inner
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.ones(4))
        self.same_scale = self.scale

    def forward(self, x):
        return self.head(self.again(self.inner(self.embed(x)))) * self.scale * self.same_scale


def _without_duplicates(model):
    seen = set()
    kept = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            kept[key] = tensor.detach()
        seen.add(id(tensor))
    return kept


@pytest.mark.parametrize("load", ["to_torch", "load_state_dict", "deepcopy", "as a child"])
@pytest.mark.parametrize("duplicates", [True, False])
def test_state_dict_loads_with_and_without_duplicates(load, duplicates):
    model = Tied()
    state = model.state_dict() if duplicates else _without_duplicates(model)
    assert len(state) == (13 if duplicates else 7)
    given = dict(state)
    rebuilt = lg.to_torch(lg.to_ir(model), state if load == "to_torch" else None)
    if load == "deepcopy":
        rebuilt = copy.deepcopy(rebuilt)
    if load == "as a child":
        nn.ModuleList([rebuilt]).load_state_dict({f"0.{key}": state[key] for key in state})
    elif load != "to_torch":
        rebuilt.load_state_dict(state)
    assert state.keys() == given.keys()
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    assert rebuilt.head.weight is rebuilt.embed.weight
    assert rebuilt.again is rebuilt.inner
    assert rebuilt.same_scale is rebuilt.scale
    assert bitwise_equal(rebuilt(X), model(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("scale"), None),
        (lambda s: (s.pop("scale"), s.pop("same_scale")), "'scale' is missing"),
        (lambda s: s.update(more=torch.zeros(1)), "'more' is not one of the model"),
        (lambda s: s.update(scale=torch.zeros(5)), "'scale' has shape"),
        (lambda s: s.update(scale=3), "'scale' is 3, no tensor"),
    ],
)
def test_state_dict_that_does_not_fit(change, message):
    model = Tied()
    ir = lg.to_ir(model)
    state = dict(model.state_dict())
    change(state)
    if message is None:
        assert bitwise_equal(lg.to_torch(ir, state)(X), model(X))
    else:
        with pytest.raises(StateError, match=message):
            lg.to_torch(ir, state)


@pytest.mark.parametrize("state", [5, "abc", [("0.weight", 1)]])
def test_state_dict_that_is_none(state):
    with pytest.raises(StateError, match="is no state dict"):
        lg.to_torch(lg.to_ir(Tied()), state)


def test_buffers_and_constants_travel_with_the_ir():
    class Buffers(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", torch.randn(4))
            self.register_buffer("fixed", torch.randn(4).to(torch.bfloat16), persistent=False)
            self.constants = [torch.randn(2, 4, dtype=torch.complex64), torch.tensor(7)]
            self.empty = torch.zeros(0, 4)

        def forward(self, x):
            x = x * self.kept + self.fixed + self.constants[1]
            return x.sum() + self.constants[0], torch.cat([x, self.empty])

    model = Buffers()
    rebuilt = lg.to_torch(lg.Ir.from_dict(lg.to_ir(model).to_dict()), model.state_dict())
    assert list(rebuilt.state_dict()) == ["kept"]
    assert rebuilt.fixed.dtype is torch.bfloat16
    for one, other in zip(model(X), rebuilt(X), strict=True):
        assert one.dtype is other.dtype
        assert bitwise_equal(one, other)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex128, torch.float8_e4m3fn]
)
def test_dtypes(dtype):
    model = nn.Sequential(nn.Linear(4, 4)).to(torch.complex64 if dtype.is_complex else None)
    model[0].weight.data = model[0].weight.data.to(dtype)
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert rebuilt[0].weight.dtype is dtype
    assert rebuilt[0].bias.dtype is model[0].bias.dtype


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.bfloat16, torch.complex64]
)
@pytest.mark.parametrize("persistent", [True, False])
def test_dtypes_of_buffers(dtype, persistent):
    class Buffered(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", torch.tensor([0, 1, 1, 0]).to(dtype), persistent)
            self.unread = nn.Linear(2, 2).eval().requires_grad_(requires_grad=False)

        def forward(self, x):
            return x * self.kept

    model = Buffered()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    assert rebuilt.kept.dtype is dtype
    assert bitwise_equal(rebuilt.kept, model.kept)
    assert [m.training for m in rebuilt.modules()] == [True, False]
    assert not any(p.requires_grad for p in rebuilt.parameters())


def test_what_would_lose_numbers_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    state = nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64)).state_dict()
    with pytest.raises(StateError, match=r"'0.weight' is complex where torch.float32 is wanted"):
        lg.to_torch(lg.to_ir(model), state)


def test_the_default_dtype_at_build_time_is_of_no_account():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    ir = lg.to_ir(model)
    torch.set_default_dtype(torch.float64)
    try:
        rebuilt = lg.to_torch(ir, model.state_dict())
        assert lg.to_ir(model) == ir
    finally:
        torch.set_default_dtype(torch.float32)
    assert {t.dtype for t in rebuilt.state_dict().values()} == {torch.float32, torch.int64}
    assert bitwise_equal(rebuilt(X), model(X))


def test_memory_format_of_weights_comes_back():
    model = nn.Sequential(nn.Conv2d(3, 8, 3)).to(memory_format=torch.channels_last)
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert rebuilt[0].weight.stride() == model[0].weight.stride()


def test_what_is_usual_goes_unsaid():
    ir = lg.to_ir(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    assert all(not each.tensors and each.training is None for each in ir.values())
    assert ir.to_dict()["0"] == {
        "name": "0",
        "type": "linear",
        "in_features": 4,
        "out_features": 4,
        "bias": True,
        "nodes": {},
        "edges": {},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float31"}, "no dtype"),
        ({"dtype": "manual_seed"}, "no dtype"),
        ({"value": b"123"}, "3 bytes"),
        ({"stride": (7,)}, "stride"),
        ({"shape": (5,), "kind": None}, "kind or shape"),
        ({"dtype": "int64"}, "requires_grad False"),
        ({"tied": "nothing"}, "tied to 'nothing'"),
        ({"tied": "scale"}, "tied to 'scale'"),
    ],
)
def test_specs_that_describe_no_tensor(change, message):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return x * self.scale

    form = lg.to_ir(Scaled()).to_dict()
    form["root"]["tensors"]["scale"].update(change)
    with pytest.raises((BuildError, lg.errors.InvalidIrError), match=message):
        lg.to_torch(form)


def test_tensors_like_those_of_a_module():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3), nn.ParameterList())
        module[1].register_buffer("mask", torch.ones(3, dtype=torch.bool), persistent=False)
        module[2].append(module[0].weight)
        module[1].bias.requires_grad_(False)
        module.append(module[0])
    alike = with_tensors_like(module)
    ours, theirs = list(all_tensors(alike)), list(all_tensors(module))
    assert [(name, persists) for name, _, persists in ours] == [
        (name, persists) for name, _, persists in theirs
    ]
    for (_, one, _), (_, other, _) in zip(ours, theirs, strict=True):
        assert one is not other
        assert type(one) is type(other)
        assert (one.shape, one.dtype, one.requires_grad) == (
            (other.shape, other.dtype, other.requires_grad)
        )
    assert alike.get_parameter("2.0") is alike.get_parameter("0.weight")
    assert alike.get_submodule("3") is alike.get_submodule("0")
    assert alike.get_submodule("0")._parameters["bias"] is None
