"""Shapes of values, held against those of real runs."""

from __future__ import annotations

import resource
import sys

import pytest
import torch
from torch import fx, nn

import layergraph as lg
from layergraph.errors import (
    ArgumentError,
    AssumptionError,
    InvalidIrError,
    LayergraphError,
    ShapeError,
)
from layergraph.ir import Implementation, Node, Record, Ref, graph_from_nodes
from layergraph_shapes import Either, TensorMeta
from layergraph_shapes.described import described, tensors_in
from plugins.shapes.tests.models import (
    MODELS,
    Attention,
    Containers,
    Regions,
    Residual,
    Tagger,
    Twice,
)

GRAPHS = [
    "residual",
    "attention",
    "fused attention",
    "tagger",
    "unet",
    "containers",
    "nested inputs",
    "twice",
    "regions",
]
EVERY = pytest.mark.parametrize("name", MODELS)


def made(name):
    make, args, kwargs = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    return model, lg.to_ir(model, args, kwargs), args, kwargs


def real(value):
    return described(value, lambda number: number)


class Noting(fx.Interpreter):
    """Notes the description of each value that a rebuilt model computes."""

    def __init__(self, module):
        super().__init__(module)
        self.noted = []

    def run_node(self, n):
        value = super().run_node(n)
        if n.op != "output":
            # torch.fx renames a node that has the name of a type.
            self.noted.append((n.name.replace("device_1", "device"), real(value)))
        return value


# Against real runs


@EVERY
def test_each_layer_returns_what_hooks_see(name):
    model, ir, args, kwargs = made(name)
    seen = {}
    for path, module in model.named_modules():
        if path and path in ir:
            module.register_forward_hook(
                lambda _, __, out, path=path: seen.setdefault(path, []).append(real(out))
            )
    out = model(*args, **kwargs)
    found = lg.shapes(ir, args, kwargs)
    assert found.output == real(out)
    for path, outputs in seen.items():
        assert found.of(path) == outputs, path


@pytest.mark.parametrize("name", GRAPHS)
def test_each_function_returns_what_an_interpreter_sees(name):
    model, ir, args, kwargs = made(name)
    flat = ir.flatten()
    rebuilt = lg.to_torch(flat, model.state_dict())
    interpreter = Noting(rebuilt)
    values = [kwargs.get(each.target, None) for each in rebuilt.graph.find_nodes(op="placeholder")]
    values[: len(args)] = args
    given = {each.target: each.args for each in rebuilt.graph.find_nodes(op="placeholder")}
    for index, (target, default) in enumerate(given.items()):
        if index >= len(args) and target not in kwargs and default:
            values[index] = default[0]
    interpreter.run(*values)
    found = lg.shapes(flat, args, kwargs)
    noted = [((name,), value) for name, value in interpreter.noted if is_value(flat, name)]
    assert noted == [(path, value) for path, value in found.items() if is_value(flat, path[0])]


def is_value(ir, name):
    # A rebuilt graph has more guards than the IR has nodes.
    return name in ir[ir.root].nodes and not name.startswith("assume")


@EVERY
def test_tensors_on_meta_and_shapes_give_the_same(name):
    _, ir, args, kwargs = made(name)
    on_meta = torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda each: each.to("meta"), (args, kwargs)
    )
    metas = torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda each: TensorMeta(tuple(each.shape), each.dtype), (args, kwargs)
    )
    wanted = dict(lg.shapes(ir, args, kwargs))
    assert dict(lg.shapes(ir, *on_meta)) == wanted
    assert dict(lg.shapes(ir, *metas)) == wanted


@pytest.mark.parametrize(
    "name", [each for each in MODELS if each not in ("cell", "nested inputs", "containers")]
)
@pytest.mark.parametrize("training", [True, False])
def test_both_modes(name, training):
    model, ir, args, kwargs = made(name)
    out = model.train(training)(*args, **kwargs)
    assert lg.shapes(ir, args, kwargs, training=training).output == real(out)


# Paths, nested values, and other values


