"""Layers that plugins list, and classes that they decorate: kept whole, with their arguments."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import Implementation, Ir
from layergraph.errors import BuildError, CaptureError, PluginError
from layergraph.ir2torch import Ir2Torch
from layergraph.layers import Layer
from layergraph.plugins import Plugin, installed_plugins
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir
from tests.sites import HANDLERS, Site, loaded

ROWS = """
from torch import nn
from layergraph import hookimpl
from layergraph.layers import Layer

class Linear(nn.Linear):
    by = {who!r}

@hookimpl({marks})
def layers():
    return [Layer(nn.Linear, type="linear_by_{who}"), Layer(Linear, type="linear")]
"""

DECORATED = """
from torch import nn
from layergraph import layer

@layer
class Scale(nn.Module):
    def __init__(self, factor=1.0, shift=0.0):
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x):
        if x.sum() > 0:
            return x * self.factor + self.shift
        return x
"""

LEVELS = {
    "tryfirst": ("aaa", "tryfirst=True"),
    "plain": ("bbb", ""),
    "built-in": ("layergraph-ccc", "tryfirst=True"),
    "trylast": ("zzz", "trylast=True"),
}


def who_reads(plugins: tuple[Plugin, ...]) -> str:
    answer = Torch2Ir(plugins).convert(nn.Linear(1, 2))["root"]
    return answer.data.get("by") or answer.type.removeprefix("linear_by_")


def who_builds(plugins: tuple[Plugin, ...]) -> str:
    data = {"in_features": 1, "out_features": 2}
    return Ir2Torch(plugins).convert(Ir([Implementation("linear", data, name="root")])).by


@pytest.mark.parametrize("who", [who_reads, who_builds])
@pytest.mark.parametrize(("higher", "lower"), list(itertools.combinations(LEVELS, 2)))
@pytest.mark.parametrize("sources", list(itertools.product([ROWS, HANDLERS], repeat=2))[:-1])
def test_rows_stand_where_the_mark_of_their_hook_says(site: Site, who, higher, lower, sources):
    for rank, source in zip((higher, lower), sources, strict=True):
        name, marks = LEVELS[rank]
        site.add(name, source, marks=marks)
    assert who(loaded(site)) == LEVELS[higher][0]


TAKING_LINEAR = """
from layergraph import layer
from torch import nn

@layer(type="linear")
class Linear(nn.Linear):
    by = {who!r}
"""


@pytest.mark.parametrize("rank", ["tryfirst", "built-in", "trylast"])
def test_a_decorated_class_stands_where_those_without_a_mark_stand(site: Site, rank):
    decorated_one, _ = LEVELS["plain"]
    other, marks = LEVELS[rank]
    site.add(decorated_one, TAKING_LINEAR)
    site.add(other, HANDLERS, marks=marks)
    assert who_builds(loaded(site)) == (other if rank == "tryfirst" else decorated_one)


@pytest.mark.parametrize("who", [who_reads, who_builds])
def test_in_a_plugin_functions_come_before_rows(site: Site, who):
    own = HANDLERS.replace("{who!r}", '"its function"')
    site.add("aaa", ROWS + own)
    assert who(loaded(site)) == "its function"


def decorated(site: Site, name: str = "acme") -> tuple[type[nn.Module], tuple[Plugin, ...]]:
    site.add(name, DECORATED)
    plugins = loaded(site)
    return plugins[0].implementation.Scale, plugins


def test_a_decorated_class_is_kept_whole(site: Site):
    cls, plugins = decorated(site)
    model = nn.Sequential(nn.Linear(3, 3), cls(factor=2.0, shift=0.5))
    everybody = (*installed_plugins(), *plugins)
    ir = Torch2Ir(everybody).convert(model)
    assert ir["1"] == Implementation("scale", {"factor": 2.0, "shift": 0.5}, name="1")
    rebuilt = Ir2Torch(everybody).convert(ir, model.state_dict())
    assert type(rebuilt[1]) is cls
    x = torch.randn(4, 3)
    for given in (x, -x):
        assert bitwise_equal(model(given), rebuilt(given))
    assert type(model[1])(1.5).factor == 1.5  # and has the same class as before


def test_of_a_decorated_class_defaults_go_without_saying_and_subclasses_are_others(site: Site):
    cls, plugins = decorated(site)
    assert Torch2Ir(plugins).convert(cls())["root"].data == {}

    class Own(cls):
        pass

    with pytest.raises(CaptureError):  # it is traced through, and its forward branches on its input
        Torch2Ir(plugins).convert(Own())


def test_a_decorated_class_that_was_imported_belongs_to_its_package(site: Site, tmp_path: Path):
    for package in ("first", "second"):
        folder = site.folder / f"{tmp_path.name}_{package}"
        folder.mkdir()
        (folder / "layers.py").write_text(DECORATED)
        (folder / "__init__.py").write_text("from .layers import Scale\n")
    stolen = f"\nfrom {tmp_path.name}_first import Scale as Stolen\n"
    with (site.folder / f"{tmp_path.name}_second" / "__init__.py").open("a") as file:
        file.write(stolen)
    site.add("aaa", f"from {tmp_path.name}_first import Scale\n" + HANDLERS)
    (only,) = loaded(site)
    assert only.rows == ()
    for package in ("first", "second"):
        module = __import__(f"{tmp_path.name}_{package}")
        (row,) = Plugin(package, "1", "plugin", module).rows
        assert row.cls is module.Scale


def test_the_decorator_takes_what_rows_take():
    @lg.layer(type="acme_relu", always=["inplace"])
    class ReLU(nn.ReLU):
        pass

    row = vars(ReLU)["layergraph_layer"]
    assert (row.cls, row.type) == (ReLU, "acme_relu")
    assert row.to_ir(ReLU()) == Implementation("acme_relu", {"inplace": False})


def test_the_type_of_a_layer_of_torch_is_taken_on_purpose_alone():
    class Linear(nn.Linear):
        pass

    with pytest.raises(PluginError, match=r"type='tests_linear'|type='test_rows_linear'"):
        Layer(Linear)
    assert Layer(Linear, type="linear").type == "linear"
    assert Layer(nn.Linear).type == "linear"


# --- annotations: what wrappers say of layers that are not theirs ---

WRAPS = """
from dataclasses import replace
from torch import nn
from layergraph import hookimpl

