"""No text of an IR or a file becomes code, and the usual tools for graphs work nevertheless."""

from __future__ import annotations

import copy
import enum
import importlib
import io
import itertools
import math
import operator
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn

import layergraph as lg
from layergraph.errors import BuildError, LayergraphError
from layergraph.ir import Record, Ref, Symbol
from layergraph.ir2torch.code_check import checked_tree
from layergraph.ir2torch.codegen import GeneratedCode, generated_code
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)


def _module(forward):
    return type("Model", (Base,), {"forward": forward})()


def _rebuilt(model, *args, **kwargs):
    ir = lg.to_ir(model, args, kwargs) if args else lg.to_ir(model)
    return lg.to_torch(ir, model.state_dict())


def _built(*nodes, **root):
    graph = lg.ir.graph_from_nodes(nodes)
    implementation = lg.Implementation(
        "module", name="root", nodes=graph.nodes, edges=graph.edges, **root
    )
    return lg.to_torch(lg.Ir([implementation]))


def _input(name="x", **said):
    return lg.Node(name, "input", name, kwargs=said)


def _output(value):
    return lg.Node("output", "output", "output", args=(value,))


# --- nothing of a file runs: watched in a child process ---

# Each would open a file, import, print or end the process if it became code.
WORDS = (
    "open exec eval __import__ print exit input compile getattr breakpoint torch device inf nan "
    "self cls forward NoneType pytree fx_pytree slice complex x y f None class lambda __debug__ "
    "_replace _fields __new__ layergraph_guards_assume ﬁ fi é".split()
)
TEXTS = [
    "x'); open('MARKER', 'w'); ('",
    "a=open('MARKER','w')",
    "a):\n    import os; os.abort()\n#",
    '"); __import__("os").abort(); ("',
    "\\",
    "\ud800",
    "\0",
    "{open('MARKER')}",
    "",
    "0",
    "a.b",
    "torch.os.abort",
    "*args",
    "x: open('MARKER')",
    "x = open('MARKER')",
]

# As text, these are calls with a side effect.
CALLS = [
    Record("open", {"file": "MARKER", "mode": "w"}),
    Record("__import__", {"name": "marker"}),
    Record("print", {"end": "", "file": Record("open", {"file": "MARKER", "mode": "w"})}),
    Record("breakpoint", {}),
    Record("exit", {"code": Record("compile", {"source": "1", "filename": "a", "mode": "exec"})}),
]

names = st.sampled_from(WORDS)
texts = st.one_of(names, st.sampled_from(TEXTS), st.text(max_size=8))
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.just(-(2**80)),
    st.floats(),
    st.complex_numbers(),
    texts,
    st.binary(max_size=4),
    st.just(...),
    st.sampled_from(["torch.float32", "torch.os", "torch.preserve_format", "x"]).map(Symbol),
    st.just(Ref("x")),
)
values = st.recursive(
    st.one_of(atoms, st.sampled_from(CALLS)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(texts, st.floats(), st.integers()), inner, max_size=2),
        st.tuples(inner, inner, inner).map(lambda parts: slice(*parts)),
        st.builds(Record, texts, st.dictionaries(names, inner, max_size=3)),
    ),
    max_leaves=6,
)
FUNCTIONS = (
    "torch.add torch.cat operator.getitem operator.neg operator.pow operator.setitem torch.full "
    "torch.Tensor.to torch.Tensor.shape layergraph.assume layergraph.set_grad_enabled "
    "layergraph.exit_autocast builtins.open torch.os.abort torch.load math.sqrt"
).split()


PLACES = "default default argument result keyword node input child tensor".split()


@st.composite
def hostile_models(draw):
    """Yield models with an arbitrary name or value in one place."""
    place = draw(st.sampled_from(PLACES))

    def text(where, usual):
        return draw(texts) if where == place else usual

    def value(where, usual):
        return draw(values) if where == place else usual

    default = value("default", None)
    option = lg.Node(
        text("node", "option"),
        "input",
        text("input", "option"),
        kwargs={"default": default, **draw(st.sampled_from([{}, {"fixed": default}]))},
    )
    called = lg.Node(
        text("node", "y"),
        "function",
        draw(st.sampled_from(FUNCTIONS)) if place == "argument" else "torch.mul",
        args=(Ref("x"), value("argument", 2)),
        kwargs={text("keyword", "out"): value("argument", None)},
    )
    call = lg.Node(text("node", "z"), "relu", "layer", args=(Ref("x"),))
    graph = lg.ir.graph_from_nodes(
        [_input(), option, called, call, _output((Ref("x"), value("result", 1)))]
    )
    root = lg.Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)
    root.children = {text("child", "child"): "layer"}
    root.tensors = {text("tensor", "w"): lg.ir.TensorSpec(kind="buffer", shape=(1,))}
    return lg.Ir([root, lg.Implementation("relu", name="layer")])


