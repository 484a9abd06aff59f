"""The wheels that users get, installed by pip into an environment outside the checkout."""

from __future__ import annotations

import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environment import (
    CHECKOUT,
    PACKAGES,
    PLUGINS,
    THIRD_PARTY,
    Environment,
    closure,
    installed,
    succeed,
)

pytestmark = pytest.mark.slow


def test_there_is_something_to_build() -> None:
    assert PLUGINS
    assert len(THIRD_PARTY) >= 2


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda each: each.name)
def test_a_wheel_holds_one_typed_package_and_nothing_else(
    folder: Path, wheel: Callable[[str], Path]
) -> None:
    distribution = f"layergraph-{folder.name}"
    package = "layergraph" if folder.name == "core" else distribution.replace("-", "_")
    with zipfile.ZipFile(wheel(distribution)) as archive:
        files = [Path(name) for name in archive.namelist()]
    info = f"{distribution.replace('-', '_')}-{version_of(folder)}.dist-info"
    assert {file.parts[0] for file in files} == {package, info}
    assert Path(package, "py.typed") in files
    kept = {
        file.relative_to(folder / "src")
        for file in (folder / "src" / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {file for file in files if file.parts[0] == package} == kept


def version_of(folder: Path) -> str:
    version: str = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
    return version


def test_the_root_is_a_wheel_without_code(wheel: Callable[[str], Path]) -> None:
    with zipfile.ZipFile(wheel("layergraph")) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {f"layergraph-{version_of(CHECKOUT)}.dist-info"}


ISOLATION = f"""
import importlib, json, pkgutil, sys
import layergraph, layergraph.plugins, torchvision
names = [each.name for each in pkgutil.iter_modules() if each.name.startswith("layergraph")]
ours = [importlib.import_module(name).__file__ for name in names]
files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
print(json.dumps({{
    "ours": ours,
    "of the checkout": [file for file in [*files, *sys.path] if file.startswith({str(CHECKOUT)!r})],
    "plugins": [each.distribution for each in layergraph.plugins.installed_plugins()],
    "tests": [each.name for each in pkgutil.iter_modules() if each.name in ("tests", "pytest")],
}}))
"""


def test_the_environment_holds_what_pip_brought_and_nothing_of_the_checkout(
    complete: Environment,
) -> None:
    found = complete.report(ISOLATION)
    assert found["of the checkout"] == []
    assert found["tests"] == []
    assert len(found["ours"]) == len(PACKAGES)
    assert all(Path(file).is_relative_to(complete.site_packages) for file in found["ours"])
    without_hooks = {"distributed", "rewrite", "shapes", "tools"}
    builtins = {f"layergraph-{each.name}" for each in PLUGINS if each.name not in without_hooks}
    assert sorted(set(found["plugins"])) == sorted(builtins)  # nir has two entry points
    present = installed(complete.site_packages)
    assert present.keys() == closure(present, "layergraph", "torchvision").keys()


def test_the_demo_passes(complete: Environment) -> None:
    done = complete.demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fc = linear fc(flatten)" in done.stdout
    assert "layer1.0.conv1: conv2d(in_channels=64" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("OK: resnet18 ")


def test_the_demo_notices_a_handler_that_is_off_by_one_bit(
    complete: Environment, wheel: Callable[[str], Path]
) -> None:
    complete.pip("install", wheel("faulty-linear"))
    try:
        done = complete.demo()
    finally:
        complete.pip("uninstall", "--yes", "faulty-linear")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("FAILED: ")


CORE_ONLY = """
import importlib, json, torch, warnings
from torch import nn
import layergraph as lg
from layergraph.plugins import installed_plugins
def missing(use):
    try:
        with warnings.catch_warnings(action="ignore"):
            use()
    except lg.errors.LayergraphError as error:
        return f"{type(error).__name__}: {error}"
exec("from layergraph import *", starred := {})
model = nn.Linear(2, 3)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ir = lg.to_ir(model)
rebuilt = lg.to_torch(ir, model.state_dict())
given = torch.randn(4, 2)
try:
    lg.to_torch(lg.Ir([lg.Implementation("linear", {}, name="root")]))
except lg.errors.BuildError as error:
    message = str(error)
print(json.dumps({
    "plugins": len(installed_plugins()),
    "type": ir[ir.root].type,
    "keys": list(rebuilt.state_dict()),
    "equal": torch.equal(rebuilt(given), model(given)),
    "help": "pip install layergraph-linear" in message,
    "warned": [f"{each.category.__name__}: {each.message}" for each in caught],
    "missing": [missing(lambda: lg.preflight), missing(lambda: lg.save),
                missing(lambda: importlib.import_module("layergraph.testing")),
                missing(lambda: importlib.import_module("layergraph.cli"))],
    "hidden": [name for name in ("verify", "Limits", "save", "to_ir") if name not in dir(lg)],
    "starred": "to_ir" in starred and "verify" not in starred,
    "captured": missing(lambda: lg.to_ir(model, (given,))),
}))
"""


TRACED_THROUGH = (
    "no installed package handles Linear: each is traced through, and comes back as the functions "
    "that it calls; to keep layers, pip install layergraph-linear"
)


def test_with_the_core_alone_a_layer_still_converts(core_only: Environment) -> None:
    assert core_only.report(CORE_ONLY) == {
        "plugins": 0,
        "type": "module",
        "keys": ["weight", "bias"],
        "equal": True,
        "help": True,
        "warned": [f"PluginWarning: {TRACED_THROUGH}"],
        "missing": [
            f"MissingDistributionError: layergraph.{name} is part of layergraph-{home}, which is "
            f"not installed; pip install layergraph-{home}"
            for name, home in {
                "preflight": "tools",
                "save": "files",
                "testing": "tools",
                "cli": "cli",
            }.items()
        ],
        "hidden": ["verify", "Limits", "save"],
        "starred": True,
        "captured": "CaptureError: no installed package captures a model by running it on example "
        "inputs; pip install layergraph-capture, or convert the model without inputs",
    }


WITHOUT_TORCH = """
import json, sys
import layergraph.ir
print(json.dumps("torch" in sys.modules))
"""


def test_the_ir_needs_no_torch(core_only: Environment) -> None:
    assert core_only.report(WITHOUT_TORCH) is False


ONE_PLUGIN = """
import json
from torch import nn
import layergraph as lg
ir = lg.to_ir(nn.Linear(2, 3))
print(json.dumps([ir[ir.root].type, type(lg.to_torch(ir)).__name__]))
"""


def test_a_plugin_installs_on_top_of_the_core(
    core_only: Environment, wheel: Callable[[str], Path]
) -> None:
    core_only.pip("install", wheel("layergraph-linear"))
    try:
        assert core_only.report(ONE_PLUGIN) == ["linear", "Linear"]
    finally:
        core_only.pip("uninstall", "--yes", "layergraph-linear")


THREE_PLUGINS = """
import json, torch, warnings
from torch import nn
import layergraph as lg
def there_and_back(model, x):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ir = lg.to_ir(model)
    rebuilt = lg.to_torch(ir, model.state_dict())
    same = torch.equal(rebuilt(x), model(x))
    same = same and list(rebuilt.state_dict()) == list(model.state_dict())
    types = [ir[name].type for name in sorted(ir)]
    return same, types, [str(each.message).rpartition("; ")[2] for each in caught]
x = torch.randn(2, 3, 8, 8)
known = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Linear(6, 5)))
more = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
print(json.dumps([there_and_back(known, x), there_and_back(more, x)]))
"""


def test_three_plugins_know_their_layers_and_name_those_that_are_missing(
    core_only: Environment, wheel: Callable[[str], Path]
) -> None:
    names = ["layergraph-linear", "layergraph-conv", "layergraph-sequential"]
    core_only.pip("install", *map(wheel, names))
    try:
        known, more = core_only.report(THREE_PLUGINS)
    finally:
        core_only.pip("uninstall", "--yes", *names)
    assert known == [True, ["conv2d", "sequential", "linear", "sequential"], []]
    advice = "to keep layers, pip install layergraph-activation layergraph-shape"
    assert more == [True, ["conv2d", "module", "module", "sequential"], [advice]]


def test_the_demo_runs_from_the_root_of_the_checkout() -> None:
    assert "OK: resnet18 " in succeed(sys.executable, "-m", "tests.demo", cwd=CHECKOUT)
