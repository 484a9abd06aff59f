"""Models with several branches: only the branch that is taken runs, in each way to run a graph."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import fx, nn

import layergraph as lg
from core.tests.conditional import (
    IF,
    UNLESS,
    X,
    call,
    choose,
    composite,
    decision,
    function,
    given,
    ir_of,
    linear,
    returns,
    two_ways,
)
from layergraph.control_flow.choices import choose as chosen
from layergraph.control_flow.choices import conditionally, holds, truth
from layergraph.errors import AssumptionError, BuildError
from layergraph.ir import Node, Record, Ref, Symbol, TensorSpec, check
from layergraph.testing import bitwise_difference, bitwise_equal

UP, DOWN = torch.tensor([[1.0, 2.0]]), torch.tensor([[-1.0, -2.0]])
BOTH = [UP, DOWN]


class TwoWays(nn.Module):
    """A model that computes the same as the IR of ``two_ways``."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(2, 2)

    def forward(self, x):
        return self.lin(x) if x.sum() > 0 else torch.relu(x)


def _rebuilt():
    model = TwoWays()
    return model, lg.to_torch(two_ways(), model.state_dict())


RUNNERS = {
    "itself": lambda model: model,
    "copied": copy.deepcopy,
    "pickled": lambda model: pickle.loads(pickle.dumps(model)),
    "interpreted": lambda model: fx.Interpreter(model).run,
    "recompiled": lambda model: (model.graph, model.recompile(), model)[-1],
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "copy of a pickle": lambda model: copy.deepcopy(pickle.loads(pickle.dumps(model))),
}


@pytest.mark.parametrize("name", RUNNERS)
@pytest.mark.parametrize("order", [BOTH, BOTH[::-1]], ids=["up", "down"])
def test_both_ways(name, order):
    model, rebuilt = _rebuilt()
    torch._dynamo.reset()
    run = RUNNERS[name](rebuilt)
    for x in [*order, *order]:
        assert bitwise_equal(run(x), model(x))


def test_gradients_follow_the_way():
    model, rebuilt = _rebuilt()
    rebuilt(DOWN.clone().requires_grad_()).sum().backward()
    assert rebuilt.lin.weight.grad is None
    for each in (model, rebuilt):
        each(UP).sum().backward()
    assert bitwise_equal(rebuilt.lin.weight.grad, model.lin.weight.grad)


def test_a_retrace_takes_no_way_without_a_word():
    _, rebuilt = _rebuilt()
    with pytest.raises(NotImplementedError):
        fx.symbolic_trace(rebuilt)
    nodes = [*given("x"), function("size", "torch.Tensor.size", X, 0)]
    nodes.append(function("t", "layergraph.holds", "assume", Ref("size"), 2, "here"))
    ir = ir_of(*nodes, choose("o", "t", X, Ref("size")), returns(Ref("o")))
    rebuilt = lg.to_torch(ir)
    traced = fx.symbolic_trace(rebuilt)
    for x in (torch.ones(2), torch.ones(3)):
        assert bitwise_equal(traced(x), rebuilt(x))
        assert bitwise_equal(rebuilt(x), x if len(x) == 2 else 3)


def test_a_retrace_keeps_a_decision_by_a_tensor():
    ir = ir_of(*given("x"), *decision(), choose("o", "t", X, 0), returns(Ref("o")))
    rebuilt = lg.to_torch(ir)
    traced = fx.symbolic_trace(rebuilt)
    assert [bitwise_equal(traced(x), rebuilt(x)) for x in BOTH] == [True, True]
    assert traced(DOWN) == 0


def test_a_script_is_refused():
    with pytest.raises(BuildError, match=r"cannot take 't': .*use torch.compile or torch.export"):
        torch.jit.script(_rebuilt()[1])


