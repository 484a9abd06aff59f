"""Properties of every IR and every model, checked with random ones in all forms."""

from __future__ import annotations

import contextlib
import copy
import keyword
import math
import tempfile
from collections import namedtuple
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import layergraph as lg
from layergraph.errors import LayergraphError
from layergraph.ir import (
    Edge,
    Graph,
    Implementation,
    Ir,
    Node,
    Packing,
    Record,
    Ref,
    Symbol,
    TensorSpec,
    map_leaves,
    refs,
)
from layergraph.ir.stated_arguments import with_arguments
from layergraph.ir.values import copied, parts
from layergraph.testing import bitwise_equal
from layergraph_files.document import from_document, to_document
from layergraph_files.text import compact, laid_out, parse
from layergraph_files.versions import current

pytestmark = pytest.mark.slow

ALWAYS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

# --- plain IRs ---

NAMES = st.text("ab_1", min_size=1, max_size=3)
ATOMS = st.one_of(
    st.sampled_from([None, True, False, ..., math.inf, -math.inf, math.nan, -0.0, 2**70, 1j]),
    st.integers(),
    # A file has one form for all nans, so use one nan, that of the line above.
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False) | st.just(complex(math.nan, 1)),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.builds(Symbol, st.sampled_from(["torch.float32", "torch.preserve_format", "x"])),
)


def _values(atoms):
    return st.recursive(
        atoms,
        lambda inside: st.one_of(
            st.lists(inside, max_size=3),
            st.lists(inside, max_size=3).map(tuple),
            st.dictionaries(st.one_of(NAMES, st.integers(), st.none()), inside, max_size=3),
            st.builds(slice, inside, inside, inside),
            st.builds(Record, NAMES, st.dictionaries(NAMES, inside, max_size=3)),
        ),
        max_leaves=5,
    )


VALUES = _values(ATOMS)
# To make such a strategy takes long: references are drawn as numbers, and get their names later.
VALUES_AND_REFS = _values(ATOMS | st.integers(0, 4).map(Ref))
ARGUMENTS = [
    (
        st.none() | st.lists(values, max_size=3).map(tuple),
        st.dictionaries(NAMES, values, max_size=2),
    )
    for values in (VALUES, VALUES_AND_REFS)
]
FIELDS = {"name", "type", "nodes", "edges", "evaluation", "children", "tensors", "training"}
FIELDS |= {"implementation", "args", "kwargs", "when", "src", "sink"}
DATA = st.dictionaries(NAMES, VALUES, max_size=3)
PARTS = st.builds(
    TensorSpec,
    shape=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    dtype=st.sampled_from([None, "int8"]),
    value=st.none() | st.binary(max_size=4),
)
PACKINGS = st.builds(Packing, NAMES, st.dictionaries(NAMES, PARTS, max_size=2), DATA)
SPECS = st.builds(
    TensorSpec,
    packed=st.none() | PACKINGS,
    kind=st.sampled_from([None, "parameter", "buffer", "constant"]),
    shape=st.none() | st.lists(st.integers(0, 9), max_size=3).map(tuple),
    dtype=st.sampled_from([None, "float64", "bool"]),
    requires_grad=st.sampled_from([None, False]),
    persistent=st.sampled_from([None, False]),
    tied=st.none() | NAMES,
    value=st.none() | st.binary(max_size=4),
)


@st.composite
def graphs(draw, callees):
    """Draw an acyclic graph, with nodes and edges in any order."""
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    nodes = {}
    pairs = []
    for index, name in enumerate(names):

        def leaf(value, earlier=names[:index]):
            return Ref(earlier[value.node % len(earlier)]) if type(value) is Ref else value

        args, kwargs = (map_leaves(leaf, draw(each)) for each in ARGUMENTS[index > 0])
        sources = list(dict.fromkeys(refs(args or (), kwargs)))
        when = None
        if args is None and index:
            sources += draw(st.lists(st.sampled_from(names[:index]), max_size=2))
        elif index and draw(st.booleans()):
            when = Ref(draw(st.sampled_from(names[:index]))), draw(st.booleans())
            sources.append(when[0].node)
        kind, of = draw(
            st.sampled_from([("function", "torch.neg"), ("state", "w"), ("input", "x"), *callees])
        )
        nodes[name] = Node(name, kind, of, args, kwargs, draw(DATA), when)
        pairs += [(source, name) for source in sources]
    pairs = draw(st.permutations(list(dict.fromkeys(pairs))))
    graph = Graph(
        nodes={name: nodes[name] for name in draw(st.permutations(names))},
        edges={pair: Edge(*pair, draw(DATA)) for pair in pairs},
    )
    return with_arguments(graph)


