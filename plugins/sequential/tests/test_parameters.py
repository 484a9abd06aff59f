"""Containers of parameters: to an IR and back."""

import copy

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError
from layergraph.testing import bitwise_equal


def parameter(*size):
    return nn.Parameter(torch.randn(size))


class Holding(nn.Module):
    """Holds a container that its forward does not read."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return x * 2


class Reading(nn.Module):
    """Reads its parameters in every way. It does not read one of them."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([parameter(3, 3) for _ in range(4)])
        self.named = nn.ParameterDict()
        # The names are not in alphabetical order.
        for key in ("scale", "a b", "bias", "0"):
            self.named[key] = parameter(3)
        self.empty = nn.ParameterList()

    def forward(self, x):
        for weight in self.weights:
            x = (x @ weight).tanh()
        for index in range(1, len(self.weights) - 1):
            x = x @ self.weights[index] + self.named["bias"]
        for key, value in self.named.items():
            x = x * value if key in ("scale", "a b") else x
        return x + self.named.get("none", 1.0)


def test_they_come_back_as_what_they_are(round_trip):
    model = Reading()
    ir, rebuilt = round_trip(model, torch.randn(5, 3))
    assert ir["weights"].type == "parameterlist"
    assert ir["named"].type == "parameterdict"
    assert repr(rebuilt.weights) == repr(model.weights)
    assert repr(rebuilt.named) == repr(model.named)
    assert list(rebuilt.named) == ["scale", "a b", "bias", "0"]
    assert [len(each) for each in rebuilt.children()] == [4, 4, 0]
    assert all(a is b for a, b in zip(rebuilt.weights, rebuilt.weights.parameters(), strict=True))


def test_they_can_be_changed_afterwards():
    rebuilt = lg.to_torch(lg.to_ir(Reading()))
    rebuilt.weights.append(parameter(3, 3))
    rebuilt.named["more"] = parameter(3)
    assert list(rebuilt.state_dict())[4:] == [
        "weights.4", "named.scale", "named.a b", "named.bias", "named.0", "named.more"
    ]  # fmt: skip


HOLDERS = {
    "list": lambda: nn.ParameterList([parameter(2), parameter(), parameter(0, 3)]),
    "dict": lambda: nn.ParameterDict([("b", parameter(2)), ("a", parameter(3, 1))]),
    "empty list": nn.ParameterList,
    "empty dict": nn.ParameterDict,
    "frozen": lambda: nn.ParameterList([parameter(2), parameter(2).requires_grad_(False)]),
    "dtypes": lambda: nn.ParameterDict(
        {
            "f16": nn.Parameter(torch.randn(2).half()),
            "f64": nn.Parameter(torch.randn(2).double()),
            "c64": nn.Parameter(torch.randn(2, dtype=torch.complex64)),
            "i64": nn.Parameter(torch.arange(3), requires_grad=False),
            "b": nn.Parameter(torch.ones(2, dtype=torch.bool), requires_grad=False),
        }
    ),
    "turned": lambda: nn.ParameterList([nn.Parameter(torch.randn(2, 3).t())]),
    "the same twice": lambda: nn.ParameterList([parameter(2)] * 2),
    "evaluating": lambda: nn.ParameterList([parameter(2)]).eval(),
}


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS.keys())
def test_they_come_back_where_no_code_reads_them(make, default):
    model = Holding(make())
    ir = lg.to_ir(model)
    was = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        rebuilt = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    finally:
        torch.set_default_dtype(was)
    one, other = model.held, rebuilt.held
    assert type(other) is type(one)
    assert repr(other) == repr(one)
    assert other.training == one.training
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    assert [a is b for a in other for b in other] == [a is b for a in one for b in one]
    for mine, theirs in zip(model.parameters(), rebuilt.parameters(), strict=True):
        assert bitwise_equal(mine, theirs)
        assert (mine.dtype, mine.stride()) == (theirs.dtype, theirs.stride())
        assert mine.requires_grad == theirs.requires_grad
    assert repr(copy.deepcopy(rebuilt).held) == repr(one)


def with_buffer():
    module = nn.ParameterList([parameter(2)])
    module.register_buffer("own", torch.ones(2))
    return module


def with_child():
    module = nn.ParameterDict({"a": parameter(2)})
    module.add_module("own", nn.Linear(2, 2))
    return module


def with_others():
    module = nn.ParameterList([parameter(2)])
    module.register_parameter("own", parameter(2))
    return module


def with_none():
    module = nn.ParameterDict({"a": parameter(2)})
    module["a"] = None
    return module


def in_another_order():
    module = nn.ParameterDict([("a", 1.0), ("b", parameter(2))])
    module["a"] = parameter(3)
    return module


def of_a_subclass():
    return type("Own", (nn.ParameterList,), {})([parameter(2)])


@pytest.mark.parametrize(
    "make",
    [
        with_buffer, with_child, with_others, with_none, in_another_order, of_a_subclass,
        lambda: nn.ParameterList([parameter(2), 3.0]),
        lambda: nn.ParameterDict({"a": parameter(2), "b": "text"}),
        lambda: nn.ParameterList([parameter(2), nn.Linear(2, 2)]),
    ],
)  # fmt: skip
def test_those_that_hold_other_things_keep_their_state_but_not_their_class(make):
    model = Holding(make())
    ir = lg.to_ir(model)
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert ir["held"].type == "module"
    assert list(rebuilt.state_dict()) == list(model.state_dict())


def test_a_number_among_the_parameters_is_read_where_it_is_used(round_trip):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.mixed = nn.ParameterDict({"factor": 3.0, "weight": parameter(3)})

        def forward(self, x):
            return x * self.mixed["factor"] + self.mixed["weight"]

    round_trip(Mixed(), torch.randn(2, 3))


@pytest.mark.parametrize("name", ["1", "a"])
def test_a_list_counts_its_tensors(name):
    ir = lg.to_ir(Holding(nn.ParameterList([parameter(2)])))
    tensors = ir["held"].tensors
    tensors[name] = tensors.pop("0")
    with pytest.raises(BuildError, match="number them from 0"):
        lg.to_torch(ir)


@pytest.mark.parametrize(("field", "value"), [("kind", "buffer"), ("kind", None), ("shape", None)])
@pytest.mark.parametrize("name", ["list", "dict"])
def test_tensors_that_are_no_parameters_are_refused(name, field, value):
    ir = lg.to_ir(Holding(HOLDERS[name]()))
    setattr(next(iter(ir["held"].tensors.values())), field, value)
    with pytest.raises(BuildError, match="holds parameters"):
        lg.to_torch(ir)


@pytest.mark.parametrize("kind", ["parameterlist", "parameterdict"])
def test_children_are_refused(kind):
    ir = lg.to_ir(Holding(nn.ModuleList([nn.ReLU()])))
    ir["held"].type = kind
    with pytest.raises(BuildError, match="children 0"):
        lg.to_torch(ir)