def test_a_composite_that_is_called_twice_has_its_values_twice():
    ir = lg.to_ir(Twice(), (torch.randn(1, 2, 9),))
    found = lg.shapes(ir, [(1, 2, 9)])
    assert found["block", "_0"].shape == (1, 2, 7)
    assert found["block_1", "_0"].shape == (1, 2, 5)
    assert [each.shape for each in found.of("block.0")] == [(1, 2, 7), (1, 2, 5)]
    assert found["block_1"] == found.output
    assert next(iter(found)) == ("x",)
    assert found.calls["block_1", "_1"] == "block.1"
    with pytest.raises(KeyError):
        found["nothing"]


def test_containers_stay_and_a_named_tuple_is_a_record():
    ir = lg.to_ir(Tagger(), (torch.zeros(2, 7, dtype=torch.int64),))
    found = lg.shapes(ir, [TensorMeta((2, 9), torch.int64)]).output
    assert found["tags"] == TensorMeta((2, 9), torch.int64)
    states, (cell, last) = found["states"]
    assert (states.shape, cell.shape, last.shape) == ((4, 2, 6), (4, 2, 6), (1, 2, 5))
    assert found["pair"] == Record("Pair", {"first": TensorMeta((2, 9, 5)), "second": 1})


def test_numbers_are_themselves():
    ir = lg.to_ir(Containers(), (torch.randn(3, 4),))
    assert lg.shapes(ir, [(5, 4)]).output == (TensorMeta((5, 7)), 10)
    assert lg.shapes(ir, [("n", 4)]).output == (TensorMeta(("n", 7)), "2*n")


def test_the_text_lists_paths_and_shapes():
    ir = lg.to_ir(Twice(), (torch.randn(1, 2, 9),))
    lines = str(lg.shapes(ir, [("n", 2, 9)])).splitlines()
    assert lines[0] == "x: float32[n, 2, 9]"
    assert lines[2] == "block/_0: float32[n, 2, 7]"
    assert lines[-1] == "return float32[n, 2, 5]"
    assert repr(lg.shapes(ir, [(1, 2, 9)])) == "Shapes(9 values)"


def test_nodes_have_the_names_of_the_ir():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.device = nn.ReLU()

        def forward(self, self_, y):
            return self.device(self_) * y.t()

    given = torch.randn(2, 3), torch.randn(3, 2)
    form = lg.to_ir(Odd(), given).to_dict()
    ir = lg.Ir.from_dict(form)
    assert {path[0] for path in lg.shapes(ir, given)} == ir["root"].nodes.keys() - {"output"}
    renamed = condition_on(
        "layergraph.truth",
        Node("device", "function", "torch.Tensor.device", (Ref("x"),)),
        Node("assume", "function", "torch.relu", (Ref("x"),)),
        Node("self", "function", "torch.relu", (Ref("x"),)),
        Node("output", "output", "output", (Ref("self"),)),
    )
    renamed["root"].nodes["x"].kwargs["rank"] = 2
    found = lg.shapes(renamed, [(2, 3)])
    assert [path[0] for path in found] == ["x", "sum", "ask", "device", "assume", "self"]
    assert found["assume"] == TensorMeta((2, 3))


# Sizes with names


SYMBOLIC = {
    "residual": (("batch", 3, "height", "width"), {"batch": 5, "height": 33, "width": 18}),
    "attention": (("batch", "length", 16), {"batch": 3, "length": 11}),
    "fused attention": (("batch", "length", 16), {"batch": 3, "length": 11}),
    "tagger": (("batch", "length"), {"batch": 3, "length": 11}),
    "unet": (("batch", 1, "height", "width"), {"batch": 3, "height": 14, "width": 26}),
    "containers": (("batch", 4), {"batch": 8}),
    "twice": (("batch", 2, "length"), {"batch": 3, "length": 12}),
    "encoder": (("batch", "length", 16), {"batch": 3, "length": 12}),
    "one layer": (("a", "b", 4), {"a": 3, "b": 12}),
    "transposed": (("a", 4, "b"), {"a": 3, "b": 12}),
    "conv3d": (("a", 2, "b", "c", "b"), {"a": 3, "b": 12, "c": 9}),
    "projected lstm": (("length", "batch", 4), {"batch": 3, "length": 12}),
    "unbatched gru": (("length", 4), {"length": 12}),
}


