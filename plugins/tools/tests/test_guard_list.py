"""The list of a rebuilt model's guards."""

import enum

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import InvalidIrError


class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x, pairs, flag=False):
        first, second = pairs
        for _ in range(x.shape[0]):
            x = self.layer(x)
        if x.isnan().any():
            raise ValueError("no nan")
        if x.dim() == 2 and (first > 0).all():
            x = x + second.reshape(second.shape[0] * 1)
            assert int(second.sum()) == 4
        return x.relu() if flag else x


@pytest.fixture(scope="module")
def ir():
    return lg.to_ir(Picky(), (torch.ones(2, 4), (torch.ones(4), torch.ones(4))))


def test_each_guard_says_what_it_checks(ir):
    said = {each.says for each in ir.guards}
    assert "the input 'flag' is False" in said
    assert "the input 'x' has the rank 2" in said
    assert "the input 'pairs' is a tuple of 2" in said
    assert "torch.Tensor.size(x, 0) is 2" in said
    nan = next(each for each in ir.guards if "isnan" in each.where)
    assert nan.says.endswith("is False; otherwise: the model raises ValueError: no nan")


def test_a_guard_names_its_line(ir):
    lines = [each.where for each in ir.guards if each.where]
    assert all("test_guard_list.py, line " in each for each in lines)


def test_a_guard_of_one_way_names_its_condition(ir):
    inside = [each for each in ir.guards if "int(second.sum())" in each.where]
    assert inside
    assert all(each.when for each in inside)
    assert f" if {inside[0].when} " in str(inside[0])


def test_a_guard_names_a_node_of_its_graph(ir):
    for each in ir.guards:
        assert each.node in ir[each.implementation].nodes


def test_a_model_that_takes_all_has_no_guards():
    assert lg.to_ir(nn.Sequential(nn.Linear(2, 2)), (torch.ones(1, 2),)).guards == []


class Pooling(enum.Enum):
    MEAN = "mean"
    MAX = "max"


def test_guards_on_objects_say_what_they_check():
    class Model(nn.Module):
        def forward(self, x, kept, other, pooling):
            kept["last"] = x
            return x.mean() + other["bias"] if pooling is Pooling.MEAN else x.max()

    x = torch.rand(2, 3)
    ir = lg.to_ir(Model(), (x, {"first": x}, {"bias": x}, Pooling.MEAN))
    says = [(each.says, each.where) for each in ir.guards]
    assert any(fact.endswith("is Pooling.MEAN") for fact, _ in says)
    assert any(fact.endswith("are different objects") and where for fact, where in says)


def test_the_other_mode_counts():
    class Modal(nn.Module):
        def forward(self, x):
            return x if self.training else x[: int(x.shape[0])]

    whole = lg.to_ir(Modal(), (torch.ones(3),)).guards
    assert "torch.Tensor.size(x, 0) is 3" in [each.says for each in whole]


def test_an_ir_that_breaks_a_rule_has_no_list(ir):
    broken = lg.Ir.from_dict(ir.to_dict())
    next(iter(broken.values())).nodes.pop("output")
    with pytest.raises(InvalidIrError):
        broken.guards  # noqa: B018 a property