def test_a_way_that_is_not_taken_draws_and_changes_nothing():
    nodes = [
        *[*given("x"), *decision()],
        function("noise", "torch.rand", 3, when=IF),
        function("dropped", "torch.nn.functional.dropout", X, 0.5, True, when=IF),
        function("changed", "torch.Tensor.add_", X, 1, when=IF),
        function("set", "operator.setitem", X, 0, 5.0, when=IF),
        returns((Ref("noise"), Ref("dropped"), Ref("changed"), X)),
    ]
    rebuilt = lg.to_torch(ir_of(*nodes))
    for run in (rebuilt, fx.Interpreter(rebuilt).run, torch.compile(rebuilt, backend="eager")):
        down, before = DOWN.clone(), torch.get_rng_state()
        assert bitwise_equal(run(down), (None, None, None, DOWN))
        assert bitwise_equal(torch.get_rng_state(), before)
        up = UP.clone()
        noise, _, changed, same = run(up)
        assert bitwise_difference(torch.get_rng_state(), before)
        assert noise.shape == (3,)
        assert changed is same is up
        assert bitwise_equal(up, torch.full((1, 2), 5.0))


SOME_NODES = {
    "an attribute": ("torch.Tensor.shape", (X,), {}),
    "a method": ("torch.Tensor.view", (X, -1), {}),
    "an operator": ("operator.add", (X, 1), {}),
    "a cast": ("torch.Tensor.to", (X, Symbol("torch.float64")), {}),
    "a list": ("torch.cat", ([X, X],), {"dim": 0}),
    "an operation": ("torch.ops.aten.mul.Tensor", (X, X), {}),
    "an index": ("operator.getitem", (X, (slice(None, 1), ...)), {}),
    "a size": ("torch.Tensor.size", (X,), {"dim": 0}),
}
RECORDS = {
    "a named tuple": Record("Pair", {"left": X, "right": Ref("s")}),
    "one of torch": Record("torch.return_types.sort", {"values": X, "indices": Ref("s")}),
    "a size": Record("torch.Size", {"0": Ref("d"), "1": 2}),
}


@pytest.mark.parametrize("name", SOME_NODES)
def test_every_kind_of_function(name):
    of, args, kwargs = SOME_NODES[name]
    nodes = [*given("x"), *decision(), function("n", of, *args, when=IF, **kwargs)]
    free = lg.to_torch(ir_of(*given("x"), function("n", of, *args, **kwargs), returns(Ref("n"))))
    rebuilt = lg.to_torch(ir_of(*nodes, returns(Ref("n"))))
    for make in RUNNERS.values():
        run = make(rebuilt)
        assert bitwise_equal(run(UP), free(UP))
        assert run(DOWN) is None


@pytest.mark.parametrize("name", RECORDS)
def test_a_named_tuple_is_made_on_its_way_alone(name):
    record = RECORDS[name]
    other = Record("torch.Size", {"0": Ref("e")})
    nodes = [
        *[*given("x"), *decision()],
        function("s", "torch.argsort", X, when=IF),
        function("d", "torch.Tensor.dim", X, when=IF),
        function("e", "torch.Tensor.dim", X, when=UNLESS),
        function("first", "operator.getitem", [record], 0, when=IF),
        choose("o", "t", [record], other),
        choose("p", "t", 1, (other,)),
        choose("q", "t", record, 2, when=IF),
    ]
    names = [Ref(each) for each in ("first", "o", "p", "q")]
    ir = ir_of(*nodes, returns(tuple(names)))
    for each in (ir, ir.flatten()):
        rebuilt = lg.to_torch(each)
        for make in (RUNNERS["itself"], RUNNERS["interpreted"], copy.deepcopy):
            first, chosen_, one, again = make(rebuilt)(UP)
            assert type(first).__name__ == record.type.rpartition(".")[2]
            assert _same(chosen_[0], first)
            assert _same(again, first)
            assert one == 1
            assert make(rebuilt)(DOWN) == (None, (2,), ((2,),), None)
        stored = pickle.loads(pickle.dumps(rebuilt))
        assert _same(stored(UP)[0], first)
        assert stored(DOWN) == (None, (2,), ((2,),), None)


