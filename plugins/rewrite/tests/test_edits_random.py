"""Random edits of random models compute what the edits promise, and keep the state in order."""

from __future__ import annotations

import copy
import functools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import layergraph as lg
from layergraph.ir import FUNCTION, INPUT, OUTPUT, Node, Ref, check, refs
from layergraph_rewrite import VALUE, EditError, Site, function, layer
from plugins.rewrite.tests.interpreter import Interpreter
from plugins.rewrite.tests.models import Random

LEAVES = {
    "linear": (lambda: nn.Linear(4, 4), {"in_features": 4, "out_features": 4}),
    "batchnorm1d": (lambda: nn.BatchNorm1d(4), {"num_features": 4}),
    "relu": (nn.ReLU, {}),
    "leakyrelu": (lambda: nn.LeakyReLU(0.5), {"negative_slope": 0.5}),
    "dropout": (nn.Dropout, {}),
}
FUNCTIONS = {
    "torch.neg": lambda value: (value,),
    "operator.mul": lambda value: (value, value),
    "torch.Tensor.add_": lambda value: (value, 0.5),
    "torch.Tensor.view": lambda value: (value, -1, 4),
}


class Term:
    """A random call: as a term of an edit, and as nodes of the interpreter."""

    def __init__(self, edit, choose, name=None):
        self.leaf, kind = None, choose.choice(["layer", "function", "nested", "existing"])
        leaves = [each.name for each in edit.layers.values() if each.children is None]
        if kind == "existing" and leaves:
            self.kind, self.target = "existing", choose.choice(leaves)
            self.term = self.target
        elif kind == "layer":
            self.kind, self.target = "layer", choose.choice(list(LEAVES))
            make, attributes = LEAVES[self.target]
            self.leaf = make()
            tensors = {key: each.clone() for key, each in self.leaf.state_dict().items()}
            self.term = layer(self.target, tensors=tensors, name=name, **attributes)
        else:
            self.kind, self.target = FUNCTION, choose.choice(list(FUNCTIONS))
            self.term = function(self.target)(*FUNCTIONS[self.target](VALUE))
            if kind == "nested":
                self.kind = "nested"
                inner = function("torch.tanh")(VALUE)
                self.term = function(self.target)(*FUNCTIONS[self.target](inner))

    def nodes(self, call, value, when):
        """Return what stands for it in one graph: the last one has the name of the new call."""
        name = call.site.node
        if self.kind in ("layer", "existing"):
            return [Node(name, call.type, call.layer, (value,), when=when)]
        inner = []
        if self.kind == "nested":
            inner = [Node(f"{name} inside", FUNCTION, "torch.tanh", (value,), when=when)]
            value = Ref(inner[0].name)
        args = FUNCTIONS[self.target](value)
        return [*inner, Node(name, FUNCTION, self.target, args, when=when)]


def picked(edit, choose, *kinds, graph=None):
    """Return a random node, of some types if they are given."""
    calls = [
        call
        for call in edit
        if (not kinds or call.type in kinds) and (graph is None or call.site.graph == graph)
    ]
    if not calls:
        raise EditError("no node to pick")
    return choose.choice(calls)


def first_ref(node):
    return next((each for each in node.args or () if type(each) is Ref), None)


# Edits with a promise of their own: the edit, and the same on lists.


def insert_after(edit, mirror, choose):
    call, term = picked(edit, choose), Term(edit, choose)
    new = edit.insert_after(call, term.term)
    learn(mirror, new, term)
    owner, name = call.site
    for graph, index in mirror.with_node(owner, name):
        mirror.substitute(graph, name, Ref(new.site.node))
        graph[index + 1 : index + 1] = term.nodes(new, Ref(name), graph[index].when)


def insert_before(edit, mirror, choose):
    call, term = picked(edit, choose), Term(edit, choose)
    position = choose.randrange(2)
    new = edit.insert_before(call, term.term, argument=position)
    learn(mirror, new, term)
    for graph, index in mirror.with_node(*call.site):
        node = graph[index]
        args = list(node.args)
        value, args[position] = args[position], Ref(new.site.node)
        node.args = tuple(args)
        graph[index:index] = term.nodes(new, value, node.when)


def insert_on(edit, mirror, choose):
    sink, term = picked(edit, choose), Term(edit, choose)
    owner, name = sink.site
    sources = sink.node.sources()
    source = choose.choice(sources or [name])
    new = edit.insert_on(Site(owner, source), sink, term.term)
    learn(mirror, new, term)
    for graph, index in mirror.with_node(owner, name):
        if source in graph[index].sources():
            when = graph[index].when
            mirror.substitute(
                graph, source, Ref(new.site.node), only=lambda each: each.name == name
            )
            graph[index:index] = term.nodes(new, Ref(source), when)


