"""``diff`` reports every difference between two IRs, and no others."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import layergraph as lg
from core.tests.conditional import IF, UNLESS, two_ways
from core.tests.test_properties import ALWAYS, CHANGES, irs
from layergraph.errors import InvalidIrError
from layergraph.ir import Edge, Graph, Implementation, Ir, Node, Ref, TensorSpec, map_leaves
from layergraph.testing import bitwise_equal
from layergraph_tools.difference import ABSENT, Change, Difference
from layergraph_tools.difference.alignment import align
from layergraph_tools.difference.values import same

# --- every IR ---


def _renamed(ir, rename):
    """Return the IR with other names of nodes; ``rename`` returns the name for a number."""
    implementations = []
    for each in ir.values():
        graphs = []
        for graph in each.graphs:
            names = {name: rename(number) for number, name in enumerate(graph.nodes)}

            def leaf(value, names=names):
                return Ref(names.get(value.node, value.node)) if type(value) is Ref else value

            nodes = {
                names[key]: dataclasses.replace(
                    node,
                    name=names[node.name],
                    args=map_leaves(leaf, node.args),
                    kwargs=map_leaves(leaf, node.kwargs),
                    when=map_leaves(leaf, node.when),
                )
                for key, node in graph.nodes.items()
            }
            edges = {
                pair: Edge(*pair, edge.data)
                for ends, edge in graph.edges.items()
                for pair in [tuple(names.get(end, end) for end in ends)]
            }
            graphs.append(Graph(nodes=nodes, edges=edges))
        implementations.append(
            dataclasses.replace(
                each,
                nodes=graphs[0].nodes,
                edges=graphs[0].edges,
                evaluation=graphs[1] if len(graphs) > 1 else None,
            )
        )
    return Ir(implementations, ir.root)


@pytest.mark.slow
@settings(ALWAYS, max_examples=50)
@given(irs())
def test_names_of_nodes_make_no_difference(ir):
    assert not lg.diff(ir, ir)
    assert not lg.diff(ir, copy.deepcopy(ir))
    for other in (_renamed(ir, "n{}".format), _renamed(ir, lambda number: f"z{99 - number}")):
        assert str(lg.diff(ir, other)) == "no differences"
        assert not lg.diff(other, ir)


@pytest.mark.slow
@settings(ALWAYS, max_examples=40)
@given(irs())
def test_every_single_edit_is_found(ir):
    for name, change in CHANGES.items():
        other = copy.deepcopy(ir)
        change(other[ir.root])
        if other != ir:
            _check_form(lg.diff(ir, other), name)
            _check_form(lg.diff(other, ir), name)


@pytest.mark.slow
@settings(ALWAYS, max_examples=25)
@given(irs(), st.data())
def test_what_differs_is_what_is_not_equal_under_the_same_names(ir, data):
    other = copy.deepcopy(ir)
    edits = st.sampled_from(sorted(CHANGES.keys() - {"name"}))
    for name in data.draw(st.lists(st.sampled_from(list(ir)), max_size=2)):
        CHANGES[data.draw(edits)](other[name])
    alike = [_renamed(each, "n{}".format) for each in (ir, other)]
    difference = lg.diff(ir, _renamed(other, lambda number: f"z{99 - number}"))
    assert bool(difference) == (alike[0] != alike[1])
    if difference:
        _check_form(difference, "edits")


@pytest.mark.slow
@settings(ALWAYS, max_examples=50)
@given(irs(), st.data())
def test_nothing_but_an_order_is_found_too(ir, data):
    for graph in (graph for each in ir.values() for graph in each.graphs):
        for field in ("nodes", "edges"):
            entries = getattr(graph, field)
            if len(entries) > 1:
                before = list(entries.items())
                turned = data.draw(st.permutations(before))
                setattr(graph, field, dict(before))
                other = copy.deepcopy(ir)
                setattr(graph, field, dict(turned))
                is_same = _renamed(other, "n{}".format) == _renamed(ir, "n{}".format)
                assert bool(lg.diff(other, ir)) != is_same


def _check_form(difference, what):
    assert difference, what
    assert str(difference)
    for each in difference.changes:
        assert each.kind in ("added", "removed", "changed")
        assert type(each.path) is tuple
        assert all(type(part) is str for part in each.path), each
    counts = map(len, (difference.added, difference.removed, difference.changed))
    assert sum(counts) == len(difference.changes)
    json.dumps(difference.to_dict(), allow_nan=False)


# --- texts ---


class Model(nn.Module):
    def __init__(self, *, drop=False, width=3, last="fc", function=torch.relu):
        super().__init__()
        self.a = nn.Linear(2, width)
        self.drop = nn.Dropout(0.2) if drop else None
        setattr(self, last, nn.Linear(width, 2))
        self.last = last
        self.function = function

    def forward(self, x):
        x = self.function(self.a(x))
        if self.drop is not None:
            x = self.drop(x)
        return getattr(self, self.last)(x) - 1


def test_one_inserted_layer_is_one_node_and_the_changed_wires():
    difference = lg.diff(lg.to_ir(Model()), lg.to_ir(Model(drop=True)))
    assert [str(each) for each in difference.changes] == [
        "+ node drop: drop = dropout drop(relu)",
        "~ node fc, args: [relu] -> [drop]",
        "+ drop: dropout(p=0.2)",
    ]
    back = lg.diff(lg.to_ir(Model(drop=True)), lg.to_ir(Model()))
    assert [str(each) for each in back.changes] == [
        "- node drop: drop = dropout drop(relu)",
        "~ node fc, args: [removed drop] -> [relu]",
        "- drop: dropout(p=0.2)",
    ]


def test_numbered_nodes_are_told_apart_from_those_that_moved_up():
    def model(*modules):
        class Chain(nn.Module):
            def __init__(self):
                super().__init__()
                for name, module in modules:
                    self.add_module(name, module)

            def forward(self, x):
                for _, module in modules:
                    x = torch.neg(module(x))
                return x

        return lg.to_ir(Chain())

    layers = [(f"l{number}", nn.Linear(2, 2)) for number in range(30)]
    difference = lg.diff(model(*layers), model(*layers[:7], ("new", nn.ReLU()), *layers[7:]))
    assert [str(each) for each in difference.changes if each.layer == "root"] == [
        "+ node new: new = relu new(neg_6)",
        "+ node neg_7: neg_7 = torch.neg(new)",
        "~ node l7, args: [neg_6] -> [neg_7]",
    ]


def _lines(one, other):
    return str(lg.diff(lg.to_ir(one), lg.to_ir(other))).splitlines()


def test_one_layer_more_in_a_sequence_is_one_layer_more():
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)]
    assert _lines(nn.Sequential(*layers), nn.Sequential(*layers[:2], nn.Tanh(), layers[2])) == [
        "root:",
        "  ~ children: ['2'] -> ['3']",
        "  + node _2: _2 = tanh 2(_1)",
        "  ~ node _3, args: [_1] -> [_2]",
        "+ 2: tanh()",
    ]
    assert _lines(nn.Sequential(*layers), nn.Sequential(*layers[1:])) == [
        "root:",
        "  ~ children: ['1', '2'] -> ['0', '1']",
        "  - node _0: _0 = linear removed 0(input_1)",
        "  ~ node _0, args: [removed _0] -> [input_1]",
        "- 0: linear(in_features=2, out_features=3, bias=True)",
    ]
    assert _lines(
        nn.Sequential(*layers),
        nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 2)),
    ) == [
        "root:",
        "  ~ children: ['2'] -> ['3']",
        "  + node _2: _2 = dropout 2(_1)",
        "  ~ node _3, args: [_1] -> [_2]",
        "0:",
        "  ~ attribute out_features: 3 -> 5",
        "3:",
        "  ~ attribute in_features: 3 -> 5",
        "+ 2: dropout(p=0.5)",
    ]


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.up = nn.Linear(2, width)
        self.down = nn.Linear(width, 2)

    def forward(self, x):
        return self.down(self.up(x)) * self.scale


class Blocks(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        self.blocks = nn.ModuleList([Block(width) for width in widths])
        self.blocks[-1].up.bias = self.blocks[-2].up.bias

    def forward(self, x):
        for block in self.blocks:
            x = block(x) + self.blocks[-1].scale
        return x


def test_one_block_more_in_a_list_is_one_block_more():
    assert _lines(Blocks(3, 4, 5, 5), Blocks(3, 7, 4, 5, 5)) == [
        "root:",
        "  + node blocks_1: blocks_1 = module blocks.1(add)",
        "  + node add_1: add_1 = operator.add(blocks_1, scale)",
        "  ~ node blocks_2, args: [add] -> [add_1]",
        "blocks:",
        "  ~ children: ['1', '2', '3'] -> ['2', '3', '4']",
        "+ blocks.1: module()",
        "+ blocks.1.up: linear(in_features=2, out_features=7, bias=True)",
        "+ blocks.1.down: linear(in_features=7, out_features=2, bias=True)",
    ]


def test_what_contains_itself_is_compared_too():
    def ir(more):
        names = {"root": {"0": "a", "1": "b"}, "a": {"0": "root", "1": "b"}, "b": {"0": "a"}}
        return Ir(
            [
                Implementation("module", {"n": more * (name == "b")}, name=name, children=children)
                for name, children in names.items()
            ]
        )

    assert not lg.diff(ir(1), ir(1))
    assert lg.diff(ir(1), ir(2)).changes == (Change("b", ("data", "n"), 1, 2),)


def test_print_shows_all_by_layer():
    difference = lg.diff(
        lg.to_ir(Model()), lg.to_ir(Model(width=5, last="head", function=torch.tanh))
    )
    assert str(difference) == (
        "root:\n"
        "  ~ node tanh, implementation: 'torch.relu' -> 'torch.tanh'\n"
        "  ~ node head, implementation: 'fc' -> 'head'\n"
        "a:\n"
        "  ~ attribute out_features: 3 -> 5\n"
        "- fc: linear(in_features=3, out_features=2, bias=True)\n"
        "+ head: linear(in_features=5, out_features=2, bias=True)"
    )


NODES = ["x", "a", "relu", "fc", "sub", "output"]
EDITS = {
    "an attribute": (
        lambda ir: ir["a"].data.update(out_features=4),
        [Change("a", ("data", "out_features"), 3, 4)],
    ),
    "an attribute that is gone": (
        lambda ir: ir["a"].data.pop("bias"),
        [Change("a", ("data", "bias"), True)],
    ),
    "an attribute that is None": (
        lambda ir: ir["a"].data.update(more=None),
        [Change("a", ("data", "more"), ABSENT, None)],
    ),
    "True for 1": (
        lambda ir: ir["a"].data.update(bias=1),
        [Change("a", ("data", "bias"), True, 1)],
    ),
    "a type": (
        lambda ir: (
            setattr(ir["a"], "type", "dense"),
            setattr(ir["root"].nodes["a"], "type", "dense"),
        ),
        [Change("a", ("type",), "linear", "dense")],
    ),
    "the type of a node alone": (
        lambda ir: setattr(ir["root"].nodes["a"], "type", "dense"),
        [Change("root", ("nodes", "a", "type"), "linear", "dense")],
    ),
    "a mode": (
        lambda ir: setattr(ir["a"], "training", False),
        [Change("a", ("training",), None, False)],
    ),
    "a dtype": (
        lambda ir: ir["a"].tensors.update(weight=TensorSpec(dtype="float64", requires_grad=False)),
        [Change("a", ("tensors", "weight", "dtype"), "float16", "float64")],
    ),
    "a tie": (
        lambda ir: ir["fc"].tensors.update(weight=TensorSpec(tied="a.weight")),
        [Change("fc", ("tensors", "weight"), ABSENT, "TensorSpec(tied='a.weight')")],
    ),
    "a child": (
        lambda ir: ir["root"].children.update(again="fc"),
        [Change("root", ("children", "again"), ABSENT, "fc")],
    ),
    "children instead of a leaf": (
        lambda ir: setattr(ir["a"], "children", {}),
        [Change("a", ("children",), None, {})],
    ),
    "the order of children": (
        lambda ir: setattr(ir["root"], "children", {"fc": "fc", "a": "a"}),
        [Change("root", ("children",), ["a", "fc"], ["fc", "a"])],
    ),
    "an argument": (
        lambda ir: setattr(ir["root"].nodes["sub"], "args", (Ref("fc"), 2)),
        [Change("root", ("nodes", "sub", "args"), [Ref("fc"), 1], [Ref("fc"), 2])],
    ),
    "an argument by name": (
        lambda ir: ir["root"].nodes["sub"].kwargs.update(alpha=2),
        [Change("root", ("nodes", "sub", "kwargs", "alpha"), ABSENT, 2)],
    ),
    "a condition": (
        lambda ir: setattr(ir["root"].nodes["sub"], "when", (Ref("relu"), True)),
        [Change("root", ("nodes", "sub", "when"), ABSENT, (Ref("relu"), True))],
    ),
    "a note on a node": (
        lambda ir: ir["root"].nodes["sub"].data.update(note="x"),
        [Change("root", ("nodes", "sub", "data", "note"), ABSENT, "x")],
    ),
    "a note on an edge": (
        lambda ir: ir["root"].edges["fc", "sub"].data.update(note="x"),
        [Change("root", ("edges", "fc -> sub", "data", "note"), ABSENT, "x")],
    ),
    "arguments that edges had said": (
        lambda ir: setattr(ir["root"].nodes["fc"], "args", None),
        [Change("root", ("stated arguments",), NODES, [each for each in NODES if each != "fc"])],
    ),
    "a second graph": (
        lambda ir: setattr(ir["root"], "evaluation", Graph()),
        [Change("root", ("evaluation",), ABSENT, "its own graph, with 0 nodes")],
    ),
}


def _frozen():
    ir = lg.to_ir(Model())
    ir["a"].tensors["weight"] = TensorSpec(dtype="float16", requires_grad=False)
    return ir


@pytest.mark.parametrize("name", EDITS)
def test_one_edit_is_one_change(name):
    edit, expected = EDITS[name]
    ir = _frozen()
    edit(ir)
    difference = lg.diff(_frozen(), ir)
    assert list(difference.changes) == expected
    turned = [(each.path, each.after, each.before) for each in expected]
    back = lg.diff(ir, _frozen()).changes
    assert [(each.path, each.before, each.after) for each in back] == turned


def test_conditions_are_compared():
    one, other = two_ways(), two_ways()
    assert not lg.diff(one, _renamed(other, "n{}".format))
    other["root"].nodes["a"].when = UNLESS
    difference = lg.diff(one, other)
    assert list(difference.changes) == [Change("root", ("nodes", "a", "when"), IF, UNLESS)]
    assert str(difference) == "root:\n  ~ node a, when: (t, True) -> (t, False)"
    assert lg.diff(one, _renamed(other, "n{}".format))
    other = two_ways()
    for name, form in (("nodes", "b"), ("edges", ("x", "b")), ("edges", ("t", "b"))):
        del getattr(other["root"], name)[form]
    for each in (one, _renamed(one, lambda number: f"z{number}")):
        assert "= torch.relu(x) if not t" in str(lg.diff(each, other))


def test_the_graph_in_evaluation_is_compared():
    class Moody(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return x - 1 if self.training else x * self.factor

    one, other = (lg.to_ir(Moody(factor), (torch.ones(2),)) for factor in (2, 3))
    assert [str(each) for each in lg.diff(one, other).changes] == [
        "~ evaluating, node mul, args: [x, 2] -> [x, 3]"
    ]


def test_values_of_tensors_are_compared_and_told_by_their_digests():
    def ir(value):
        return Ir(
            [
                Implementation(
                    "module",
                    name="root",
                    tensors={"c": TensorSpec("constant", (1,), value=value)},
                )
            ]
        )

    (change,) = lg.diff(ir(b"\0" * 4), ir(b"\1" * 4)).changes
    assert change.path == ("tensors", "c", "value")
    assert change.before.startswith("4 bytes, SHA-256 df3f6198")


def test_roots_of_other_names_and_orders_are_told():
    leaves = [Implementation("relu", name=name) for name in ("a", "b", "c")]
    root = Implementation("module", name="root", children={"a": "a", "b": "b", "c": "c"})
    one = Ir([root, *leaves])
    other = Ir([root, leaves[1], leaves[0], leaves[2]], root="root")
    assert list(lg.diff(one, other).changes) == [Change(None, ("order",), ["a", "b"], ["b", "a"])]
    for each in leaves:
        each.children = {}
    one, other = (Ir([root, *leaves], root=name) for name in ("root", "a"))
    assert str(lg.diff(one, other)) == "the IR:\n  ~ root: 'root' -> 'a'"


def test_json_says_what_differs():
    difference = lg.diff(lg.to_ir(Model()), lg.to_ir(Model(drop=True, width=4)))
    assert json.loads(json.dumps(difference.to_dict())) == {
        "changes": [
            {
                "kind": "added",
                "layer": "root",
                "path": ["nodes", "drop"],
                "after": "drop = dropout drop(relu)",
            },
            {
                "kind": "changed",
                "layer": "root",
                "path": ["nodes", "fc", "args"],
                "before": [{"ref": "relu"}],
                "after": [{"ref": "drop"}],
            },
            {
                "kind": "changed",
                "layer": "a",
                "path": ["data", "out_features"],
                "before": 3,
                "after": 4,
            },
            {
                "kind": "changed",
                "layer": "fc",
                "path": ["data", "in_features"],
                "before": 3,
                "after": 4,
            },
            {"kind": "added", "layer": "drop", "path": [], "after": "dropout(p=0.2)"},
        ]
    }


def test_values_are_compared_with_their_types():
    nan = float("nan")
    assert same([nan, {1: (2, "x")}], [float("nan"), {1: (2, "x")}])
    for one, other in (
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ((1,), [1]),
        ({1: 2}, {True: 2}),
        ({"a": None}, {}),
        (slice(1), slice(2)),
        (None, ABSENT),
    ):
        assert not same(one, other), (one, other)
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})


# --- how much it takes ---


@settings(ALWAYS, max_examples=200)
@given(st.text("abcd", max_size=12), st.text("abcd", max_size=12))
def test_alignment_rises_and_pairs_equals(one, other):
    pairs = align(one, other)
    assert all(one[i] == other[j] for i, j in pairs)
    for before, after in itertools.pairwise(pairs):
        assert before[0] < after[0]
        assert before[1] < after[1]


class _Counted:
    """Counts its comparisons."""

    comparisons = 0

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        _Counted.comparisons += 1
        return self.value == other.value

    def __hash__(self):
        return hash(self.value)


SEQUENCES = {
    "all alike": (["x"] * 10_000, ["x"] * 10_001),
    "alternating": (["x", "y"] * 5_000, ["y", "x"] * 5_000),
    "repeated": ([n % 7 for n in range(10_000)], [n * n % 7 for n in range(10_000)]),
    "one new in each hundred": (
        list(range(10_000)),
        [n if n % 100 else -n - 1 for n in range(10_000)],
    ),
    "turned": (list(range(10_000)), list(range(9_999, -1, -1))),
    "nested": ([*range(5_000), *["x"] * 5_000], [*["x"] * 5_000, *range(5_000)]),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_alignment_of_ten_thousand_takes_no_quadratic_time(name):
    one, other = (list(map(_Counted, sequence)) for sequence in SEQUENCES[name])
    _Counted.comparisons = 0
    align(one, other)
    assert _Counted.comparisons < 1_000_000


def test_alignment_of_ten_thousand_finds_what_moved_up():
    one = list(range(1, 10_001))
    other = [*range(5_000), *range(5_001, 10_002)]
    assert align(one, other) == [
        (item - 1, item if item < 5_000 else item - 1) for item in one if item != 5_000
    ]


@pytest.mark.slow
def test_ten_thousand_layers_are_compared():
    def ir(count, *, more):
        implementations = []
        nodes = [Node("x", "input", "x")]
        for number in range(count):
            name = f"{number}" if number != 5_000 or not more else "new"
            implementations.append(Implementation("relu", name=name))
            nodes.append(Node(f"_{number}", "relu", name, (Ref(nodes[-1].name),)))
            if number % 3 == 0:
                add = Node(f"add_{number}", "function", "operator.add", (Ref(nodes[-1].name), 1))
                nodes.append(add)
        edges = {
            (before.name, after.name): Edge(before.name, after.name)
            for before, after in itertools.pairwise(nodes)
        }
        named = {node.name: node for node in nodes}
        root = Implementation("module", name="root", nodes=named, edges=edges)
        return Ir([root, *implementations])

    difference = lg.diff(ir(10_000, more=False), ir(10_000, more=True))
    assert [str(each) for each in difference.changes] == [
        "~ node _5000, implementation: '5000' -> 'new'",
        "- 5000: relu()",
        "+ new: relu()",
    ]


def test_comparing_needs_no_torch():
    code = (
        "import sys, layergraph as lg; "
        "ir = lg.Ir([lg.Implementation('relu', name='root')]); "
        "print(lg.diff(ir, ir), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "no differences False\n"


def test_dict_forms_are_compared_too():
    form = lg.to_ir(Model()).to_dict()
    assert not lg.diff(lg.to_ir(Model()), form)
    form["a"]["out_features"] = 4
    assert lg.diff(lg.to_ir(Model()), form).changes == (
        Change("a", ("data", "out_features"), 3, 4),
    )
    with pytest.raises(InvalidIrError, match="a int where a dict"):
        lg.diff(form, 3)


def test_an_empty_difference_is_false():
    assert not Difference()
    assert Difference((Change("a", ("type",), "x", "y"),))
    assert bitwise_equal(Difference().to_dict(), {"changes": []})