def test_a_named_tuple_of_a_choice_that_is_not_made():
    size = Record("torch.Size", {"0": Ref("d")})
    nodes = [
        *[*given("x"), *decision(), *_second_decision()],
        function("d", "torch.Tensor.dim", X, when=IF),
        choose("o", "t2", size, size, when=IF),
    ]
    rebuilt = lg.to_torch(ir_of(*nodes, returns(Ref("o"))))
    assert rebuilt(UP) == (2,)
    assert rebuilt(DOWN) is None


def test_a_region_on_one_way():
    nodes = [
        *[*given("x"), *decision()],
        function("off", "layergraph.set_grad_enabled", False, when=IF),
        function("y", "torch.mul", X, 2),
        function("on", "layergraph.set_grad_enabled", Ref("off"), when=IF),
        returns(Ref("y")),
    ]
    rebuilt = lg.to_torch(ir_of(*nodes))
    needs = [rebuilt(x.clone().requires_grad_()).requires_grad for x in BOTH]
    assert needs == [False, True]
    assert torch.is_grad_enabled()
    nodes[-2:-2] = [function("raises", "torch.relu", None, when=IF)]
    with pytest.raises(TypeError):
        lg.to_torch(ir_of(*nodes))(UP)
    assert torch.is_grad_enabled()


def test_any_name_of_an_argument():
    names = "condition", "expected", "function", "self_", "args"
    inner = composite("f", *given(*names), returns(tuple(map(Ref, names))))
    values = {name: number for number, name in enumerate(names)}
    ir = ir_of(
        *[*given("x"), *decision()],
        call("r", "f", when=IF, **values),
        returns(Ref("r")),
        others=[inner],
    )
    for each in (ir, ir.flatten()):
        rebuilt = lg.to_torch(each)
        assert rebuilt(UP) == (0, 1, 2, 3, 4)
        assert rebuilt(DOWN) is None


# --- the functions ---


def test_the_functions():
    assert truth(torch.tensor(2.0)) is True
    assert truth([]) is False
    with pytest.raises(RuntimeError, match="more than one value"):
        truth(torch.ones(2))
    assert [holds("assume", each, 1, "") for each in (1, 1.0, True, 2)] == [
        True,
        False,
        False,
        False,
    ]
    assert [chosen(each, "yes", "no") for each in (True, False, None)] == ["yes", "no", None]
    assert conditionally(True, True, max, 1, 2) == 2
    assert conditionally(None, True, max, 1, 2) is None
    assert conditionally(None, False, max, 1, 2) is None
    for wrong in (1, torch.tensor(True), "t"):
        with pytest.raises(AssumptionError, match="the condition of a node is"):
            chosen(wrong, 1, 2)
        with pytest.raises(AssumptionError, match="the condition of a node is"):
            conditionally(wrong, True, max, 1, 2)


# --- one level ---

HANDS_THROUGH = composite("f", *given("x"), returns(X))
TWO_VALUES = composite("f", *given("x"), function("s", "torch.sigmoid", X), returns((Ref("s"), X)))
NESTED = composite("f", *given("x"), returns(((X, 1), {"a": X})))
CONSTANT = composite("f", *given("x"), returns(3))
NOTHING = composite("f", *given("x"), returns(None))
LOCAL = composite("f", *given("x"), function("y", "torch.neg", X), returns(Ref("y")))
STATEFUL = composite(
    "f",
    *given("x"),
    Node("w", "state", "f.w"),
    returns(Ref("w")),
    tensors={"w": TensorSpec("parameter", (2,))},
)
DECIDES = composite(
    "f",
    *[*given("x"), function("half", "operator.sub", X, 2), *decision(Ref("half"))],
    function("a", "torch.exp", X, when=IF),
    function("b", "torch.sin", X, when=UNLESS),
    function("c", "torch.cos", X),
    choose("o", "t", Ref("a"), Ref("b")),
    returns((Ref("o"), Ref("a"), Ref("c"), Ref("t"))),
)
GETS_A_CONDITION = composite(
    "f",
    *given("x", "t"),
    function("a", "torch.exp", X, when=IF),
    function("b", "torch.sin", X, when=UNLESS),
    function("c", "torch.tan", X, when=IF),
    choose("o", "t", Ref("a"), X),
    returns((Ref("a"), Ref("b"), Ref("c"), Ref("o"))),
)
CALLS = composite(
    "f",
    *[*given("x"), function("less", "operator.sub", X, 1), *decision(Ref("less"))],
    call("r", "g", X, when=IF),
    call("s", "g", Ref("less")),
    choose("o", "t", Ref("r"), Ref("s")),
    returns((Ref("o"), Ref("r"), Ref("s"))),
)
TAKES_ITEMS = composite(
    "f",
    *[*given("x"), *decision()],
    function("both", "layergraph.choose", Ref("t"), (X, 1), None),
    call("r", "g", X),
    function("e", "operator.getitem", (X, (2, 3)), 1, when=UNLESS),
    function("n", "operator.getitem", Ref("e"), 0, when=UNLESS),
    returns((Ref("both"), Ref("e"), Ref("n"), Ref("r"))),
)
INNER = composite("g", *given("x"), returns((X, 7)))
A_PAIR = composite("f", *given("x"), returns(Record("Pair", {"left": X, "right": 1})))
A_SIZE = composite(
    "f",
    *given("x"),
    function("d", "torch.Tensor.dim", X),
    returns(Record("torch.Size", {"0": Ref("d")})),
)