def replace(edit, mirror, choose):
    call, term = picked(edit, choose), Term(edit, choose)
    new = edit.replace(call, term.term)
    learn(mirror, new, term)
    for graph, index in mirror.with_node(*call.site):
        node = graph[index]
        value = first_ref(node)
        if term.kind == "layer":  # it is not called, and so takes all arguments
            made = [Node(node.name, new.type, new.layer, node.args, node.kwargs, when=node.when)]
        else:
            made = term.nodes(new, value, node.when)
        graph[index : index + 1] = made


def remove(edit, mirror, choose):
    call = picked(edit, choose)
    by = choose.choice([None, 0.5, picked(edit, choose, graph=call.site.graph)])
    edit.remove(call, by=by)
    for graph, index in mirror.with_node(*call.site):
        node = graph[index]
        sources = dict.fromkeys(refs(*node.args, *node.kwargs.values()))
        value = Ref(next(iter(sources))) if len(sources) == 1 else first_ref(node)
        if by is not None:
            value = by if by == 0.5 else Ref(by.site.node)
        mirror.substitute(graph, node.name, value)
        del graph[index]


def replace_uses(edit, mirror, choose):
    call = picked(edit, choose)
    by = picked(edit, choose, graph=call.site.graph)
    edit.replace_uses(call, by)
    new = by.site.node
    for graph, _ in mirror.with_node(*call.site):
        mirror.substitute(graph, call.site.node, Ref(new), only=lambda each: each.name != new)


def set_arguments(edit, mirror, choose):
    call = picked(edit, choose)
    value = Ref(picked(edit, choose, graph=call.site.graph).site.node)
    args = tuple(value if type(each) is Ref else each for each in call.args)
    edit.set_arguments(call, *args)
    for graph, index in mirror.with_node(*call.site):
        graph[index].args, graph[index].kwargs = args, {}


def set_outputs(edit, mirror, choose):
    call = picked(edit, choose)
    owner = call.site.graph if call.is_in_root else None
    if owner is None:
        raise EditError("a composite returns what its callers expect")
    values = [picked(edit, choose, graph=owner) for _ in range(choose.choice([1, 2]))]
    if any(each.type == OUTPUT for each in values):
        raise EditError("the output is no value")
    edit.set_outputs(*values)
    given = tuple(Ref(each.site.node) for each in values)
    for graph in mirror.graphs[owner]:
        graph[-1].args = given if len(given) == 1 else (given,)


def set_attributes(edit, mirror, choose):
    call = picked(edit, choose, "linear", "relu", "leakyrelu", "dropout")
    name = call.layer
    if call.type == "linear":
        edit.set(name, bias=False)
        leaf = nn.Linear(4, 4, bias=False)
        leaf.weight = mirror.leaves[name].weight
    elif call.type == "dropout":
        edit.set(name, p=0.25)
        leaf = nn.Dropout(0.25)
    else:
        edit.set(name, "leakyrelu", negative_slope=0.25)
        leaf = nn.LeakyReLU(0.25)
    mirror.leaves[name] = leaf


def share(edit, mirror, choose):
    one, other = picked(edit, choose, "linear", "relu"), picked(edit, choose, "linear", "relu")
    edit.share(one.layer, other.layer)
    for graphs in mirror.graphs.values():
        for graph in graphs:
            for node in graph:
                if node.is_call and node.implementation == one.layer:
                    node.implementation = other.layer


def add_input(edit, mirror, choose):
    call = picked(edit, choose)
    owner = call.site.graph
    value = None if call.is_in_root else 2.0
    edit.add_input("more", graph="" if call.is_in_root else owner, value=value)
    for graph in mirror.graphs[owner]:
        last = max(index for index, node in enumerate(graph) if node.type == INPUT)
        graph.insert(last + 1, Node("more", INPUT, "more", ()))
    for graphs in mirror.graphs.values():
        for graph in graphs:
            for node in graph:
                if node.is_call and node.implementation == owner:
                    node.kwargs = {**node.kwargs, "more": value}


VALUES = [insert_after, insert_before, insert_on, replace, remove, replace_uses, set_arguments]
VALUES += [set_outputs, set_attributes, share, add_input]


# Edits after which the model computes the same.


def move(edit, choose):
    call = picked(edit, choose)
    other = picked(edit, choose, graph=call.site.graph)
    edit.move(call, **{choose.choice(["before", "after"]): other})


def rename(edit, choose):
    call = picked(edit, choose)
    edit.rename(call, choose.choice(["other", "more", "fc"]))


def unshare(edit, choose):
    call = picked(edit, choose)
    before = edit.state
    copied = edit.unshare(call)
    old = {before[key].data_ptr() for key in before}
    assert all(each.data_ptr() not in old for each in edit.tensors(copied).values())


def untie(edit, choose):
    call = picked(edit, choose, "linear")
    edit.untie(call, "weight")


def annotate(edit, choose):
    edit.annotate(picked(edit, choose), {"acme.bits": 4})


def inline(edit, choose):
    edit.inline(picked(edit, choose, "module", "sequential"))


