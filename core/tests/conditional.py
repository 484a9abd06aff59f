"""IRs with conditions, written by hand: functions that make nodes and models."""

from __future__ import annotations

from layergraph.ir import Implementation, Ir, Node, Ref
from layergraph.ir.from_nodes import graph_from_nodes

X = Ref("x")
IF, UNLESS = (Ref("t"), True), (Ref("t"), False)


def given(*names):
    return [Node(name, "input", name) for name in names]


def function(name, of, *args, when=None, **kwargs):
    return Node(name, "function", of, args, kwargs, when=when)


def call(name, implementation, *args, when=None, kind="module", **kwargs):
    return Node(name, kind, implementation, args, kwargs, when=when)


def choose(name, condition, if_true, if_false, when=None):
    return function(name, "layergraph.choose", Ref(condition), if_true, if_false, when=when)


def returns(value):
    return Node("output", "output", "output", (value,))


def decision(of=X, suffix="", when=None):
    """Return the nodes that ask if the sum of a tensor is positive; ``t`` is the answer."""
    total, positive = f"sum{suffix}", f"positive{suffix}"
    return [
        function(total, "torch.sum", of, when=when),
        function(positive, "operator.gt", Ref(total), 0, when=when),
        function(f"t{suffix}", "layergraph.truth", Ref(positive), when=when),
    ]


def composite(name, *nodes, **more):
    graph = graph_from_nodes(nodes)
    children = dict.fromkeys([node.implementation for node in nodes if node.is_call])
    more.setdefault("children", {each.replace(".", "_"): each for each in children})
    return Implementation("module", name=name, nodes=graph.nodes, edges=graph.edges, **more)


def linear(name="lin", features=2):
    data = {"in_features": features, "out_features": features, "bias": True}
    return Implementation("linear", data, name=name)


def ir_of(*nodes, others=(), **more):
    return Ir([composite("root", *nodes, **more), *others])


def two_ways():
    """Return an IR that calls a layer in one branch and a function in the other."""
    return ir_of(
        *[*given("x"), *decision()],
        call("a", "lin", X, when=IF, kind="linear"),
        function("b", "torch.relu", X, when=UNLESS),
        choose("o", "t", Ref("a"), Ref("b")),
        returns(Ref("o")),
        others=[linear()],
    )