FLAT = {
    "hands through": ([HANDS_THROUGH], (X,), 1),
    "two values": ([TWO_VALUES], (X,), 1),
    "nested": ([NESTED], (X,), 1),
    "a constant": ([CONSTANT], (X,), 1),
    "nothing": ([NOTHING], (X,), 0),
    "a node": ([LOCAL], (X,), 0),
    "a tensor of the state": ([STATEFUL], (X,), 1),
    "decides": ([DECIDES], (X,), 1),
    "gets its own condition": ([GETS_A_CONDITION], (X, Ref("t")), 2),
    "gets another one": ([GETS_A_CONDITION], (X, Ref("t2")), 2),
    "gets True": ([GETS_A_CONDITION], (X, True), 2),
    "gets False": ([GETS_A_CONDITION], (X, False), 2),
    "gets None": ([GETS_A_CONDITION], (X, None), 2),
    "calls": ([CALLS, INNER], (X,), 2),
    "takes items": ([TAKES_ITEMS, INNER], (X,), 3),
    "a named tuple": ([A_PAIR], (X,), 1),
    "a size": ([A_SIZE], (X,), 1),
}


def _fresh(implementation):
    return copy.deepcopy(implementation)


def _same(one, other):
    assert type(one).__name__ == type(other).__name__
    if isinstance(one, tuple) and hasattr(one, "_fields"):
        one, other = tuple(one), tuple(other)
    return bitwise_equal(one, other)


def _flat_is_same(ir, lean):
    check(ir)
    flat = ir.flatten()
    check(flat)
    assert all(not each.nodes for name, each in flat.items() if name != "root")
    own, there = (
        [node.implementation for each in one.values() for node in each.nodes.values()].count(
            "layergraph.choose"
        )
        for one in (ir, flat)
    )
    model = lg.to_torch(ir)
    one = lg.to_torch(flat, model.state_dict())
    for x in (UP, DOWN, UP / 2, UP * 2, DOWN * 3, torch.tensor([[-3.0, 3.5]])):
        given_, given_there = x.clone(), x.clone()
        assert _same(one(given_there), model(given_)), x
        assert bitwise_equal(given_, given_there)
    assert there - own == lean, str(flat)


@pytest.mark.parametrize("when", [IF, UNLESS], ids=["if", "unless"])
@pytest.mark.parametrize("name", FLAT)
def test_one_level_is_the_same(name, when):
    others, args, lean = FLAT[name]
    others = [*map(_fresh, others)]
    nodes = [*given("x"), *decision(), *_second_decision(), call("r", "f", *args, when=when)]
    _flat_is_same(ir_of(*nodes, returns((Ref("r"), X)), others=others), lean)


