"""The checks for authors of plugins fail for the faults that they are for."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import layergraph.api
import layergraph.plugins.loading
from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable
from layergraph.testing import Case, LayerTests, bitwise_equal

WORDS = torch.tensor([[1, 2], [1, 0]])


CASES = {
    "sparse": Case(lambda: nn.Embedding(5, 3, sparse=True), [WORDS]),
    "by name": Case(lambda: nn.Embedding(5, 3), [], kwargs={"input": WORDS}),
}


class TestEmbedding(LayerTests):
    distribution = "layergraph-sparse"
    cases = CASES


# --- plugins that are wrong in one way each ---


class Scaled(nn.Module):
    def __init__(self, sizes, factor=2.0):
        super().__init__()
        self.sizes = sizes
        self.factor = factor
        self.weight = nn.Parameter(torch.ones(sizes))

    def forward(self, x):
        return x * self.weight * self.factor


ROW = Layer(Scaled, always=["factor"])


def say(module):
    return ROW.to_ir(module) if type(module) is Scaled else None


def build(implementation):
    return ROW.to_torch(implementation) if implementation.type == "scaled" else None


def said(change):
    """Return a handler that changes the right answer."""

    def changed(module):
        answer = say(module)
        if answer is not None:
            answer.data.update(change(module))
        return answer

    return changed


def without_care(module):
    if type(module) is not Scaled:
        return None
    return Implementation("scaled", {"sizes": module.sizes, "factor": module.factor})


def of_subclasses(module):
    if not isinstance(module, Scaled):
        return None
    return Implementation("scaled", {"sizes": module.sizes, "factor": module.factor})


def losing_the_factor(module):
    if type(module) is not Scaled:
        return None
    return Implementation("scaled", {"sizes": module.sizes, "factor": 2.0})


def renaming(module):
    answer = say(module)
    return None if answer is None else replace(answer, type="acme_scaled")


def a_graph(module):
    answer = say(module)
    return None if answer is None else replace(answer, children={})


def changing_the_module(module):
    answer = say(module)
    if answer is not None:
        module.seen = True
    return answer


def changing_the_weights(module):
    if type(module) is Scaled:
        module.weight.data.clamp_(-1, 1)
        module.weight.detach().clamp_(-1, 1)
    return say(module)


def drawing(module):
    if type(module) is Scaled:
        torch.rand(1)
    return say(module)


COUNT = iter(range(10**6))
MADE: dict[Any, nn.Module] = {}


def popping(implementation):
    if implementation.type != "scaled":
        return None
    data = implementation.data
    return Scaled(data.pop("sizes"), **data)


def once(implementation):
    if implementation.type != "scaled":
        return None
    key = repr(implementation.data)
    if key not in MADE:
        MADE[key] = build(implementation)
    return MADE[key]


NOTES: list[str] = []


def with_one_list(implementation):
    made = build(implementation)
    if made is not None:
        made.notes = NOTES
    return made


class OtherScaled(Scaled):
    pass


def of_another_class(implementation):
    if implementation.type != "scaled":
        return None
    return OtherScaled(**implementation.data)


def off_by_one_bit(implementation):
    made = build(implementation)
    if made is not None:
        made.register_forward_hook(
            lambda module, given, output: torch.nextafter(output, output + 1)
        )
    return made


def of_anything(implementation):
    if implementation.type != "scaled":
        return None
    known = {k: v for k, v in implementation.data.items() if k in ("sizes", "factor")}
    return Scaled(**known)


def with_defaults(implementation):
    if implementation.type != "scaled":
        return None
    return Scaled(**{"sizes": (3,), **implementation.data})


class Drawn(nn.Module):
    """Has a random shift from its constructor, which its handler does not put into the IR."""

    def __init__(self):
        super().__init__()
        self.shift = torch.rand(1).item()

    def forward(self, x):
        return x + self.shift


def drawn(module):
    return Implementation("scaled", {}) if type(module) is Drawn else None


def drawn_again(implementation):
    if implementation.type != "scaled" or implementation.data:
        return None
    return Drawn()


@dataclass(frozen=True)
class Bad:
    """A wrong plugin, the check that finds the fault, and a part of the message."""

    check: str
    says: str
    to_ir: Any = say
    to_torch: Any = build
    make: Any = lambda: Scaled((3,))


BAD = {
    "does not answer": Bad("leaf", "its type is 'module', not 'scaled'", to_ir=lambda module: None),
    "names another type": Bad("leaf", "its type is 'acme_scaled', not", to_ir=renaming),
    "is a container": Bad("leaf", "it is not a leaf|its type is 'module'", to_ir=a_graph),
    "says what is no value": Bad("leaf", "plain", to_ir=said(lambda module: {"sizes": module})),
    "says something else each time": Bad(
        "attributes",
        "handler is called again",
        to_ir=said(lambda _: {"factor": float(next(COUNT))}),
    ),
    "says a weight": Bad(
        "attributes",
        "other weights",
        to_ir=said(lambda m: {"factor": m.weight.flatten()[0].item()}),
    ),
    "goes by the mode": Bad(
        "attributes", "in eval mode", to_ir=said(lambda m: {"factor": 2.0 if m.training else 1.0})
    ),
    "goes by the dtype": Bad(
        "attributes",
        "of float64",
        to_ir=said(lambda m: {"factor": 2.0 if m.weight.dtype is torch.float32 else 1.0}),
    ),
    "goes by the device": Bad(
        "attributes", "meta", to_ir=said(lambda m: {"factor": 1.0 if m.weight.is_meta else 2.0})
    ),
    "sets an attribute": Bad("left_alone", r"changed the module \(seen\)", changing_the_module),
    "changes weights": Bad("left_alone", r"changed the module \(weight\)", changing_the_weights),
    "draws numbers": Bad("left_alone", "drew random numbers", drawing),
    "changes the implementation": Bad("left_alone", "copy its data", to_torch=popping),
    "gives one module twice": Bad("left_alone", "the module itself", to_torch=once),
    "gives one list twice": Bad("left_alone", "share notes", to_torch=with_one_list),
    "is made with what others have": Bad(
        "left_alone", "`make` must", make=lambda sizes=[3]: Scaled(sizes)
    ),
    "gives another class": Bad("rebuilt", "its class was .*Scaled", to_torch=of_another_class),
    "computes otherwise": Bad("behaviour", "other bits in output 0", to_torch=off_by_one_bit),
    "computes otherwise from files": Bad(
        "file", "from a file, evaluating", to_torch=off_by_one_bit
    ),
    "says something else in a model": Bad(
        "in_sequential", "alone it is", to_ir=said(lambda _: {"factor": float(next(COUNT))})
    ),
    "draws what it does not say": Bad(
        "behaviour", "other bits in output 0", drawn, drawn_again, make=Drawn
    ),
    "answers for subclasses": Bad("exact_class", "answers for a subclass", to_ir=of_subclasses),
    "does not see that a weight is gone": Bad(
        "changed", "'weight' set to None", to_ir=without_care
    ),
    "loses an attribute": Bad("changed", "attribute 'factor' set to 1.25", losing_the_factor),
    "takes any attribute": Bad("damaged", "unknown attribute", to_torch=of_anything),
    "has defaults of its own": Bad("damaged", "without sizes", to_torch=with_defaults),
}


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Install a plugin for one test, for this process only."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(name, plugin):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[layergraph]\n{name} = {name}\n")
        monkeypatch.setitem(sys.modules, name, plugin)
        _forget()

    yield installed
    monkeypatch.undo()
    _forget()


def _forget():
    """Clear the cache of installed distributions."""
    for module in (layergraph.api, layergraph.plugins.loading):
        for each in vars(module).values():
            if hasattr(each, "cache_clear"):
                each.cache_clear()


def plugin_of(to_ir, to_torch):
    def torch_to_ir(module):
        return to_ir(module)

    def ir_to_torch(implementation):
        return to_torch(implementation)

    plugin = ModuleType("acme")
    plugin.torch_to_ir, plugin.ir_to_torch = hookimpl(torch_to_ir), hookimpl(ir_to_torch)
    return plugin


def failures(suite):
    """Return the failures of a suite's checks, by the name of the check."""
    found = {}
    for name in (name for name in dir(suite) if name.startswith("test_")):
        try:
            getattr(suite(), name)()
        except Exception as error:
            found[name.removeprefix("test_").partition("[")[0]] = error
    return found