FUNCTIONS = {"Max": max, "Min": min}


def put_in(value, numbers):
    """Replace names by numbers in a description."""
    if isinstance(value, TensorMeta):
        return TensorMeta(tuple([put_in(each, numbers) for each in value.shape]), value.dtype)
    if isinstance(value, str):
        return eval(value, FUNCTIONS, numbers)
    if type(value) is Record:
        return Record(value.type, put_in(value.fields, numbers))
    if isinstance(value, dict):
        return {key: put_in(each, numbers) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)([put_in(each, numbers) for each in value])
    return value


@pytest.mark.parametrize("name", SYMBOLIC)
def test_expressions_give_the_sizes_of_all_inputs_that_fit(name):
    _, ir, args, _ = made(name)
    shape, numbers = SYMBOLIC[name]
    symbolic = lg.shapes(ir, [TensorMeta(shape, args[0].dtype)])
    assert not symbolic.decisions
    for condition in symbolic.conditions:
        assert eval(condition, FUNCTIONS, numbers), condition
    sized = tuple([numbers.get(each, each) for each in shape])
    concrete = lg.shapes(ir, [TensorMeta(sized, args[0].dtype)])
    assert {path: put_in(value, numbers) for path, value in symbolic.items()} == dict(concrete)
    texts = str(symbolic)
    assert all(name in texts for name in numbers)


class ByLength(nn.Module):
    def forward(self, x):
        if x.shape[1] > 10:
            x = x[:, :10]
        return x * 2


def test_a_size_that_decides_is_told():
    short = lg.to_ir(ByLength(), (torch.randn(2, 5),))
    found = lg.shapes(short, [("batch", "length")], sizes={"length": 7})
    assert found.output.shape == ("batch", "length")
    assert found.conditions == ("length <= 10",)
    assert "if length <= 10" in str(found)
    with pytest.raises(AssumptionError, match=r"x\.shape\[1\] > 10"):
        lg.shapes(short, [("batch", "length")])


class Fixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        return x + self.table


def test_a_size_that_cannot_vary_is_refused_by_name():
    ir = lg.to_ir(Fixing(), (torch.randn(2, 6, 4),))
    assert lg.shapes(ir, [("batch", 6, 4)]).output.shape == ("batch", 6, 4)
    # Where the example is another number, torch itself refuses.
    for sizes in ({}, {"length": 6}):
        with pytest.raises(ShapeError, match=r"node 'add'.*(length|must match|broadcast)"):
            lg.shapes(ir, [("batch", "length", 4)], sizes=sizes)


def test_two_names_for_one_size_are_refused():
    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    ir = lg.to_ir(Sum(), (torch.randn(3), torch.randn(3)))
    assert lg.shapes(ir, [("n",), ("n",)]).output.shape == ("n",)
    with pytest.raises(ShapeError, match="'add'"):
        lg.shapes(ir, [("n",), ("m",)], sizes={"n": 8, "m": 8})


@pytest.mark.parametrize("name", ["u0", "2*n", "", "a b"])
def test_other_names_of_sizes_are_refused(name):
    ir = lg.to_ir(nn.ReLU())
    with pytest.raises(ShapeError, match="name for a size"):
        lg.shapes(ir, [(name, 2)])


class Selecting(nn.Module):
    def forward(self, x):
        rows = x[x[:, 0] > 0]
        return rows, torch.cat([rows, rows])


def test_sizes_that_numbers_decide_have_a_name():
    ir = lg.to_ir(Selecting(), (torch.randn(6, 4),))
    rows, twice = lg.shapes(ir, [(6, 4)]).output
    assert rows.shape == ("u0", 4)
    assert twice.shape == ("2*u0", 4)


# Decisions by numbers