def _second_decision():
    nodes = [function("size", "operator.mul", X, -1)]
    return [*nodes, *decision(Ref("size"), "2")]


@pytest.mark.parametrize("when", [IF, UNLESS], ids=["if", "unless"])
def test_one_level_of_items(when):
    nodes = [
        *[*given("x"), *decision()],
        call("r", "f", X, when=when),
        function("e", "operator.getitem", Ref("r"), 0, when=when),
        function("g", "operator.getitem", Ref("r"), -1, when=when),
        function("h", "torch.neg", Ref("g"), when=when),
    ]
    ir = ir_of(*nodes, returns((Ref("e"), Ref("h"))), others=[_fresh(TWO_VALUES)])
    _flat_is_same(ir, lean=0)
    ir = ir_of(*nodes, returns((Ref("e"), Ref("h"), Ref("g"))), others=[_fresh(TWO_VALUES)])
    _flat_is_same(ir, lean=1)
    flat = ir.flatten()["root"].nodes
    assert not any(node.implementation == "operator.getitem" for node in flat.values())


def test_one_level_of_ways_inside_ways():
    deep = composite("h", *given("x"), returns((X, 7)))
    middle = composite(
        "g",
        *[*given("x"), function("third", "operator.sub", X, 1), *decision(Ref("third"))],
        call("r", "h", X, when=UNLESS),
        returns(Ref("r")),
    )
    outer = composite(
        "f",
        *[*given("x"), function("third", "operator.sub", X, 2), *decision(Ref("third"))],
        call("q", "g", X, when=IF),
        call("p", "g", Ref("third")),
        returns((Ref("q"), Ref("p"))),
    )
    nodes = [*given("x"), *decision(), call("r", "f", X, when=IF), returns(Ref("r"))]
    _flat_is_same(ir_of(*nodes, others=[outer, middle, deep]), lean=3)


def test_one_level_in_both_modes():
    inner = _fresh(DECIDES)
    other = composite("f", *given("x"), returns((X, None, X, True)))
    inner = inner.changed(evaluation=lg.ir.Graph(nodes=other.nodes, edges=other.edges))
    nodes = [*given("x"), *decision(), call("r", "f", X, when=IF), returns(Ref("r"))]
    ir = ir_of(*nodes, others=[inner])
    model, flat = lg.to_torch(ir), lg.to_torch(ir.flatten())
    for training in (True, False):
        for x in BOTH:
            model.train(training), flat.train(training)
            assert bitwise_equal(flat(x), model(x))


def test_one_level_of_a_region_on_a_way():
    inner = composite(
        "f",
        *given("x", "t"),
        function("off", "layergraph.set_grad_enabled", False, when=IF),
        function("y", "torch.mul", X, 2),
        function("on", "layergraph.set_grad_enabled", Ref("off"), when=IF),
        returns(Ref("y")),
    )
    nodes = [*given("x", "t"), *decision(X, "2")]
    made = call("r", "f", X, Ref("t"), when=(Ref("t2"), True))
    ir = ir_of(*nodes, made, returns(Ref("r")), others=[inner])
    for each in (ir, ir.flatten()):
        rebuilt = lg.to_torch(each)
        made = [rebuilt(UP.clone().requires_grad_(), way).requires_grad for way in (True, False)]
        assert made == [False, True]
        assert rebuilt(DOWN, True) is None


def test_a_layer_that_two_ways_share():
    nodes = [
        *[*given("x"), *decision()],
        call("a", "lin", X, when=IF, kind="linear"),
        function("n", "torch.neg", X, when=UNLESS),
        call("b", "lin", Ref("n"), when=UNLESS, kind="linear"),
        choose("o", "t", Ref("a"), Ref("b")),
        returns(Ref("o")),
    ]
    rebuilt = lg.to_torch(ir_of(*nodes, others=[linear()]))
    assert [*rebuilt.state_dict()] == ["lin.weight", "lin.bias"]
    assert bitwise_equal(rebuilt(UP), rebuilt.lin(UP))
    assert bitwise_equal(rebuilt(DOWN), rebuilt.lin(-DOWN))