def suite_for(case, **attributes):
    return type("Tests", (LayerTests,), {"cases": {"case": case}, **attributes})


def test_a_plugin_that_is_right_passes(install):
    install("acme", plugin_of(say, build))
    assert failures(suite_for(Case(lambda: Scaled((3,)), [(5, 3)]), classes=[Scaled])) == {}


def _marks(name):
    needed = BAD[name].to_torch is off_by_one_bit
    return [pytest.mark.needs("nextafter_derivative")] if needed else []


@pytest.mark.parametrize("name", [pytest.param(name, marks=_marks(name)) for name in BAD])
def test_a_plugin_that_is_wrong_fails(install, name):
    bad = BAD[name]
    install("acme", plugin_of(bad.to_ir, bad.to_torch))
    found = failures(suite_for(Case(bad.make, [(5, 3)], kind="scaled")))
    assert bad.check in found, found
    assert re.search(bad.says, str(found[bad.check]))


LINEAR = Case(lambda: nn.Linear(3, 2), [(5, 3)])


def precedence(distribution="acme"):
    """Return the message of the precedence check for a distribution; empty if it passes."""
    return str(failures(suite_for(LINEAR, distribution=distribution)).get("precedence", ""))


def annotating(module):
    return (yield)


def test_an_override_and_a_wrapper_answer(install):
    table = LayerTable([Layer(nn.Linear, always=["bias"])])
    install("acme", plugin_of(table.to_ir, table.to_torch))
    assert precedence() == ""
    wrapper = ModuleType("acme_too")  # the plugin has no handler for the other direction
    wrapper.torch_to_ir = hookimpl(annotating, wrapper=True)
    install("acme_too", wrapper)
    assert precedence("acme-too") == ""


