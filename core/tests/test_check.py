"""Every rule of an IR, and that bad input meets an error of layergraph and nothing else."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import layergraph as lg
from layergraph.errors import InvalidIrError, LayergraphError
from layergraph.ir import (
    Edge,
    Graph,
    Implementation,
    Ir,
    Node,
    Record,
    Ref,
    Symbol,
    TensorSpec,
    check,
    find_problems,
)
from layergraph.ir.node_differences import differing
from layergraph.ir.values import MAX_NESTING
from layergraph.testing import bitwise_equal


def _node(name, kind, implementation, **more):
    return {"name": name, "type": kind, "implementation": implementation} | more


def _graph(*nodes, edges=""):
    """Return nodes and edges of a graph; edges as ``"a>b b>c"``, or a list if names have blanks."""
    listed = edges.split() if isinstance(edges, str) else edges
    pairs = [tuple(pair.split(">")) for pair in listed]
    return {
        "nodes": {node["name"]: node for node in nodes},
        "edges": {(src, sink): {"src": src, "sink": sink} for src, sink in pairs},
    }


def _entry(name, kind, graph=None, **more):
    return {"name": name, "type": kind, **more, **(graph or _graph())}


def _form(*entries):
    return {entry["name"]: entry for entry in entries}


def _valid():
    """Return a dict form that contains one of each feature."""
    x, act, output = (
        _node("x", "input", "x"),
        _node("act", "relu", "block.act"),
        _node("output", "output", "output"),
    )
    return _form(
        _entry(
            "root",
            "module",
            _graph(
                _node("x", "input", "x"),
                _node("scale", "state", "scale"),
                _node("lin", "linear", "lin"),
                _node(
                    "add",
                    "function",
                    "torch.add",
                    args=[Ref("lin"), Ref("scale")],
                    kwargs={"alpha": 2},
                ),
                _node("block", "module", "block"),
                _node("output", "output", "output"),
                edges="x>lin lin>add scale>add add>block block>output",
            ),
            tensors={
                "scale": {"kind": "parameter", "shape": (2,)},
                "one": {"kind": "constant", "shape": (1,), "value": b"\0\0\x80?"},
            },
        ),
        _entry("lin", "linear", in_features=3, out_features=2, bias=True),
        _entry(
            "block",
            "module",
            _graph(x, act, output, edges="x>act act>output"),
            evaluation=_graph(x, output, edges="x>output"),
        ),
        _entry("block.act", "relu"),
    )


# --- every rule, on an IR in memory ---


class Damage(NamedTuple):
    """One broken rule.

    Attributes:
        do: breaks the rule.
        place: the place that the problem names.
        message: a part of the problem's message.
    """

    do: Callable[[Any], object]
    place: str
    message: str


ROOT = "implementation 'root'"
LIN = "implementation 'lin'"


def _set(path, **fields):
    """Set fields of the object that an expression in ``ir`` and ``root`` returns."""

    def do(ir):
        target = eval(path, {"ir": ir, "root": ir["root"], "block": ir["block"]})
        for name, value in fields.items():
            setattr(target, name, value)

    return do


def _put(path, key, value):
    """Put an item into a dict of an IR or of a dict form."""

    def do(ir):
        eval(path, {"ir": ir, "root": ir["root"], "block": ir["block"]})[key] = value

    return do


def _drop(path, key):
    def do(ir):
        del eval(path, {"ir": ir, "root": ir["root"], "block": ir["block"]})[key]

    return do


def _all(*damages):
    def do(ir):
        for damage in damages:
            damage(ir)

    return do


def _nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


def _spec(**fields):
    return _put("root.tensors", "scale", TensorSpec(**{"kind": "buffer", "shape": (2,), **fields}))


def _adding(name, node, *pairs):
    """Add a node with its edges."""

    def do(ir):
        ir["root"].nodes[name] = node
        for src, sink in pairs:
            ir["root"].edges[src, sink] = Edge(src, sink)

    return do


NODE = f"{ROOT}, node 'add'"
TENSOR = f"{ROOT}, tensor 'scale'"
EDGE = f"{ROOT}, edge ('x', 'lin')"

# Fields come first: the other rules are checked only if these hold.
FIELDS = {
    "an entry that is no implementation": Damage(
        _put("ir._implementations", "lin", 5), "the IR", "its entry is 5"
    ),
    "a name that is no string": Damage(_set("ir['lin']", name=5), LIN, "its name is 5"),
    "a name that is not the key": Damage(_set("ir['lin']", name="other"), LIN, "'other'"),
    "a type that is no string": Damage(_set("ir['lin']", type=None), LIN, "its type is None"),
    "an empty type": Damage(_set("ir['lin']", type=""), LIN, "its type is empty"),
    "a mode that is no bool": Damage(_set("ir['lin']", training=1), LIN, "its training is 1"),
    "data that is no dict": Damage(_set("ir['lin']", data=[]), LIN, "its data is []"),
    "an attribute that is no string": Damage(_put("ir['lin'].data", 5, 5), LIN, "named 5"),
    "an attribute that is a field": Damage(
        _put("ir['lin'].data", "edges", 5), LIN, "named 'edges'"
    ),
    "a value that is not plain": Damage(
        _put("ir['lin'].data", "a", [{1, 2}]), LIN, "attribute 'a' holds {1, 2}, a set"
    ),
    "a tensor as a value": Damage(_put("ir['lin'].data", "a", torch.ones(1)), LIN, "a Tensor"),
    "a reference as an attribute": Damage(_put("ir['lin'].data", "a", (Ref("x"),)), LIN, "a Ref"),
    "a value nested too deeply": Damage(
        _put("ir['lin'].data", "a", _nested(MAX_NESTING + 1)), LIN, "nested too deeply"
    ),
    "children that are no dict": Damage(
        _set("root", children=["lin"]), ROOT, "its children is ['lin']"
    ),
    "a child whose name is no string": Damage(_put("root.children", 5, "lin"), ROOT, "child 5"),
    "a child without a name": Damage(_put("root.children", "", "lin"), ROOT, "child ''"),
    "a child whose path has a gap": Damage(_put("root.children", "a..b", "lin"), ROOT, "'a..b'"),
    "a child that is no name": Damage(_put("root.children", "lin", 5), ROOT, "child 'lin'"),
    "a child that cannot be a key": Damage(_put("root.children", "lin", []), ROOT, "child 'lin'"),
    "tensors that are no dict": Damage(_set("root", tensors=[]), ROOT, "its tensors is []"),
    "a tensor that is no spec": Damage(
        _put("root.tensors", "scale", {}), TENSOR, "its entry is {}"
    ),
    "a tensor whose name is no string": Damage(
        _put("root.tensors", 5, TensorSpec("buffer", (1,))), f"{ROOT}, tensor 5", "its name is 5"
    ),
    "a kind that is no string": Damage(_spec(kind=5), TENSOR, "its kind is 5"),
    "an unknown kind": Damage(_spec(kind="weight"), TENSOR, "its kind is 'weight'"),
    "a dtype that is no string": Damage(_spec(dtype=torch.int8), TENSOR, "its dtype is torch.int8"),
    "requires_grad that is no bool": Damage(_spec(requires_grad=0), TENSOR, "requires_grad is 0"),
    "persistent that is no bool": Damage(_spec(persistent="no"), TENSOR, "persistent is 'no'"),
    "a tie that is no string": Damage(_spec(tied=5), TENSOR, "its tied is 5"),
    "a value that is no bytes": Damage(_spec(value=[0]), TENSOR, "its value is [0]"),
    "a shape that is no tuple": Damage(_spec(shape=[2]), TENSOR, "its shape is [2]"),
    "a negative size": Damage(_spec(shape=(2, -1)), TENSOR, "its shape is (2, -1)"),
    "a size that is no int": Damage(_spec(shape=(2.0,)), TENSOR, "its shape is (2.0,)"),
    "a tensor of a composition without its kind": Damage(
        _spec(kind=None), TENSOR, "kind or shape is missing"
    ),
    "a tensor of a composition without its shape": Damage(
        _spec(shape=None), TENSOR, "kind or shape is missing"
    ),
    "a constant without a value": Damage(_spec(kind="constant"), TENSOR, "without a value"),
    "nodes that are no dict": Damage(_set("root", nodes=[]), ROOT, "its nodes is []"),
    "edges that are no dict": Damage(_set("root", edges=None), ROOT, "its edges is None"),
    "an evaluation that is no graph": Damage(
        _set("block", evaluation={}), "implementation 'block'", "its evaluation is {}"
    ),
    "a fault in an evaluation": Damage(
        _set("block.evaluation.nodes['x']", type=5),
        "implementation 'block', evaluation, node 'x'",
        "its type is 5",
    ),
    "a node that is none": Damage(_put("root.nodes", "add", "add"), NODE, "its entry is 'add'"),
    "a node whose name is not its key": Damage(
        _set("root.nodes['add']", name="sum"), NODE, "its name is 'sum'"
    ),
    "a node whose name is no string": Damage(
        _set("root.nodes['add']", name=None), NODE, "its name is None"
    ),
    "a node whose type is no string": Damage(
        _set("root.nodes['add']", type=nn.Linear), NODE, "its type is <class"
    ),
    "a node whose implementation is no string": Damage(
        _set("root.nodes['add']", implementation=torch.add), NODE, "its implementation is <built-in"
    ),
    "arguments that are no tuple": Damage(
        _set("root.nodes['add']", args=[Ref("lin"), Ref("scale")]), NODE, "its args is ["
    ),
    "an argument that is not plain": Damage(
        _set("root.nodes['add']", args=(Ref("lin"), object)), NODE, "argument 1 holds <class"
    ),
    "an argument nested too deeply": Damage(
        _set("root.nodes['add']", args=(Ref("lin"), _nested(MAX_NESTING + 1))),
        NODE,
        "argument 1 is nested too deeply",
    ),
    "arguments by name that are no dict": Damage(
        _set("root.nodes['add']", kwargs=None), NODE, "its kwargs is None"
    ),
    "an argument whose name is no string": Damage(
        _put("root.nodes['add'].kwargs", 5, 5), NODE, "argument named 5"
    ),
    "an argument whose name no code could use": Damage(
        _put("root.nodes['add'].kwargs", "alpha=1, out", 5), NODE, "'alpha=1, out'"
    ),
    "an argument by name that is not plain": Damage(
        _put("root.nodes['add'].kwargs", "alpha", range(2)), NODE, "argument 'alpha' holds range"
    ),
    "a reference to what cannot be a name": Damage(
        _set("root.nodes['add']", args=(Ref("lin"), Ref("scale"), Ref([]))), NODE, "argument 2"
    ),
    "a symbol of what cannot be a name": Damage(
        _put("root.nodes['add'].kwargs", "alpha", Symbol(5)), NODE, "argument 'alpha'"
    ),
    "a record without fields": Damage(
        _put("root.nodes['add'].kwargs", "alpha", Record("Pair", None)), NODE, "argument 'alpha'"
    ),
    "a note on a node that is a field": Damage(
        _put("root.nodes['add'].data", "args", 5), NODE, "named 'args'"
    ),
    "a note on a node that is a reference": Damage(
        _put("root.nodes['add'].data", "note", Ref("x")), NODE, "attribute 'note' holds Ref"
    ),
    "an edge that is none": Damage(
        _put("root.edges", ("x", "lin"), None), EDGE, "its entry is None"
    ),
    "an edge whose ends are no strings": Damage(
        _set("root.edges['x', 'lin']", src=5), EDGE, "its src is 5"
    ),
    "an edge whose key is another": Damage(
        _set("root.edges['x', 'lin']", sink="add"), EDGE, "from 'x' to 'add'"
    ),
    "a note on an edge that is a field": Damage(
        _put("root.edges['x', 'lin'].data", "src", 5), EDGE, "named 'src'"
    ),
}

GRAPHS = {
    "an edge to no node": Damage(
        _put("root.edges", ("x", "gone"), Edge("x", "gone")),
        f"{ROOT}, edge ('x', 'gone')",
        "no node 'gone'",
    ),
    "an edge from no node": Damage(
        _put("root.edges", ("gone", "lin"), Edge("gone", "lin")),
        f"{ROOT}, edge ('gone', 'lin')",
        "no node 'gone'",
    ),
    "edges without nodes": Damage(
        _put("ir['lin'].edges", ("a", "b"), Edge("a", "b")), f"{LIN}, edge ('a', 'b')", "no node"
    ),
    "no output": Damage(
        _all(_drop("block.nodes", "output"), _drop("block.edges", ("act", "output"))),
        "implementation 'block'",
        "no output",
    ),
    "two outputs": Damage(
        _adding("more", Node("more", "output", "output"), ("lin", "more")), ROOT, "has 2 outputs"
    ),
    "a graph of the evaluation without an output": Damage(
        _all(_drop("block.evaluation.nodes", "output"), _set("block.evaluation", edges={})),
        "implementation 'block', evaluation",
        "no output",
    ),
    "an argument that names no node": Damage(
        _set("root.nodes['add']", args=(Ref("lin"), Ref("scale"), [Ref("gone")])),
        NODE,
        "name 'gone', which is no node",
    ),
    "an argument without its edge": Damage(
        _drop("root.edges", ("scale", "add")), NODE, "name 'scale', but no edge"
    ),
    "an edge without its argument": Damage(
        _set("root.nodes['add']", args=(Ref("lin"),)), NODE, "'scale', but its arguments do not"
    ),
    "arguments by name alone, without their edges": Damage(
        _set("root.nodes['lin']", kwargs={"input": Ref("scale")}),
        f"{ROOT}, node 'lin'",
        "name 'scale', but no edge",
    ),
    "a node that reads an output": Damage(
        _adding("late", Node("late", "function", "torch.neg"), ("output", "late")),
        f"{ROOT}, node 'late'",
        "an output",
    ),
    "an input with arguments": Damage(
        _set("root.nodes['x']", args=(1,)), f"{ROOT}, node 'x'", "type input takes arguments"
    ),
    "an input with an edge": Damage(
        _put("root.edges", ("scale", "x"), Edge("scale", "x")),
        f"{ROOT}, node 'x'",
        "type input takes arguments",
    ),
    "a state with arguments": Damage(
        _set("root.nodes['scale']", kwargs={"a": 1}),
        f"{ROOT}, node 'scale'",
        "type state takes arguments",
    ),
    "an output with arguments by name": Damage(
        _set("root.nodes['output']", args=None, kwargs={"value": Ref("block")}),
        f"{ROOT}, node 'output'",
        "arguments by name",
    ),
    "a function without a name": Damage(
        _set("root.nodes['add']", implementation=""), NODE, "implementation is empty"
    ),
    "a state without a key": Damage(
        _set("root.nodes['scale']", implementation=""),
        f"{ROOT}, node 'scale'",
        "implementation is empty",
    ),
    "a cycle": Damage(
        _adding("back", Node("back", "function", "torch.neg", (Ref("back"),)), ("back", "back")),
        ROOT,
        "a cycle: 'back'",
    ),
    "a child that is no implementation": Damage(
        _put("root.children", "gone", "nothing"), f"{ROOT}, child 'gone'", "no implementation"
    ),
    "a child that is the root": Damage(
        _set("ir['block.act']", children={"up": "root"}),
        "implementation 'block.act', child 'up'",
        "it is the root",
    ),
    "a circle of children": Damage(
        _set("ir['block.act']", children={"up": "block"}),
        "implementation 'block.act'",
        "contains 'block', which contains it",
    ),
    "an implementation that is no layer's child": Damage(
        _drop("root.children", "lin"), LIN, "no implementation has it as a child"
    ),
}

CALLS = {
    "a call of what is not there": Damage(
        _set("root.nodes['lin']", implementation="gone"), f"{ROOT}, node 'lin'", "calls 'gone'"
    ),
    "a call by another type": Damage(
        _set("root.nodes['lin']", type="conv2d"),
        f"{ROOT}, node 'lin'",
        "'conv2d', but 'lin' is of type 'linear'",
    ),
    "a call of what is elsewhere": Damage(
        _set("block.nodes['act']", type="linear", implementation="lin"),
        "implementation 'block', node 'act'",
        "not among what 'block' contains",
    ),
    "a call of itself": Damage(
        _set("block.nodes['act']", type="module", implementation="block"),
        "implementation 'block', node 'act'",
        "not among what 'block' contains",
    ),
    "a call with too many arguments": Damage(
        _set("root.nodes['block']", args=(Ref("add"), 1)), f"{ROOT}, node 'block'", "do not fit"
    ),
    "a call with too few arguments": Damage(
        _all(_set("root.nodes['block']", args=()), _drop("root.edges", ("add", "block"))),
        f"{ROOT}, node 'block'",
        "do not fit",
    ),
    "a call with an argument of another name": Damage(
        _set("root.nodes['block']", args=(), kwargs={"z": Ref("add")}),
        f"{ROOT}, node 'block'",
        "do not fit",
    ),
    "a call with an argument given twice": Damage(
        _set("root.nodes['block']", args=(Ref("add"),), kwargs={"x": Ref("add")}),
        f"{ROOT}, node 'block'",
        "do not fit",
    ),
}


def _finds(problems, damage):
    return any(
        str(problem.place) == damage.place and damage.message in problem.message
        for problem in problems
    )


@pytest.mark.parametrize(
    "damage", [pytest.param(d, id=n) for n, d in {**FIELDS, **GRAPHS, **CALLS}.items()]
)
def test_broken_rule(damage):
    ir = Ir.from_dict(_valid())
    damage.do(ir)
    problems = find_problems(ir)
    assert _finds(problems, damage), problems
    for problem in problems:
        assert problem.message
        assert problem.remedy
        assert str(problem) == f"{problem.place}: {problem.message}; {problem.remedy}"
    with pytest.raises(InvalidIrError) as caught:
        check(ir)
    assert caught.value.problems == tuple(problems)
    for user in (lg.to_torch, Ir.flatten):
        with pytest.raises(InvalidIrError):
            user(ir)


TOGETHER = [
    {
        name: FIELDS[name]
        for name in (
            "an empty type",
            "a mode that is no bool",
            "an attribute that is a field",
            "a child without a name",
            "a negative size",
            "a fault in an evaluation",
            "a node whose type is no string",
            "an argument by name that is not plain",
            "an edge whose ends are no strings",
        )
    },
    {
        name: GRAPHS[name]
        for name in (
            "an edge to no node",
            "an edge from no node",
            "edges without nodes",
            "no output",
            "two outputs",
            "an argument without its edge",
            "a node that reads an output",
            "an input with arguments",
            "a cycle",
            "a child that is no implementation",
            "a circle of children",
            "an implementation that is no layer's child",
        )
    },
    {
        name: CALLS[name]
        for name in (
            "a call of what is elsewhere",
            "a call by another type",
            "a call with too few arguments",
        )
    },
]


@pytest.mark.parametrize("damages", TOGETHER, ids=["fields", "graphs", "calls"])
def test_all_broken_rules_at_once(damages):
    ir = Ir.from_dict(_valid())
    for damage in damages.values():
        damage.do(ir)
    with pytest.raises(InvalidIrError) as caught:
        check(ir)
    unfound = [
        name for name, damage in damages.items() if not _finds(caught.value.problems, damage)
    ]
    assert not unfound
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)


def test_problems_are_not_repeated():
    ir = Ir.from_dict(_valid())
    _adding("more", Node("more", "output", "output"), ("lin", "more"))(ir)
    assert len(find_problems(ir)) == 1


# --- the dict form ---

LINEAR = {"name": "lin", "type": "linear", "in_features": 3, "out_features": 2, "bias": True}

READING = {
    "no implementation": Damage(lambda form: form.clear(), "the IR", "no implementation named"),
    "no root": Damage(_drop("ir", "root"), "the IR", "no implementation named 'root'"),
    "an implementation that is no dict": Damage(_put("ir", "lin", 5), LIN, "a int where a dict"),
    "an implementation that is None": Damage(_put("ir", "lin", None), LIN, "None where a dict"),
    "an implementation whose key is no string": Damage(
        lambda form: form.update({5: {**LINEAR, "name": 5}}), "implementation 5", "its key is 5"
    ),
    "an implementation whose key is not its name": Damage(
        _put("ir['lin']", "name", "other"), LIN, "its name 'other'"
    ),
    "two implementations of one name": Damage(
        _put("ir", "other", LINEAR), "implementation 'other'", "its name 'lin'"
    ),
    "an implementation without a name": Damage(_drop("ir['lin']", "name"), LIN, "its name None"),
    "an implementation without a type": Damage(
        _drop("ir['lin']", "type"), LIN, "'type' is missing"
    ),
    "an implementation whose type is no string": Damage(
        _put("ir['lin']", "type", ["linear"]), LIN, "'type' is a list"
    ),
    "an attribute that is no string": Damage(_put("ir['lin']", 5, 5), LIN, "key 5 is no str"),
    "nodes that are no dict": Damage(_put("root", "nodes", []), f"{ROOT}, nodes", "a list where"),
    "edges that are no dict": Damage(
        _put("root", "edges", [("x", "lin")]), f"{ROOT}, edges", "a list where"
    ),
    "edges that are None": Damage(_put("root", "edges", None), f"{ROOT}, edges", "None where"),
    "children that are no dict": Damage(
        _put("root", "children", ["lin"]), f"{ROOT}, children", "a list where"
    ),
    "children that are no names": Damage(
        _put("root", "children", {"lin": [1], "block": "block"}), ROOT, "'lin'"
    ),
    "tensors that are no dict": Damage(_put("root", "tensors", 5), f"{ROOT}, tensors", "a int"),
    "a tensor that is no dict": Damage(_put("root['tensors']", "scale", 5), TENSOR, "a int where"),
    "a tensor of unknown fields": Damage(
        _put("root['tensors']['scale']", "size", (2,)), TENSOR, "'size' is not a field"
    ),
    "a tensor of fields that are no strings": Damage(
        _put("root['tensors']['scale']", 5, (2,)), TENSOR, "5 is not a field"
    ),
    "an evaluation that is no dict": Damage(
        _put("block", "evaluation", []), "implementation 'block', evaluation", "a list where"
    ),
    "an evaluation of unknown fields": Damage(
        _put("block['evaluation']", "node", {}),
        "implementation 'block', evaluation",
        "'node' is no part",
    ),
    "a fault in an evaluation": Damage(
        _drop("block['evaluation']['nodes']['x']", "type"),
        "implementation 'block', evaluation, node 'x'",
        "'type' is missing",
    ),
    "a node that is no dict": Damage(_put("root['nodes']", "add", "add"), NODE, "a str where"),
    "a node whose key is not its name": Damage(
        _put("root['nodes']['add']", "name", "sum"), NODE, "its key is 'add' and its name 'sum'"
    ),
    "two nodes of one name": Damage(
        _put("root['nodes']", "more", _node("add", "function", "torch.neg")),
        f"{ROOT}, node 'more'",
        "its name 'add'",
    ),
    "a node without a type": Damage(_drop("root['nodes']['add']", "type"), NODE, "is missing"),
    "a node without an implementation": Damage(
        _drop("root['nodes']['add']", "implementation"), NODE, "'implementation' is missing"
    ),
    "a node whose implementation is no string": Damage(
        _put("root['nodes']['add']", "implementation", 0), NODE, "'implementation' is a int"
    ),
    "arguments that are no list": Damage(
        _put("root['nodes']['add']", "args", "lin"), NODE, "'args' are a str"
    ),
    "arguments by name that are no dict": Damage(
        _put("root['nodes']['add']", "kwargs", [1]), f"{NODE}, kwargs", "a list where"
    ),
    "a note that is no string": Damage(_put("root['nodes']['add']", 5, 1), NODE, "5 is no str"),
    "an edge that is no dict": Damage(
        _put("root['edges']", ("x", "lin"), ("x", "lin")), EDGE, "a tuple where"
    ),
    "an edge whose key is a string": Damage(
        _put("root['edges']", "x>lin", {"src": "x", "sink": "lin"}),
        f"{ROOT}, edge 'x>lin'",
        "differs from its src and sink",
    ),
    "an edge without a source": Damage(
        _drop("root['edges']['x', 'lin']", "src"), EDGE, "'src' is missing"
    ),
    "an edge without a sink": Damage(
        _drop("root['edges']['x', 'lin']", "sink"), EDGE, "'sink' is missing"
    ),
    "an edge whose ends are no strings": Damage(
        _put("root['edges']['x', 'lin']", "sink", ["lin"]), EDGE, "'sink' is a list"
    ),
    "an edge whose key is another": Damage(
        _put("root['edges']['x', 'lin']", "sink", "add"), EDGE, "('x', 'add')"
    ),
    "a value nested without end": Damage(
        _put("ir['lin']", "bias", _nested(5000)), LIN, "nested too deeply"
    ),
}


def _read(form):
    check(Ir.from_dict(form))


@pytest.mark.parametrize("damage", [pytest.param(d, id=n) for n, d in READING.items()])
def test_bad_dict_form(damage):
    form = _valid()
    damage.do(form)
    with pytest.raises(InvalidIrError) as caught:
        _read(form)
    assert _finds(caught.value.problems, damage), caught.value.problems
    assert all(problem.message and problem.remedy for problem in caught.value.problems)
    with pytest.raises(InvalidIrError):
        lg.to_torch(form)


@pytest.mark.parametrize(
    "form", [None, 5, "root", [], [("root", {})], {5}, torch.ones(1)], ids=repr
)
def test_no_dict_form_at_all(form):
    with pytest.raises(
        InvalidIrError, match=r"the IR: .* where a dict of implementations by name belongs"
    ):
        Ir.from_dict(form)


def test_reading_finds_every_fault_at_once():
    form = _valid()
    names = (
        "an implementation that is None",
        "children that are no dict",
        "a tensor of unknown fields",
        "an evaluation of unknown fields",
        "a fault in an evaluation",
        "a node without a type",
        "arguments by name that are no dict",
        "two nodes of one name",
        "an edge whose key is another",
    )
    for name in names:
        READING[name].do(form)
    with pytest.raises(InvalidIrError) as caught:
        Ir.from_dict(form)
    assert [name for name in names if not _finds(caught.value.problems, READING[name])] == []


def test_two_implementations_of_one_name():
    root = Implementation("module", name="root")
    with pytest.raises(InvalidIrError, match=r"implementation 'root': another .* same name"):
        Ir([root, root])


def test_a_root_that_is_not_there():
    with pytest.raises(InvalidIrError, match="no implementation named 'top'"):
        Ir([Implementation("module", name="root")], root="top")


# --- valid ones ---


def _sequence(*calls):
    """Return a root that calls implementations in a row, with edges instead of arguments."""
    nodes = [_node("input_1", "input", "input")]
    nodes += [_node(f"n{index}", kind, name) for index, (kind, name) in enumerate(calls)]
    nodes.append(_node("output", "output", "output"))
    names = [node["name"] for node in nodes]
    edges = " ".join(f"{a}>{b}" for a, b in itertools.pairwise(names))
    return _graph(*nodes, edges=edges)


def _reversed(entry):
    """Return an entry with its nodes in reverse order."""
    return {**entry, "nodes": dict(reversed(entry["nodes"].items()))}


TWO = _entry("lin", "linear", in_features=3, out_features=3, bias=True)
SEED = _form(
    _entry("root", "module", _sequence(("linear", "0"))),
    _entry("0", "linear", in_features=3, out_features=2, bias=True),
)
DIFFERENCE = _graph(
    _node("a", "input", "a"),
    _node("b", "input", "b"),
    _node("sub", "function", "torch.sub"),
    _node("output", "output", "output"),
    edges="b>sub a>sub sub>output",
)


def _linear(state, key, x):
    return functional.linear(x, state[f"{key}.weight"], state.get(f"{key}.bias"))


class Valid(NamedTuple):
    """A valid dict form, the state-dict keys of its model, and the function that it computes."""

    form: dict[str, Any]
    keys: str
    expect: Callable[..., Any]
    inputs: int = 1


VALID = {
    "the seed form": Valid(SEED, "0.weight 0.bias", lambda s, x: _linear(s, "0", x)),
    "a leaf alone": Valid(
        _form({**TWO, "name": "root"}),
        "weight bias",
        lambda s, x: functional.linear(x, s["weight"], s["bias"]),
    ),
    "nodes and edges left out": Valid(
        {"root": {"name": "root", "type": "relu"}}, "", lambda s, x: x.relu()
    ),
    "output first": Valid(
        {**SEED, "root": _reversed(SEED["root"])},
        "0.weight 0.bias",
        lambda s, x: _linear(s, "0", x),
    ),
    "root last": Valid(
        dict(reversed(SEED.items())), "0.weight 0.bias", lambda s, x: _linear(s, "0", x)
    ),
    "names that are no paths": Valid(
        _form(
            _entry("root", "module", _sequence(("module", "block"), ("relu", "act"))),
            _entry("block", "module", _sequence(("linear", "lin"))),
            TWO,
            _entry("act", "relu"),
        ),
        "block.lin.weight block.lin.bias",
        lambda s, x: _linear(s, "block.lin", x).relu(),
    ),
    "one implementation, called by two": Valid(
        _form(
            _entry("root", "module", _sequence(("module", "block"), ("linear", "lin"))),
            _entry("block", "module", _sequence(("linear", "lin"))),
            TWO,
        ),
        "block.lin.weight block.lin.bias lin.weight lin.bias",
        lambda s, x: _linear(s, "lin", _linear(s, "lin", x)),
    ),
    "one implementation, called twice": Valid(
        _form(_entry("root", "module", _sequence(("linear", "lin"), ("linear", "lin"))), TWO),
        "lin.weight lin.bias",
        lambda s, x: _linear(s, "lin", _linear(s, "lin", x)),
    ),
    "arguments in the order of the edges": Valid(
        _form(_entry("root", "module", DIFFERENCE)), "", lambda s, a, b: b - a, inputs=2
    ),
    "a call without arguments, in the order of the edges": Valid(
        _form(
            _entry(
                "root",
                "module",
                _graph(
                    _node("output", "output", "output"),
                    _node("block", "module", "block"),
                    _node("p", "input", "p"),
                    _node("q", "input", "q"),
                    edges="q>block p>block block>output",
                ),
            ),
            _entry("block", "module", DIFFERENCE),
        ),
        "",
        # the call passes q for a and p for b, and the block returns b - a
        lambda s, p, q: p - q,
        inputs=2,
    ),
    "a call by name": Valid(
        _form(
            _entry(
                "root",
                "module",
                _graph(
                    _node("p", "input", "p"),
                    _node("block", "module", "block", args=[3], kwargs={"b": Ref("p")}),
                    _node("output", "output", "output"),
                    edges="p>block block>output",
                ),
            ),
            _entry("block", "module", DIFFERENCE),
        ),
        "",
        lambda s, p: p - 3,
    ),
    "arguments by name alone": Valid(
        _form(
            _entry(
                "root",
                "module",
                _graph(
                    _node("x", "input", "x"),
                    _node("neg", "function", "torch.neg", kwargs={"input": Ref("x")}),
                    _node("output", "output", "output"),
                    edges="x>neg neg>output",
                ),
            )
        ),
        "",
        lambda s, x: -x,
    ),
    "an argument whose name fx uses otherwise": Valid(
        _form(
            _entry(
                "root",
                "module",
                _graph(
                    _node("x", "input", "x"),
                    _node(
                        "clean",
                        "function",
                        "torch.nan_to_num",
                        args=[Ref("x")],
                        kwargs={"nan": 1.0, "posinf": math.inf},
                    ),
                    _node("output", "output", "output"),
                    edges="x>clean clean>output",
                ),
            )
        ),
        "",
        lambda s, x: x,
    ),
    "several outputs by edges alone": Valid(
        _form(
            _entry(
                "root",
                "module",
                _graph(
                    _node("x", "input", "x"),
                    _node("neg", "function", "torch.neg"),
                    _node("output", "output", "output"),
                    edges="x>neg neg>output x>output",
                ),
            )
        ),
        "",
        lambda s, x: (-x, x),
    ),
    "no output at all": Valid(
        _form(
            _entry(
                "root",
                "module",
                _graph(_node("x", "input", "x"), _node("output", "output", "output")),
            )
        ),
        "",
        lambda s, x: None,
    ),
    "inputs that share a wish": Valid(
        _form(
            _entry(
                "root",
                "module",
                _graph(
                    _node("input_1", "input", "input"),
                    _node("input_2", "input", "input"),
                    _node("sub", "function", "torch.sub"),
                    _node("output", "output", "output"),
                    edges="input_1>sub input_2>sub sub>output",
                ),
            )
        ),
        "",
        lambda s, a, b: a - b,
        inputs=2,
    ),
    "an implementation that no node calls": Valid(
        _form(SEED["root"], SEED["0"], {**TWO, "name": "spare"}),
        "0.weight 0.bias spare.weight spare.bias",
        lambda s, x: _linear(s, "0", x),
    ),
    "names that mean something in Python": Valid(
        _form(
            _entry(
                "root",
                "module",
                _graph(
                    _node("self", "input", "class"),
                    _node("inf", "linear", "match"),
                    _node(
                        "nan",
                        "function",
                        "torch.clamp",
                        args=[Ref("inf")],
                        kwargs={"max": math.inf},
                    ),
                    _node("torch", "function", "torch.relu", args=[Ref("nan")]),
                    _node("not a name", "function", "torch.neg"),
                    _node("return", "output", "output"),
                    edges=[
                        "self>inf",
                        "inf>nan",
                        "nan>torch",
                        "torch>not a name",
                        "not a name>return",
                    ],
                ),
            ),
            {**TWO, "name": "match"},
        ),
        "match.weight match.bias",
        lambda s, x: -_linear(s, "match", x).relu(),
    ),
    "notes of the user": Valid(
        _form(
            {
                **SEED["root"],
                "note": [1, {"a": (2,)}],
                "edges": {
                    pair: {**edge, "note": 1} for pair, edge in SEED["root"]["edges"].items()
                },
                "nodes": {
                    name: {**node, "note": 1} for name, node in SEED["root"]["nodes"].items()
                },
            },
            SEED["0"],
        ),
        "0.weight 0.bias",
        lambda s, x: _linear(s, "0", x),
    ),
}


@pytest.mark.parametrize("case", [pytest.param(c, id=n) for n, c in VALID.items()])
def test_valid(case):
    before = copy.deepcopy(case.form)
    ir = Ir.from_dict(case.form)
    assert find_problems(ir) == []
    assert Ir.from_dict(ir.to_dict()) == ir
    inputs = [torch.randn(5, 3) for _ in range(case.inputs)]
    for each in (ir, ir.flatten()):
        model = lg.to_torch(each)
        state = model.state_dict()
        assert list(state) == case.keys.split()
        given, wanted = model(*inputs), case.expect(state, *inputs)
        if isinstance(wanted, tuple):
            assert isinstance(given, tuple)
        assert bitwise_equal(given, wanted)
    assert case.form == before


def test_the_valid_form_is_valid():
    ir = Ir.from_dict(_valid())
    check(ir)
    model, x = lg.to_torch(ir), torch.randn(4, 3)
    state = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    assert list(state) == ["scale", "lin.weight", "lin.bias"]
    wanted = _linear(state, "lin", x) + 2 * state["scale"]
    assert bitwise_equal(model(x), wanted.relu())
    assert bitwise_equal(model.eval()(x), wanted)


CONTAINER = _sequence(("linear", "s.0"), ("relu", "s.1"))
OTHER_GRAPHS = {
    "another order": (_sequence(("relu", "s.1"), ("linear", "s.0")), lambda lin, x: lin(x.relu())),
    "one left out": (_sequence(("linear", "s.0")), lambda lin, x: lin(x)),
    "one twice": (
        _sequence(("linear", "s.0"), ("relu", "s.1"), ("linear", "s.0")),
        lambda lin, x: lin(lin(x).relu()),
    ),
    "a function too": (
        _sequence(("linear", "s.0"), ("relu", "s.1"), ("function", "torch.neg")),
        lambda lin, x: -lin(x).relu(),
    ),
    "its own": (CONTAINER, lambda lin, x: lin(x).relu()),
    "none": (_graph(), lambda lin, x: lin(x).relu()),
}


@pytest.mark.parametrize("graph", [pytest.param(g, id=n) for n, g in OTHER_GRAPHS.items()])
def test_graph_of_a_container(graph):
    """A container's class makes the calls: so its graph must list the same, or replace them."""
    graph, expect = graph
    form = _form(
        _entry("root", "module", _sequence(("sequential", "s"))),
        _entry("s", "sequential", graph),
        {**TWO, "name": "s.0"},
        _entry("s.1", "relu"),
    )
    x = torch.randn(4, 3)
    try:
        model = lg.to_torch(form)
    except LayergraphError:
        return
    lin = next(each for each in model.modules() if type(each) is nn.Linear)
    assert bitwise_equal(model(x), expect(lin, x))


