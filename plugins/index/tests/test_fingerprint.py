"""Fingerprints are equal if and only if the structures are equal."""

import copy
import os
import random
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layergraph as lg
from layergraph.errors import ArgumentError, InvalidIrError
from layergraph.ir import Body, Edge, Implementation, Node, Record, Ref, Symbol, graph_from_nodes
from layergraph_index.encoding import value_bytes
from layergraph_index.fingerprint import fingerprints

X = torch.randn(2, 4)


class Block(nn.Module):
    def __init__(self, name="lin", inner=None):
        super().__init__()
        self.name = name
        self.add_module(name, nn.Linear(4, 4) if inner is None else inner)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x, other=None):
        y = F.dropout(getattr(self, self.name)(x).relu(), 0.1, self.training) * self.scale
        return y if other is None else y + other


class Two(nn.Module):
    def __init__(self, first, second, *, swap=False):
        super().__init__()
        self.first = first
        self.second = second
        self.swap = swap

    def forward(self, x):
        y = self.first(x)
        return self.second(x, other=y) if self.swap else self.second(y, other=x)


def ir_of(model, x=X, **options):
    return lg.to_ir(model, (x,), **options)


def digest(model, **options):
    return lg.fingerprint(ir_of(model), **options)


BASE = digest(Two(Block(), Block()))


def test_another_capture_and_other_weights_are_the_same():
    assert digest(Two(Block(), Block())) == BASE


def test_names_of_modules_and_of_their_tensors_count_on_request():
    renamed = Two(Block("fc"), Block("dense"))
    assert digest(renamed) == BASE
    assert digest(renamed, names=True) != digest(Two(Block(), Block()), names=True)


def test_the_mode_does_not_count():
    assert digest(Two(Block(), Block()).eval()) == BASE


def test_names_of_nodes_and_annotations_do_not_count():
    ir = ir_of(Two(Block(), Block()))
    form = ir.to_dict()
    for entry in form.values():
        for graph in filter(None, (entry, entry.get("evaluation"))):
            names = {name: f"n{len(graph['nodes']) - n}" for n, name in enumerate(graph["nodes"])}

            def renamed(value, names=names):
                return Ref(names[value.node]) if type(value) is Ref else value

            for node in graph["nodes"].values():
                node["name"] = names[node["name"]]
                node["acme.note"] = 1
                for key in ("args", "when"):
                    if node.get(key) is not None:
                        node[key] = tuple(map(renamed, node[key]))
                if "kwargs" in node:
                    node["kwargs"] = {k: renamed(v) for k, v in node["kwargs"].items()}
            graph["nodes"] = {node["name"]: node for node in graph["nodes"].values()}
            graph["edges"] = {
                (names[a], names[b]): {**e, "src": names[a], "sink": names[b]}
                for (a, b), e in graph["edges"].items()
            }
            graph.pop("differs", None)
        entry["acme.bits"] = 8
    other = lg.Ir.from_dict(form)
    assert other != ir
    assert lg.fingerprint(other) == BASE


def test_another_order_of_the_dict_is_the_same():
    form = ir_of(Two(Block(), Block())).to_dict()
    assert lg.fingerprint(lg.Ir.from_dict(dict(reversed(form.items())))) == BASE


class Sum(nn.Module):
    def forward(self, x):
        return x.sin() + x.cos()


class OtherSum(nn.Module):
    def forward(self, x):
        y = x.cos()
        return x.sin() + y


def test_the_order_in_which_nodes_run_counts():
    assert digest(Sum()) != digest(OtherSum())


def _shared():
    block = Block()
    return Two(block, block)


def _shared_inside():
    inner = nn.Linear(4, 4)
    return Two(Block(inner=inner), Block(inner=inner))


def _frozen():
    model = Two(Block(), Block())
    model.first.lin.weight.requires_grad_(False)
    return model


def _tied():
    model = Two(Block(), Block())
    model.second.scale = model.first.scale
    return model


def _tied_the_other_way():
    model = Two(Block(), Block())
    model.second.lin.weight = model.first.lin.weight
    return model