@st.composite
def irs(draw):
    """Draw an IR of plain data, which need not be a meaningful model."""
    paths = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
    own = draw(st.sampled_from(["root", "root", "top"]))
    others = draw(st.lists(paths | st.just("root"), max_size=5, unique=True))
    # A dict form can only describe a root of another name if "root" is a child.
    missing = ["root"] if own != "root" and "root" not in others else []
    names = [own, *(name for name in others if name != own), *missing]
    callees = [("module", name) for name in names]
    implementations = []
    for index, name in enumerate(names):
        graph = draw(graphs(callees) | st.just(Graph()))
        children = None
        if draw(st.booleans()):
            inner = st.sampled_from(names[index + 1 :]) if names[index + 1 :] else st.nothing()
            children = draw(st.dictionaries(NAMES, inner, max_size=3))
        implementations.append(
            Implementation(
                draw(NAMES),
                draw(DATA),
                name=name,
                nodes=graph.nodes,
                edges=graph.edges,
                evaluation=draw(st.none() | graphs(callees)),
                children=children,
                tensors=draw(st.dictionaries(NAMES, SPECS, max_size=2)),
                training=draw(st.sampled_from([None, None, True, False])),
            )
        )
    named_otherwise = own != "root"
    if named_otherwise:
        first = implementations[0]
        first.children = {**(first.children or {}), "root": "root"}
        if not draw(st.booleans()):
            first.nodes, first.edges = {}, {}
    return Ir(implementations, own)


def _types(value):
    """Return the types of everything in a value, which ``==`` ignores: 1 == True."""
    inside = parts(value)
    return type(value) if inside is None else (type(value), [_types(each) for each in inside])


def _spoil(value):
    """Change every container in a nested value in place."""
    stack = [value]
    while stack:
        each = stack.pop()
        stack.extend(parts(each) or ())
        if type(each) is dict:
            each["spoilt"] = 1
        elif type(each) is list:
            each.append("spoilt")
        elif type(each) is Record:
            each.fields["spoilt"] = 1


@settings(ALWAYS, max_examples=100)
@given(irs())
def test_dict_form_says_all(ir):
    form = ir.to_dict()
    again = Ir.from_dict(form)
    assert again == ir
    assert again.root == ir.root
    assert list(again) == list(ir)
    assert _types(again.to_dict()) == _types(form)
    assert again.to_dict() == form
    assert str(again) == str(ir)


@settings(ALWAYS, max_examples=100)
@given(irs())
def test_texts_say_all(ir):
    document = to_document(ir, {})
    for text in (laid_out(document), compact(document)):
        again = from_document(current(parse(text.encode())))
        assert bitwise_equal(again.to_dict(), ir.to_dict())
        assert _types(again.to_dict()) == _types(ir.to_dict())
        assert (again.root, list(again), str(again)) == (ir.root, list(ir), str(ir))
        assert to_document(again, {}) == document


@settings(ALWAYS, max_examples=40)
@given(irs())
def test_dict_form_shares_nothing(ir):
    form = ir.to_dict()
    before = copy.deepcopy(form)
    again = Ir.from_dict(form)
    _spoil(form)
    assert bitwise_equal(again.to_dict(), before)
    assert bitwise_equal(ir.to_dict(), before)


@settings(ALWAYS, max_examples=200)
@given(VALUES)
def test_values_keep_their_types(value):
    ir = Ir([Implementation("module", {"value": value}, name="root")])
    back = Ir.from_dict(ir.to_dict())["root"].data["value"]
    assert bitwise_equal(back, value)
    assert _types(back) == _types(value)
    assert bitwise_equal(map_leaves(lambda leaf: leaf, value), copied(value))


