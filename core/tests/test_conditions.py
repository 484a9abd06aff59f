"""The conditions of nodes: which ones an IR may contain, and that checks see every edit of one."""

from __future__ import annotations

import pytest

from core.tests.conditional import (
    IF,
    UNLESS,
    X,
    call,
    choose,
    decision,
    function,
    given,
    ir_of,
    linear,
    returns,
    two_ways,
)
from layergraph.errors import InvalidIrError
from layergraph.ir import Edge, Graph, Ir, Node, Ref, Symbol, TensorSpec, check, find_problems
from layergraph.ir.from_nodes import graph_from_nodes
from layergraph.ir.node_differences import differing


def _set(node, when):
    def edit(ir):
        ir["root"].nodes[node].when = when

    return edit


def _reads(ir, node, name, when=None):
    ir["root"].nodes[node].when = when or (Ref(name), True)
    ir["root"].edges[name, node] = Edge(name, node)


def _of_the_state(ir):
    root = ir["root"]
    root.tensors["w"] = TensorSpec("parameter", (2,))
    root.nodes = {"w": Node("w", "state", "w"), **root.nodes}
    root.nodes["b"].when = (Ref("w"), True)
    root.edges["w", "b"] = Edge("w", "b")


BROKEN = {
    "no tuple": (_set("b", True), "'b': its when is True"),
    "no reference": (_set("b", ("t", True)), "'b': its condition is ('t', True)"),
    "a number": (_set("b", (Ref("t"), 1)), "'b': its condition is (Ref(node='t'), 1)"),
    "one part": (_set("b", (Ref("t"),)), "'b': its condition is (Ref(node='t'),)"),
    "a name of no text": (_set("b", (Ref(1), True)), "'b': its condition is (Ref(node=1), True)"),
    "no node": (_set("b", (Ref("u"), True)), "'b': its condition names 'u', which is no node"),
    "no edge": (
        lambda ir: ir["root"].edges.pop(("t", "a")),
        "'a': its condition names 't', but no edge comes from there",
    ),
    "no condition for the edge": (
        _set("b", None),
        "'b': an edge comes from 't', but its arguments do not name it",
    ),
    "an output": (
        lambda ir: _reads(ir, "b", "output"),
        "'b': it reads 'output', an output",
    ),
    "itself": (lambda ir: _reads(ir, "b", "b"), "its graph has a cycle: 'b'"),
    "a node after it": (lambda ir: _reads(ir, "t", "o"), "its graph has a cycle"),
    "a tensor": (_of_the_state, "'b': its condition 'w' is a tensor of the state"),
    "on an input": (
        lambda ir: _reads(ir, "x", "t"),
        "'x': a node of type input has a condition",
    ),
    "on an output": (
        lambda ir: _reads(ir, "output", "t"),
        "'output': a node of type output has a condition",
    ),
    "no arguments": (
        lambda ir: setattr(ir["root"].nodes["a"], "args", None),
        "'a': it has a condition, and its args are not given",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_conditions(name):
    edit, message = BROKEN[name]
    ir = two_ways()
    check(ir)
    edit(ir)
    found = [str(each) for each in find_problems(ir)]
    assert any(message in each for each in found), found
    assert "'root'" in found[0]


def test_a_name_in_both_condition_and_arguments_is_one_edge():
    ir = ir_of(
        *[*given("x"), *decision()],
        function("n", "operator.not_", Ref("t"), when=IF),
        returns((Ref("n"), X)),
    )
    check(ir)
    assert ir["root"].predecessors("n") == ("t",)
    del ir["root"].edges["t", "n"]
    assert "'n': its arguments name 't', but no edge" in str(find_problems(ir)[0])


def test_an_input_and_a_mode_may_be_conditions():
    check(ir_of(*given("x", "t"), function("n", "torch.neg", X, when=IF), returns(Ref("n"))))
    mode = Node("t", "state", "training")
    check(ir_of(*given("x"), mode, function("n", "torch.neg", X, when=UNLESS), returns(Ref("n"))))


def test_a_graph_with_a_condition_is_no_chain():
    nodes = [*given("x"), call("y", "lin", X, kind="linear"), returns(Ref("y"))]
    ir = ir_of(*nodes, others=[linear()])
    assert ir["root"].chain() == ["lin"]
    ir["root"].nodes["y"].when = (Ref("x"), True)
    assert ir["root"].chain() is None


# --- regions ---


def _regions(*steps):
    """Return a graph of regions. A step is a name, a function, its arguments and its condition."""
    names = {"grad": "set_grad_enabled", "enter": "enter_autocast", "exit": "exit_autocast"}
    nodes = []
    for name, of, value, when in steps:
        args = (Ref(value),) if isinstance(value, str) else (value,)
        if of == "enter":
            args = ("cpu", Symbol("torch.bfloat16"), True, True)
        nodes.append(function(name, f"layergraph.{names[of]}", *args, when=when))
    more = decision(suffix="2")
    return ir_of(*given("x"), *decision(), *more, *nodes, returns(X))


OTHER = (Ref("t2"), True)
UNBALANCED = {
    "only the end": ([("a", "grad", False, None), ("b", "grad", "a", IF)], "b", "a"),
    "only the beginning": ([("a", "grad", False, IF), ("b", "grad", "a", None)], "b", "a"),
    "the other way": ([("a", "enter", 0, IF), ("b", "exit", "a", UNLESS)], "b", "a"),
    "another condition": ([("a", "enter", 0, IF), ("b", "exit", "a", OTHER)], "b", "a"),
    "a call": ([("a", "grad", False, IF), ("b", "grad", True, None)], "b", "a"),
    "a call on a way": ([("a", "grad", False, None), ("b", "grad", False, IF)], "b", "a"),
    "a call inside a block that is not always there": (
        [("a", "grad", False, IF), ("b", "grad", True, None), ("c", "grad", "a", IF)],
        "c",
        "b",
    ),
    "a call on another way inside": (
        [("a", "grad", False, IF), ("b", "grad", True, OTHER), ("c", "grad", "a", IF)],
        "c",
        "b",
    ),
}


@pytest.mark.parametrize("name", UNBALANCED)
def test_regions_that_a_way_leaves_open(name):
    steps, ends, begun = UNBALANCED[name]
    message = f"'root', node {ends!r}: it ends the region of {begun!r} under another condition"
    with pytest.raises(InvalidIrError, match=message):
        check(_regions(*steps))


BALANCED = {
    "on one way": [("a", "grad", False, IF), ("b", "grad", "a", IF)],
    "one on each way": [
        *[("a", "grad", False, IF), ("b", "grad", "a", IF)],
        *[("c", "enter", 0, UNLESS), ("d", "exit", "c", UNLESS)],
    ],
    "an unconditional one inside": [
        *[("a", "grad", False, IF), ("b", "enter", 0, None)],
        *[("c", "exit", "b", None), ("d", "grad", "a", IF)],
    ],
    "a conditional one inside": [
        *[("a", "grad", False, None), ("b", "enter", 0, IF)],
        *[("c", "exit", "b", IF), ("d", "grad", "a", None)],
    ],
    "calls on one way": [("a", "grad", False, IF), ("b", "grad", True, IF)],
    "a call on one way inside": [
        ("a", "grad", False, None),
        ("b", "grad", True, IF),
        ("c", "grad", "a", None),
    ],
    "a call inside, on the same way": [
        ("a", "grad", False, IF),
        ("b", "grad", True, IF),
        ("c", "grad", "a", IF),
    ],
}


@pytest.mark.parametrize("name", BALANCED)
def test_regions_that_every_way_closes(name):
    check(_regions(*BALANCED[name]))


# --- differences ---


@pytest.mark.parametrize("when", [None, UNLESS, (Ref("x"), True)], ids=str)
def test_an_edit_of_a_condition_in_one_graph_is_seen(when):
    one, other = two_ways(), two_ways()["root"]
    evaluation = Graph(nodes=other.nodes, edges=other.edges)
    ir = Ir([one["root"].changed(evaluation=evaluation), one["lin"]])
    assert ir["root"].differs == set()
    check(ir)
    ir["root"].nodes["a"].when = when
    ir["root"].edges = {
        pair: Edge(*pair)
        for name, node in ir["root"].nodes.items()
        for pair in [(src, name) for src in node.sources() or ir["root"].predecessors(name)]
    }
    found = [str(each) for each in find_problems(ir)]
    assert "node 'a': it is not the same in both graphs any more" in found[0]


def test_a_condition_on_a_node_that_differs_is_no_difference():
    def graph(name):
        nodes = [*given("x"), function(name, "layergraph.truth", X)]
        nodes.append(function("n", "torch.neg", X, when=(Ref(name), True)))
        return graph_from_nodes([*nodes, returns(Ref("n"))])

    one, other = graph("t"), graph("u")
    assert differing(one, other) == {"t", "u", "n"}
    assert differing(one, other, {"t", "u"}) == set()


# --- forms ---


def test_the_dict_form_says_the_condition():
    ir = two_ways()
    form = ir.to_dict()
    assert form["root"]["nodes"]["b"]["when"] == UNLESS
    assert Ir.from_dict(form) == ir
    form["root"]["nodes"]["b"]["when"] = [Ref("t"), False]
    assert Ir.from_dict(form) == ir
    for wrong in (True, ("t", True), (Ref("t"), 0), (Ref("t"), True, 1)):
        form["root"]["nodes"]["b"]["when"] = wrong
        with pytest.raises(InvalidIrError, match="node 'b': its 'when' is"):
            Ir.from_dict(form)


def test_the_text_says_the_condition():
    text = str(two_ways())
    assert "a = linear lin(x) if t" in text
    assert "b = torch.relu(x) if not t" in text


def test_copies_keep_the_condition():
    ir = two_ways()
    assert ir.in_mode(training=False) == ir
    nodes = ir.in_mode(training=True)["root"].nodes
    assert [node.when for node in nodes.values()].count(None) == len(nodes) - 2
    assert choose("o", "t", 1, 2).when is None
