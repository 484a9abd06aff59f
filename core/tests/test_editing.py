"""Edits of an IR take effect in both modes; an edit that breaks a rule is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import Edge, Implementation, Ir, Node
from layergraph.errors import AssumptionError, InvalidIrError
from layergraph.ir import Ref, Symbol
from layergraph.testing import bitwise_equal

X = torch.randn(4, 4)


class Two(nn.Module):
    """Applies a layer to one of two operands."""

    def __init__(self, join):
        super().__init__()
        self.a, self.gone, self.b = nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 4)
        self.join = join

    def forward(self, x):
        return self.join(self.gone(self.a(x)), self.b(x))


JOINS = {
    "minus": lambda a, b: a - b,
    "with a factor": lambda a, b: torch.sub(a, b, alpha=2),
    "by name": lambda a, b: torch.sub(input=a, other=b),
    "matmul": lambda a, b: a @ b,
    "in a list": lambda a, b: torch.cat([a, b]),
    "a function of three": lambda a, b: torch.addcmul(b, a, b),
    "returned": lambda a, b: (a, b),
    "in a dict": lambda a, b: {"a": a, "b": b},
}


def _without(form, name, before):
    """Remove a node and its layer from the dict form, and replace its two edges by one."""
    root = form["root"]
    (after,) = [sink for src, sink in root["edges"] if src == name]
    del form[name], root["nodes"][name], root["edges"][before, name], root["edges"][name, after]
    root["edges"][before, after] = {"src": before, "sink": after}
    return after


def _renamed(value, old, new):
    if isinstance(value, list | tuple):
        return [_renamed(each, old, new) for each in value]
    if isinstance(value, dict):
        return {key: _renamed(each, old, new) for key, each in value.items()}
    return Ref(new) if value == Ref(old) else value


@pytest.mark.parametrize("with_inputs", [True, False])
@pytest.mark.parametrize("join", JOINS)
def test_an_edge_never_decides_which_operand_is_which(join, with_inputs):
    model = Two(JOINS[join])
    form = lg.to_ir(model, (X,) if with_inputs else None).to_dict()
    after = _without(form, "gone", "a")
    with pytest.raises(InvalidIrError, match=r"'gone', which is no node here"):
        lg.to_torch(form, model.state_dict())
    node = form["root"]["nodes"][after]
    for field in ("args", "kwargs"):
        if field in node:
            node[field] = _renamed(node[field], "gone", "a")
    edited = lg.to_torch(form, model.state_dict())
    wanted, got = model(X), edited(X)
    for one, other in zip(*map(torch.utils._pytree.tree_leaves, (wanted, got)), strict=True):
        assert bitwise_equal(one, other)


def test_the_order_of_edges_says_nothing(tmp_path):
    class Minus(nn.Module):
        def forward(self, a, b):
            return a - b

    for args in ((X, X + 1), None):
        ir = lg.to_ir(Minus(), args)
        for graph in (ir["root"],):
            graph.edges = dict(reversed(graph.edges.items()))
        lg.save(ir, tmp_path / "model.json")
        for each in (ir, ir.to_dict(), lg.load(tmp_path / "model.json"), ir.flatten()):
            assert bitwise_equal(lg.to_torch(each)(X, X + 1), X - (X + 1))


def test_a_node_in_memory_has_to_say_which_is_which():
    class Minus(nn.Module):
        def forward(self, a, b):
            return a - b

    ir = lg.to_ir(Minus())
    assert ir["root"].nodes["sub"].args == (Ref("a"), Ref("b"))
    ir["root"].nodes["sub"].args = None
    with pytest.raises(InvalidIrError, match=r"'a' and 'b', and its arguments do not say which"):
        lg.to_torch(ir)


@pytest.mark.parametrize("end", ["sink", "dst"])
def test_a_dict_by_hand_is_read_in_the_order_of_its_edges(end):
    nodes = {
        "one": ("input", "one"),
        "two": ("input", "two"),
        "minus": ("function", "operator.sub"),
        "output": ("output", "output"),
    }
    pairs = [("two", "minus"), ("one", "minus"), ("minus", "output")]
    form = {
        "root": {
            "name": "root",
            "type": "module",
            "nodes": {
                name: {"name": name, "type": kind, "implementation": of}
                for name, (kind, of) in nodes.items()
            },
            "edges": {pair: {"src": pair[0], end: pair[1]} for pair in pairs},
        }
    }
    model = lg.to_torch(Ir.from_dict(form))
    assert model(torch.tensor(3), torch.tensor(5)) == 2
    assert Ir.from_dict(form)["root"].nodes["minus"].args == (Ref("two"), Ref("one"))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("mean", torch.zeros(4), persistent=False)

    def forward(self, x):
        y = x.to(torch.float64).float() * self.scale
        return y[:, [0, 1]] * 2 if self.training else y[:, [0, 1]]


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
        self.scaled = Scaled()

    def forward(self, x):
        return self.scaled(self.body(x))


def _spoil(value):
    """Change every mutable part of an IR, or of a part of it."""
    if isinstance(value, dict):
        for each in list(value.values()):
            _spoil(each)
        value["spoilt"] = 1
    elif isinstance(value, list | set):
        for each in list(value):
            _spoil(each)
        value.append(1) if isinstance(value, list) else value.add("spoilt")
    elif isinstance(value, tuple):
        for each in value:
            _spoil(each)
    elif hasattr(type(value), "__dataclass_fields__") and not isinstance(value, Ref | Symbol):
        for name in type(value).__dataclass_fields__:
            _spoil(getattr(value, name))


@pytest.mark.parametrize(
    "copied",
    [
        lambda ir: ir.flatten(),
        lambda ir: ir.in_mode(training=True),
        lambda ir: ir.in_mode(training=False),
        lambda ir: Ir.from_dict(ir.to_dict()),
    ],
)
def test_a_copy_shares_nothing(copied):
    ir = lg.to_ir(Whole(), (X,))
    before = Ir.from_dict(ir.to_dict())
    other = copied(ir)
    for each in other.values():
        _spoil(each)
    assert ir == before
    assert ir.to_dict() == before.to_dict()


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        y = self.linear(x)
        return y * 2 if self.training else y


def _put_behind(graph, node, last):
    """Insert a node between the last one and the output."""
    output = graph.nodes.pop("output")
    del graph.edges[last, "output"]
    graph.nodes |= {node.name: node, "output": output}
    graph.edges[last, node.name] = Edge(last, node.name)
    graph.edges[node.name, "output"] = Edge(node.name, "output")


def _last(graph):
    (last,) = [src for src, sink in graph.edges if sink == "output"]
    return last


NEW = {
    "a layer": lambda: Node("s", "sigmoid", "s"),
    "a function": lambda: Node("s", "function", "torch.sigmoid"),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", NEW)
def test_an_edit_of_one_mode_is_refused_and_of_both_is_done(kind, training):
    model = Doubled().train(training)
    ir = lg.to_ir(model, (X,))
    implementations = [*ir.values(), Implementation("sigmoid", name="s")]
    if kind == "a layer":
        ir["root"].children["s"] = "s"
        ir = Ir(implementations, "root")
    root = ir["root"]
    _put_behind(root, NEW[kind](), _last(root))
    for each in (ir, Ir.from_dict(ir.to_dict())):
        with pytest.raises(InvalidIrError, match=r"node 's': it is not in the graph for evalu"):
            lg.to_torch(each, model.state_dict())
    _put_behind(root.evaluation, NEW[kind](), _last(root.evaluation))
    for each in (ir, Ir.from_dict(ir.to_dict())):
        edited = lg.to_torch(each, model.state_dict())
        for mode in (True, False):
            assert bitwise_equal(edited.train(mode)(X), model.train(mode)(X).sigmoid())


def test_an_edit_that_is_meant_for_one_mode_says_so():
    model = Doubled()
    ir = lg.to_ir(model, (X,))
    root = ir["root"]
    before = set(root.differs)
    _put_behind(root, NEW["a function"](), _last(root))
    root.differs.add("s")
    edited = lg.to_torch(ir, model.state_dict())
    assert bitwise_equal(edited(X), model(X).sigmoid())
    assert bitwise_equal(edited.eval()(X), model.eval()(X))
    assert "s" not in before


def test_a_changed_argument_of_one_mode_is_refused():
    class Both(nn.Module):
        def forward(self, x):
            y = torch.clamp(x, max=0.5)
            return y * 2 if self.training else y + 1

    ir = lg.to_ir(Both(), (X,))
    ir["root"].nodes["clamp"].kwargs["max"] = 0.1
    with pytest.raises(
        InvalidIrError, match=r"node 'clamp': it is not the same in both graphs any more"
    ):
        lg.to_torch(ir)


@pytest.mark.parametrize("by", ["capture", "dict", "file"])
@pytest.mark.parametrize("part", ["body", "body.2"])
def test_a_part_keeps_its_mode(part, by, tmp_path):
    model = Whole().eval()
    ir = lg.to_ir(model, (X,))
    if by == "dict":
        form = ir.to_dict()
        for each in form.values():
            if each["name"] != "root":
                each.pop("training")
        ir = Ir.from_dict(form)
    elif by == "file":
        lg.save(ir, tmp_path / "model.json")
        ir = lg.load(tmp_path / "model.json")
    inside = [ir[name] for name in ir if name == part or name.startswith(f"{part}.")]
    alone = lg.to_torch(Ir(inside, part))
    assert not any(each.training for each in alone.modules())


def test_the_mode_is_written_down_once(tmp_path):
    ir = lg.to_ir(Whole().eval(), (X,))
    assert str(ir).count("not training") == 1
    lg.save(ir, tmp_path / "model.json")
    assert (tmp_path / "model.json").read_text().count('"training": false') == 1
    assert lg.load(tmp_path / "model.json") == ir
    (change,) = lg.diff(lg.to_ir(Whole(), (X,)), ir).changes
    assert change.path == ("training",)


def _with_output_first(ir):
    form = ir.to_dict()
    nodes = form["root"]["nodes"]
    form["root"]["nodes"] = {"output": nodes.pop("output"), **nodes}
    return lg.Ir.from_dict(form)


def test_nodes_that_are_listed_behind_the_output_run():
    class Writes(nn.Module):
        def forward(self, x):
            y = x * 2
            x.add_(1)
            assert x.shape[0] == 4
            return y

    x = torch.zeros(4, 2)
    ir = _with_output_first(lg.to_ir(Writes(), (x,)))
    rebuilt = lg.to_torch(ir)
    assert bitwise_equal(rebuilt(x), torch.zeros(4, 2))
    assert bitwise_equal(x, torch.ones(4, 2))
    with pytest.raises(AssumptionError):
        rebuilt(torch.zeros(3, 2))
    assert str(ir).splitlines()[-1].strip().startswith("return")
