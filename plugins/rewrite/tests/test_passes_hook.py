"""The hook ``passes``, and ``run_passes``."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import Pass, hookimpl
from layergraph.errors import ArgumentError, PluginError, PluginWarning
from layergraph.plugins import Plugin, installed_plugins
from layergraph_rewrite.passes import installed_passes, largest_difference

MODEL = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
IR = lg.to_ir(MODEL)


def to_gelu(edit, *, approximate: str = "none"):
    """Replace ReLU."""
    edit.set("1", "gelu", approximate=approximate)


def plugin(answer, distribution="acme-odd"):
    holder = type("Holder", (), {"passes": staticmethod(hookimpl(answer))})()
    return Plugin(distribution, "1.0", "odd", holder)


@pytest.fixture
def installing(monkeypatch):
    def install(*plugins):
        everything = (*installed_plugins("passes"), *plugins)
        monkeypatch.setattr("layergraph.plugins.listing.installed_plugins", lambda _: everything)

    return install


def test_a_pass_of_a_plugin_runs_by_its_name(installing):
    installing(plugin(lambda: [Pass("to-gelu", to_gelu)]))
    options = {"approximate": "tanh"}
    ir, state, report = lg.run_passes(IR, [("to-gelu", options)], MODEL.state_dict())
    assert ir["1"].data == options
    assert list(state) == list(MODEL.state_dict())
    assert not report.entries
    assert lg.run_passes(IR, ["to-gelu"], options={"to-gelu": options})[0] == ir


def test_third_parties_come_before_the_built_ins(installing):
    mine, ours = Pass("to-gelu", to_gelu), Pass("to-gelu", lambda edit: None)
    installing(plugin(lambda: [mine]), plugin(lambda: [ours], "layergraph-odd"))
    assert installed_passes()["to-gelu"].row is mine
    assert installed_passes()["to-gelu"].plugin.distribution == "acme-odd"


def test_functions_and_rows_are_passes():
    for each in (to_gelu, Pass("any", to_gelu), (to_gelu, {})):
        assert lg.run_passes(IR, [each])[0]["1"].type == "gelu"


@pytest.mark.parametrize(
    ("passes", "options", "message"),
    [
        (["fold-batchnrm"], {}, r"no pass 'fold-batchnrm'; (there is|did you mean)"),
        ([(to_gelu, {"aproximate": "tanh"})], {}, r"did you mean 'approximate'\?"),
        ([to_gelu], {"other": {}}, "'other', which is not among the passes"),
        ("to-gelu", {}, "give a list of passes"),
        ([3], {}, "3 is no pass"),
        ([(to_gelu, 3)], {}, "is no pair"),
        ([lambda edit, count: None], {}, "missing a required argument: 'count'"),
        (None, {}, "give a list of passes"),
        ([to_gelu], [1], "no dict of options by pass"),
        ([to_gelu], {"to-gelu": 1}, "no dict of options by pass"),
        ([(to_gelu, {"approximate": 3})], {}, "approximate: str = 'none' .* cannot be 3"),
    ],
)
def test_wrong_passes_and_options_are_argument_errors(passes, options, message):
    with pytest.raises(ArgumentError, match=message):
        lg.run_passes(IR, passes, options=options)


@pytest.mark.parametrize(
    ("kind", "fitting", "others"),
    [
        ("int | None", [1, None], [True, 1.0, "1"]),
        ("bool", [True], [1, "yes"]),
        ("float", [1, 0.5], ["1", False]),
        ("str | Sequence[str]", ["a", ["a"], ("a",)], [3, [3], None]),
        ("Acme", [3, "a"], []),
    ],
)
def test_options_have_the_types_that_the_pass_says(kind, fitting, others):
    def odd(edit, value):
        pass

    odd.__annotations__["value"] = kind
    for each in fitting:
        lg.run_passes(IR, [(odd, {"value": each})])
    for each in others:
        with pytest.raises(ArgumentError, match="cannot be"):
            lg.run_passes(IR, [(odd, {"value": each})])


@pytest.mark.parametrize("verify", [torch.ones(2, 2), (torch.ones(1, 2),), ((), 3), 3])
def test_verify_takes_a_call(verify):
    with pytest.raises(ArgumentError, match="give a tuple and a dict"):
        lg.run_passes(IR, [to_gelu], MODEL.state_dict(), verify=verify)


def test_an_error_of_a_third_party_names_it(installing):
    def fails(edit):
        raise KeyError("a")

    installing(plugin(lambda: [Pass("fails", fails)]))
    with pytest.raises(PluginError, match=r"pass 'fails' of acme-odd 1.0 \(odd\) raised KeyError"):
        lg.run_passes(IR, ["fails"])


@pytest.mark.parametrize(
    "answer",
    [
        lambda: [Pass("Bad Name", to_gelu)],
        lambda: [Pass("a", to_gelu), Pass("a", to_gelu)],
        lambda: [Pass("a", None)],
        lambda: ["a"],
    ],
)
def test_an_answer_that_breaks_the_contract_is_skipped_with_a_warning(installing, answer):
    installing(plugin(answer))
    with pytest.warns(PluginWarning, match="the passes of acme-odd"):
        assert "a" not in installed_passes()


def test_verify_reports_the_largest_difference():
    x = torch.tensor([[1.0, -2.0]])
    _, _, report = lg.run_passes(IR, [to_gelu], MODEL.state_dict(), verify=((x,), {}))
    hidden = MODEL[0](x)
    expected = (nn.functional.gelu(hidden) - hidden.relu()).abs().max().item()
    assert report.differences == {"to-gelu": pytest.approx(expected, abs=1e-6)}
    assert "to-gelu: largest difference" in str(report)
    with pytest.raises(ArgumentError, match="give state"):
        lg.run_passes(IR, [to_gelu], verify=((x,), {}))


def test_differences():
    one = torch.tensor([1.0, math.inf, math.nan])
    assert largest_difference(one, one.clone()) == 0
    assert largest_difference((one,), [one]) == math.inf
    assert largest_difference(one, one.double()) == math.inf
    assert largest_difference(one, torch.tensor([1.0, 2.0, math.nan])) == math.inf


def test_a_pass_tells_its_options():
    (option,) = Pass("to-gelu", to_gelu).options
    assert str(option) == "approximate: str = 'none'"
    assert not option.is_required
