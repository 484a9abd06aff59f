"""Patterns match some calls, and not others."""

# ruff: noqa: PLW0108 - a pattern is a function whose parameters have names
from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError
from layergraph.ir import Ref
from layergraph.ir.values import Record
from layergraph_rewrite import EditError, anything, function, layer, one_of
from plugins.rewrite.tests.models import Of

F = "torch.nn.functional."


def ir_of(code, **layers):
    return lg.to_ir(Of(code, **layers))


def roots(ir, pattern, **options):
    return [match.root.site.node for match in lg.find_matches(ir, pattern, **options)]


CONVS = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Conv2d(2, 2, 1, groups=2), nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("term", "count"),
    [
        (layer("conv2d"), 1),
        (layer("conv*"), 2),
        (layer("conv1d", "linear"), 2),
        (layer(), 3),
        (layer("conv*", groups=2), 1),
        (layer("conv*", groups=True), 0),
        (layer("conv*", groups=1), 1),
        (layer("linear", bias=1), 0),
        (layer("linear", bias=True), 1),
        (layer("linear", nothing=True), 0),
        (layer("Linear"), 0),
        (layer(where=lambda call: call.attributes.get("groups") == 2), 1),
        (function("*"), 0),
    ],
)
def test_types_and_attributes(term, count):
    assert len(lg.find_matches(lg.to_ir(CONVS), lambda x: term(x))) == count


def test_an_attribute_that_is_not_stated_has_its_default():
    ir = lg.to_ir(nn.Sequential(nn.LeakyReLU(), nn.LeakyReLU(0.5), nn.ReLU(inplace=True)))
    assert roots(ir, lambda x: layer("leakyrelu", negative_slope=0.01)(x)) == ["_0"]
    assert roots(ir, lambda x: layer("*relu", inplace=False)(x)) == ["_0", "_1"]
    assert roots(ir, lambda x: layer("*relu", inplace=0)(x)) == []


def test_attributes_in_a_list_have_their_types():
    model = nn.Sequential(nn.Conv2d(2, 2, (1, 3)))
    ir = lg.to_ir(model)
    assert lg.find_matches(ir, lambda x: layer("conv2d", kernel_size=(1, 3))(x))
    assert not lg.find_matches(ir, lambda x: layer("conv2d", kernel_size=(True, 3))(x))
    assert not lg.find_matches(ir, lambda x: layer("conv2d", kernel_size=[1, 3])(x))


@pytest.mark.parametrize(
    ("uses", "count"), [("inside", 0), ("any", 1), (2, 1), (1, 0), (3, 0), (0, 0)]
)
def test_uses(uses, count):
    def run(self, x):
        y = self.fc(x)
        return self.act(y) - y

    ir = ir_of(run, fc=nn.Linear(4, 4), act=nn.ReLU())
    found = lg.find_matches(ir, lambda x: layer("relu")(layer("linear", uses=uses)(x)))
    assert len(found) == count


def test_two_reads_by_the_match_are_inside():
    def run(self, x):
        y = self.fc(x)
        return y * torch.sigmoid(y)

    ir = ir_of(run, fc=nn.Linear(4, 4))

    def swish(x):
        y = layer("linear")(x)
        return function("operator.mul")(y, function("torch.sigmoid")(y))

    assert len(lg.find_matches(ir, swish)) == 1
    other = ir_of(lambda self, x: self.a(x) * torch.sigmoid(self.b(x)), a=nn.Linear(4, 4),
                  b=nn.Linear(4, 4))  # fmt: skip
    assert not lg.find_matches(other, swish)
    # Two calls that are written apart are two calls.
    assert not lg.find_matches(
        ir,
        lambda x: function("operator.mul")(
            layer("linear")(x), function("torch.sigmoid")(layer("linear")(x))
        ),
    )


def test_the_order_of_arguments_counts():
    ir = ir_of(lambda self, x: self.fc(x) - self.act(x), fc=nn.Linear(4, 4), act=nn.ReLU())
    sub = function("operator.sub")
    assert lg.find_matches(ir, lambda x, y: sub(layer("linear")(x), layer("relu")(y)))
    assert not lg.find_matches(ir, lambda x, y: sub(layer("relu")(y), layer("linear")(x)))