class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.long, self.short = nn.Linear(4, 6), nn.Linear(4, 6)
        self.other = nn.Linear(6, 2)

    def forward(self, x, mask=None):
        y = self.long(x) if x.sum() > 0 else self.short(x)
        if mask is not None and mask.all():
            mask = None
        if mask is not None:
            y = y.masked_fill(~mask[:, None], 0.0)
        if y.max() > 0:
            return self.other(y)
        return self.other(y)[:1]


@pytest.fixture(scope="module")
def deciding():
    mask = torch.tensor([True, False, True])
    return lg.to_ir(Deciding(), (torch.randn(3, 4), mask))


ARGUMENTS = [(3, 4), TensorMeta((3,), torch.bool)]


def test_both_ways_are_described(deciding):
    found = lg.shapes(deciding, ARGUMENTS)
    assert len(found.decisions) == 3
    assert all("in forward" in line for line in found.decisions.values())
    assert found.of("long") == found.of("short") == [TensorMeta((3, 6))]
    assert found["masked_fill"] == TensorMeta((3, 6))
    last = list(found.decisions)[-1]
    assert found.output == Either(last, TensorMeta((3, 2)), TensorMeta((1, 2)))
    assert f"return float32[3, 2] if {last} else float32[1, 2]" in str(found)
    assert f"both ways of {last}: " in str(found)


@pytest.mark.parametrize("answer", [True, False])
def test_an_answer_selects_one_way(deciding, answer):
    last = list(lg.shapes(deciding, ARGUMENTS).decisions)[-1]
    found = lg.shapes(deciding, ARGUMENTS, decisions={last: answer})
    assert found.output == TensorMeta((3 if answer else 1, 2))
    assert last not in found.decisions
    assert found[last] is answer


class InBlocks(nn.Module):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x, mask):
            mask = None if mask.all() else mask
            return nn.functional.scaled_dot_product_attention(self.fc(x), x, x, attn_mask=mask)

    def __init__(self, count):
        super().__init__()
        self.blocks = nn.ModuleList([self.Block() for _ in range(count)])

    def forward(self, x, mask):
        for block in self.blocks:
            x = block(x, mask)
        return x


def test_decisions_in_many_blocks_do_not_multiply():
    mask = torch.ones(2, 5, 5).tril().bool()
    ir = lg.to_ir(InBlocks(12), (torch.randn(2, 5, 4), mask))
    found = lg.shapes(ir, [(2, 5, 4), TensorMeta((2, 5, 5), torch.bool)])
    assert found.output == TensorMeta((2, 5, 4))


def condition_on(question, *then):
    """A model whose graph decides by a tensor, then calls functions, as an IR written by hand."""
    nodes = [
        Node("x", "input", "x"),
        Node("sum", "function", "torch.sum", (Ref("x"),)),
        Node("ask", "function", question, (Ref("sum"), "here")),
        *then,
    ]
    graph = graph_from_nodes(nodes)
    root = Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)
    return lg.Ir([root])


def test_values_of_one_way_only():
    ir = condition_on(
        "layergraph.truth",
        Node("half", "function", "torch.narrow", (Ref("x"), 0, 0, 2), when=(Ref("ask"), True)),
        Node("rest", "function", "torch.t", (Ref("x"),), when=(Ref("ask"), False)),
        Node("both", "function", "layergraph.choose", (Ref("ask"), Ref("half"), Ref("rest"))),
        Node("end", "function", "torch.flatten", (Ref("both"),)),
        Node("output", "output", "output", (Ref("end"),)),
    )
    found = lg.shapes(ir, [(4, 3)])
    assert found["half"] == TensorMeta((2, 3))
    assert found["rest"] == TensorMeta((3, 4))
    assert found["both"] == Either("ask", TensorMeta((2, 3)), TensorMeta((3, 4)))
    assert found.output == Either("ask", TensorMeta((6,)), TensorMeta((12,)))
    assert found.decisions == {"ask": "here"}


