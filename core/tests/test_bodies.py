"""Bodies: graphs without a module of their own, which function nodes run."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import fx, nn

import layergraph as lg
from layergraph.control_flow.loops import loop
from layergraph.errors import AssumptionError, BuildError, InvalidIrError
from layergraph.ir import (
    BODY,
    Body,
    Implementation,
    Ir,
    Node,
    Ref,
    bodies,
    check,
    graph_from_nodes,
)
from layergraph.ir.bodies import bodies_of, owners
from layergraph.testing import bitwise_equal

X = torch.linspace(-1, 1, 2 * 5 * 4).reshape(2, 5, 4)


def function(name, target, *args, **kwargs):
    return Node(name, "function", target, args, kwargs)


def given(*names):
    return [Node(name, "input", name, ()) for name in names]


def returns(*values):
    return Node("output", "output", "output", values)


def implementation(kind, name, *nodes, **fields):
    graph = graph_from_nodes(nodes)
    return Implementation(kind, name=name, nodes=graph.nodes, edges=graph.edges, **fields)


def recurrent(path=""):
    """Return a loop of a cell over the steps of its input, in the root or in a submodule."""
    owner, prefix = (path, f"{path}.") if path else ("root", "")
    body = implementation(
        BODY,
        f"{owner}/loop",
        *given("turn", "h", "x"),
        function("step", "operator.getitem", Ref("x"), (slice(None), Ref("turn"))),
        Node("cell", "rnncell", f"{prefix}cell", (Ref("step"), Ref("h"))),
        returns((Ref("cell"), Ref("cell"))),
    )
    outer = implementation(
        "module",
        owner,
        *given("x"),
        function("count", "torch.Tensor.size", Ref("x"), 1),
        function("first", "torch.zeros", 2, 4),
        function(
            "steps",
            "layergraph.loop",
            Body(f"{owner}/loop"),
            Ref("count"),
            (Ref("first"),),
            (Ref("x"),),
            1,
        ),
        function("all", "operator.getitem", Ref("steps"), 1),
        function("y", "torch.stack", Ref("all"), 1),
        returns(Ref("y")),
    )
    cell = Implementation("rnncell", {"input_size": 4, "hidden_size": 4}, name=f"{prefix}cell")
    return [outer, cell, body]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(4, 4)

    def forward(self, x):
        h, steps = torch.zeros(2, 4), []
        for step in range(x.size(1)):
            h = self.cell(x[:, step], h)
            steps.append(h)
        return torch.stack(steps, 1)


def twice():
    """Return an IR that calls a composite with a loop twice."""
    root = implementation(
        "module",
        "root",
        *given("x"),
        Node("a", "module", "inner", (Ref("x"),)),
        Node("b", "module", "inner", (Ref("a"),)),
        returns(Ref("b")),
    )
    return Ir([root, *recurrent("inner")])


FORMS = {
    "as it is": lambda model, ir: model,
    "deepcopy": lambda model, ir: copy.deepcopy(model),
    "pickle": lambda model, ir: pickle.loads(pickle.dumps(model)),
    "interpreter": lambda model, ir: fx.Interpreter(model).run,
    "dict form": lambda model, ir: lg.to_torch(Ir.from_dict(ir.to_dict()), model.state_dict()),
    "copy": lambda model, ir: lg.to_torch(ir.copy(), model.state_dict()),
    "flat": lambda model, ir: lg.to_torch(ir.flatten(), model.state_dict()),
    "edit": lambda model, ir: lg.to_torch(lg.edit(ir).ir, model.state_dict()),
    "compiled": lambda model, ir: torch.compile(model, backend="eager"),
}


@pytest.mark.parametrize("steps", [1, 5, 9])
@pytest.mark.parametrize("form", FORMS)
def test_a_body_runs_in_its_module(form, steps):
    ir = Ir(recurrent())
    model, original = lg.to_torch(ir), Recurrent()
    assert list(model.state_dict()) == list(original.state_dict())
    original.load_state_dict(model.state_dict())
    x = X.repeat(1, 2, 1)[:, :steps]
    assert bitwise_equal(FORMS[form](model, ir)(x), original(x))


@pytest.mark.parametrize("form", [each for each in FORMS if each != "compiled"])
def test_a_composite_with_a_body_is_called_twice(form):
    ir = twice()
    model, original = lg.to_torch(ir), Recurrent()
    original.load_state_dict({key[6:]: each for key, each in model.state_dict().items()})
    assert bitwise_equal(FORMS[form](model, ir)(X), original(original(X)))


def test_an_edited_layer_is_the_one_that_the_body_calls():
    model = lg.to_torch(Ir(recurrent()))
    before = model(X)
    model.cell = nn.RNNCell(4, 4)
    assert not bitwise_equal(model(X), before)


def test_a_recompiled_model_keeps_its_bodies():
    model = lg.to_torch(Ir(recurrent()))
    before = model(X)
    model.recompile()
    assert bitwise_equal(model(X), before)


def test_a_body_of_each_mode():
    parts = recurrent()
    body = parts[2]
    nodes = [
        replace(node, args=((Ref("h"), Ref("h")),)) if node.name == "output" else node
        for node in body.nodes.values()
    ]
    other = graph_from_nodes(nodes)
    body.evaluation = lg.ir.Graph(nodes=other.nodes, edges=other.edges)
    body.differs = {"output"}
    ir = Ir(parts)
    check(ir)
    model = lg.to_torch(ir)
    assert bitwise_equal(model.eval()(X), torch.zeros(2, 5, 4))
    assert not bitwise_equal(model.train()(X), torch.zeros(2, 5, 4))
    assert bitwise_equal(copy.deepcopy(model).eval()(X), torch.zeros(2, 5, 4))


def test_equal_blocks_share_their_code():
    root = implementation(
        "module",
        "root",
        *given("x"),
        Node("a", "module", "one", (Ref("x"),)),
        Node("b", "module", "two", (Ref("a"),)),
        returns(Ref("b")),
    )
    model = lg.to_torch(Ir([root, *recurrent("one"), *recurrent("two")]))
    assert type(model.one) is type(model.two)
    assert not bitwise_equal(model.one(X), model.two(X))


def test_owners():
    ir = twice()
    assert owners(ir) == {"inner/loop": "inner"}
    assert bodies_of(ir, "inner") == ["inner/loop"]
    assert bodies(ir["inner"].nodes["steps"].args) == ["inner/loop"]
    assert ir["root"].children == {"inner": "inner"}


def _wrong(change):
    parts = {each.name: each for each in recurrent()}
    change(parts)
    return Ir(list(parts.values()))


def _second(parts):
    parts["other"] = implementation(
        "module",
        "other",
        *given("x"),
        function("y", "layergraph.loop", Body("root/loop"), 1, (Ref("x"),), (Ref("x"),), 1),
        returns(Ref("y")),
    )
    parts["root"].children = {"cell": "cell", "other": "other"}


def _circle(parts):
    parts["root/loop"].nodes["step"].args = (Body("root/loop"),)


def _state(parts):
    parts["root/loop"].children = {"cell": "cell"}


def _missing(parts):
    del parts["root/loop"]


def _called(parts):
    parts["root"].nodes["y"].type, parts["root"].nodes["y"].implementation = "body", "root/loop"


def _empty(parts):
    parts["root/loop"] = Implementation(BODY, name="root/loop")


def _layer(parts):
    parts["root/loop"].type = "linear"


WRONG = {
    "two owners": (_second, "run it"),
    "a circle": (_circle, "runs itself"),
    "children": (_state, "a body has no module"),
    "missing": (_missing, "no body"),
    "called": (_called, "a body"),
    "empty": (_empty, "no graph"),
    "a layer": (_layer, "no body"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_bodies_are_refused(name):
    change, says = WRONG[name]
    with pytest.raises(InvalidIrError, match=says):
        check(_wrong(change))


def test_only_some_functions_take_a_body():
    ir = _wrong(lambda parts: parts["root"].nodes["y"].__setattr__("args", (Body("root/loop"), 1)))
    with pytest.raises((BuildError, InvalidIrError), match=r"takes no function|edge"):
        lg.to_torch(ir)


@pytest.mark.parametrize(
    ("turns", "gives", "says"), [(-1, (1,), "-1 turns"), (2, (1, 2), "returns 2 values")]
)
def test_a_loop_refuses_what_makes_no_sense(turns, gives, says):
    with pytest.raises(AssumptionError, match=says):
        loop(lambda *_: gives, turns, (0,), ())


def test_a_loop_of_no_turns_gives_what_it_was_given():
    assert loop(lambda *_: (), 0, (1, 2), (), 1) == (1, 2, [])