@settings(ALWAYS, max_examples=120)
@given(graphs([]))
def test_execution_order(graph):
    order = [node.name for node in graph.in_execution_order()]
    assert sorted(order) == sorted(graph.nodes)
    position = {name: index for index, name in enumerate(order)}
    assert all(position[src] < position[sink] for src, sink in graph.edges)
    listed = list(graph.nodes)
    if all(listed.index(src) < listed.index(sink) for src, sink in graph.edges):
        assert order == listed
    for name in graph.nodes:
        assert graph.predecessors(name) == tuple(src for src, sink in graph.edges if sink == name)
        assert graph.successors(name) == tuple(sink for src, sink in graph.edges if src == name)
    for name, args in graph.arguments().items():
        given_args = graph.nodes[name].args
        if given_args is None and not graph.nodes[name].kwargs:
            assert args == tuple(map(Ref, graph.predecessors(name)))
        elif given_args is not None:
            assert args is given_args


def _turned(ordered):
    return dict(reversed(ordered.items()))


CHANGES = {
    "name": lambda each: setattr(each, "name", "other"),
    "type": lambda each: setattr(each, "type", each.type + "_"),
    "mode": lambda each: setattr(each, "training", not each.training),
    "attributes": lambda each: each.data.update(more=1),
    "tensors": lambda each: each.tensors.update(more=TensorSpec("buffer", (1,))),
    "children": lambda each: setattr(each, "children", {**(each.children or {}), "more": "root"}),
    "nodes": lambda each: each.nodes.update(more=Node("more", "input", "more")),
    "edges": lambda each: each.edges.update({("a", "more"): Edge("a", "more")}),
    "conditions": lambda each: [
        setattr(node, "when", (Ref("a"), node.when is None or not node.when[1]))
        for node in each.nodes.values()
    ],
    "evaluation": lambda each: setattr(each, "evaluation", None if each.evaluation else Graph()),
    "order of nodes": lambda each: setattr(each, "nodes", _turned(each.nodes)),
    "order of edges": lambda each: setattr(each, "edges", _turned(each.edges)),
}


@settings(ALWAYS, max_examples=40)
@given(irs())
def test_equality_sees_every_change(ir):
    for name, change in CHANGES.items():
        other = copy.deepcopy(ir)
        assert bitwise_equal(other.to_dict(), ir.to_dict())
        root = ir[ir.root]
        change(other[ir.root])
        palindrome = {"order of nodes": len(root.nodes) < 2, "order of edges": len(root.edges) < 2}
        palindrome["conditions"] = not root.nodes
        assert palindrome.get(name, False) or other != ir, name


# --- models ---

CONSTANTS = {
    "float32": torch.linspace(-1, 1, 4),
    "float64": torch.linspace(-1, 1, 4, dtype=torch.float64),
    "float16": torch.linspace(-1, 1, 4, dtype=torch.float16),
    "int64": torch.arange(4),
    "int8": torch.tensor(3, dtype=torch.int8),
    "bool": torch.tensor([True, False, True, True]),
    "turned": torch.arange(8.0).reshape(4, 2).t()[0],
}
Pair = namedtuple("Pair", ["left", "right"])


def _setitem(value, index, item):
    value[index] = item
    return value


def _halves(value, dim):
    # Unpack into names: only these show how many chunks there are.
    left, right = value.chunk(2, dim=dim)
    return left, right


def _iadd(value, other):
    value += other
    return value