def test_a_plugin_that_is_not_asked_fails(install):
    assert "no plugin of acme is installed; install it" in precedence()
    install("acme", ModuleType("acme"))
    assert "it implements no hook" in precedence()


def test_a_plugin_that_another_one_shadows_fails(install):
    rows = [Layer(nn.Linear)]
    for name in ("acme", "bcme"):
        plugin = ModuleType(name)
        plugin.layers = hookimpl(lambda: rows)
        install(name, plugin)
    assert re.search(r"acme does not answer.*\n.*shadowed *acme 1.0", precedence(), re.DOTALL)
    assert precedence("bcme") == ""


def test_every_check_has_a_plugin_that_fails_it():
    checks = {name.removeprefix("check_") for name in dir(LayerTests) if name.startswith("check_")}
    assert {bad.check for bad in BAD.values()} | {"precedence"} == checks


def test_a_class_without_a_case_is_missed():
    class Nothing(LayerTests):
        classes = (nn.Linear,)

    assert "Linear" in str(failures(suite_for(CASES["sparse"], classes=[nn.Linear])))
    assert "there are no cases" in str(failures(Nothing))


def sparse(indices, values):
    return torch.sparse_coo_tensor([indices], values, (4,), check_invariants=True)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (sparse([0, 1], [1.0, 2.0]), True),
        (sparse([1, 0], [2.0, 1.0]), True),
        (sparse([0, 1, 1], [1.0, 1.5, 0.5]), True),
        (sparse([0, 2], [1.0, 2.0]), False),
        (sparse([0, 1], [1.0, 3.0]), False),
        (sparse([0, 1], [1.0, 2.0]).to_dense(), False),
    ],
)
def test_sparse_tensors_are_compared_by_what_is_in_them(other, same):
    assert bitwise_equal(sparse([0, 1], [1.0, 2.0]), other) == same