def _nested_calls():
    """Return models with values whose text would be a call, in containers of every kind."""
    wraps = (
        lambda call: call,
        lambda call: Record("R", {"a": call}),
        lambda call: Record("R", {"a": [(call,)]}),
        lambda call: {"k": call},
        lambda call: ({"k": [call]},),
        lambda call: slice(None, {"k": call}),
    )
    for call, wrap, fixed in itertools.product(CALLS, wraps, [False, True]):
        value = wrap(call)
        option = _input("option", default=value, **({"fixed": value} if fixed else {}))
        graph = lg.ir.graph_from_nodes([_input(), option, _output((Ref("x"), value))])
        yield lg.Ir(
            [lg.Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)]
        )


def _used(ir):
    """Build the model of an IR and use it in all ways. Only errors of ours may end the build."""
    try:
        model = lg.to_torch(ir)
    except LayergraphError:
        return
    for make in (
        lambda: model,
        lambda: copy.deepcopy(model),
        lambda: pickle.loads(pickle.dumps(model)),
        # Use the printer of torch.fx instead of ours.
        lambda: fx.GraphModule(model, model.graph),
        lambda: fx.Transformer(model).transform(),
    ):
        try:
            make()(torch.ones(2, 2))
        except Exception:  # only the side effects matter
            continue


TORCH = str(pathlib.Path(torch.__file__).parent)
WATCHED = "open import exec subprocess.Popen os. shutil. socket. ctypes. pty. code.".split()


def _watch():
    """Return a switch, and the audit events while it is on, except those of torch's own code."""
    seen = []

    def hook(event, args):
        if not watching or not any(event.startswith(each) for each in WATCHED):
            return
        # Errors show lines of code, and torch imports parts of itself when they are needed.
        where = args[0].co_filename if event == "exec" else str(args[0])
        if where.startswith((TORCH, "torch.", "<eval_with_key>")):
            return
        if event == "open" and where.endswith(".py") and args[1] in ("r", "rb"):
            return
        seen.append(f"{event} {args[:1]!r:.200}")

    watching = []
    sys.addaudithook(hook)
    return watching, seen


def _child():
    """Run in a new process, because Python cannot remove an audit hook."""
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # for the messages of torch.fx
    repr(torch.ones(1))  # torch imports parts of itself to print a tensor, as an error may
    # Run the imports for the first model and for the first error now.
    for wrong in (False, True):
        option = _input("option", default=Record("R", {"a": (1, Record("S", {"b": 2}))}))
        called = lg.Node("y", "function", "torch.add", args=() if wrong else (Ref("x"), Ref("x")))
        graph = lg.ir.graph_from_nodes([_input(), option, called, _output(Ref("x"))])
        usual = lg.Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)
        usual.tensors = {"w": lg.ir.TensorSpec(kind="buffer", shape=(1,))}
        usual.children = {"layer": "layer"}
        _used(lg.Ir([usual, lg.Implementation("relu", name="layer")]))
    watching, seen = _watch()

    @settings(
        max_examples=int(sys.argv[1]),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile_models())
    def run(ir):
        watched(ir)

    def watched(ir):
        watching.append(True)
        try:
            _used(ir)
        finally:
            watching.clear()
        assert not seen, (seen[:3], ir.to_dict())

    for ir in _nested_calls():
        watched(ir)
    run()


@pytest.mark.slow
def test_nothing_of_a_model_runs():
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, "150"],
            cwd=folder,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == 0, child.stderr[-3000:]
        assert not list(pathlib.Path(folder).glob("*MARKER*"))


# --- the forms that are allowed ---