@hookimpl(wrapper=True)
def torch_to_ir(module):
    answer = yield
    if answer is None or not isinstance(module, (nn.Linear, nn.Sequential)):
        return answer
    return replace(answer, data={{**answer.data, "acme.bits": 8}})
"""


@pytest.mark.parametrize("file", [None, "model.safetensors", "model.json"])
def test_annotations_of_layers_and_containers_come_along(site: Site, tmp_path: Path, file):
    site.add("acme", WRAPS)
    plugins = (*installed_plugins(), *loaded(site))
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 1)))
    ir = Torch2Ir(plugins).convert(model)
    annotated = {name for name, each in ir.items() if each.data.get("acme.bits") == 8}
    assert annotated == {"root", "0", "2", "2.0"}
    if file is None:
        ir = Ir.from_dict(ir.to_dict())
    else:
        weights = {} if file.endswith("json") else {"state_dict": model.state_dict()}
        lg.save(ir, tmp_path / file, **weights)
        assert lg.load(tmp_path / file) == ir
        ir = lg.load(tmp_path / file)
    rebuilt = Ir2Torch().convert(ir, model.state_dict())
    assert repr(rebuilt) == repr(model)
    x = torch.randn(2, 3)
    assert bitwise_equal(rebuilt(x), model(x))
    assert {name for name, each in ir.flatten().items() if "acme.bits" in each.data} == annotated


def test_attributes_are_what_is_said_without_annotations():
    linear = Implementation("linear", {"in_features": 1, "acme.bits": 8})
    assert linear.attributes == {"in_features": 1}
    misspelt = replace(linear, data={"in_features": 1, "out_features": 1, "bits": 8}, name="root")
    with pytest.raises(BuildError, match="has no attribute 'bits'"):
        lg.to_torch(Ir([misspelt]))


# --- example inputs ---

INPUTS = """
import torch
from torch import nn
from layergraph import hookimpl

@hookimpl
def example_inputs(model):
    if isinstance(model, nn.Linear):
        return {answer}
"""


@pytest.fixture
def only(site: Site, monkeypatch: pytest.MonkeyPatch):
    def plugin(answer: str) -> None:
        site.add("aaa", INPUTS.format(answer=answer))
        plugins = loaded(site)
        monkeypatch.setattr("layergraph.inputs.default_torch2ir", lambda: Torch2Ir(plugins))

    return plugin


def test_plugins_know_inputs_for_models(only):
    only("(torch.ones(2, model.in_features),), {{}}")
    model = nn.Linear(3, 1)
    args, _kwargs = lg.example_inputs(model)
    assert bitwise_equal(args[0], torch.ones(2, 3))
    assert lg.to_ir(model, *lg.example_inputs(model)) == lg.to_ir(model)
    with pytest.raises(CaptureError, match="no plugin knows example inputs for ReLU"):
        lg.example_inputs(nn.ReLU())


@pytest.mark.parametrize("answer", ["torch.ones(2, 3)", "[], {{}}", "((), {{}}, 1)", "(), 3"])
def test_example_inputs_are_a_tuple_and_a_dict(only, answer: str):
    only(answer)
    with pytest.raises(PluginError, match=r"example inputs for Linear: .*it must return a tuple"):
        lg.example_inputs(nn.Linear(3, 1))


def test_a_plugin_that_fails_to_give_inputs_is_named(only):
    only("model.no_such_thing")
    with pytest.raises(PluginError, match=r"example inputs for Linear: .*AttributeError"):
        lg.example_inputs(nn.Linear(3, 1))