def test_commutative_operands_and_alternatives_are_all_tried():
    """The first choice fits by itself, and fails only by a later part."""

    def run(self, x):
        return (self.a(x) + torch.relu(self.b(x))) * 2 + torch.relu(self.b2(x))

    ir = ir_of(run, a=nn.Linear(4, 4), b=nn.Linear(4, 4, bias=False), b2=nn.Linear(4, 4))
    add = function("operator.add", commutative=True)
    relu = function("torch.relu")

    def pattern(x):
        return add(one_of(layer("gelu")(x), relu(layer("linear")(x))), anything("rest"))

    found = lg.find_matches(ir, pattern)
    assert [len(match.calls) for match in found] == [3, 3]

    def deep(x):
        inner = add(relu(layer("linear", bias=False)(x)), layer("linear", bias=True)(x))
        return add(relu(layer("linear", bias=True)(x)), function("operator.mul")(inner, 2))

    (match,) = lg.find_matches(ir, deep)
    assert len(match.calls) == 8


def test_backtracking_forgets_what_a_failed_way_bound():
    def run(self, x):
        a, b = self.a(x), self.b(x)
        return (a + b) * b

    ir = ir_of(run, a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    add = function("operator.add", commutative=True)
    (match,) = lg.find_matches(ir, lambda x, y: function("operator.mul")(add(x, y), x))
    assert match["x"].layer == "b"
    assert match["y"].layer == "a"


def test_one_wildcard_is_one_value():
    ir = ir_of(lambda self, x: torch.add(x, x) + torch.add(x, torch.relu(x)))
    add = function("torch.add")
    assert len(lg.find_matches(ir, lambda x: add(x, x))) == 1
    assert len(lg.find_matches(ir, lambda x, y: add(x, y))) == 2


def test_wildcards_for_plain_values_tell_1_from_true_and_from_one_point():
    def run(self, x):
        y = torch.flatten(x, 1, 1)
        return torch.clamp(y, 0, 0.0)

    ir = ir_of(run)
    assert len(lg.find_matches(ir, lambda x, d: function("torch.flatten")(x, d, d))) == 1
    assert not lg.find_matches(ir, lambda x, d: function("torch.clamp")(x, d, d))
    (match,) = lg.find_matches(ir, lambda x, a, b: function("torch.clamp")(x, a, b))
    assert (match["a"], match["b"]) == (0, 0.0)
    assert type(match["a"]) is int


@pytest.mark.parametrize(("value", "count"), [(0.0, 1), (-0.0, 0), (0, 0), (False, 0)])
def test_a_plain_value_is_itself(value, count):
    ir = ir_of(lambda self, x: x + 0.0)
    assert len(lg.find_matches(ir, lambda x: function("operator.add")(x, value))) == count


def test_lists_of_values():
    def run(self, x):
        return torch.cat([self.a(x), torch.relu(x)], 1)

    ir = ir_of(run, a=nn.Linear(4, 4))
    cat, relu = function("torch.cat"), function("torch.relu")
    assert lg.find_matches(ir, lambda x: cat([layer("linear")(x), relu(x)], 1))
    assert lg.find_matches(ir, lambda xs, d: cat(xs, d))
    assert not lg.find_matches(ir, lambda x: cat((layer("linear")(x), relu(x)), 1))
    assert not lg.find_matches(ir, lambda x, y, z: cat([x, y, z], 1))
    assert not lg.find_matches(ir, lambda x: cat([relu(x), layer("linear")(x)], 1))


def test_keyword_arguments_go_by_name():
    ir = ir_of(lambda self, x: torch.clamp(x, min=-1, max=1))
    clamp = function("torch.clamp")
    assert lg.find_matches(ir, lambda x: clamp(x, max=1, min=-1))
    assert not lg.find_matches(ir, lambda x: clamp(x, max=-1, min=1))
    assert not lg.find_matches(ir, lambda x: clamp(x, min=-1))
    (match,) = lg.find_matches(ir, lambda x, low: clamp(x, min=low, max=1))
    assert match["low"] == -1


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        (lambda x: function(F + "softmax")(x, dim=1), 1),
        (lambda x: function(F + "softmax")(x, dim=0), 0),
        (lambda x: function(F + "max_pool1d")(x, 2), 1),
        (lambda x: function(F + "max_pool1d")(x, 2, ceil_mode=False), 1),
        (lambda x: function(F + "max_pool1d")(x, 2, ceil_mode=True), 0),
        (lambda x: function(F + "leaky_relu")(x), 0),
        (lambda x: function(F + "leaky_relu")(x, negative_slope=0.5), 1),
    ],
)
def test_a_function_is_also_called_with_its_defaults(pattern, count):
    """Functions in Python tell all their arguments, those that code leaves out as well."""

    def run(self, x):
        y = nn.functional.leaky_relu(nn.functional.softmax(x, dim=1), 0.5)
        return nn.functional.max_pool1d(y, 2)

    assert len(lg.find_matches(ir_of(run), pattern)) == count


