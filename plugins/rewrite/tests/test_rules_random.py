"""Random models and rules that keep what a model computes: it computes the same, bit for bit."""

# ruff: noqa: PLW0108 - a pattern is a function whose parameters have names
from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import layergraph as lg
from layergraph.ir import check
from layergraph_rewrite import EditError, function, layer
from plugins.rewrite.tests.models import Random


def _copied(match):
    fc = match["fc"]
    return layer("linear", **fc.attributes, tensors=dict(fc.tensors))(match["x"])


def _noted(match):
    match.edit.insert_after(match["fc"], layer("identity"))


def _named(*ends):
    return function(*(f"*.{end}" for end in ends))


RULES = [
    lg.Rule(lambda x: layer("relu", inplace=True)(x), lambda m: layer("relu")(m["x"]), "copy"),
    lg.Rule(lambda x: layer("relu", inplace=False)(x),
            lambda m: function("torch.relu")(m["x"]), "to-function"),
    lg.Rule(lambda x: _named("add", "__add__")(x, 0), lambda m: m["x"], "no-zero"),
    lg.Rule(lambda x: _named("neg")(_named("neg")(x)), lambda m: m["x"], "no-negs"),
    lg.Rule(lambda x: _named("clone")(x), lambda m: m["x"], "no-clone"),
    lg.Rule(lambda x: layer("identity")(x), lambda m: m["x"], "no-identity"),
    lg.Rule(lambda x, n: _named("view")(_named("view")(x, -1, 4), -1, n),
            lambda m: function("torch.Tensor.view")(m["x"], -1, m["n"]), "one-view"),
    lg.Rule(lambda x, n: _named("mul_")(x, n),
            lambda m: function("operator.mul")(m["x"], m["n"]), "no-mul_"),
    lg.Rule(lambda x, y: _named("add_")(x, y),
            lambda m: function("operator.add")(m["x"], m["y"]), "no-add_"),
    lg.Rule(lambda x: _named("relu")(layer("linear", name="fc", uses="any")(x)),
            lambda m: layer("relu")(_copied(m)), "fresh"),
    lg.Rule(lambda x: _named("relu")(layer("linear", name="fc", uses="any")(x)),
            lambda m: layer("relu")(_copied(m)), "fresh-copy", shared="copy"),
    lg.Rule(lambda x: layer("dropout", name="d")(layer("batchnorm1d", name="n")(x)),
            lambda m: m.edit.replace(m["d"], layer("dropout")) and None, "edited"),
    lg.Rule(lambda x: _named("relu")(layer("linear", name="fc")(x)), _noted, "noted", across=True),
]  # fmt: skip


UNDONE = [
    {"to-function", "fresh"},
    {"to-function", "fresh-copy"},
    {"no-identity", "noted"},
]


def outcome(model, x):
    torch.manual_seed(1)
    x = x.clone()
    try:
        value = model(x)
    except RuntimeError as error:  # a leaf that requires grad changes in place
        return str(error)[:20]
    return value, x, *(each for _, each in model.named_buffers())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.data())
def test_the_same_is_computed(seed, data):
    torch.manual_seed(seed)
    model = Random(seed)
    ir, state = lg.to_ir(model), model.state_dict()
    rules = data.draw(st.lists(st.sampled_from(RULES), unique=True, min_size=1, max_size=5))
    try:
        new, tensors, report = lg.rewrite(ir, rules, state)
    except EditError as error:
        assert "does not end" in str(error)  # noqa: PT017 some rules undo each other
        names = {each.name for each in rules}
        assert any(names >= each for each in UNDONE)
        return
    check(new)
    for training in (True, False):
        one = copy.deepcopy(model).train(training)
        other = lg.to_torch(new, tensors).train(training)
        for _ in range(2):
            x = torch.randn(3, 4)
            with torch.no_grad():
                wanted, got = outcome(one, x), outcome(other, x)
            assert len(wanted) == len(got)
            for a, b in zip(wanted, got, strict=True):
                assert torch.equal(a, b), f"{ir}\n{report}\n{new}"