def test_ways_of_two_dtypes_are_two():
    ir = condition_on(
        "layergraph.truth",
        Node("double", "function", "torch.Tensor.double", (Ref("x"),), when=(Ref("ask"), True)),
        Node("both", "function", "layergraph.choose", (Ref("ask"), Ref("double"), Ref("x"))),
        Node("output", "output", "output", (Ref("both"),)),
    )
    ways = TensorMeta((4, 3), torch.float64), TensorMeta((4, 3))
    assert lg.shapes(ir, [(4, 3)]).output == Either("ask", *ways)


def test_a_way_on_which_a_call_fails_is_left_out():
    ir = condition_on(
        "layergraph.truth",
        Node("half", "function", "torch.narrow", (Ref("x"), 0, 0, 9), when=(Ref("ask"), True)),
        Node("both", "function", "layergraph.choose", (Ref("ask"), Ref("half"), Ref("x"))),
        Node("output", "output", "output", (Ref("both"),)),
    )
    with pytest.raises(ShapeError, match="'half'"):
        lg.shapes(ir, [(4, 3)], decisions={"ask": True})
    assert lg.shapes(ir, [(4, 3)], decisions={"ask": False}).output == TensorMeta((4, 3))


def test_guards_on_numbers_are_taken_to_pass():
    class Guarded(nn.Module):
        def forward(self, x):
            if int(x.max()) > 2:
                raise ValueError("too large")
            return x * 2

    ir = lg.to_ir(Guarded(), (torch.zeros(3),))
    assert ir.guards
    assert lg.shapes(ir, [(5,)]).output == TensorMeta((5,))


def test_numbers_that_the_ir_holds_decide():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = torch.tensor(2)

        def forward(self, x):
            return x[: int(self.rows)]

    ir = lg.to_ir(Constant(), (torch.randn(5, 3),))
    assert lg.shapes(ir, [(6, 4)]).output == TensorMeta((2, 4))


# Errors


def test_wrong_arguments_are_refused_by_name():
    ir = lg.to_ir(Residual(), (torch.randn(2, 3, 8, 8),))
    for args, kwargs, message in (
        ([], {}, r"\['x'\] given nowhere; it takes x"),
        ([(2, 3, 8, 8), (1,)], {}, "2 were given, but it takes x"),
        ([(2, 3, 8, 8)], {"x": (1,)}, r"\['x'\] given twice"),
        ([(2, 3, 8, 8)], {"z": (1,)}, r"\['z'\] given in vain"),
        (torch.randn(2, 3, 8, 8), None, "as a tuple"),
        ("abc", None, "as a tuple"),
        (3, None, "as a tuple"),
        ([(2, 3)], [1], "give a dict"),
        ([(2, -3)], {}, "there is no tensor"),
    ):
        with pytest.raises(ArgumentError, match=message):
            lg.shapes(ir, args, kwargs)
    for wrong in (
        {"sizes": {"n": 0}},
        {"sizes": {"n": "3"}},
        {"sizes": {"n": 3}},
        {"decisions": {"truth": 1}},
    ):
        with pytest.raises(ArgumentError):
            lg.shapes(ir, [(2, 3, 8, 8)], **wrong)
    with pytest.raises(ArgumentError, match="no decision 'truth'; the decisions are: none"):
        lg.shapes(ir, [(2, 3, 8, 8)], decisions={"truth": True})
    with pytest.raises(ArgumentError, match="to_ir"):
        lg.shapes(Residual(), [(2, 3, 8, 8)])


def test_a_wrong_rank_fails_the_guard_of_the_input():
    ir = lg.to_ir(Attention(), (torch.randn(2, 6, 16),))
    with pytest.raises(AssumptionError, match="'x' had 3 dimensions"):
        lg.shapes(ir, [(6, 16)])


def test_a_layer_that_refuses_is_named():
    ir = lg.to_ir(Twice(), (torch.randn(2, 2, 9),))
    with pytest.raises(ShapeError, match=r"node 'block_1/_0': the conv1d 'block.0'"):
        lg.shapes(ir, [(2, 2, 4)])
    for layer, args in (
        (nn.LSTM(4, 6), [(2, 5)]),
        (nn.LSTM(4, 6), [(2, 2, 5)]),
        (nn.LSTM(4, 6), [(1, 2, 3, 4)]),
        (nn.LSTM(4, 6), [TensorMeta((5, 2, 4), torch.float64)]),
        (nn.GRU(4, 6), [(5, 2, 4), (1, 3, 6)]),
        (nn.GRU(4, 6), [(5, 2, 4), (2, 6)]),
        (nn.Linear(4, 6), [TensorMeta((5, 2, 4), torch.int64)]),
    ):
        with pytest.raises(ShapeError, match="'root'"):
            lg.shapes(lg.to_ir(layer), args)