def test_a_function_that_a_file_names_is_not_imported(monkeypatch):
    ir = ir_of(lambda self, x: torch.relu(x))
    node = next(each for each in ir["root"].nodes.values() if each.type == "function")
    node.implementation, node.kwargs = "antigravity.fly", {"high": True}
    assert not lg.find_matches(ir, lambda x: function("antigravity.fly")(x))
    assert "antigravity" not in sys.modules


def test_dicts_go_by_key():
    form = ir_of(lambda self, x: torch.relu(x)).to_dict()
    ir = lg.Ir.from_dict(form)
    node = next(each for each in ir["root"].nodes.values() if each.type == "function")
    node.args = ({"a": 1, "b": 2}, *node.args)
    relu = function("torch.relu")
    assert lg.find_matches(ir, lambda x: relu({"b": 2, "a": 1}, x))
    assert not lg.find_matches(ir, lambda x: relu({"b": 1, "a": 2}, x))
    assert not lg.find_matches(ir, lambda x: relu({"b": 2}, x))


def test_several_calls_of_one_layer():
    ir = ir_of(lambda self, x: self.act(self.fc(self.act(self.fc(x)))), fc=nn.Linear(4, 4),
               act=nn.ReLU())  # fmt: skip
    assert len(lg.find_matches(ir, lambda x: layer("relu")(layer("linear")(x)))) == 2


def test_a_root_with_alternatives():
    ir = lg.to_ir(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.GELU(), nn.ReLU()))

    def pattern(x):
        return one_of(
            layer("relu", name="act")(layer("linear", name="fc")(x)), layer("gelu", name="act")(x)
        )

    assert [match["act"].type for match in lg.find_matches(ir, pattern)] == ["relu", "gelu"]


def test_defaults_are_not_wildcards():
    ir = lg.to_ir(CONVS)
    patterns = [lambda x, kind=kind: layer(kind)(x) for kind in ("conv1d", "linear")]
    assert [roots(ir, each) for each in patterns] == [["_0"], ["_2"]]


def test_a_pattern_that_shares_much_is_read_once():
    def pattern(x):
        y = x
        for _ in range(60):
            y = function("operator.add")(y, y)
        return y

    def run(self, x):
        for _ in range(60):
            x = x + x
        return x

    (match,) = lg.find_matches(ir_of(run), pattern)
    assert len(match.calls) == 60


