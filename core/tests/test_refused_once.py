"""Constructs that a graph cannot hold, and wrong example inputs: each is reported once, by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layergraph as lg
from layergraph.errors import ArgumentError, CaptureError, LayergraphError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


@torch.library.custom_op("layergraph_tests::tripled", mutates_args=())
def tripled(x: torch.Tensor) -> torch.Tensor:
    return x * 3


@tripled.register_fake
def _(x):
    return torch.empty_like(x)


tripled.register_autograd(lambda _, gradient: gradient * 3)


@torch.library.custom_op("layergraph_tests::both", mutates_args=())
def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x + 1, x - 1


class Model(nn.Module):
    def __init__(self, compute):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.compute = compute

    def forward(self, x):
        return self.compute(self.lin(x)) + 1


def grads(x):
    return torch.func.grad(lambda each: each.sum())(x)


FOREIGN = {
    "a custom operator": tripled,
    "by its packet": torch.ops.layergraph_tests.tripled,
    "by its overload": torch.ops.layergraph_tests.tripled.default,
    "of two results": lambda x: both(x)[0] * both(x)[1],
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("inner", [lambda m: m, nn.Sequential], ids=["alone", "inside"])
def test_a_custom_operator_is_no_problem_in_memory(name, inner):
    model = inner(Model(FOREIGN[name]))
    assert lg.preflight(model, (X,)).ok
    again = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    if name != "of two results":  # it has no gradient
        for each in (model, again):
            each(X).sum().backward()
    assert bitwise_equal(again(X).detach(), model(X).detach())
    for mine, other in zip(model.parameters(), again.parameters(), strict=True):
        assert (mine.grad is None and other.grad is None) or bitwise_equal(mine.grad, other.grad)


ONCE = {
    "the operator of cond": (
        lambda x: torch.ops.higher_order.cond(x.sum() > 0, torch.sin, torch.cos, (x,)),
        r"higher_order\.cond",
    ),
    "linearize": (lambda x: torch.func.linearize(torch.sin, x)[0], r"torch\.func\.linearize"),
    "jacobian": (torch.func.jacrev(torch.sum), r"torch\.(vmap|func\.grad)"),
    "forward jacobian": (torch.func.jacfwd(torch.sum), r"torch\.(vmap|func\.jvp)"),
    "hessian": (torch.func.hessian(torch.sum), r"torch\.(vmap|func\.(jvp|grad))"),
    "functionalize": (torch.func.functionalize(torch.sin), "functionalize"),
}


COND = "the operator of cond"
COND_UNDER_MODES = pytest.param(COND, marks=pytest.mark.needs("cond_under_modes"))


@pytest.mark.parametrize("name", [COND_UNDER_MODES if name == COND else name for name in ONCE])
@pytest.mark.parametrize("inner", [lambda m: m, nn.Sequential], ids=["alone", "inside"])
def test_one_thing_is_one_problem_that_names_it(name, inner):
    compute, named = ONCE[name]
    with pytest.raises(CaptureError, match=named) as it:
        lg.to_ir(inner(Model(compute)), (X,))
    (found,) = it.value.unsupported
    assert "please report a bug" not in str(it.value)
    assert "test_refused_once.py, line" in found.line


def test_what_is_refused_does_not_hide_the_rest():
    reads = Model(lambda x: x * float(x.sum().detach().numpy()))
    maps = Model(lambda x: x.detach().clone().map_(x.detach(), min))
    report = lg.preflight(nn.Sequential(maps, reads), (X,))
    assert [each.path for each in report.unsupported] == ["0", "1"]


def test_the_transform_is_free_again_afterwards():
    with pytest.raises(CaptureError):
        lg.to_ir(Model(ONCE["jacobian"][0]), (X,))
    assert bitwise_equal(torch.func.grad(torch.sum)(X), torch.ones_like(X), strides=False)
    assert bitwise_equal(torch.vmap(lambda row: row * 2)(X), X * 2)


# --- an example that the model does not take ---


class Checks(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        if x.shape[0] > 3:
            raise ValueError("at most three rows")
        return self.lin(x)


class Misspelt(Checks):
    def forward(self, x):
        return self.lin(x) + self.biass


UNFIT = {
    "shapes": (nn.Sequential(Checks()), torch.zeros(3, 5), "'0.lin'", "shapes cannot be mul"),
    "ranks": (nn.Sequential(nn.Conv2d(1, 1, 3)), torch.zeros(3), "'0'", "Expected 3D"),
    "dtypes": (nn.Sequential(nn.Embedding(3, 2)), torch.zeros(3), "'0'", "tensor for argument"),
    "a number": (nn.Sequential(nn.Embedding(3, 2)), torch.tensor([7]), "'0'", "out of range"),
    "its own check": (Checks(), torch.zeros(4, 4), "'the model'", "at most three rows"),
    "its own fault": (nn.Sequential(Misspelt()), X, "'0'", "biass"),
    "a root layer": (nn.Linear(4, 2), torch.zeros(3, 5), "'the model'", "shapes cannot be mul"),
    "a kept root": (nn.LSTM(4, 2), torch.zeros(3, 5), "'the model'", "input.size"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_example_that_the_model_does_not_take(name):
    model, example, place, said = UNFIT[name]
    with pytest.raises(CaptureError, match=rf"the example inputs do not fit {place}: ") as it:
        lg.to_ir(model, (example,))
    assert said in str(it.value)
    assert "the original model" in str(it.value)
    assert "handler" not in str(it.value)
    report = lg.preflight(model, (example,))
    assert report.unsupported == it.value.unsupported
    assert not report.stubs()


def test_the_model_is_as_it_was_after_such_an_example():
    class Counts(Checks):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.tensor(0))
            self.noted = []

        def forward(self, x):
            self.calls += 1
            self.noted.append(1)
            with torch.no_grad():
                self.lin.weight.add_(torch.rand(1))
            return super().forward(x)

    model = Counts()
    weight, state = model.lin.weight.detach().clone(), torch.get_rng_state()
    with pytest.raises(CaptureError, match="at most three rows"):
        lg.to_ir(model, (torch.zeros(4, 4),))
    assert bitwise_equal(model.lin.weight.detach(), weight)
    assert bitwise_equal(torch.get_rng_state(), state)
    assert model.calls == 0
    assert model.noted == []


def test_a_root_layer_that_changes_itself_is_as_it_was():
    model = nn.Embedding(5, 3, max_norm=0.1)
    weight = model.weight.detach().clone()
    assert lg.to_ir(model, (torch.tensor([1, 2]),)) == lg.to_ir(model)
    assert bitwise_equal(model.weight.detach(), weight)
    norm = nn.BatchNorm1d(4)
    lg.to_ir(norm, (X,))
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("args", [X, "x", 3, {"x": X}])
def test_arguments_that_are_no_tuple(args):
    for ask in (lg.to_ir, lg.verify):
        with pytest.raises(LayergraphError, match=r"args is a .*; give a tuple"):
            ask(Checks(), args)
    assert "give a tuple" in lg.preflight(Checks(), args).error
    with pytest.raises(ArgumentError, match="kwargs is a list; give a dict"):
        lg.verify(Checks(), (X,), [X])


# --- modules that no state dict has ---


class Unregistered(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        layers = self.layers.values() if isinstance(self.layers, dict) else self.layers
        for layer in layers:
            x = x * layer if isinstance(layer, torch.Tensor) else layer(x)
        return x


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (
            lambda: [nn.Linear(4, 4)],
            "a list 'layers', in a Linear; make that a torch.nn.ModuleList",
        ),
        (lambda: (nn.Sequential(nn.Linear(4, 4)),), "torch.nn.ModuleList"),
        (lambda: {"a": nn.Linear(4, 4)}, "torch.nn.ModuleDict"),
        (lambda: [nn.Parameter(torch.ones(4))], "torch.nn.ParameterList"),
        (lambda: {"a": nn.Parameter(torch.ones(4))}, "torch.nn.ParameterDict"),
    ],
)
@pytest.mark.parametrize("args", [None, (X,)], ids=["symbols", "inputs"])
def test_the_container_is_named_that_would_register_it(make, remedy, args):
    with pytest.raises(CaptureError) as it:
        lg.to_ir(Unregistered(make()), args)
    assert remedy.replace("a list", "the list") in str(it.value)
    assert "'layers'" in str(it.value)


# --- gradients ---


def test_a_tensor_that_forward_makes_may_want_gradients():
    class Starts(Checks):
        def forward(self, x):
            state = torch.zeros(4)
            state.requires_grad = True
            return self.lin(x) + state

    model = Starts()
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
    with torch.no_grad():
        assert not rebuilt(X).requires_grad


@pytest.mark.parametrize("change", [torch.relu_, lambda x: x.add_(1), F.relu_])
def test_an_input_that_came_out_of_another_layer_may_be_changed(change):
    class Changes(Checks):
        def forward(self, x):
            return self.lin(change(x))

    model = Changes()
    given = torch.randn(3, 4, requires_grad=True) * 2
    rebuilt = lg.to_torch(lg.to_ir(model, (given,)), model.state_dict())
    assert bitwise_equal(rebuilt(X.clone()), model(X.clone()))
    assert lg.verify(model, (given,)).ok