def test_an_ir_that_breaks_a_rule_is_refused():
    form = lg.to_ir(nn.Sequential(nn.ReLU())).to_dict()
    del form["0"]
    with pytest.raises(InvalidIrError):
        lg.shapes(lg.Ir.from_dict(form), [(2,)])


def test_numbers_that_python_needs_are_refused_by_name():
    nodes = [
        Node("x", "input", "x"),
        Node("some", "function", "torch.nonzero", (Ref("x"),)),
        Node("parts", "function", "torch.unbind", (Ref("some"),)),
        Node("output", "output", "output", (Ref("parts"),)),
    ]
    graph = graph_from_nodes(nodes)
    root = Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)
    with pytest.raises(ShapeError, match=r"node 'parts'.*depends on numbers in a tensor"):
        lg.shapes(lg.Ir([root]), [(4,)])


def test_calls_without_end_are_refused():
    levels = 25
    implementations = []
    for level in range(levels):
        name = "root" if level == 0 else f"b{level}"
        inner = f"b{level + 1}"
        nodes = [Node("x", "input", "x")]
        kind = "relu" if level == levels - 1 else "module"
        nodes += [Node("a", kind, inner, (Ref("x"),)), Node("b", kind, inner, (Ref("a"),))]
        nodes.append(Node("output", "output", "output", (Ref("b"),)))
        graph = graph_from_nodes(nodes)
        implementations.append(
            Implementation(
                "module", name=name, nodes=graph.nodes, edges=graph.edges, children={inner: inner}
            )
        )
    implementations.append(Implementation("relu", name=f"b{levels}"))
    with pytest.raises(ShapeError, match="too many calls"):
        lg.shapes(lg.Ir(implementations), [(2,)])


# What stays as it was


def test_the_process_stays_as_it_was():
    ir = lg.to_ir(Residual(), (torch.randn(2, 3, 8, 8),))
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    regions = lg.to_ir(Regions(), (torch.randn(3, 4),))
    torch.manual_seed(3)
    before = (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled(),
        torch.is_grad_enabled(),
        sys.getrecursionlimit(),
        torch.get_rng_state().tolist(),
        str(ir),
    )
    assert lg.shapes(ir, (x,)).output == TensorMeta((2, 5))
    with pytest.raises(LayergraphError):
        lg.shapes(ir, [(2, 4, 8, 8)])
    with torch.inference_mode():
        lg.shapes(ir, (x,))
    with pytest.raises(ShapeError, match="'fc'"):
        lg.shapes(regions, [(3, 5)])
    assert not torch.is_autocast_enabled("cpu")
    after = (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled(),
        torch.is_grad_enabled(),
        sys.getrecursionlimit(),
        torch.get_rng_state().tolist(),
        str(ir),
    )
    assert before == after
    assert x.grad_fn is None


