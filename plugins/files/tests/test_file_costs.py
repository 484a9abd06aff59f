"""The cost of a load is linear in the file: integers, names, paths, problems, memory."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import layergraph as lg
from layergraph.errors import MAX_PROBLEMS, FileError, InvalidIrError, LayergraphError, brief
from layergraph.ir import Implementation, Ir, Node, Ref, check
from layergraph.ir.from_nodes import graph_from_nodes
from layergraph.ir.submodules import Ancestry
from layergraph.ir.values import MAX_INTEGER_BITS, MAX_NUMBER_KEYS
from layergraph.ir2torch import get_default_converter
from layergraph.ir2torch.submodules import owner_of
from layergraph.testing import bitwise_equal
from layergraph_files.budget import Allowance, Budget
from layergraph_files.values import MAX_NAME

HASH = 2**61 - 1  # all its multiples have the same hash in Python


def _node(name, type_, implementation, *args, **kwargs):
    form = {"name": name, "type": type_, "implementation": implementation}
    return form | ({"args": list(args)} if args else {}) | ({"kwargs": kwargs} if kwargs else {})


def _file(folder, *nodes, others=(), **root):
    nodes = [_node("x", "input", "x"), *nodes, _node("output", "output", "output", {"ref": "x"})]
    first = {"name": "root", "type": "module", "children": [], "nodes": nodes, **root}
    form = {"format": "layergraph", "version": 1, "root": "root"}
    path = folder / "m.json"
    path.write_text(json.dumps(form | {"implementations": [first, *others]}))
    return path


X = {"ref": "x"}


# --- integers ---


def _hex(bits):
    return {"int": hex(2**bits - 1)}


@pytest.mark.parametrize(
    "node",
    [
        lambda big: _node("y", "function", "torch.add", X, big),
        lambda big: _node("y", "function", "torch.add", X, [{"tuple": [big]}]),
        lambda big: _node("y", "function", "torch.add", X, {"dict": [[big, 1]]}),
        lambda big: _node("y", "function", "unheard.of", X, alpha=big),
        lambda big: _node("y", "input", "y", default={"record": ["R", [["a", big]]]}),
        lambda big: _node("y", "input", "y", rank=big),
    ],
)
def test_long_integers(tmp_path, node):
    path = _file(tmp_path, node(_hex(30_000)))
    for read in (lg.load, lg.load_model):
        with pytest.raises(FileError, match="more digits"):
            read(path)


def test_integers_of_a_thousand_bits_are_kept(tmp_path):
    path = _file(tmp_path, _node("y", "function", "torch.add", X, _hex(1000)))
    assert lg.load(path)["root"].nodes["y"].args == (Ref("x"), 2**1000 - 1)


LONG = {"alone": 2**30_000, "in a list": [-(2**30_000)], "a key": {2**30_000: 1}}


@pytest.mark.parametrize("where", LONG)
def test_long_integers_in_memory(where):
    value = LONG[where]
    ir = Ir([Implementation("relu", {"a": value}, name="root")])
    with pytest.raises(InvalidIrError, match="'a' holds"):
        check(ir)
    check(Ir([Implementation("relu", {"a": [2**MAX_INTEGER_BITS - 1]}, name="root")]))


def test_what_messages_say_of_values_is_short():
    for value in [*LONG.values(), "x" * 10_000, list(range(10_000))]:
        assert len(brief(value)) < 300


# --- keys ---


def test_keys_of_one_hash(tmp_path):
    keys = [[{"int": hex(HASH * number)}, None] for number in range(1, MAX_NUMBER_KEYS + 2)]
    path = _file(tmp_path, _node("y", "function", "torch.add", X, {"dict": keys}))
    with pytest.raises(FileError, match="keys are not strings"):
        lg.load(path)
    ir = Ir([Implementation("relu", {"a": {n: n for n in range(2000)}}, name="root")])
    with pytest.raises(InvalidIrError, match="2000 keys"):
        check(ir)
    names = [[str(number), number] for number in range(5000)]
    path = _file(tmp_path, _node("y", "function", "torch.add", X, {"dict": [*names, *keys[:9]]}))
    assert len(lg.load(path)["root"].nodes["y"].args[1]) == 5009


# --- problems ---


def test_problems_end(tmp_path):
    path = _file(tmp_path, *[_node(f"y{n}", "function", "", {"ref": "no"}) for n in range(5000)])
    with pytest.raises(InvalidIrError, match=f"breaks {MAX_PROBLEMS} rules or more") as caught:
        lg.load(path)
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert len(str(caught.value)) < 50_000


def test_what_a_call_lacks_is_told_in_short(tmp_path):
    inputs = [_node(f"p{n}", "input", f"p{n}") for n in range(1000)]
    inner = {"name": "i", "type": "module", "children": [], "nodes": inputs}
    inner["nodes"] = [*inputs, _node("output", "output", "output", {"ref": "p0"})]
    calls = [_node(f"c{n}", "module", "i") for n in range(300)]
    path = _file(tmp_path, *calls, others=[inner], children=[["i", "i"]])
    with pytest.raises(InvalidIrError, match="p19 and 980 more") as caught:
        lg.load(path)
    assert len(str(caught.value)) < 100_000


# --- which contains which ---


def _chain(count):
    listed = [
        Implementation("module", name=f"m{n}", children={"c": f"m{n + 1}"}) for n in range(count)
    ]
    return [*listed, Implementation("relu", name=f"m{count}")]


def _shared(count):
    """Return an IR with many composites that call one layer, which none of them has as a child."""
    graph = graph_from_nodes(
        [
            Node("x", "input", "x"),
            Node("y", "relu", "act", (Ref("x"),)),
            Node("output", "output", "output", (Ref("y"),)),
        ]
    )
    made = [Node(f"c{n}", "module", f"b{n}", (Ref("x"),)) for n in range(count)]
    root = graph_from_nodes(
        [Node("x", "input", "x"), *made, Node("output", "output", "output", (Ref("x"),))]
    )
    listed = [Implementation("module", name="m0", nodes=root.nodes, edges=root.edges)]
    listed += [
        Implementation("module", name=f"b{n}", nodes=graph.nodes, edges=graph.edges)
        for n in range(count)
    ]
    return [*listed, Implementation("relu", name="act")]


@pytest.fixture
def steps(monkeypatch):
    """Return the number of steps of the searches for parents."""
    taken = []
    spend = Ancestry._spend
    monkeypatch.setattr(
        Ancestry, "_spend", lambda self, count: (taken.append(count), spend(self, count))
    )
    return lambda: (sum(taken), taken.clear())[0]


@pytest.mark.parametrize("make", [_chain, _shared])
def test_searches_for_parents_take_steps_in_proportion(steps, make):
    def cost(count):
        ir = Ir(make(count), "m0")
        check(ir)
        ancestry = Ancestry.of(ir)
        last = list(ir)[-1]
        for _ in range(count):
            assert ancestry.contains("m0", last)
            assert ancestry.path("m0", last)
        return steps()

    small, large = cost(200), cost(800)
    assert large < 6 * small + 10


def test_what_shares_what_many_share_is_refused_in_time(monkeypatch):
    monkeypatch.setattr("layergraph.ir.submodules._STEPS", 10_000)
    ancestry = Ancestry()
    for number in range(3000):
        ancestry.add("root", f"a{number}", f"a{number}")
        ancestry.add(f"a{number}", "c", "c")
        ancestry.add("c", f"l{number}", f"l{number}")
    with pytest.raises(InvalidIrError, match="share others"):
        all(ancestry.contains("root", f"l{number}") for number in range(3000))


# --- names, paths and levels ---


@pytest.mark.parametrize(
    "node",
    [
        lambda name: _node(name, "function", "torch.relu", X),
        lambda name: _node("s", "state", name),
        lambda name: _node("y", "function", name, X),
        lambda name: _node("y", "function", "torch.relu", X, **{name: 1}),
        lambda name: _node("y", "function", "torch.relu", {"ref": name}),
        lambda name: _node("y", "input", "y", default={"record": [name, []]}),
    ],
)
def test_long_names(tmp_path, node):
    with pytest.raises(FileError, match=f"the name has {2 * MAX_NAME} characters"):
        lg.load(_file(tmp_path, node("a." * MAX_NAME)))


def test_no_file_is_written_with_a_name_that_is_too_long(tmp_path):
    ir = Ir([Implementation("relu", name="r" * 5000)], "r" * 5000)
    with pytest.raises(FileError, match="has 5000 characters"):
        lg.save(ir, tmp_path / "m.json")
    assert not list(tmp_path.iterdir())


def test_deep_levels(tmp_path):
    def path(count):
        inner = [
            {"name": f"i{n}", "type": "module", "children": [["c", f"i{n + 1}"]]}
            for n in range(count)
        ]
        others = [*inner, {"name": f"i{count}", "type": "relu"}]
        return _file(tmp_path, others=others, children=[["c", "i0"]])

    assert len(lg.load(path(1500))) == 1502
    with pytest.raises(FileError, match=f"more than {MAX_NAME} characters"):
        lg.load(path(2500))


def test_long_paths_to_many_tensors(tmp_path):
    tensors = [{"name": f"w{n}", "kind": "parameter", "shape": [1]} for n in range(5000)]
    inner = {"name": "i", "type": "module", "children": [], "tensors": tensors}
    path = _file(tmp_path, others=[inner], children=[["c" * 4000, "i"]])
    assert lg.load(path)
    with pytest.raises(FileError, match=r"characters of paths.*Limits\(modules="):
        lg.load_model(path)


def _doubling(levels):
    made = []
    for level in range(levels):
        callee, kind = (f"m{level + 1}", "module") if level < levels - 1 else ("act", "relu")
        nodes = [
            Node("x", "input", "x"),
            Node("a", kind, callee, (Ref("x"),)),
            Node("b", kind, callee, (Ref("a"),)),
            Node("output", "output", "output", (Ref("b"),)),
        ]
        graph = graph_from_nodes(nodes)
        made.append(
            Implementation(
                "module",
                name=f"m{level}",
                nodes=graph.nodes,
                edges=graph.edges,
                children={"c": callee},
            )
        )
    return Ir([*made, Implementation("relu", name="act")], "m0")


def test_flat_graphs_that_double(monkeypatch):
    assert len(_doubling(6).flatten()["m0"].nodes) == 2 + 2**6
    monkeypatch.setattr("layergraph_rewrite.flatten._NODES", 1000)
    with pytest.raises(InvalidIrError, match="nodes and values on one level"):
        _doubling(50).flatten()


def test_flat_values_that_double(monkeypatch):
    monkeypatch.setattr("layergraph_rewrite.flatten._NODES", 1000)
    ir = _doubling(12)
    for each in ir.values():
        if each.nodes:
            # Each call returns a pair of pairs.
            each.nodes["output"].args = ((Ref("b"), Ref("b")),)
    check(ir)
    with pytest.raises(InvalidIrError, match="nodes and values on one level"):
        ir.flatten()


@pytest.mark.parametrize("when", [None, (Ref("x"), True)], ids=["always", "under a condition"])
def test_flat_arguments_that_double(when):
    ir = _doubling(50)
    for each in ir.values():
        if each.nodes:
            # Each level returns its argument twice, as a pair.
            nodes = list(each.nodes.values())
            nodes[1] = Node("a", nodes[1].type, nodes[1].implementation, ((Ref("x"),) * 2,))
            nodes[1].when = when
            del nodes[2]
            nodes[2].args = (Ref("a"),)
            graph = graph_from_nodes(nodes)
            each.nodes, each.edges = graph.nodes, graph.edges
    check(ir)
    with pytest.raises(InvalidIrError, match="nodes and values on one level"):
        ir.flatten()


def test_flat_arguments_that_many_nodes_read():
    count = 2000
    inner = graph_from_nodes([Node("output", "output", "output", ((1,) * count,))])
    nodes = [Node("r", "module", "f", ())]
    nodes += [Node(f"n{number}", "function", "torch.stack", (Ref("r"),)) for number in range(count)]
    outer = graph_from_nodes([*nodes, Node("output", "output", "output", (None,))])
    root, leaf = [
        Implementation("module", name=name, nodes=graph.nodes, edges=graph.edges, children=children)
        for name, graph, children in (("root", outer, {"f": "f"}), ("f", inner, {}))
    ]
    ir = Ir([root, leaf])
    check(ir)
    with pytest.raises(InvalidIrError, match="nodes and values on one level"):
        ir.flatten()


def test_owners_of_keys():
    ir = Ir([Implementation("module", name=name) for name in ("root", "a", "a.b")])
    wanted = {
        "a.b.c.w": ("a.b", "c.w"),
        "a.w": ("a", "w"),
        "w": ("root", "w"),
        "b.w": ("root", "b.w"),
    }
    assert {key: owner_of(ir, key) for key in wanted} == wanted


# --- sizes and memory ---


@pytest.mark.parametrize("shape", [[0, 2**63], [1] * 65, [0, 10**29]])
@pytest.mark.parametrize("said", ["in the document", "in the header"])
def test_shapes_beyond_torch(tmp_path, shape, said):
    spec = {"name": "w", "kind": "parameter", "shape": shape if said == "in the document" else [1]}
    text = _file(tmp_path, tensors=[spec]).read_text()
    header = {
        "dtype": "F32",
        "shape": shape if said == "in the header" else [0],
        "data_offsets": [0, 0],
    }
    raw = json.dumps({"__metadata__": {"layergraph": text}, "w": header}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(LayergraphError):
        lg.load_model(path)


class _Memory(TorchDispatchMode):
    """Counts the bytes of the tensors that take memory."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        if isinstance(made, torch.Tensor) and not made.is_meta and "empty" not in func.name():
            self.bytes += made.nbytes
        return made


