"""``explain``: the whole chain of handlers, the reasons of those that decline, and wrappers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import Implementation
from layergraph.errors import PluginError, PluginWarning
from layergraph.ir2torch import Ir2Torch
from layergraph.plugins import installed_plugins
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir
from tests.sites import Site, loaded

DECLINES = """
from layergraph import decline, hookimpl

@hookimpl({marks})
def torch_to_ir(module):
    return decline("it is no Monday for {who}")

@hookimpl({marks})
def ir_to_torch(implementation):
    return decline("it is no Monday for {who}")
"""

FAILS = """
from layergraph import hookimpl

@hookimpl({marks})
def torch_to_ir(module):
    raise OSError("out of {who}")

@hookimpl({marks})
def ir_to_torch(implementation):
    raise OSError("out of {who}")
"""

WRAPS = """
from dataclasses import replace
from layergraph import hookimpl

@hookimpl(wrapper=True, {marks})
def torch_to_ir(module):
    answer = yield
    return answer and replace(answer, data={{**answer.data, "{who}.bits": 8}})
"""

# Handlers for one class and one type, which check the class or type before they answer.
KNOWS = """
from torch import nn
from layergraph import Implementation, hookimpl

@hookimpl
def torch_to_ir(module):
    if type(module) is nn.Linear:
        return Implementation("linear", {{"in_features": module.in_features}})

@hookimpl
def ir_to_torch(implementation, children):
    if implementation.type == "linear":
        return nn.Linear(implementation.data["in_features"], 1)
"""

ROWS = """
from torch import nn
from layergraph import hookimpl
from layergraph.layers import Layer

@hookimpl({marks})
def layers():
    return [Layer(nn.Linear)]
"""

LINEAR = nn.Linear(1, 2)


def verdicts(chain) -> dict[str | None, str]:
    return {each.distribution: each.verdict for each in chain.asked}


@pytest.fixture(params=["torch_to_ir", "ir_to_torch"])
def explained(request: pytest.FixtureRequest) -> Callable[..., lg.plugins.explanation.Chain]:
    """Return the chain of one direction for a linear layer."""

    def chain(plugins, register=None):
        if request.param == "torch_to_ir":
            converter, subject = Torch2Ir(plugins), LINEAR
        else:
            converter, subject = Ir2Torch(plugins), Implementation("linear", {"in_features": 1})
        if register is not None:
            register(converter)
        (found,) = converter.explain(subject).chains
        assert found.hook == request.param
        return found

    return chain


def test_the_chain_is_in_the_order_in_which_they_are_asked(explained, site: Site):
    site.add("zzz", marks="trylast=True")
    site.add("layergraph-mmm")
    site.add("bbb", DECLINES)
    site.add("aaa", version="2.5")
    site.add("yyy", DECLINES, marks="tryfirst=True")

    def register(converter):
        converter.register("linear", lambda _: None)
        converter.register_override("linear", lambda _: None)

    chain = explained(loaded(site), register)
    assert [(each.distribution, each.level, each.verdict) for each in chain.asked] == [
        (None, "override", "declines"),
        (None, "registered", "declines"),
        ("yyy", "third party tryfirst", "declines"),
        ("bbb", "third party", "declines"),
        ("aaa", "third party", "answers"),
        ("layergraph-mmm", "built-in", "shadowed"),
        ("zzz", "third party trylast", "shadowed"),
    ]
    assert chain.winner is chain.asked[4]
    assert (chain.winner.version, chain.winner.entry_point) == ("2.5", "plugin")


def test_it_says_where_each_handler_is_written(explained, site: Site):
    site.add("aaa")
    site.add("bbb", ROWS)
    for each in explained(loaded(site)).asked:
        assert Path(each.file).parent == site.folder
        code = Path(each.file).read_text().splitlines()
        assert code[each.line - 1].startswith("@hookimpl")


DECORATED = """
from torch import nn
from layergraph import layer

@layer
class First(nn.Module):
    pass

@layer
class Second(nn.Module):
    pass