FORBIDDEN = {
    "an import": "import os\n    return x",
    "a call of what is not bound": "return open(x)",
    "a call of what a call gives": "return f(x)(x)",
    "a call of an argument": "return x(x)",
    "a call of a literal": "return 'a'(x)",
    "an attribute that the graph does not name": "return x.__class__",
    "an attribute by getattr": "return getattr(x, 'data')",
    "an attribute by a name that is computed": "return getattr(x, 'sh' + 'ape')",
    "a function": "y = lambda: x\n    return y",
    "an inner function": "def g(): return x\n    return x",
    "a loop": "for y in x: pass\n    return x",
    "a comprehension": "return [y for y in x]",
    "a text that is computed": "return f'{x}'",
    "an unpacked argument": "return f(*x)",
    "a name that means something else": "f = x\n    return x",
    "a global name": "global f\n    return x",
    "a region of another kind": "with f(x):\n        return x",
    "an attribute that is set": "x.shape = 1\n    return x",
    "a caught exception": "try:\n        return x\n    except f: pass",
    "a deleted name": "del x",
    "an assertion": "assert f(x)\n    return x",
    "a choice": "return x if f else x",
    "a name of Python": "return __builtins__",
    "a value on the way": "return (y := x)",
    "what no parser takes": "return <x>",
    "too many brackets": f"return {'(' * 300}x{')' * 300}",
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_other_forms_are_refused(name):
    source = f"def forward(self, x):\n    {FORBIDDEN[name]}\n"
    scope = {"f": torch.relu, "getattr": getattr}
    with pytest.raises(BuildError):
        checked_tree(GeneratedCode(source, scope, frozenset({"shape"}), {}))


@pytest.mark.parametrize(
    "source",
    [
        "import os\n",
        "",
        "def forward(self): return self\nf(1)\n",
        "@f\ndef forward(self): return self\n",
        "def other(self): return self\n",
        "def forward(self, f): return f\n",
        "def forward(self, x=open('a')): return x\n",
        "def forward(self, x: open('a')): return x\n",
    ],
)
def test_only_one_plain_function_is_allowed(source):
    with pytest.raises(BuildError):
        checked_tree(GeneratedCode(source, {"f": torch.relu}, frozenset(), {}))


def test_what_is_no_literal_is_bound():
    class Odd:
        def __repr__(self):
            return "exit()"

    graph = fx.Graph()
    odd = [Odd(), 2**70, complex(1, math.nan), Odd, nn.ReLU()]
    graph.output(graph.call_function(max, (odd, {"a": odd[0]}, slice(odd[1], None))))
    code = generated_code(graph)
    checked_tree(code)
    assert "exit" not in code.source
    assert all(any(each is known for known in code.globals.values()) for each in odd)


# --- values and names keep their meaning ---


@pytest.mark.parametrize(
    "default",
    [
        math.inf,
        -math.inf,
        -0.0,
        2**70,
        1 - 2j,
        b"\xff",
        "'\n\\",
        (1, [2, {"k": (3,)}]),
        Record("open", {"file": (1, Record("exit", {"code": 2}))}),
        {"k": Record("Pair", {"a": 1})},
        slice(1, None, -2),
    ],
    ids=repr,
)
def test_defaults_are_what_they_were(default):
    model = _built(
        _input(),
        _input("option", default=default, fixed=default),
        _output((Ref("x"), Ref("option"))),
    )
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        _, got = each(X)
        assert type(got) is type(default) or isinstance(default, Record)
        assert repr(lg.literals.to_plain_literal(got)) == repr(default)


NAMES = "torch inf nan self device slice float getattr input len print type forward é x_1".split()


@pytest.mark.parametrize("name", NAMES)
def test_arguments_keep_their_names(name):
    scope = {}
    text = f"lambda this, x, {name}: (x[1:] * {name}).sum(0).masked_fill(x[0] > 0, low) + zeros(4)"
    exec(f"forward = {text}", {"low": -math.inf, "zeros": torch.zeros}, scope)
    model = _module(scope["forward"])
    rebuilt = _rebuilt(model, X, X[1:])
    wanted = model(X, X[1:])
    for each in (rebuilt, pickle.loads(pickle.dumps(rebuilt))):
        assert bitwise_equal(each(X, X[1:]), wanted)
        if name != "self":  # torch itself accepts this name
            assert bitwise_equal(each(X, **{name: X[1:]}), wanted)


def test_one_name_in_two_forms_is_refused():
    node = lg.Node("y", "function", "torch.add", (Ref("x"),), {"ﬁ": 1})
    with pytest.raises(LayergraphError, match="identifier"):
        _built(_input(), node, _output(1))


COMPUTING = {
    "a negative base": lambda self, x: x * (-2) ** x.shape[0],
    "a negative number that is negated": lambda self, x: x - -1 * x.shape[0],
    "a number that is counted up": lambda self, x: _counted(x),
    "a tensor that is changed in place": lambda self, x: _added(x.clone()),
    "an item that is set": lambda self, x: _set(x.clone()),
    "slices": lambda self, x: x[1:, ..., None, ::2] + x[0:1, :1, None],
    "an index of one": lambda self, x: x[(0,)] + x[(slice(None), 0)][0],
    "a text": lambda self, x: torch.einsum("ij,kj->ik", x, x),
    "a list in a call": lambda self, x: torch.cat([x, x], dim=-1),
    "a dtype": lambda self, x: x.to(torch.float64).sum(dtype=torch.float32),
}


def _counted(x):
    count = before = x.size(0)
    count += 1
    return x * before + count


def _added(y):
    z = y
    z += 1
    return y + z


def _set(y):
    y[0] = -1.5
    return y


@pytest.mark.parametrize("name", COMPUTING)
@pytest.mark.parametrize("args", [(X,), ()], ids=["run", "traced"])
def test_operators_mean_what_they_meant(name, args):
    model = _module(COMPUTING[name])
    rebuilt = _rebuilt(model, *args)
    for x in (X, torch.randn(3, 4)):
        assert bitwise_equal(rebuilt(x), model(x))


@pytest.mark.parametrize("names", [["code", "_unspellable_0"], ["_unspellable_0", "class"]])
def test_a_name_that_code_cannot_spell_gets_a_free_one(names):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            for name in names:
                self.add_module(name, nn.Linear(4, 4))

        def forward(self, x):
            return self._modules[names[0]](x) - 2 * self._modules[names[1]](x)

    model = Model()
    assert bitwise_equal(_rebuilt(model, X)(X), model(X))


# --- what users do with graphs ---


class Kind(enum.Enum):
    TWICE = 2


class Pair(NamedTuple):
    first: object
    second: object


FACTOR = torch.full((4,), 3.0)


def _scaled(x, kind, pair, factor):
    return x * kind.value * pair.first * factor


EDITS = {
    "a function of the user's": (_scaled, (Kind.TWICE, Pair(2, None), FACTOR), lambda y: y * 12),
    "a lambda": (lambda y: y + 1, (), lambda y: y + 1),
    "a module that is no child": (nn.Threshold(0.0, 9.0), (), nn.Threshold(0.0, 9.0)),
    "a built-in": (abs, (), torch.abs),
    "getattr with a default": (getattr, ("nothing", 5), lambda y: 5),
    "an operator": (operator.mul, (-1,), torch.neg),
}


@pytest.mark.parametrize("name", EDITS)
def test_calls_that_users_insert(name):
    function, args, wanted = EDITS[name]
    model = _module(lambda self, x: self.lin(x))
    rebuilt = _rebuilt(model, X)
    (output,) = [node for node in rebuilt.graph.nodes if node.op == "output"]
    if isinstance(function, nn.Module):
        function.__name__ = "threshold"
    with rebuilt.graph.inserting_before(output):
        output.args = (rebuilt.graph.call_function(function, (*output.args, *args)),)
    rebuilt.recompile()
    assert bitwise_equal(torch.as_tensor(rebuilt(X)), torch.as_tensor(wanted(model(X))))
    assert bitwise_equal(torch.as_tensor(copy.deepcopy(rebuilt)(X)), torch.as_tensor(rebuilt(X)))


def test_other_edits_of_users():
    model = _module(lambda self, x: self.lin(x).relu() + torch.relu(x))
    rebuilt = _rebuilt(model, X)
    assert bitwise_equal(fx.Transformer(rebuilt).transform()(X), model(X))
    assert bitwise_equal(fx.Interpreter(rebuilt).run(X), model(X))
    fx.replace_pattern(rebuilt, lambda x: x.relu(), lambda x: x.sigmoid())
    assert bitwise_equal(rebuilt(X), model.lin(X).sigmoid() + torch.relu(X))
    rebuilt.add_submodule("more.inner", nn.Linear(4, 4))
    (output,) = [node for node in rebuilt.graph.nodes if node.op == "output"]
    with rebuilt.graph.inserting_before(output):
        output.args = (rebuilt.graph.call_module("more.inner", output.args),)
    for node in rebuilt.graph.nodes:
        node.type = torch.Tensor
    rebuilt.recompile()
    assert rebuilt(X).shape == (3, 4)
    rebuilt.graph = fx.symbolic_trace(model).graph
    assert bitwise_equal(rebuilt(X), model(X))


def test_users_may_write_code_themselves():
    rebuilt = _rebuilt(_module(lambda self, x: self.lin(x)), X)
    seen = []
    rebuilt.seen = seen
    rebuilt.graph.on_generate_code(lambda _: lambda body: ["self.seen.append(1)\n", *body])
    rebuilt.recompile()
    rebuilt(X)
    assert seen == [1]


@pytest.mark.parametrize(
    "value",
    [torch.float64, torch.preserve_format, torch.strided, slice(0, 2), torch.float16],
    ids=str,
)
def test_whatever_a_graph_holds_can_be_stored(value):
    rebuilt = _rebuilt(_module(lambda self, x: x), X)
    (output,) = [node for node in rebuilt.graph.nodes if node.op == "output"]
    output.args = ((*output.args, [value]),)
    rebuilt.recompile()
    file = io.BytesIO()
    torch.save(rebuilt, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    for each in (rebuilt, again, copy.deepcopy(rebuilt)):
        assert each(X)[1] == [value]
        assert type(each(X)[1][0]) is type(value)


if __name__ == "__main__":
    _child()
