"""Functions outside torch: nodes in memory, and names of plugins in files."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, CaptureError, FileError, PluginError
from layergraph.ir2torch import Ir2Torch
from layergraph.plugins import Plugin, chosen_plugins
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir
from tests.sites import Site, search_path

X = torch.randn(3, 4)


class Sign(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, slope=25.0):
        return (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.slope = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + ctx.slope * x.abs()) ** 2, None


class Cubed(torch.autograd.Function):
    """Has a gradient and a second gradient, both of which differ from those of forward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 5 * x**2


class Model(nn.Module):
    def __init__(self, compute: Any) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.compute = compute

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(self.lin(x)) * 2


def _signs(x: torch.Tensor) -> torch.Tensor:
    return Sign.apply(x, 2.0)


def _cubes(x: torch.Tensor) -> torch.Tensor:
    return Cubed.apply(x)


def _rebuilt(model: nn.Module, args: Any = (X,)) -> nn.Module:
    return lg.to_torch(lg.to_ir(model, args), model.state_dict())


def _plugins(*rows: object) -> tuple[Plugin, ...]:
    class Names:
        @staticmethod
        @lg.hookimpl
        def functions() -> list[object]:
            return list(rows)

    return (Plugin("acme", "1", "acme", Names), *chosen_plugins(None, ()))


# --- in memory ---


@pytest.mark.parametrize("args", [(X,), None], ids=["run", "traced"])
def test_a_call_is_one_node_with_the_name_of_the_class(args):
    ir = lg.to_ir(Model(_signs), args)
    functions = [each for each in ir["root"].nodes.values() if each.type == "function"]
    assert functions[0].implementation == f"{__name__}.Sign"
    assert functions[0].args == (lg.Ref("lin"), 2.0)
    assert len(functions) == 2


def test_copies_and_forms_of_an_ir_keep_the_class():
    model = Model(_signs)
    ir = lg.to_ir(model, (X,))
    for each in (ir.copy(), copy.deepcopy(ir), lg.Ir.from_dict(ir.to_dict()), ir.flatten()):
        assert bitwise_equal(lg.to_torch(each, model.state_dict())(X), model(X))


def test_a_pickled_ir_has_a_plain_name():
    again = pickle.loads(pickle.dumps(lg.to_ir(Model(_signs), (X,))))
    with pytest.raises(BuildError, match=r"Sign'; install the plugin .* return \['"):
        lg.to_torch(again)


@pytest.mark.parametrize("compute", [_signs, _cubes])
def test_second_gradients_are_those_of_the_original(compute):
    model = Model(compute)
    found = []
    for each in (model, _rebuilt(model)):
        x = X.clone().requires_grad_()
        (first,) = torch.autograd.grad(each(x).sum(), x, create_graph=True)
        second = torch.autograd.grad(first.pow(2).sum(), [x, *each.parameters()], allow_unused=True)
        found.append([first.detach(), *second])
    assert bitwise_equal(*found)
    assert found[0][1] is not None


def test_transforms_of_a_rebuilt_model():
    model = Model(_signs)
    rebuilt = _rebuilt(model)
    for run in (torch.func.vmap, lambda f: torch.func.grad(lambda x: f(x).sum())):
        assert bitwise_equal(run(rebuilt)(X).detach(), run(model)(X).detach())


def test_a_rebuilt_model_compiles_in_one_graph():
    rebuilt = _rebuilt(Model(_signs))
    compiled = torch.compile(rebuilt, backend="eager", fullgraph=True)
    assert bitwise_equal(compiled(X), rebuilt(X))


def test_training_is_that_of_the_original():
    torch.manual_seed(0)
    model = nn.Sequential(Model(_signs), Model(_cubes), nn.BatchNorm1d(4))
    rebuilt = _rebuilt(model)
    for each in (model, rebuilt):
        optimizer = torch.optim.Adam(each.parameters(), lr=0.1)
        for step in range(5):
            optimizer.zero_grad()
            (each(X + step) - X).pow(2).sum().backward()
            optimizer.step()
    assert bitwise_equal(list(model.state_dict().values()), list(rebuilt.state_dict().values()))


def _scaled(by: float) -> Any:
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * by

        @staticmethod
        def backward(ctx, grad):
            return grad * by * 3

    Scaled.by = by
    return Scaled


