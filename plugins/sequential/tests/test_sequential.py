"""Containers: to an IR and back.

The checks of :mod:`layergraph.testing` are for leaves. Here we compare graphs and children.
"""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError
from layergraph.ir import find_problems
from layergraph.testing import bitwise_equal, layers_of


def repeated():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, layer)


def repeated_within():
    layer = nn.Linear(3, 3)
    return nn.Sequential(nn.Sequential(layer, nn.Tanh()), layer)


SEQUENTIALS = {
    "one": lambda: nn.Sequential(nn.Linear(3, 2)),
    "several": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout()),
    "nested": lambda: nn.Sequential(
        nn.Linear(3, 3), nn.Sequential(nn.Tanh(), nn.Sequential(nn.Linear(3, 2), nn.ReLU()))
    ),
    "named": lambda: nn.Sequential(OrderedDict(first=nn.Linear(3, 2), then=nn.ReLU())),
    "named as graphs name things": lambda: nn.Sequential(
        OrderedDict(input=nn.Linear(3, 3), output=nn.Linear(3, 3), root=nn.Linear(3, 3))
    ),
    "numbered backwards": lambda: nn.Sequential(
        OrderedDict({"1": nn.Linear(3, 2), "0": nn.ReLU()})
    ),
    "named twice": lambda: nn.Sequential(
        OrderedDict({"a": nn.Linear(3, 3), "b": nn.Sequential(OrderedDict(a=nn.Linear(3, 3)))})
    ),
    "repeated": repeated,
    "repeated within": repeated_within,
    "with an empty one": lambda: nn.Sequential(nn.Linear(3, 2), nn.Sequential(), nn.ReLU()),
    "partly evaluating": lambda: nn.Sequential(nn.Dropout().eval(), nn.Dropout()),
}


@pytest.fixture(params=SEQUENTIALS.values(), ids=SEQUENTIALS.keys())
def model(request):
    return request.param()


def is_same(model, rebuilt):
    return (
        repr(rebuilt) == repr(model)
        and [(name, type(m), m.training) for name, m in rebuilt.named_modules()]
        == [(name, type(m), m.training) for name, m in model.named_modules()]
        and list(rebuilt.state_dict()) == list(model.state_dict())
        and len(list(rebuilt.parameters())) == len(list(model.parameters()))
    )


def outputs(model, inputs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model(inputs)


def test_a_sequential_comes_back_as_one(model):
    ir = lg.to_ir(model)
    rebuilt = lg.to_torch(ir, model.state_dict())
    inputs = torch.randn(5, 3)
    assert ir[ir.root].type == "sequential"
    assert not find_problems(ir)
    assert lg.Ir.from_dict(ir.to_dict()) == ir
    assert is_same(model, rebuilt)
    assert bitwise_equal(outputs(model, inputs), outputs(rebuilt, inputs))


def test_a_repeated_layer_is_one_object_that_is_called_twice():
    ir = lg.to_ir(repeated())
    rebuilt = lg.to_torch(ir)
    assert list(ir) == ["root", "0"]
    assert [node.implementation for node in ir["root"].nodes.values() if node.is_call] == ["0", "0"]
    assert rebuilt[0] is rebuilt[1]


def test_an_empty_one_gives_back_what_it_is_given():
    model = nn.Sequential()
    rebuilt = lg.to_torch(lg.to_ir(model))
    assert is_same(model, rebuilt)
    assert bitwise_equal(rebuilt(torch.ones(2)), torch.ones(2))


class Containers(nn.Module):
    """Reads the children of its containers, but never calls a container."""

    def __init__(self):
        super().__init__()
        self.listed = nn.ModuleList([nn.Linear(3, 3), nn.ModuleList([nn.ReLU()])])
        self.named = nn.ModuleDict({"a b": nn.Linear(3, 3), "then": nn.Tanh()})
        self.unused = nn.Sequential(OrderedDict(a=nn.Linear(3, 3)))
        self.empty = nn.ModuleList([nn.ModuleDict(), nn.Sequential()])

    def forward(self, x):
        x = self.listed[1][0](self.listed[0](x))
        return self.named["then"](self.named["a b"](x))


def test_containers_that_are_never_called_come_back():
    model = Containers()
    ir = lg.to_ir(model)
    rebuilt = lg.to_torch(ir, model.state_dict())
    inputs = torch.randn(5, 3)
    assert not find_problems(ir)
    assert lg.Ir.from_dict(ir.to_dict()) == ir
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    assert bitwise_equal(model(inputs), rebuilt(inputs))
    for name, child in model.named_children():
        assert is_same(child, rebuilt.get_submodule(name)), name


def test_a_sequential_whose_children_are_called_otherwise_is_known_by_its_graph():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))

        def forward(self, x):
            return self.layers[2](self.layers[0](x))

    model = Skipping()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    inputs = torch.randn(5, 3)
    assert bitwise_equal(model(inputs), rebuilt(inputs))
    assert is_same(model.layers, rebuilt.layers)


@pytest.mark.parametrize("change", ["subclass", "hook", "forward", "buffer"])
def test_what_is_almost_a_sequential_is_none(change):
    class Own(nn.Sequential):
        pass

    model = (Own if change == "subclass" else nn.Sequential)(nn.Linear(3, 2))
    if change == "hook":
        model.register_forward_hook(lambda *_: None)
    elif change == "forward":
        model.forward = lambda x: x + 1
    elif change == "buffer":
        model.register_buffer("own", torch.ones(2))
    assert lg.to_ir(model)["root"].type == "module"


KINDS = ["sequential", "modulelist", "moduledict", "parameterlist", "parameterdict"]


@pytest.mark.parametrize("kind", KINDS)
def test_containers_have_no_attributes(kind):
    ir = lg.Ir([lg.Implementation(kind, {"no_such_attribute": 0}, name="root", children={})])
    with pytest.raises(BuildError, match="no_such_attribute"):
        lg.to_torch(ir)


def test_every_container_of_torch_is_known():
    # nn.Container is deprecated, and the same as a Module.
    known = layers_of(torch.nn.modules.container) - {nn.Container}
    assert sorted(cls.__name__.lower() for cls in known) == sorted(KINDS)