# The function of each step. Its arguments: the module, the values so far, the step's parameters.
OPS = {
    "call": lambda m, v, i, name: getattr(m, name)(v[i]),
    "pick": lambda m, v, i, name, way: _follow(getattr(m, name)(v[i]), way),
    "twice": lambda m, v, i: v[i] + v[i],
    "add": lambda m, v, i, j: v[i] + v[j],
    "sub": lambda m, v, i, j: torch.sub(v[i], v[j], alpha=3),
    "mul": lambda m, v, i, j: v[i] * v[j],
    "less": lambda m, v, i, number: v[i] - number,
    "from": lambda m, v, i, number: number - v[i],
    "over": lambda m, v, i, number: v[i] / (number + 7),
    "relu": lambda m, v, i: torch.relu(v[i]),
    "leaky": lambda m, v, i, slope: functional.leaky_relu(v[i], negative_slope=slope),
    "softmax": lambda m, v, i, dim: v[i].softmax(dim=dim),
    "dropout": lambda m, v, i, p: functional.dropout(v[i], p, training=m.training),
    "mode": lambda m, v, i: v[i] * 2 if m.training else v[i] - 1,
    "cat": lambda m, v, i, j, dim: torch.cat([v[i], v[j], v[i]], dim=dim),
    "chunk": lambda m, v, i, dim: _halves(v[i], dim),
    "second": lambda m, v, i, dim: torch.chunk(v[i], 2, dim)[1],
    "index": lambda m, v, i, index: v[i][index],
    "turn": lambda m, v, i: v[i].transpose(1, 2),
    "flat": lambda m, v, i: v[i].reshape(v[i].shape[0], v[i].size(1), -1),
    "mean": lambda m, v, i: v[i] - v[i].mean(dim=-1, keepdim=True),
    "gram": lambda m, v, i: v[i] @ v[i].transpose(-1, -2),
    "max": lambda m, v, i: v[i].max(dim=2, keepdim=True).values,
    "clone": lambda m, v, i: v[i].clone(),
    "iadd": lambda m, v, i, number: _iadd(v[i], number),
    "mul_": lambda m, v, i, number: v[i].mul_(number),
    "setitem": lambda m, v, i, index, number: _setitem(v[i], index, number),
    "part": lambda m, v, i: (v[i][:, :1].zero_(), v[i])[1],
    "parameter": lambda m, v, i, name: v[i] * getattr(m, name),
    "deeper": lambda m, v, i, name, way: v[i] + getattr(m.get_submodule(name), way).sum(),
    "count": lambda m, v, i, name: (getattr(m, name).add_(1), v[i] + getattr(m, name))[1],
    "constant": lambda m, v, i, name: (v[i] * getattr(m, name)[..., :1]).to(v[i].dtype),
    "fresh": lambda m, v, i: v[i] + torch.full((1, 1), 0.5),
    "clamp": lambda m, v, i: v[i].clamp(min=-math.inf, max=2),
}


def _follow(value, way):
    for step in way:
        value = value[step]
    return value


def _filled(shape, values):
    """Return a nested value in which the values replace their numbers."""
    if type(shape) is int:
        return values[shape]
    if type(shape) is dict:
        return {key: _filled(each, values) for key, each in shape.items()}
    if type(shape) is Pair:
        return Pair(*[_filled(each, values) for each in shape])
    if type(shape) in (tuple, list):
        return type(shape)([_filled(each, values) for each in shape])
    return shape


class Program(nn.Module):
    """Runs steps, each of which reads values and adds more."""

    def __init__(self):
        super().__init__()
        self.steps = []
        self.result = 0

    def run(self, values):
        for op, *arguments in self.steps:
            value = OPS[op](self, values, *arguments)
            values.extend(value if op == "chunk" else [value])
        return _filled(self.result, values)

    def forward(self, x):
        return self.run([x])


class TwoInputs(Program):
    def forward(self, left, right):
        return self.run([left, right])


class Keyword(Program):
    def forward(self, x, *, scale):
        return self.run([x, scale])