OTHERS = {
    "an attribute": lambda: Two(Block(), Block(inner=nn.Linear(4, 4, bias=False))),
    "another layer": lambda: Two(Block(), Block(inner=nn.Identity())),
    "the layers exchanged": lambda: Two(Block(inner=nn.Identity()), Block()),
    "wiring": lambda: Two(Block(), Block(), swap=True),
    "a shared block": _shared,
    "a shared layer in two blocks": _shared_inside,
    "a frozen weight": _frozen,
    "a tied parameter": _tied,
    "another tied parameter": _tied_the_other_way,
    "a dtype": lambda: Two(Block(), Block()).double(),
}


def test_each_difference_gives_another_fingerprint():
    found = {"": BASE}
    for name, make in OTHERS.items():
        model = make()
        dtype = next(model.parameters()).dtype
        found[name] = lg.fingerprint(ir_of(model, X.to(dtype)))
    assert len(set(found.values())) == len(found), found


def test_a_block_has_its_own():
    one = ir_of(Two(Block(), Block("fc")))
    other = ir_of(nn.Sequential(nn.ReLU(), Block("dense"), nn.Sequential(Block())))
    # The second one has two arguments.
    assert lg.fingerprint(one, "first") != lg.fingerprint(one, "second")
    same = (one, "first"), (other, "1"), (other, "2.0")
    assert len({lg.fingerprint(*each) for each in same}) == 1
    assert len({lg.fingerprint(*each, names=True) for each in same}) == 2
    assert lg.fingerprint(one, "second.fc") == lg.fingerprint(other, "1.dense")


def test_keyword_arguments_are_told_apart_without_their_names():
    class Takes(nn.Module):
        def forward(self, x, a, b):
            return x * a - b

    class Calls(nn.Module):
        def __init__(self, cls, first, second):
            super().__init__()
            self.inner = cls()
            self.names = first, second

        def forward(self, x):
            first, second = self.names
            return self.inner(x, **{first: x.sin(), second: x.cos()})

    class TakesOthers(nn.Module):
        def forward(self, x, c, d):
            return x * c - d

    assert digest(Calls(Takes, "a", "b")) == digest(Calls(TakesOthers, "c", "d"))
    assert digest(Calls(Takes, "a", "b")) != digest(Calls(Takes, "b", "a"))


class Guarded(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] == 4 else x


class GuardedElsewhere(nn.Module):
    """The same model, with its guard on another line of code."""

    def forward(self, x):
        return x * 2 if x.shape[1] == 4 else x


def test_the_line_of_a_guard_does_not_count():
    one, other = ir_of(Guarded(), values="assume"), ir_of(GuardedElsewhere(), values="assume")
    assert [each.where for each in one.guards] != [each.where for each in other.guards]
    assert lg.fingerprint(one) == lg.fingerprint(other)
    assert lg.fingerprint(one) != lg.fingerprint(ir_of(Guarded(), torch.randn(2, 5)))


def test_through_files_it_stays(tmp_path):
    model = Two(Block(), Block())
    for name in ("m.json", "m.safetensors"):
        lg.save(ir_of(model), tmp_path / name, None if name == "m.json" else model.state_dict())
        ir = lg.load(tmp_path / name)
        assert lg.fingerprint(ir) == BASE
        assert lg.fingerprint(ir, names=True) == digest(model, names=True)


def test_it_is_what_it_was():
    form = {"root": {"name": "root", "type": "linear", "in_features": 2, "bias": True}}
    known = "ad6cbdfd8878c79a1f625560826c4596e40eed2a9d43d45360fcf28272d0640f"
    assert lg.fingerprint(lg.Ir.from_dict(form)) == known


CODE = """
import sys, layergraph as lg
print(lg.fingerprint(lg.load(sys.argv[1])), "torch" in sys.modules)
"""


def test_it_is_the_same_in_other_processes_and_needs_no_torch(tmp_path):
    path = tmp_path / "m.json"
    lg.save(ir_of(Two(Block(), Block())), path)
    for seed in ("0", "7"):
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [BASE, "False"]


# --- size ---


