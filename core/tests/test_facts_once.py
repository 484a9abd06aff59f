"""Facts of an IR that are stored once: the type of a call, the arguments, the edges."""

import copy
import pickle

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import InvalidIrError
from layergraph.ir import Edge, Implementation, Ir, Node, Ref, check, find_problems

X = torch.randn(3, 4)


def two():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    return model, lg.to_ir(model, (X,))


def test_a_call_has_the_type_of_its_implementation():
    model, ir = two()
    ir["1"].type = "gelu"
    assert ir["root"].nodes["_1"].type == "gelu"
    check(ir)
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert type(rebuilt[1]) is nn.GELU
    assert torch.equal(rebuilt(X), nn.functional.gelu(model[0](X)))
    again = Ir.from_dict(ir.to_dict())
    assert again == ir
    assert again["root"].nodes["_1"].type == "gelu"
    assert "_1 = gelu 1(_0)" in str(ir)


COPIES = {
    "copy()": Ir.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda ir: pickle.loads(pickle.dumps(ir)),
    "dict": lambda ir: Ir.from_dict(ir.to_dict()),
    "in_mode": lambda ir: ir.in_mode(training=True),
    "flatten": Ir.flatten,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_follow_their_own_implementations(copied):
    _, ir = two()
    other = copied(ir)
    other["1"].type = "tanh"
    calls = [node.type for node in other["root"].nodes.values() if node.is_call]
    assert calls == ["linear", "tanh"]
    assert ir["root"].nodes["_1"].type == "relu"
    check(ir)
    check(other)


def test_two_irs_that_share_a_graph():
    _, ir = two()
    other = Ir([ir["root"], ir["0"], ir["1"].changed(data={})])
    other["1"].type = "silu"
    assert other["root"].nodes["_1"].type == "silu"
    assert ir["root"].nodes["_1"].type == "relu"
    check(ir)
    check(other)


def test_a_type_that_only_the_node_states_is_refused():
    _, ir = two()
    ir["root"].nodes["_1"].type = "gelu"
    with pytest.raises(InvalidIrError, match="its type is 'gelu', but '1' is of type 'relu'"):
        check(ir)
    ir["1"].type = "gelu"
    check(ir)


def test_a_dict_that_contradicts_itself_is_refused():
    _, ir = two()
    form = ir.to_dict()
    form["1"]["type"] = "gelu"
    with pytest.raises(InvalidIrError, match="its type is 'relu', but '1' is of type 'gelu'"):
        lg.to_torch(form)


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        y = self.act(x)
        return y * 2 if self.training else y


def test_both_graphs_follow():
    ir = lg.to_ir(Doubled(), (X,))
    ir["act"].type = "tanh"
    types = [graph.nodes["act"].type for graph in ir["root"].graphs]
    assert types == ["tanh", "tanh"]
    rebuilt = lg.to_torch(ir)
    assert torch.equal(rebuilt(X), X.tanh() * 2)
    assert torch.equal(rebuilt.eval()(X), X.tanh())


def test_arguments_are_given():
    _, ir = two()
    nodes = ir["root"].nodes
    assert [node.args for node in nodes.values()] == [
        (),
        (Ref("input_1"),),
        (Ref("_0"),),
        (Ref("_1"),),
    ]
    form = ir.to_dict()
    assert all("args" not in node for node in form["root"]["nodes"].values())
    assert Ir.from_dict(form) == ir


def test_arguments_follow_an_exchanged_edge():
    _, ir = two()
    root = ir["root"]
    root.nodes = {name: root.nodes[name] for name in ("input_1", "_1", "_0", "output")}
    for old, new in (
        (("input_1", "_0"), ("_1", "_0")),
        (("_0", "_1"), ("input_1", "_1")),
        (("_1", "output"), ("_0", "output")),
    ):
        del root.edges[old]
        root.edges[new] = Edge(*new)
    assert root.nodes["_0"].args == (Ref("_1"),)
    check(Ir([root, ir["0"], ir["1"]]))


def test_arguments_follow_in_the_other_order():
    _, ir = two()
    root = ir["root"]
    root.edges["input_1", "_1"] = Edge("input_1", "_1")
    assert root.nodes["_1"].args == (Ref("_0"),)
    del root.edges["_0", "_1"]
    assert root.nodes["_1"].args == (Ref("input_1"),)
    check(ir)


def test_an_operand_is_exchanged_in_its_place():
    class Minus(nn.Module):
        def forward(self, a, b):
            return a - b

    ir = lg.to_ir(Minus(), (X, X))
    root = ir["root"]
    root.nodes = {
        **{name: root.nodes[name] for name in ("a", "b")},
        "neg": Node("neg", "function", "torch.neg", (Ref("b"),)),
        **{name: node for name, node in root.nodes.items() if name not in "ab"},
    }
    root.edges["b", "neg"] = Edge("b", "neg")
    del root.edges["b", "sub"]
    root.edges["neg", "sub"] = Edge("neg", "sub")
    assert root.nodes["sub"].args == (Ref("a"), Ref("neg"))
    rebuilt = lg.to_torch(ir)
    assert torch.equal(rebuilt(X, X + 1), X - -(X + 1))


def test_a_removed_edge_alone_is_refused():
    _, ir = two()
    del ir["root"].edges["_0", "_1"]
    assert any("no edge comes from there" in str(each) for each in find_problems(ir))


def test_two_ways_to_follow_are_refused():
    class Sum(nn.Module):
        def forward(self, a, b, c):
            return a + b, c

    ir = lg.to_ir(Sum(), (X, X, X))
    root = ir["root"]
    add = next(name for name, node in root.nodes.items() if node.implementation.endswith("add"))
    del root.edges["a", add], root.edges["b", add]
    root.edges["c", add] = Edge("c", add)
    assert root.nodes[add].args == (Ref("a"), Ref("b"))
    assert find_problems(ir)


def test_implementations_made_by_hand_are_bound():
    root = Implementation("module", name="root", children={"a": "a"})
    root.nodes = {
        "x": Node("x", "input", "x"),
        "a": Node("a", "relu", "a", (Ref("x"),)),
        "output": Node("output", "output", "output", (Ref("a"),)),
    }
    root.edges = {pair: Edge(*pair) for pair in (("x", "a"), ("a", "output"))}
    ir = Ir([root, Implementation("relu", name="a")])
    ir["a"].type = "tanh"
    check(ir)
    assert torch.equal(lg.to_torch(ir)(X), X.tanh())