LARGE = {
    "batchnorm1d": {"num_features": 2**20},
    "linear": {"in_features": 2**10, "out_features": 2**10},
    "prelu": {"num_parameters": 2**20},
    "layernorm": {"normalized_shape": {"tuple": [2**20]}},
    "embedding": {"num_embeddings": 2**10, "embedding_dim": 2**10, "padding_idx": 3},
    "gru": {"input_size": 2**8, "hidden_size": 2**10},
    "multiheadattention": {"embed_dim": 2**10, "num_heads": 1},
}


@pytest.mark.parametrize("kind", LARGE)
def test_layers_whose_tensors_are_not_in_the_file_take_no_memory(tmp_path, kind):
    others = [{"name": f"n{n}", "type": kind, "data": LARGE[kind]} for n in range(3)]
    path = _file(tmp_path, others=others, children=[[f"n{n}", f"n{n}"] for n in range(3)])
    with _Memory() as memory, pytest.raises(lg.errors.StateError, match="no weights"):
        lg.load_model(path)
    assert memory.bytes < 100_000


class Table(nn.Module):
    """Has a non-persistent buffer and an unregistered tensor."""

    def __init__(self, size, where):
        super().__init__()
        table = torch.arange(size).float() * 2
        if where == "registered":
            self.register_buffer("table", table, persistent=False)
        elif where == "a list":
            self.table = [table]
        else:
            self.total = table.sum().item()
        self.weight = nn.Parameter(torch.ones(size))