def test_two_classes_of_one_name_are_two():
    one, other = _scaled(2.0), _scaled(7.0)
    model = Model(lambda x: one.apply(x) + other.apply(x) * one.apply(x))
    ir = lg.to_ir(model, (X,))
    names = [each.implementation for each in ir["root"].nodes.values() if "Scaled" in each.name]
    assert names[0] == names[2] != names[1]
    assert names[1].partition("#")[0] == names[0].partition("#")[0]
    rebuilt = lg.to_torch(ir, model.state_dict())
    for each in (model, rebuilt):
        each(X).sum().backward()
    assert bitwise_equal(rebuilt(X).detach(), model(X).detach())
    assert bitwise_equal(rebuilt.get_submodule("lin").weight.grad, model.lin.weight.grad)


def test_the_class_lives_as_long_as_the_ir():
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scaled = _scaled(3.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scaled.apply(x)

    ir = lg.to_ir(Holder(), (X,))
    assert bitwise_equal(lg.to_torch(ir)(X), X * 3.0)


def test_passes_leave_it_alone():
    pytest.importorskip("layergraph_passes")
    from layergraph_rewrite.effects import Effect, effect_of

    ir = lg.to_ir(Model(lambda x: _signs(x) + _signs(x)), (X,))
    (one, other) = [each for each in ir["root"].nodes.values() if "Sign" in each.implementation]
    assert effect_of(one, {}) == effect_of(other, {}) == Effect.WRITES | Effect.DRAWS


# --- in files ---


def test_a_file_holds_no_name_that_no_plugin_lists(tmp_path):
    model = nn.Sequential(Model(_signs), Model(lambda x: _signs(x) + _signs(x)))
    ir = lg.to_ir(model, (X,))
    for path, state in (("m.json", None), ("m.safetensors", model.state_dict())):
        with pytest.raises(FileError) as it:
            lg.save(ir, tmp_path / path, state)
        head, *calls = str(it.value).splitlines()
        assert path in head
        assert len(calls) == 3
        assert "implementation '0', node 'Sign'" in calls[0]
        assert f"return ['{__name__}.Sign']" in calls[0]
        assert not (tmp_path / path).exists()


def test_a_class_that_a_function_makes_needs_a_factory(tmp_path):
    scaled = _scaled(2.0)
    with pytest.raises(FileError, match=r"lg\.Factory\(made='.*_scaled\.<locals>\.Scaled'"):
        lg.save(lg.to_ir(Model(scaled.apply), (X,)), tmp_path / "m.json")


def test_a_name_in_a_file_is_no_way_to_a_class_of_this_process(tmp_path):
    ir = lg.to_ir(Model(_signs), (X,))
    plain = lg.Ir.from_dict(ir.to_dict())
    for node in plain["root"].nodes.values():
        node.implementation = str(node.implementation)
    lg.save(plain, tmp_path / "m.json")
    again = lg.load(tmp_path / "m.json")
    assert again == ir
    with pytest.raises(BuildError, match=r"no function is named '.*\.Sign'"):
        lg.to_torch(again)
    with pytest.raises(BuildError, match=r"no function is named '.*\.Sign'"):
        lg.load_model(tmp_path / "m.json")


def test_preflight_tells_it_once():
    report = lg.preflight(Model(lambda x: _signs(x) + _signs(x)), (X,))
    assert report.ok
    assert list(report.unlisted) == [f"{__name__}.Sign"]
    assert str(report).count("Sign'") == 2  # the name, and the line that lists it


def test_verify_skips_the_file():
    report = lg.verify(Model(_signs), (X,))
    assert report.ok
    assert "a file cannot hold" in str(report)


# --- plugins ---


sign = Sign.apply


@pytest.mark.parametrize("listed", ["Sign", "sign"])
def test_a_listed_class_is_a_plain_name(listed):
    plugins = _plugins(f"{__name__}.{listed}")
    model = Model(_signs)
    ir = Torch2Ir(plugins).convert(model, (X,))
    assert type(ir["root"].nodes[listed].implementation) is str
    rebuilt = Ir2Torch(plugins).convert(ir, model.state_dict())
    for each in (rebuilt, copy.deepcopy(rebuilt), pickle.loads(pickle.dumps(rebuilt))):
        model.zero_grad()
        each.zero_grad()
        for one in (model, each):
            one(X).sum().backward()
        assert bitwise_equal(each(X).detach(), model(X).detach())
        assert bitwise_equal(each.get_submodule("lin").weight.grad, model.lin.weight.grad)


def _apply_scaled(x: torch.Tensor, by: float) -> torch.Tensor:
    return _scaled(by).apply(x)


MADE = f"{__name__}._scaled.<locals>.Scaled"


@pytest.mark.parametrize("args", [(X,), None], ids=["run", "traced"])
def test_a_factory_makes_the_class_again(args):
    row = lg.Factory(MADE, f"{__name__}._apply_scaled", lambda cls: {"by": cls.by})
    plugins = _plugins(row)
    scaled = _scaled(2.5)
    model = Model(scaled.apply)
    ir = Torch2Ir(plugins).convert(model, args)
    (node,) = [each for each in ir["root"].nodes.values() if "scaled" in each.implementation]
    assert (node.implementation, node.kwargs) == (f"{__name__}._apply_scaled", {"by": 2.5})
    rebuilt = Ir2Torch(plugins).convert(ir, model.state_dict())
    for each in (model, rebuilt):
        each(X).sum().backward()
    assert bitwise_equal(rebuilt(X).detach(), model(X).detach())
    assert bitwise_equal(rebuilt.get_submodule("lin").weight.grad, model.lin.weight.grad)


@pytest.mark.parametrize(
    "row",
    [
        lg.Factory(MADE, f"{__name__}._apply_scaled", lambda cls: {"by": cls.nothing}),
        lg.Factory(MADE, f"{__name__}.nothing", lambda cls: {"by": cls.by}),
        lg.Factory(3, f"{__name__}._apply_scaled", lambda cls: {}),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_row_is_a_fault_of_the_plugin(row):
    scaled = _scaled(2.5)
    with pytest.raises((CaptureError, PluginError), match=r"factory|two full names"):
        Torch2Ir(_plugins(row)).convert(Model(scaled.apply), (X,))


SOURCE = """
import torch
import layergraph as lg

class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, slope):
        ctx.save_for_backward(x)
        ctx.slope = slope
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad / (1 + ctx.slope * ctx.saved_tensors[0].abs()) ** 2, None

@torch.library.custom_op("layergraph_acme::gain", mutates_args=())
def gain(x: torch.Tensor, by: float) -> torch.Tensor:
    return x * by

gain.register_autograd(
    lambda ctx, grad: (grad * ctx.by * 2, None),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "by", inputs[1]),
)

@lg.hookimpl
def functions():
    return [__name__ + ".Sign", __name__ + ".gain"]
"""

USE = """
import importlib, json, sys
import torch
from torch import nn
import layergraph as lg
from layergraph.testing import bitwise_equal
module, path, task = sys.argv[1:]
torch.manual_seed(0)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        acme = sys.modules[module]
        return acme.gain(acme.Sign.apply(self.lin(x), 2.0), 3.0) + self.lin(x)

def gradients(model, x):
    model.zero_grad()
    model(x).pow(2).sum().backward()
    return [each.grad for each in model.parameters()]

said = {}
if task == "save":
    importlib.import_module(module)
    model, x = Model(), torch.randn(3, 4)
    lg.save(lg.to_ir(model, (x,)), path, model.state_dict())
    torch.save([x, model(x), gradients(model, x)], path + ".pt")
else:
    try:
        rebuilt = lg.load_model(path)
        x, y, grads = torch.load(path + ".pt")
        said["same"] = bitwise_equal(rebuilt(x), y) and bitwise_equal(gradients(rebuilt, x), grads)
    except lg.errors.LayergraphError as error:
        said["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


@pytest.mark.slow
def test_a_file_with_functions_of_an_installed_plugin(site: Site, tmp_path):
    site.add("acme-sign", SOURCE)
    module = next(site.folder.glob("*.py")).stem

    def run(task: str, **environment: str) -> Any:
        arguments = [module, str(tmp_path / "m.safetensors"), task]
        done = subprocess.run(
            [sys.executable, "-c", USE, *arguments],
            env=os.environ | {"PYTHONPATH": search_path(site.folder)} | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    run("save")
    assert run("load") == {"same": True}
    error = run("load", LAYERGRAPH_DISABLE="acme-sign")["error"]
    assert f"'{module}.Sign'" in error
    assert "acme-sign" in error
    assert error.startswith("FileError")