# --- bad input meets an error of layergraph ---


def _hostile(**entries):
    """Return the form of the seed with more fields in its root."""
    form = copy.deepcopy(SEED)
    for key, more in entries.items():
        form["root"][key] = form["root"].get(key, {}) | more
    return form


def _call(**arguments):
    return _hostile(
        nodes={"f": _node("f", "function", "torch.add", args=[Ref("n0"), 1]) | arguments},
        edges={("n0", "f"): {"src": "n0", "sink": "f"}},
    )


def _tensor(name="t", **spec):
    return _hostile(tensors={name: {"kind": "buffer", "shape": (1,), **spec}})


def _weight(**spec):
    form = copy.deepcopy(SEED)
    form["0"]["tensors"] = {"weight": spec}
    return form


_CIRCULAR: list[Any] = []
_CIRCULAR.append(_CIRCULAR)

# These are invalid, and must not be built: some of them would run code that the file chooses.
HOSTILE = {
    "code in an argument's name": _call(kwargs={"other=boom(), alpha": 1}),
    "a blank in an argument's name": _call(kwargs={"a b": 1}),
    "a keyword as an argument's name": _call(kwargs={"class": 1}),
    "an argument that contains itself": _call(args=[Ref("n0"), _CIRCULAR]),
    "an argument of 5000 lists": _call(args=[Ref("n0"), _nested(5000)]),
    "a dict whose key is an object": _call(args=[Ref("n0"), {object(): 1}]),
    "a dict whose key is a tensor": _call(args=[Ref("n0"), {torch.ones(1): 1}]),
    "a reference to a list": _call(args=[Ref("n0"), Ref([])]),
    "a reference to a number": _call(args=[Ref("n0"), Ref(5)]),
    "a symbol of a number": _call(args=[Ref("n0"), Symbol(5)]),
    "a symbol of a function": _call(args=[Ref("n0"), Symbol("torch.load")]),
    "a record without fields": _call(args=[Ref("n0"), Record("P", None)]),
    "a record of no type": _call(args=[Ref("n0"), Record(5, {})]),
    "a record of code": _call(args=[Ref("n0"), Record("P(): pass", {})]),
    "children that are lists": _hostile(children={"0": []}),
    "a tensor with the name of a child": _tensor("0", kind="parameter"),
    "a tensor with the name of a method": _tensor("forward", kind="parameter"),
    "a tensor whose name ends in a dot": _tensor("a.", kind="parameter"),
    "a tensor without a name": _tensor("", kind="parameter"),
    "a tensor too large for any memory": _tensor(shape=(2**62, 4)),
    "a tensor whose size overflows": _tensor(shape=(2**70,)),
    "a tensor of too few bytes": _tensor(kind="constant", value=b"12"),
    "a buffer of an unknown dtype": _tensor(dtype="float31"),
    "a buffer whose dtype is a function": _tensor(dtype="load"),
    "a weight of a dtype without gradients": _weight(dtype="int32"),
    "a weight of a dtype without arithmetic": _weight(dtype="bits8"),
    "a weight of a quantized dtype": _weight(dtype="quint8"),
    "a weight of another shape": _weight(shape=(1, 1)),
    "a weight tied to nothing": _weight(tied="gone"),
    "a weight tied to a module": _weight(tied="0"),
    "a weight tied to a method": _weight(tied="0.forward"),
    "a weight tied to one of another shape": _weight(tied="0.bias"),
    **{
        f"a state that is {key}": _hostile(nodes={"s": _node("s", "state", key)})
        for key in (
            "forward",
            "0.forward",
            "0.__class__",
            "0._parameters",
            "0",
            "0.",
            ".",
            "gone",
            "0.weight.grad",
            "0.weight.data",
        )
    },
    "an operator without its operands": _call(implementation="operator.add", args=[Ref("n0")]),
    **{
        f"the function {name!r}": _call(implementation=name)
        for name in (
            "os.system",
            "torch.load",
            "builtins.eval",
            "torch.Tensor.apply_",
            "torch.add.x",
        )
    },
}