@pytest.mark.parametrize("size", [10, 5000])
@pytest.mark.parametrize("where", ["registered", "a list", "a number"])
def test_layers_that_need_their_numbers_have_them(size, where):
    converter = get_default_converter()
    converter.register("table", lambda implementation: Table(size, where))
    ir = Ir(
        [Implementation("sequential", name="root", children={"0": "a", "1": "b"})]
        + [Implementation("table", name=name) for name in "ab"]
    )
    allowance = Allowance(numbers=10**6, tensors=100, bytes=10**9, memory=10**6)
    meta_model = converter.meta_model(ir, Budget(allowance))
    weights = {f"{number}.weight": torch.zeros(size) for number in range(2)}
    model = meta_model.fill(weights, torch.device("cpu"))
    for layer in model:
        expected = torch.arange(size).float() * 2
        assert not layer.weight.any()
        if where == "a number":
            assert layer.total == expected.sum()
        else:
            found = layer.table if where == "registered" else layer.table[0]
            assert bitwise_equal(found, expected)


def test_layers_that_need_their_numbers_take_no_more_than_is_allowed():
    converter = get_default_converter()
    converter.register("table", lambda implementation: Table(5000, "registered"))
    ir = Ir([Implementation("table", name="root")])
    allowance = Allowance(numbers=10**6, tensors=100, bytes=10**9, memory=10_000)
    with pytest.raises(FileError, match="bytes of memory"):
        converter.meta_model(ir, Budget(allowance))


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        line = torch.ones(5000)
        self.register_buffer("square", line[:, None] * line, persistent=False)


def test_steps_that_enlarge_are_counted():
    converter = get_default_converter()
    converter.register("outer", lambda implementation: Outer())
    allowance = Allowance(numbers=10**9, tensors=100, bytes=10**9, memory=10**6)
    with _Memory() as memory, pytest.raises(FileError, match="bytes of memory"):
        converter.meta_model(Ir([Implementation("outer", name="root")]), Budget(allowance))
    assert memory.bytes < 10**6