def _chain(count):
    nodes = [Node("x", "input", "x")]
    for n in range(count):
        nodes.append(Node(f"n{n}", "function", "torch.sin", (Ref(nodes[-1].name),)))
    nodes.append(Node("out", "output", "output", (Ref(nodes[-1].name),)))
    graph = graph_from_nodes(nodes)
    return lg.Ir([Implementation("module", nodes=graph.nodes, edges=graph.edges, name="root")])


def test_a_graph_may_be_long():
    assert lg.fingerprint(_chain(100_000)) != lg.fingerprint(_chain(99_999))


def _nest(depth):
    """Return nested modules, of which the innermost one has another layer."""
    form = {}
    for n in range(depth):
        name = "root" if not n else f"b{n}"
        inner = f"b{n + 1}" if n + 1 < depth else "leaf"
        call = {"name": "call", "type": "module" if n + 1 < depth else "relu"}
        form[name] = {
            "name": name,
            "type": "module",
            "children": {"b": inner},
            "nodes": {
                "x": {"name": "x", "type": "input", "implementation": "x"},
                "call": {**call, "implementation": inner},
                "out": {"name": "out", "type": "output", "implementation": "output"},
            },
            "edges": {
                pair: {"src": pair[0], "sink": pair[1]} for pair in (("x", "call"), ("call", "out"))
            },
        }
    form["leaf"] = {"name": "leaf", "type": "relu"}
    return lg.Ir.from_dict(form)


def test_modules_may_be_nested_deeply():
    deep = fingerprints(_nest(5_000))
    assert len(set(deep.values())) == 5_001
    assert deep["b4990"] == fingerprints(_nest(10))["root"]


# --- what it is made of ---

VALUES = [
    None,
    ...,
    True,
    False,
    0,
    1,
    -1,
    10,
    16,
    0.0,
    -0.0,
    1.0,
    1j,
    float("inf"),
    "",
    "1",
    "s1:1",
    b"",
    b"1",
    (),
    [],
    {},
    ((),),
    ([],),
    (1, 1),
    (11,),
    ("1", "1"),
    ("11",),
    ("1", ("1",)),
    (("1",), "1"),
    {"a": 1},
    {"a": "1"},
    ("a", 1),
    {1: "a"},
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    slice(None),
    slice(1),
    (None, None, None),
    Symbol("torch.float32"),
    "torch.float32",
    Record("R", {"a": 1}),
    Record("Ra", {"": 1}),
    2**2000,
]


def _encoded(value):
    return value_bytes(value, lambda leaf: repr(leaf).encode())


def test_values_that_differ_have_other_bytes():
    encoded = [_encoded(each) for each in VALUES]
    assert len(set(encoded)) == len(encoded)
    # No encoding is a prefix of another one, so two different sequences have different bytes.
    for one in encoded:
        assert not any(other.startswith(one) for other in encoded if other is not one)


def test_nan_is_one_value():
    assert _encoded(float("nan")) == _encoded(-float("nan"))


def _random_value(rng, depth=0):
    kind = rng.randrange(9 if depth < 3 else 5)
    if kind < 5:
        return rng.choice([None, True, 1, 2.5, "a", "ab", Ref("x"), Ref("y"), Body("b"), b"a"])
    inside = [_random_value(rng, depth + 1) for _ in range(rng.randrange(3))]
    if kind == 5:
        return inside
    if kind == 6:
        return {f"k{n}": each for n, each in enumerate(inside)}
    return tuple(inside)


def test_random_values_have_equal_bytes_if_they_are_equal():
    rng = random.Random(0)
    known = {}
    for _ in range(20_000):
        value = _random_value(rng)
        said = repr(value)
        assert known.setdefault(_encoded(value), said) == said
        assert _encoded(copy.deepcopy(value)) == _encoded(value)


# --- what it is given ---


def test_what_is_no_ir_is_refused():
    with pytest.raises(ArgumentError, match="a Linear stands where the Ir belongs"):
        lg.fingerprint(nn.Linear(2, 3))
    with pytest.raises(ArgumentError, match="no block 'nothing'"):
        lg.fingerprint(_chain(1), "nothing")


def test_an_ir_that_breaks_a_rule_is_refused():
    ir = _chain(1)
    ir["root"].edges["out", "n0"] = Edge("out", "n0")
    with pytest.raises(InvalidIrError):
        lg.fingerprint(ir)