@pytest.mark.parametrize("form", [pytest.param(f, id=n) for n, f in HOSTILE.items()])
def test_hostile(form):
    with pytest.raises(LayergraphError):
        lg.to_torch(form)


# Names that would be code if the build pasted them into code. A build may keep them as names.
NAMES = [
    "x=print(boom())",
    'a"), boom(), ("',
    "a'), boom(), ('",
    "\n    boom()\n#",
    "*x",
    "class",
    "self",
    "torch",
    "inf",
    "ä ö",
    "\ud800",
    "",
    " ",
    "__init__",
    "forward",
    "training",
]


def _named(name, where):
    """Return a model that negates a linear layer's result, with a name in one of the places."""
    node = name if where == "node" else "lin"
    child = name if where == "child" else "lin"
    given = name if where == "input" else "x"
    parameter = name if where == "parameter" else given
    graph = _graph(
        _node(given, "input", parameter),
        _node(node, "linear", "lin"),
        _node("neg", "function", "torch.neg"),
        _node("clamp", "function", "torch.clamp", args=[Ref("neg")], kwargs={"max": math.inf}),
        _node("output", "output", "output"),
    )
    # Do not build the form from text: a name may contain any character.
    pairs = [(given, node), (node, "neg"), ("neg", "clamp"), ("clamp", "output")]
    graph["edges"] = {(src, sink): {"src": src, "sink": sink} for src, sink in pairs}
    return _form(_entry("root", "module", graph, children={child: "lin"}), TWO)