def outline(edit, choose):
    first = picked(edit, choose)
    near = [call for call in edit if call.site.graph == first.site.graph]
    start = near.index(first)
    edit.outline(near[start : start + choose.randint(1, 4)], "part")


def drop_unused_layers(edit, choose):
    edit.drop_unused_layers()


def remove_input(edit, choose):
    call = picked(edit, choose, INPUT)
    if call.is_in_root:
        raise EditError("callers give the inputs of the model")
    edit.remove_input(call.site.node, graph=call.site.graph)


SAME = [move, rename, unshare, untie, annotate, inline, outline, drop_unused_layers, remove_input]


def learn(mirror, call, term):
    if term.leaf is not None:
        mirror.leaves[call.layer] = term.leaf


# What holds after each edit.


def assert_alike(mirror, rebuilt, ir, *, buffers=True):
    count = sum(node.type == INPUT for node in ir["root"].nodes.values())
    for training in (True, False):
        mine, other = copy.deepcopy(mirror), copy.deepcopy(rebuilt).train(training)
        for grad in (False, True):
            inputs = [torch.randn(3, 4) for _ in range(count)]
            with torch.set_grad_enabled(grad):
                one = outcome(functools.partial(mine.run, training=training), inputs)
                two = outcome(other, inputs)
            assert len(one) == len(two)
            for a, b in zip(one, two, strict=True):
                assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        theirs = dict(other.named_buffers(remove_duplicate=False))
        for key, buffer in mine.buffers().items() if buffers else ():
            assert key not in theirs or torch.equal(buffer, theirs[key]), key


def outcome(model, inputs):
    """Return all that a call gives and changes, or the error that it raises."""
    torch.manual_seed(1)
    inputs = [each.clone() for each in inputs]
    try:
        value = model(*inputs)
    except Exception:
        return ["an error"]  # which one, depends on how a call is written
    values = [value] if not isinstance(value, tuple) else [*value]
    return [*values, *inputs]


def assert_consistent(edit):
    """The users, callers, parents and names that an edit keeps are those that its nodes say."""
    calls, states = {}, set()
    for owner in edit.layers.values():
        for graph in owner.graphs:
            assert graph.owner is owner
            users = {name: set() for name in graph.nodes}
            seen = set()
            for node in graph:
                assert graph.nodes[node.name] is node
                assert set(node.sources()) <= seen
                seen.add(node.name)
                for source in node.sources():
                    users[source].add(node.name)
                if node.is_call:
                    calls.setdefault(node.implementation, set()).add((graph, node.name))
                elif node.type == "state":
                    states.add((graph, node.name))
            assert seen == set(graph.nodes)
            assert {name: set(each) for name, each in graph.users.items()} == users
    assert set(edit.layers.states) == states
    for name, each in edit.layers.items():
        assert each.name == name
        assert set(each.calls) == calls.get(name, set())
        for parent, child in each.parents:
            assert (parent.children or {})[child] is each
            assert edit.layers[parent.name] is parent
        for child, inner in (each.children or {}).items():
            assert (each, child) in inner.parents


def ties(model):
    found = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), set()).add(key)
    return found.values()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("edits")


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**9),
    st.lists(st.sampled_from([*VALUES, *SAME]), min_size=1, max_size=6),
)
def test_edits_do_what_they_promise(folder, seed, kinds):
    torch.manual_seed(seed)
    model = Random(seed)
    ir, state = lg.to_ir(model), model.state_dict()
    kept, plain = {key: each.clone() for key, each in state.items()}, ir.to_dict()
    edit = lg.edit(ir, state)
    assert edit.ir == ir
    mirror = Interpreter(ir, state)
    assert_alike(mirror, model, ir)
    for index, kind in enumerate(kinds):
        choose = random.Random(seed + index)
        before = edit.ir
        keys = list(edit.state)
        tied = list(ties(lg.to_torch(before, edit.state)))
        try:
            if kind in VALUES:
                kind(edit, mirror, choose)
            else:
                kind(edit, choose)
        except EditError:
            assert_consistent(edit)
            assert edit.ir == before
            assert list(edit.state) == keys
            continue
        assert_consistent(edit)
        check(edit.ir)
        rebuilt = lg.to_torch(edit.ir, edit.state)
        assert_alike(mirror, rebuilt, edit.ir, buffers=kind is not unshare)
        assert list(rebuilt.state_dict()) == list(edit.state)
        now = ties(rebuilt)
        if kind in VALUES:
            for group in tied:  # a tie stays where both keys do
                left = group & set(edit.state)
                assert kind is share or not left or any(left <= each for each in now)
        if kind in (annotate, move):
            assert list(now) == tied
        mirror = Interpreter(edit.ir, edit.state)
    path = folder / "model.safetensors"
    lg.save(edit.ir, path, edit.state)
    assert_alike(mirror, lg.load_model(path), edit.ir)
    assert ir.to_dict() == plain
    assert all(torch.equal(each, kept[key]) for key, each in state.items())
