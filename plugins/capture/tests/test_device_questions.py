"""A model that decides by where its input is: its graph warns where the answer is another one."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionWarning
from layergraph.testing import bitwise_equal
from layergraph_capture.trackers.devices import compared_kinds


class Asks(nn.Module):
    def __init__(self, asks):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.asks = asks

    def forward(self, x):
        x = self.lin(x)
        return x * 2 if self.asks(x, self.lin.weight) else x * 3


def _matches(x, _):
    match x.device.type:
        case "cpu":
            return True
    return False


def _named(x, _):
    device = x.device
    kind = device.type
    return kind == "cpu"


QUESTIONS = {
    "a flag": lambda x, _: x.is_cpu,
    "the kind": lambda x, _: x.device.type == "cpu",
    "another": lambda x, _: x.device.type != "cpu",
    "contained": lambda x, _: "cpu" in x.device.type,
    "one of": lambda x, _: x.device.type in ("cpu", "xpu"),
    "begins": lambda x, _: x.device.type.startswith("cpu"),
    "text": lambda x, _: str(x.device) == "cpu",
    "a device": lambda x, _: x.device == torch.device("cpu"),
    "a parameter": lambda _, weight: weight.device.type == "cpu",
    "a match": _matches,
    "in steps": _named,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_elsewhere_it_warns(name, tmp_path):
    model = Asks(QUESTIONS[name])
    ir = lg.to_ir(model, (torch.ones(3, 4),))
    assert any("on 'cpu' (or it warns)" in str(each) for each in ir.guards)
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    x = torch.randn(2, 4)
    for rebuilt in (
        lg.to_torch(ir, model.state_dict()),
        lg.load_model(tmp_path / "m.safetensors"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert bitwise_equal(rebuilt(x), model(x))
            compiled = torch.compile(rebuilt, backend="eager", fullgraph=True)
            assert bitwise_equal(compiled(x), model(x))
        rebuilt.to("meta")
        with pytest.warns(AssumptionWarning, match=r"test_device_questions\.py"):
            rebuilt(torch.ones(2, 4, device="meta"))


@pytest.mark.parametrize("name", ["the kind", "a match"])
def test_in_source_it_warns(name):
    model = Asks(QUESTIONS[name])
    scope = {}
    exec(lg.to_source(lg.to_ir(model, (torch.ones(3, 4),))), scope)
    source = scope["Net"]().to("meta")
    with pytest.warns(UserWarning, match="not as at capture"):
        source(torch.ones(2, 4, device="meta"))


ANYWHERE = {
    "another flag": lambda x, _: x.is_cuda,
    "another kind": lambda x, _: x.device.type == "cuda",
    "what lacks something": lambda x, _: x.device.type != "mps",
    "the same place": lambda x, weight: x.device == weight.device,
}


@pytest.mark.parametrize("name", ANYWHERE)
def test_what_is_answered_alike_runs_elsewhere(name):
    model = Asks(ANYWHERE[name])
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.ones(3, 4),)), model.state_dict()).to("meta")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rebuilt(torch.ones(2, 4, device="meta")).shape == (2, 4)


def test_a_device_that_is_only_passed_on_is_no_question():
    def makes(x):
        return torch.zeros(3, device=x.device) if len(x) == 3 else torch.ones(3, device="cpu")

    assert not compared_kinds(makes.__code__)
