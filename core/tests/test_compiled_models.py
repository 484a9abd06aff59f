"""Models of torch.compile: the capture sees the original code, and the model stays compiled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, *, scale: float = 2.0):
        return self.lin(x).relu() * scale


def in_place(module):
    module.compile(backend="eager")
    return module


def wrapped(module):
    return torch.compile(module, backend="eager")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("compiled", [in_place, wrapped])
@pytest.mark.parametrize("around", [lambda m: m, nn.Sequential], ids=["alone", "inside"])
@pytest.mark.parametrize("called_before", [False, True])
@pytest.mark.parametrize("args", [None, (X,)], ids=["symbols", "inputs"])
def test_a_compiled_model_comes_back(compiled, around, called_before, args):
    model = around(compiled(Small()))
    if called_before:
        model(X)
    before = [dict(vars(each)) for each in model.modules()]
    ir = lg.to_ir(model, args)
    after = [dict(vars(each)) for each in model.modules()]
    assert all(
        list(one) == list(other) and all(one[key] is other[key] for key in one)
        for one, other in zip(before, after, strict=True)
    )
    rebuilt = lg.to_torch(ir, model.state_dict())
    # The state dict has the keys of the uncompiled model.
    assert list(rebuilt.state_dict()) == list(around(Small()).state_dict())
    assert bitwise_equal(rebuilt(X), model(X))


@pytest.mark.parametrize("compiled", [in_place, wrapped])
def test_a_compiled_model_is_verified(compiled):
    report = lg.verify(compiled(Small()), (X,), {"scale": 3.0})
    assert report.ok, str(report)
    assert not [each for each in report.checks if each.status == "skipped"]


def test_the_graph_is_that_of_the_model_as_written():
    plain = Small()
    compiled = Small()
    compiled.load_state_dict(plain.state_dict())
    assert lg.to_ir(in_place(compiled), (X,)) == lg.to_ir(plain, (X,))
    assert lg.to_ir(wrapped(plain), (X,)) == lg.to_ir(plain, (X,))


def test_a_compiled_function_is_captured_as_written():
    @torch.compile(backend="eager")
    def double(x):
        return x * 2 if x.shape[0] == 3 else x

    class Calls(nn.Module):
        def forward(self, x):
            return double(x) + 1

    model = Calls()
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)))
    assert bitwise_equal(rebuilt(X), model(X))
    assert "mul" in rebuilt.code


class Doubles(nn.Module):
    """Reads its mode, which the wrapper of torch.compile does not have itself."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        return self.lin(x) * 2 if self.training else self.lin(x)


@pytest.mark.parametrize("is_called", [False, True], ids=["new", "called before"])
def test_a_compiled_model_that_asks_for_its_mode(is_called):
    x = torch.randn(2, 4)
    model = torch.compile(Doubles(), backend="eager")
    if is_called:
        model(x)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    for training in (True, False):
        assert bitwise_equal(rebuilt.train(training)(x), model.train(training)(x))
    assert lg.verify(model, (x,)).ok


@pytest.mark.parametrize("args", [None, (X,)], ids=["symbols", "inputs"])
def test_a_module_of_torch_fx(args):
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    rebuilt = lg.to_torch(lg.to_ir(traced, args), traced.state_dict())
    assert bitwise_equal(rebuilt(X), traced(X))
    assert lg.verify(traced, (X,)).ok

    class Own(torch.fx.GraphModule):
        def __call__(self, x):
            return super().__call__(x) + 1

    own = Own(traced, traced.graph)
    assert bitwise_equal(lg.to_torch(lg.to_ir(own, args), own.state_dict())(X), own(X))


def test_within_a_transform_of_torch_func():
    model = Doubles()
    with pytest.raises(lg.errors.CaptureError, match=r"torch\.func"):
        torch.vmap(lambda x: lg.to_ir(model, (x,)) and x)(torch.randn(3, 4))