def _name_of_two_in_one_way(x):
    shared = layer("relu", name="n")(x)
    return function("torch.add")(one_of(layer("gelu", name="n")(x), shared), shared)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (lambda x: x, "returns"),
        (lambda x: None, "returns"),
        (lambda x: layer("relu"), "returns"),
        (lambda x: layer("relu")(layer("linear")), "is not called"),
        (lambda x: layer("relu")(torch.zeros(2)), "no value of an IR"),
        (lambda x: function("torch.Tensor.to")(x, torch.float32), "Symbol"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
        (lambda x: one_of(x, layer("relu")(x)), "returns Value"),
        (lambda x: one_of(layer("relu")(x), one_of(3)), "returns 3"),
        (lambda x: one_of(), "no alternatives"),
        (lambda x: layer("relu")(one_of()), "no alternatives"),
        (lambda *xs: layer("relu")(*xs), "parameter"),
        (lambda x: layer("relu", name="x")(x), "the name 'x'"),
        (lambda x: layer("relu", name="a")(layer("relu", name="a")(x)), "the name 'a'"),
        (_name_of_two_in_one_way, "the name 'n'"),
        (lambda x: layer("relu", uses="many")(x), "uses="),
        (lambda x: layer("relu", uses=True)(x), "uses="),
        (lambda x: layer("relu", where=3)(x), "where="),
        (lambda x: layer(3)(x), "no type"),
        (3, "no function"),
    ],
)
def test_nonsense_is_refused(pattern, message):
    ir = lg.to_ir(nn.Sequential(nn.ReLU()))
    with pytest.raises(ArgumentError, match=message):
        lg.find_matches(ir, pattern)


def test_a_condition_that_raises_is_named():
    ir = lg.to_ir(CONVS)
    term = layer("*", where=lambda call: call.attributes["groups"] == 2)
    with pytest.raises(EditError, match=r"condition .* KeyError at root:_2.*groups"):
        lg.find_matches(ir, lambda x: term(x))


def test_names_of_a_match():
    (match,) = lg.find_matches(lg.to_ir(CONVS), lambda x: layer("linear", name="fc")(x))
    assert list(match) == ["fc", "x"]
    assert len(match) == 2
    assert "fc" in match
    assert "no" not in match
    assert match.root is not None
    with pytest.raises(EditError, match="names nothing 'conv'; it names fc, x"):
        match["conv"]


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), nn.Conv1d(4, 4, 1))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.body(x))


def _norm_of_conv(x):
    return layer("batchnorm1d")(layer("conv1d")(x))


def test_across_borders_where_asked():
    ir = lg.to_ir(Nested())
    assert not lg.find_matches(ir, _norm_of_conv)
    (match,) = lg.find_matches(ir, _norm_of_conv, across=True)
    assert [call.layer for call in match.calls] == ["norm", "body.1"]


def test_a_composite_that_two_nodes_call_is_not_entered():
    class Twice(Nested):
        def forward(self, x):
            return self.norm(self.body(x)) + self.body(x)

    def of_any(x):
        return layer("batchnorm1d")(layer("conv1d", uses="any")(x))

    assert len(lg.find_matches(lg.to_ir(Nested()), of_any, across=True)) == 1
    assert not lg.find_matches(lg.to_ir(Twice()), of_any, across=True)


class Tail(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x, others=(), other=None):
        y = self.act(x)
        for each in others:
            y = y + each
        return y if other is None else y + other


@pytest.mark.parametrize(
    ("read", "count"),
    [
        (lambda m, y: m.tail(y), 1),
        (lambda m, y: m.tail(y, [y]), 0),
        (lambda m, y: m.tail(y, other=y), 0),
        (lambda m, y: m.tail(y, (), y), 0),
        (lambda m, y: m.tail(y) + y, 0),
    ],
    ids=["alone", "list", "keyword", "twice", "outside"],
)
def test_readers_behind_borders_count(read, count):
    ir = lg.to_ir(Of(lambda m, x: read(m, m.fc(x)), fc=nn.Linear(4, 4), tail=Tail()))

    def pattern(uses):
        return lambda x: layer("relu")(layer("linear", uses=uses)(x))

    assert len(lg.find_matches(ir, pattern("inside"), across=True)) == count
    assert len(lg.find_matches(ir, pattern("any"), across=True)) == 1