def test_no_memory_is_taken():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2**14, 2**14), nn.Linear(2**14, 4))
    ir = lg.to_ir(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert lg.shapes(ir, [(10**6, 2**14)]).output == TensorMeta((10**6, 4))
    # The weights of the first layer have 2**20 KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**18


def test_a_deep_model():
    model = nn.Linear(2, 2)
    for _ in range(200):
        model = nn.Sequential(model)
    found = lg.shapes(lg.to_ir(model), [(3, 2)])
    assert found.output == TensorMeta((3, 2))
    assert max(map(len, found)) == 200


def test_tensors_in_containers():
    x = torch.ones(1)
    assert tensors_in([x, {"a": (x, 1)}]) == [x, x]


# Annotations


def test_edges_say_what_flows_there():
    ir = lg.to_ir(Twice(), (torch.randn(1, 2, 9),))
    annotated = lg.annotate_shapes(ir, [("n", 2, 9)])
    assert annotated is not ir
    assert all(not edge.data for edge in ir["root"].edges.values())
    edge = annotated["root"].edges["block", "block_1"]
    assert edge.data["layergraph.shape"] == ("n", 2, 7)
    assert edge.data["layergraph.dtype"] == lg.Symbol("torch.float32")
    inside = annotated["block"].edges["input_1", "_0"].data
    assert inside["layergraph.shape"] == {"block": ("n", 2, 9), "block_1": ("n", 2, 7)}
    assert inside["layergraph.dtype"] == lg.Symbol("torch.float32")
    assert "# layergraph.shape=('n', 2, 7), layergraph.dtype=torch.float32" in str(annotated)


@EVERY
def test_annotations_survive_a_file_and_a_build(name, tmp_path):
    model, ir, args, kwargs = made(name)
    annotated = lg.annotate_shapes(ir, args, kwargs)
    lg.save(annotated, tmp_path / "model.json")
    assert lg.load(tmp_path / "model.json") == annotated
    rebuilt = lg.to_torch(annotated, model.state_dict())
    assert real(rebuilt(*args, **kwargs)) == real(model(*args, **kwargs))
    edges = [edge for each in annotated.values() for edge in each.edges.values()]
    assert all("layergraph.shape" in edge.data for edge in edges)


def test_nested_values_and_ways_on_an_edge(deciding):
    ir = lg.annotate_shapes(deciding, ARGUMENTS)
    root = ir["root"]
    (source,) = root.predecessors("output")
    last = list(lg.shapes(deciding, ARGUMENTS).decisions)[-1]
    shape = root.edges[source, "output"].data["layergraph.shape"]
    assert shape == {f"{last} is True": (3, 2), f"{last} is False": (1, 2)}
    tagger = lg.to_ir(Tagger(), (torch.zeros(2, 7, dtype=torch.int64),))
    edges = lg.annotate_shapes(tagger, [TensorMeta((2, 7), torch.int64)])["root"].edges
    shapes = [edge.data["layergraph.shape"] for (src, _), edge in edges.items() if src == "lstm"]
    assert shapes[0] == ((2, 7, 12), ((4, 2, 6), (4, 2, 6)))


class ByMode(nn.Module):
    def forward(self, x):
        return x * 2 if self.training else x[:1] * 2


@pytest.mark.parametrize("training", [True, False])
def test_the_graph_of_the_mode_is_annotated(training):
    ir = lg.to_ir(ByMode(), (torch.randn(3, 4),))
    annotated = lg.annotate_shapes(ir, [(3, 4)], training=training)["root"]
    shapes = [
        {edge.data.get("layergraph.shape") for edge in graph.edges.values()}
        for graph in annotated.graphs
    ]
    wanted = [{(3, 4)}, {None}] if training else [{None}, {(3, 4), (1, 4)}]
    assert shapes == wanted
    assert lg.shapes(ir, [(3, 4)]).output == TensorMeta((3, 4))
    assert lg.shapes(lg.to_ir(ByMode().eval(), (torch.randn(3, 4),)), [(3, 4)]).modes == {
        "root": False
    }


class Masked(nn.Module):
    """A stack of transformer layers with a mask, which torch compares with the causal one."""

    def __init__(self, stack: nn.Module) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if isinstance(self.stack, nn.TransformerEncoder):
            return self.stack(x, mask)
        return self.stack(x, x, tgt_mask=mask)


@pytest.mark.parametrize(
    "stack",
    [
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2),
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2),
        lambda: nn.Transformer(8, 2, 1, 1, 16),
    ],
)
def test_transformers_compare_no_numbers_of_masks(stack) -> None:
    x, mask = torch.randn(5, 2, 8), torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    ir = lg.to_ir(Masked(stack()).eval(), (x, mask))
    assert lg.shapes(ir, (x, mask)).output.shape == (5, 2, 8)