class _Writer:
    """Draws a program step by step, keeping count of the shapes of its values."""

    def __init__(self, random, program, shapes, depth):
        self.random = random
        self.program = program
        self.shapes = list(shapes)
        self.depth = depth
        self.layers = []

    def pick(self, options):
        return self.random.choice(options)

    def step(self, op, *arguments, shapes):
        self.program.steps.append((op, *arguments))
        self.shapes += shapes

    def value(self, wanted=lambda shape: True):
        fitting = [i for i, shape in enumerate(self.shapes) if wanted(shape)]
        return self.pick(fitting[-3:]) if fitting else None

    def name(self, wish):
        taken = len(self.program._modules) + len(self.program._parameters)
        return f"{wish}{taken + len(self.program._buffers) + len(vars(self.program))}"

    # Each of these adds a step, unless no value fits.

    def plain(self):
        i = self.value()
        shape = self.shapes[i]
        number = self.pick([0, 1, -1, 2, 0.5])
        op, *arguments = self.pick(
            [
                ("twice",),
                ("less", number),
                ("from", number),
                ("over", number),
                ("relu",),
                ("leaky", 0.3),
                ("softmax", self.pick([1, 2, -1])),
                ("dropout", 0.5),
                ("mode",),
                ("flat",),
                ("mean",),
                ("clone",),
                ("fresh",),
                ("clamp",),
            ]
        )
        self.step(op, i, *arguments, shapes=[shape])

    def binary(self):
        i = self.value()
        j = self.value(lambda shape: shape == self.shapes[i])
        self.step(self.pick(["add", "sub", "mul"]), i, j, shapes=[self.shapes[i]])

    def reshaping(self):
        i = self.value()
        rows, columns = self.shapes[i]
        cases = [
            (("turn",), [(columns, rows)]),
            (("gram",), [(rows, rows)]),
            (("max",), [(rows, 1)]),
            (("index", (slice(None), slice(0, None, 2))), [((rows + 1) // 2, columns)]),
            (("index", (..., slice(-1, None))), [(rows, 1)]),
            (("index", (slice(None), None, 0)), [(1, columns)]),
            (("index", (..., [0, 0, -1])), [(rows, 3)]),
        ]
        if columns % 2 == 0:
            half = [(rows, columns // 2)]
            cases += [(("chunk", 2), half * 2), (("second", -1), half)]
        op, shapes = self.pick(cases)
        self.step(op[0], i, *op[1:], shapes=shapes)

    def joining(self):
        i = self.value(lambda shape: max(shape) < 9)
        j = self.value(lambda shape: i is not None and shape == self.shapes[i])
        if i is not None and j is not None:
            rows, columns = self.shapes[i]
            dim = self.pick([1, 2, -1])
            joined = (rows * 3, columns) if dim == 1 else (rows, columns * 3)
            self.step("cat", i, j, dim, shapes=[joined])

    def in_place(self):
        i = self.value()
        op, *arguments = self.pick(
            [
                ("iadd", 1),
                ("mul_", 2),
                ("setitem", (slice(None), 0), 0),
                ("setitem", (..., slice(0, 1)), 1.5),
                ("part",),
            ]
        )
        if self.random.random() < 0.5:  # in place on a fresh value, so that autograd can follow
            self.step("clone", i, shapes=[self.shapes[i]])
            i = len(self.shapes) - 1
        self.step(op, i, *arguments, shapes=[self.shapes[i]])

    def tensors(self):
        i = self.value()
        columns = self.shapes[i][1]
        program = self.program
        kind = self.pick(["parameter", "frozen", "buffer", "hidden", "count", "constant", "deeper"])
        name = self.name(kind)
        if kind in ("parameter", "frozen"):
            tensor = nn.Parameter(torch.randn(columns), requires_grad=kind == "parameter")
            program.register_parameter(name, tensor)
            self.step("parameter", i, name, shapes=[self.shapes[i]])
        elif kind in ("buffer", "hidden"):
            program.register_buffer(name, torch.randn(columns), persistent=kind == "buffer")
            self.step("parameter", i, name, shapes=[self.shapes[i]])
        elif kind == "count":
            program.register_buffer(name, torch.tensor(0))
            self.step("count", i, name, shapes=[self.shapes[i]])
        elif kind == "constant":
            setattr(program, name, CONSTANTS[self.pick(sorted(CONSTANTS))].reshape(-1))
            self.step("constant", i, name, shapes=[self.shapes[i]])
        else:
            owners = [
                (path, each)
                for path, module in program.named_modules()
                for each in module._parameters
                if path and module._parameters[each] is not None
            ]
            if owners:
                self.step("deeper", i, *self.pick(owners), shapes=[self.shapes[i]])

    def layer(self):
        i = self.value()
        rows, columns = self.shapes[i]
        layer, shape = self._layer(rows, columns)
        name = self.name("layer")
        self.program.add_module(name, layer)
        self.layers.append((name, (rows, columns), shape))
        self.step("call", i, name, shapes=[shape])

    def _layer(self, rows, columns):
        flag, size = self.random.random() < 0.5, self.pick([1, 2, 4])
        kernel, padding, dilation = self.pick([1, 3]), self.pick([0, 1, "same"]), self.pick([1, 2])
        groups = self.pick([g for g in (1, 2) if rows % g == 0 and size % g == 0])
        mode = self.pick(["zeros", "circular"])
        conv = nn.Conv1d(
            rows,
            size,
            kernel,
            padding="same" if (kernel - 1) * dilation >= columns or mode != "zeros" else padding,
            dilation=dilation if columns > 4 else 1,
            groups=groups,
            bias=flag,
            padding_mode="zeros" if columns < 3 else mode,
        )
        width = conv(torch.zeros(1, rows, columns)).shape[-1] if columns >= kernel else 0
        cases = [
            (nn.Linear(columns, size, bias=flag), (rows, size)),
            (nn.BatchNorm1d(rows, eps=1e-3, momentum=0.3, affine=flag), (rows, columns)),
            (nn.BatchNorm1d(rows, track_running_stats=flag), (rows, columns)),
            (nn.BatchNorm1d(rows, momentum=None), (rows, columns)),
            (nn.LayerNorm(columns, elementwise_affine=flag), (rows, columns)),
            (nn.LayerNorm((rows, columns), eps=1e-2), (rows, columns)),
            (nn.ReLU(inplace=flag), (rows, columns)),
            (nn.LeakyReLU(0.2), (rows, columns)),
            (nn.Dropout(0.3), (rows, columns)),
            (nn.Identity(), (rows, columns)),
            (nn.Sequential(), (rows, columns)),
            (nn.Sequential(nn.Linear(columns, size), nn.Sequential(nn.Tanh())), (rows, size)),
        ]
        if width:
            cases.append((conv, (size, width)))
        return self.pick(cases)

    def again(self):
        """Call a layer again, under its name or another one."""
        if not self.layers:
            return
        name, before, after = self.pick(self.layers)
        i = self.value(lambda shape: shape == before)
        if self.random.random() < 0.5:
            layer = getattr(self.program, name)
            name = self.name("other")
            self.program.add_module(name, layer)
        if i is not None:
            self.step("call", i, name, shapes=[after])

    def nested(self):
        if self.depth == 2:
            return
        i = self.value()
        inner, shapes = _program(self.random, Program, [self.shapes[i]], 3, self.depth + 1)
        name = self.name("inner")
        if self.layers and self.random.random() < 0.5:
            # The inner module shares a layer with the outer one.
            inner.shared = getattr(self.program, self.pick(self.layers)[0])
        self.program.add_module(name, inner)
        ways = list(_ways(inner.result))
        if ways:
            way, value = self.pick(ways)
            self.step("pick", i, name, way, shapes=[shapes[value]])

    def spare(self):
        """Add a layer that is never called."""
        self.program.add_module(self.name("spare"), nn.Linear(2, 2))

    def tie(self):
        """Tie a tensor to another name, in another layer or in the program itself."""
        linears = [m for m in self.program.modules() if type(m) is nn.Linear]
        if not linears:
            return
        one = self.pick(linears)
        if self.random.random() < 0.5:
            self.program.register_parameter(self.name("tied"), one.weight)
            return
        layer = nn.Linear(one.in_features, one.out_features)
        layer.weight = one.weight
        self.program.add_module(self.name("twin"), layer)
        i = self.value(lambda shape: shape[1] == one.in_features)
        if i is not None:
            name = next(reversed(self.program._modules))
            self.step("call", i, name, shapes=[(self.shapes[i][0], one.out_features)])

    def out(self):
        """Return the program's result: values in a nested container."""
        last = len(self.shapes) - 1
        some = [self.random.randint(max(0, last - 3), last) for _ in range(2)]
        self.program.result = self.pick(
            [
                *(last, last),
                # Return all values, so that every step has an effect.
                *[tuple(range(last + 1))] * 3,
                (last, *some),
                [last],
                {"a": last, "b": (some[0], [some[1]])},
                Pair(*some),
                (last, (self.pick([None, 0.5, "text", ()]), [some[0]])),
            ]
        )


STEPS = (
    ["plain"] * 3
    + ["layer"] * 4
    + ["binary", "reshaping", "joining", "in_place", "tensors", "tensors", "again", "again"]
    + ["nested", "nested", "spare", "tie"]
)


def _ways(result, way=()):
    """Yield each value of a program's result, with the path of items to it."""
    if type(result) is int:
        yield way, result
    elif isinstance(result, dict):
        for key, each in result.items():
            yield from _ways(each, (*way, key))
    elif isinstance(result, tuple | list):
        for index, each in enumerate(result):
            yield from _ways(each, (*way, index))


def _program(random, cls, shapes, size, depth):
    program = cls()
    writer = _Writer(random, program, shapes, depth)
    for _ in range(size):
        getattr(writer, random.choice(STEPS))()
    writer.out()
    return program, writer.shapes


def _model(seed, size):
    """A model, and a function that draws inputs for a batch size.

    Drawn from a seed, and not by hypothesis, whose draws are mostly of tiny models.
    """
    random = Random(seed)
    torch.manual_seed(seed)
    cls = random.choice([Program, Program, Program, TwoInputs, Keyword])
    shapes = [(4, 4)] if cls is Program else [(4, 4)] * 2
    model, _ = _program(random, cls, shapes, size, 0)
    with torch.no_grad():  # otherwise, a constructor would restore the value even if it was lost
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    dtype = torch.float32
    change = random.choice(["", "", "", "eval", "double", "frozen", "parts"])
    modules = list(model.modules())
    if change == "eval":
        model.eval()
    elif change == "double":
        dtype = torch.float64
        model.double()
    elif change == "frozen":
        random.choice(modules).requires_grad_(False)
    elif change == "parts":
        random.choice(modules).eval()

    def inputs(batch, seed):
        generator = torch.Generator().manual_seed(seed)
        count = 1 if cls is Program else 2
        drawn = [torch.randn(batch, 4, 4, generator=generator, dtype=dtype) for _ in range(count)]
        return (drawn[:1], {"scale": drawn[1]}) if cls is Keyword else (drawn, {})

    return model, inputs


def _observed(model, inputs, *, training):
    """Return everything observable of a model in one mode, and restore the model."""
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    model.train(training)
    seen = {}
    for batch, seed in ((2, 0), (3, 1)):
        args, kwargs = inputs(batch, seed)
        torch.manual_seed(seed)
        model.zero_grad(set_to_none=True)
        result = model(*args, **kwargs)
        tensors = [each for each in _leaves(result) if isinstance(each, torch.Tensor)]
        wanting = [each for each in tensors if each.requires_grad]
        failed = None
        if wanting:
            try:
                torch.autograd.backward(wanting, [torch.randn_like(each) for each in wanting])
            except (
                RuntimeError
            ) as error:  # an in-place change of a value that autograd needs: both models raise
                failed = type(error)
        seen[batch] = {
            "result": map_leaves(_detached, result),
            "inputs afterwards": [args, kwargs],
            "failed": failed,
            "gradients": {name: p.grad for name, p in model.named_parameters()},
            "state afterwards": copy.deepcopy(dict(model.state_dict())),
        }
    model.load_state_dict(before)
    model.zero_grad(set_to_none=True)
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return seen


def _detached(leaf):
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


def _leaves(value):
    if isinstance(value, tuple | list):
        return [leaf for each in value for leaf in _leaves(each)]
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in _leaves(each)]
    return [value]


def _state(model):
    """Return the state that a user sees, and which keys are one tensor."""
    tensors = model.state_dict(keep_vars=True)
    first = {}
    return {
        "keys": list(tensors),
        "one object": [first.setdefault(id(each), key) for key, each in tensors.items()],
        "kinds": [(type(t), t.dtype, t.shape, t.requires_grad) for t in tensors.values()],
        "parameters": [name for name, _ in model.named_parameters()],
        "values": [each.detach().clone() for each in tensors.values()],
    }


def _differing(one, other, where=""):
    """Return the places where two nested dicts differ, for the message of a failed test."""
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        return [
            place for key in one for place in _differing(one[key], other[key], f"{where} {key!r}")
        ]
    return [] if bitwise_equal(one, other) else [where]


def _attributes(model):
    return [
        {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(each).items()
        }
        for each in model.modules()
    ]


def _identical(one, other):
    """Return whether two modules hold the same objects under the same names."""
    return all(
        list(a) == list(b)
        and all(
            (a[name].keys() == b[name].keys() and all(a[name][k] is b[name][k] for k in a[name]))
            if isinstance(a[name], dict)
            else a[name] is b[name]
            for name in a
        )
        for a, b in zip(one, other, strict=True)
    )


MODES = {"evaluating": False, "training": True}


@settings(ALWAYS, max_examples=70)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 20))
def test_models_come_back(seed, size):
    model, inputs = _model(seed, size)
    try:
        wanted = {
            name: _observed(model, inputs, training=training) for name, training in MODES.items()
        }
    except (
        RuntimeError
    ):  # autograd forbids the in-place change of this view, so the model is invalid
        assume(False)
    attributes, state = _attributes(model), _state(model)
    random_state = torch.get_rng_state()
    ir = lg.to_ir(model)
    assert bitwise_equal(torch.get_rng_state(), random_state)
    assert _identical(_attributes(model), attributes)
    assert _differing(_state(model), state) == []
    assert lg.to_ir(model) == ir

    form = ir.to_dict()
    read = Ir.from_dict(form)
    assert read == ir
    assert Ir.from_dict(ir.flatten().to_dict()) == ir.flatten()
    rebuilt = lg.to_torch(read, model.state_dict())
    assert ir == read
    assert bitwise_equal(ir.to_dict(), form)
    assert [each.training for each in rebuilt.modules()] == [
        each.training for each in model.modules()
    ]
    for what, each in {
        "rebuilt": rebuilt,
        "flat": lg.to_torch(ir.flatten(), model.state_dict()),
        "copied": copy.deepcopy(rebuilt),
        "a copy's weights": _loaded(lg.to_torch(read), model.state_dict()),
        "from a file": _through_file(ir, model.state_dict(), None),
        "from files": _through_file(ir, model.state_dict(), 64),
        "rebuilt twice": lg.to_torch(lg.to_ir(rebuilt), rebuilt.state_dict()),
    }.items():
        assert _differing(_state(each), state) == [], what
        for name, training in MODES.items():
            seen = _observed(each, inputs, training=training)
            assert _differing(seen, wanted[name]) == [], f"{what}, {name}:\n{ir}"
    for name, training in MODES.items():  # converting and building have not changed the original
        assert _differing(_observed(model, inputs, training=training), wanted[name]) == []


def _through_file(ir, state_dict, max_shard_size):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        lg.save(ir, path, state_dict, max_shard_size=max_shard_size)
        assert lg.load(path) == ir
        return lg.load_model(path)


def _loaded(model, state_dict):
    model.load_state_dict(state_dict)
    return model


class Named(nn.Module):
    """Has a child, a parameter and an input with unusual names."""

    def __init__(self, name):
        super().__init__()
        self.children_by_name = nn.ModuleDict({name: nn.Linear(3, 3)})
        self.last = nn.Linear(3, 3)
        self.name = name

    def forward(self, x):
        y = self.children_by_name[self.name](x)
        return torch.relu(self.last(y)).clamp(max=math.inf) + y


AWKWARD = st.sampled_from(
    [
        *keyword.kwlist,
        *keyword.softkwlist,
        *"self torch inf nan device math getattr output input root x forward_ ä 0 - ' {x}".split(),
        *("a b", '"', "\\", "\n"),
    ]
)


@settings(ALWAYS, max_examples=60)
@given(AWKWARD)
def test_any_name_of_a_child(name):
    torch.manual_seed(0)
    try:
        model = Named(name)
    except (KeyError, TypeError):  # a name of a method of ModuleDict
        assume(False)
    x = torch.randn(2, 3)
    ir = lg.to_ir(model)
    for each in (ir, ir.flatten()):
        try:
            rebuilt = lg.to_torch(each, model.state_dict())
        except LayergraphError:
            if name.isidentifier() and not keyword.iskeyword(name):
                raise
            continue
        assert list(rebuilt.state_dict()) == list(model.state_dict())
        assert bitwise_equal(rebuilt(x), model(x))


@settings(ALWAYS, max_examples=60)
@given(AWKWARD.filter(lambda name: name.isidentifier() and not keyword.iskeyword(name)))
def test_any_name_of_an_input(name):
    assume(name != "self")
    space = {"nn": nn}
    source = f"class Model(nn.Module):\n  def forward(this, {name}):\n    return this.inner({name})"
    exec(source, space)
    model = space["Model"]()
    model.inner = Named("a")
    x = torch.randn(2, 3)
    ir = lg.to_ir(model)
    for each in (ir, ir.flatten()):
        rebuilt = lg.to_torch(each, model.state_dict())
        assert bitwise_equal(rebuilt(x), model(x))
        for parameter in each[each.root].parameters().values():
            assert bitwise_equal(rebuilt(**{parameter: x}), model(x))


@settings(ALWAYS, max_examples=50)
@given(irs())
def test_random_irs_are_built_or_refused(ir):
    for do in (lg.to_torch, Ir.flatten):
        with contextlib.suppress(LayergraphError):
            do(ir)