@pytest.mark.parametrize("where", ["node", "child", "input", "parameter"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_are_no_code(name, where, monkeypatch):
    ran = []
    monkeypatch.setattr("builtins.boom", lambda: ran.append(name), raising=False)
    x = torch.randn(2, 3)
    try:
        model = lg.to_torch(_named(name, where))
        given = model(x)
    except LayergraphError:
        given = None
    assert not ran
    if given is not None:
        state = dict(zip(("lin.weight", "lin.bias"), model.state_dict().values(), strict=True))
        assert bitwise_equal(given, -_linear(state, "lin", x))


class Rich(nn.Module):
    """Has skip connections, a constant, a shared module, both modes and several outputs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())
        self.again = self.first
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("shift", torch.arange(4.0), persistent=False)
        self.constant = torch.tensor([1, 2, 3, 4])

    def forward(self, x):
        y = self.first(x) + x
        z = self.block(y)[:, 1:3]
        if self.training:
            y = y * 2
        y = torch.cat([y * self.scale, self.again(y) - 1 + self.constant, z], dim=1)
        return {"y": y + y, "rest": (z, [1 - z, None])}, self.shift * y[:, :4].mean(
            dim=-1, keepdim=True
        )


torch.manual_seed(0)
RICH = Rich()
INPUT = torch.randn(3, 4)
DEEP = _nested(MAX_NESTING + 1)
JUNK = [
    *(None, True, 0, 1, -1, 3, 2**70, 0.5, math.nan, math.inf, 1j, "", "x", "root", "0", "a.b"),
    *("class", "weight", "float64", "torch.relu", "module", "output", "input", "state", "function"),
    *("linear", "training", "block.0", "block.0.weight", b"", b"\0\0\0\0", ..., (), [], {}, set()),
    *([1], (1,), {"a": 1}, {5: 5}, ("x", "y"), [[]], slice(1, None), object(), int, torch.ones(1)),
    *(torch.float32, Ref("x"), Ref("output"), Ref(5), Ref([]), Symbol("torch.int8"), Symbol(5)),
    *(Record("P", {"a": 1}), Record(5, {}), Record("P", None), DEEP, {"kind": "buffer"}),
]


def _places(value):
    """Yield every dict or list in a form with each of its keys."""
    stack = [value]
    while stack:
        container = stack.pop()
        if isinstance(container, dict):
            keys = list(container)
        elif isinstance(container, list):
            keys = list(range(len(container)))
        else:
            continue
        for key in keys:
            yield container, key
            stack.append(container[key])


def _hashable(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _replace(container, key, other, junk):
    container[key] = junk


def _remove(container, key, other, junk):
    del container[key]


def _rename(container, key, other, junk):
    if isinstance(container, dict) and _hashable(junk):
        container[junk] = container.pop(key)


def _duplicate(container, key, other, junk):
    if isinstance(container, list):
        container.insert(key, container[key])
    elif _hashable(junk):
        container[junk] = container[key]


def _retarget(container, key, other, junk):
    container[key] = copy.deepcopy(other)


def _swap(container, key, other, junk):
    """Return a dict in another order."""
    if isinstance(container, dict):
        container[key] = container.pop(key)


DO = [_replace, _remove, _rename, _duplicate, _retarget, _swap]


def _damage(form, steps):
    for do, at, other, junk in steps:
        places = list(_places(form))
        if places:
            container, key = places[at % len(places)]
            elsewhere, there = places[other % len(places)]
            # Copy the value: an example may change it, and the next example uses it again.
            do(container, key, elsewhere[there], copy.deepcopy(junk))


STEP = st.tuples(
    st.sampled_from(DO),
    st.integers(0, 100_000),
    st.integers(0, 100_000),
    st.sampled_from(JUNK),
)


def _original():
    form = lg.to_ir(RICH).to_dict()
    for entry in form.values():
        for node in entry["nodes"].values():
            if "args" in node:  # use a list, because a tuple cannot be changed
                node["args"] = list(node["args"])
    return form


ORIGINAL = _original()


def _outputs(model):
    torch.manual_seed(0)
    first, second = model(INPUT)
    return [first["y"], first["rest"][0], first["rest"][1][0], second]


@pytest.mark.slow
@settings(
    max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(st.lists(STEP, min_size=1, max_size=3))
@example([])
def test_damaged_at_random(steps):
    form = copy.deepcopy(ORIGINAL)
    _damage(form, steps)
    try:
        ir = Ir.from_dict(form)
        check(ir)
        model = lg.to_torch(ir)
        flat = lg.to_torch(ir.flatten())
    except LayergraphError:
        return
    assert Ir.from_dict(ir.to_dict()) == ir
    assert list(flat.state_dict()) == list(model.state_dict())
    if not steps:
        for rebuilt in (model, flat):
            rebuilt.load_state_dict(RICH.state_dict())
            expected = _outputs(copy.deepcopy(RICH))
            for one, other in zip(expected, _outputs(rebuilt), strict=True):
                assert bitwise_equal(one, other)


def test_a_graph_of_the_evaluation_is_a_graph():
    ir = Ir.from_dict(_valid())
    assert type(ir["block"].evaluation) is Graph


def test_a_reference_differs_from_none():
    def graph(value):
        nodes = [
            lg.ir.Node("x", "input", "x"),
            lg.ir.Node("y", "function", "torch.clamp", (Ref("x"), value)),
            lg.ir.Node("output", "output", "output", (Ref("y"),)),
        ]
        return lg.ir.graph_from_nodes(nodes)

    assert differing(graph(Ref("x")), graph(None)) == {"y"}


def test_who_calls_an_implementation_has_it_for_a_child_or_says_it_has_not():
    nodes = [
        lg.ir.Node("x", "input", "x", args=()),
        lg.ir.Node("b", "relu", "b", args=(lg.Ref("x"),)),
        lg.ir.Node("output", "output", "output", args=(lg.Ref("b"),)),
    ]
    graph = lg.ir.graph_from_nodes(nodes)
    calling = lg.Implementation(
        "module", name="a", nodes=graph.nodes, edges=graph.edges, children={}
    )
    leaf = lg.Implementation("relu", name="b")
    ir = lg.Ir([lg.Implementation("linear", name="root"), calling, leaf])
    assert ir["root"].children == {"a": "a"}
    calling.children = None
    ir = lg.Ir([lg.Implementation("linear", name="root"), calling, leaf])
    assert ir["a"].children == {"b": "b"}