def test_each_last_call_counts_once_in_execution_order():
    class Modes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act = nn.Linear(4, 4), nn.ReLU()

        def forward(self, x):
            y = self.act(self.fc(x))
            return y * 2 if self.training else y

    assert roots(lg.to_ir(Modes()), lambda x: layer("relu")(layer("linear")(x))) == ["act"]
    chain = lg.to_ir(nn.Sequential(*[nn.ReLU() for _ in range(12)]))
    assert roots(chain, lambda x: layer("relu")(x)) == [f"_{index}" for index in range(12)]


def test_both_orders_of_commutative_operands_match():
    ir = ir_of(
        lambda self, x: (torch.relu(x) + torch.neg(x), torch.neg(x) + torch.relu(x)),
    )
    relu, neg = function("torch.relu"), function("torch.neg")
    add = function("operator.add", commutative=True)
    assert len(lg.find_matches(ir, lambda x: add(relu(x), neg(x)))) == 2
    assert len(lg.find_matches(ir, lambda x: function("operator.add")(relu(x), neg(x)))) == 1


def test_values_of_one_name_in_two_graphs_differ():
    class Block(nn.Module):
        def forward(self, x, y):
            return x + torch.relu(y)

    ir = ir_of(lambda self, x: self.block(torch.relu(x), x * 2), block=Block())
    names = [[*graph.nodes] for graph in (ir["root"], ir["block"])]
    assert all("relu" in each for each in names)
    add = function("operator.add")
    assert len(lg.find_matches(ir, lambda x, y: add(x, y), across=True)) == 1
    assert not lg.find_matches(ir, lambda x: add(x, x), across=True)


def test_records_go_by_field():
    ir = ir_of(lambda self, x: torch.relu(x))
    node = next(each for each in ir["root"].nodes.values() if each.type == "function")
    node.args = (Record("Pair", {"a": 1, "b": 2}), *node.args)
    relu = function("torch.relu")
    assert lg.find_matches(ir, lambda x: relu(Record("Pair", {"a": 1, "b": 2}), x))
    assert not lg.find_matches(ir, lambda x: relu(Record("Other", {"a": 1, "b": 2}), x))
    assert not lg.find_matches(ir, lambda x: relu(Record("Pair", {"a": 1, "c": 2}), x))


def test_who_reads_the_value_of_a_composite_reads_what_is_inside():
    class Reads(Nested):
        def forward(self, x):
            y = self.body(x)
            return self.norm(y) + y

    def of_any(x):
        return layer("batchnorm1d")(layer("conv1d", uses="any")(x))

    assert not lg.find_matches(lg.to_ir(Reads()), _norm_of_conv, across=True)
    assert len(lg.find_matches(lg.to_ir(Reads()), of_any, across=True)) == 1


def test_a_composite_that_reads_a_value_by_name_too_is_another_reader():
    def in_body(x):
        return layer("relu")(layer("linear")(x))

    ir = ir_of(lambda m, x: m.tail(m.fc(x), other=x), fc=nn.Linear(4, 4), tail=Tail())
    assert len(lg.find_matches(ir, in_body, across=True)) == 1
    edit = lg.edit(ir)
    call = edit.call("tail")
    edit.set_arguments(call, Ref("fc"), other=Ref("fc"))
    assert not lg.find_matches(edit, in_body, across=True)


def test_a_call_under_a_condition_is_not_entered():
    class Decides(Nested):
        def forward(self, x):
            return self.norm(self.body(x)) if x.sum() > 0 else x

    for x in (torch.ones(2, 4, 3), -torch.ones(2, 4, 3)):
        ir = lg.to_ir(Decides(), (x,))
        assert any(node.when for node in ir["root"].nodes.values())
        assert not lg.find_matches(ir, _norm_of_conv, across=True)


def test_a_composite_with_a_graph_for_each_mode_is_not_left():
    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x):
            y = self.act(x)
            return y * 2 if self.training else y

    ir = ir_of(lambda m, x: m.body(m.fc(x)), fc=nn.Linear(4, 4), body=Body())
    assert ir["body"].evaluation is not None

    def pattern(x):
        return layer("relu")(layer("linear", uses="any")(x))

    assert not lg.find_matches(ir, pattern, across=True)
    assert lg.find_matches(ir, lambda x: layer("relu")(x), across=True)