"""


@pytest.mark.parametrize("name", ["First", "Second"])
def test_of_decorated_classes_it_says_where_the_one_is_written(site: Site, name: str):
    site.add("aaa", DECORATED)
    plugins = loaded(site)
    cls = getattr(plugins[0].implementation, name)
    there, back = Torch2Ir(plugins), Ir2Torch(plugins)
    for explanation in (
        there.explain(cls),
        there.explain(cls()),
        back.explain(name.lower()),
        back.explain(Implementation(name.lower())),
    ):
        winner = explanation.chains[0].winner
        code = Path(winner.file).read_text().splitlines()
        assert f"class {name}" in "".join(code[winner.line - 1 : winner.line + 1])


def test_a_handler_can_say_why_it_declines(explained, site: Site):
    site.add("aaa", DECLINES)
    (asked,) = explained(loaded(site)).asked
    assert asked.reason == "it is no Monday for aaa"


def test_reasons_are_for_who_asks_and_no_conversion_stops(site: Site):
    site.add("aaa", DECLINES)
    site.add("layergraph-mmm")
    assert Torch2Ir(loaded(site)).convert(LINEAR)["root"].data == {"by": "layergraph-mmm"}
    assert lg.decline("no one listens") is None


def test_one_that_fails_keeps_those_behind_it_from_answering(explained, site: Site):
    site.add("bbb", FAILS)
    site.add("aaa")
    chain = explained(loaded(site))
    assert verdicts(chain) == {"bbb": "fails", "aaa": "shadowed"}
    assert chain.asked[0].reason == "OSError: out of bbb"
    assert chain.winner is None
    assert "no handler answers, because one fails" in "\n".join(chain.lines())


def test_a_tie_of_two_third_parties_is_pointed_out(explained, site: Site):
    for name in ("aaa", "bbb"):
        site.add(name)
    chain = explained(loaded(site))
    assert [each.distribution for each in chain.ties] == ["aaa"]
    assert "a tie: aaa 1.0 (plugin) answers on the same level" in "\n".join(chain.lines())


def test_what_the_order_decides_is_no_tie(explained, site: Site):
    site.add("aaa", marks="tryfirst=True")
    site.add("bbb", entry_points=("one", "two"))
    site.add("layergraph-mmm")
    site.add("layergraph-nnn")
    for plugins in (loaded(site), loaded(site)[1:], loaded(site)[3:]):
        assert explained(plugins).ties == ()


def test_wrappers_are_shown_with_what_they_make_of_the_answer(site: Site):
    site.add("aaa", WRAPS)
    site.add("bbb", WRAPS)
    site.add("layergraph-mmm")
    converter = Torch2Ir(loaded(site))
    explanation = converter.explain(LINEAR)
    (chain,) = explanation.chains
    assert [each.distribution for each in chain.wrappers] == ["bbb", "aaa"]
    assert {each.verdict for each in chain.wrappers} == {"wraps"}
    assert chain.winner.distribution == "layergraph-mmm"
    assert chain.answer.data == {"by": "layergraph-mmm", "aaa.bits": 8, "bbb.bits": 8}
    assert chain.answer.data == converter.convert(LINEAR)["root"].data
    assert "the wrappers change the answer to" in str(explanation)


def test_a_module_is_explained_in_both_directions():
    there, back = lg.explain(nn.Linear(3, 2)).chains
    assert (there.hook, back.hook) == ("torch_to_ir", "ir_to_torch")
    assert there.winner.distribution == back.winner.distribution == "layergraph-linear"
    assert there.answer == Implementation(
        "linear", {"in_features": 3, "out_features": 2, "bias": True}
    )


def test_a_class_and_a_type_are_explained_by_the_rows_that_are_for_them():
    there, back = lg.explain(nn.Conv2d).chains
    assert there.winner.distribution == back.winner.distribution == "layergraph-conv"
    assert back.subject == "conv2d"
    assert lg.explain("conv2d").chains == (back,)


def test_of_a_class_and_a_type_handlers_are_asked_who_look_at_them(site: Site):
    site.add("aaa", KNOWS)
    there, back = Torch2Ir(loaded(site)), Ir2Torch(loaded(site))
    for known, unknown, converter in (
        (nn.Linear, nn.Bilinear, there),
        ("linear", "bilinear", back),
    ):
        (chain,) = converter.explain(known).chains
        assert verdicts(chain) == {"aaa": "answers"}
        (chain,) = converter.explain(unknown).chains
        assert verdicts(chain) == {"aaa": "declines"}


def test_why_a_row_declines():
    class Own(nn.Linear):
        pass

    changed, pruned = nn.Linear(1, 2), nn.Linear(1, 2)
    changed.in_features = 7
    del pruned.in_features
    for module, reason in (
        (Own(1, 2), "a subclass of Linear may compute something else"),
        (changed, "it was changed after its construction"),
        (pruned, "'in_features' cannot be read off it"),
    ):
        explanation = lg.explain(module)
        (asked,) = [
            each for each in explanation.chains[0].asked if each.distribution == "layergraph-linear"
        ]
        assert asked.verdict == "declines"
        assert reason in asked.reason
        assert "it is traced through" in str(explanation)


def test_no_handler_is_asked_about_a_module_with_hooks():
    module = nn.Linear(1, 2)
    module.register_forward_hook(lambda *_: None)
    explanation = lg.explain(module)
    assert "no handler is called" in str(explanation)
    assert explanation.chains[0].answer is None


def test_the_core_builds_modules_without_handlers_itself():
    assert "the core builds the type 'module' itself" in str(lg.explain("module"))


def test_who_is_disabled_is_not_in_the_chain():
    explanation = lg.explain(nn.Linear(1, 2), disable=["layergraph-linear"])
    assert explanation.chains[0].winner is None
    assert "layergraph-linear" not in str(explanation)


def test_it_is_plain_data_too():
    explanation = lg.explain(nn.Linear(1, 2))
    form = json.loads(json.dumps(explanation.to_dict()))
    assert form["chains"][0]["winner"]["distribution"] == "layergraph-linear"
    assert form["chains"][0]["asked"][0].keys() == {
        "distribution",
        "version",
        "entry_point",
        "level",
        "file",
        "line",
        "verdict",
        "reason",
    }


@pytest.mark.parametrize("subject", [3, None, int, torch.zeros(2)])
def test_what_no_handler_answers_for_cannot_be_explained(subject: object):
    with pytest.raises(PluginError, match="neither a module nor a class"):
        lg.explain(subject)


def test_explaining_changes_nothing():
    module = nn.Linear(1, 2)
    before = [dict(vars(each.implementation)) for each in installed_plugins()]
    members = dict(vars(module))
    lg.explain(module)
    assert vars(module) == members
    assert [dict(vars(each.implementation)) for each in installed_plugins()] == before


def test_built_ins_that_merely_decline_are_one_line():
    explanation = lg.explain(nn.Linear(1, 2))
    lines = str(explanation).splitlines()
    for chain in explanation.chains:
        silent = [each for each in chain.asked if each.merely_declines]
        assert len(silent) > 10
        assert lines.count(f"    declines  {len(silent)} built-in plugins, without a reason") >= 1
    assert len(lines) == 6


def test_those_with_a_reason_and_those_of_others_are_shown(site: Site):
    site.add("aaa", DECLINES)
    site.add("layergraph-mmm", DECLINES)
    site.add("layergraph-nnn", WRAPS)
    lines = "\n".join(Torch2Ir(loaded(site)).explain(LINEAR).chains[0].lines())
    assert "no Monday for aaa" in lines
    assert "no Monday for layergraph-mmm" in lines
    assert "built-in plugins" not in lines


@pytest.mark.parametrize(
    ("unknown", "wanted"), [("Linear", "'linear'"), ("con2d", "'conv2d'"), ("moduel", "'module'")]
)
def test_a_type_like_an_unknown_one_is_asked_for(unknown: str, wanted: str):
    assert f"did you mean {wanted}" in str(lg.explain(unknown))


def test_types_registered_on_a_converter_are_asked_for_too():
    converter = Ir2Torch()
    converter.register("acme_shift", lambda _: nn.Identity())
    assert "did you mean 'acme_shift'?" in str(converter.explain("acme_shfit"))
    assert "did you mean" not in str(converter.explain("quite another thing"))


@lg.layer
class Decorated(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x):
        return x * self.width


class Derived(Decorated):
    pass


@pytest.mark.parametrize("subject", [Decorated, Decorated(2)], ids=["the class", "a module"])
def test_a_decorator_without_effect_is_told(subject):
    explanation = lg.explain(subject)
    assert "@layergraph.layer, but no plugin that is asked lists it" in str(explanation)
    assert __name__ in str(explanation)


def test_a_conversion_warns_of_a_decorator_without_effect():
    model = nn.Sequential(nn.Linear(2, 2), Decorated(2))
    with pytest.warns(PluginWarning, match=r"Decorated is decorated.*; it is traced through"):
        ir = lg.to_ir(model)
    assert bitwise_equal(lg.to_torch(ir, model.state_dict())(torch.ones(2)), model(torch.ones(2)))


def test_a_decorator_with_effect_is_no_matter(site: Site):
    site.add("aaa", DECORATED)
    plugins = loaded(site)
    converter, first = Torch2Ir(plugins), plugins[0].implementation.First()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert converter.convert(first)["root"].type == "first"
        lg.to_ir(Derived(2))
    assert "decorated" not in str(converter.explain(first))
    assert "decorated" not in str(lg.explain(Derived(2)))
