"""The worked example, as a package that users install, use and uninstall."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environment import CHECKOUT, Environment, run, succeed

pytestmark = pytest.mark.slow

NAME = "acme-fixed-point"
FOLDER = CHECKOUT / "examples" / NAME


@pytest.fixture(scope="module")
def installed(complete: Environment, wheel: Callable[[str], Path]) -> Iterator[Environment]:
    assert complete.report(WHO) == BUILT_IN
    assert "bits" not in subcommands(complete)
    complete.pip("install", wheel(NAME))
    try:
        yield complete
    finally:
        complete.pip("uninstall", "--yes", NAME)
    assert complete.report(WHO) == BUILT_IN
    assert "bits" not in subcommands(complete)
    done = run(complete.layergraph, "bits", "model.json", cwd=complete.cwd)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'bits'" in done.stderr


def subcommands(environment: Environment) -> list[str]:
    """Return the subcommands that the help of the installed command lists."""
    said = succeed(environment.layergraph, "--help", cwd=environment.cwd)
    return re.findall(r"^  ([a-z-]+)  ", said.partition("Commands:")[2], re.MULTILINE)


# An IR with Acme's annotations, read in an environment without the package.
WHO = """
import json
from torch import nn
import layergraph as lg
linear = nn.Linear(2, 3)
linear.fixed_point = (8, 4)
data = {"in_features": 2, "out_features": 3, "bias": True}
said = lg.to_ir(linear)["root"].data
annotated = lg.Implementation("linear", {**data, "acme.total_bits": 8, "acme.frac_bits": 4})
annotated.name = "root"
made = lg.to_torch(lg.Ir([annotated]))
chains = lg.explain(linear).chains
print(json.dumps({
    "said": sorted(said.keys() - data.keys()),
    "made": [type(made).__name__, getattr(made, "fixed_point", None)],
    "winners": [each.winner.distribution for each in chains],
    "wrappers": [each.distribution for chain in chains for each in chain.wrappers],
}))
"""
BUILT_IN = {
    "said": [],
    "made": ["Linear", None],
    "winners": ["layergraph-linear", "layergraph-linear"],
    "wrappers": [],
}
ACME = {
    "said": ["acme.frac_bits", "acme.total_bits"],
    "made": ["ObservedLinear", [8, 4]],
    "winners": ["layergraph-linear", NAME],
    "wrappers": [NAME, NAME],
}


def test_it_takes_over_by_being_installed_and_only_as_long(installed: Environment) -> None:
    assert installed.report(WHO) == ACME


def test_disabled_it_is_as_good_as_uninstalled(installed: Environment) -> None:
    disable = f"import os; os.environ['LAYERGRAPH_DISABLE'] = {NAME!r}\n"
    assert installed.report(disable + WHO) == BUILT_IN


def test_it_passes_its_own_tests(installed: Environment, tmp_path: Path) -> None:
    passed = installed.pytest(FOLDER / "tests", tmp_path / "tools")
    assert re.search(r"^\d\d+ passed", passed, re.MULTILINE)


def test_the_readme_prints_what_it_says(installed: Environment) -> None:
    page = (FOLDER / "README.md").read_text()
    tour = re.search(
        r'```python title="tour.py"\n(.*?)```\s*prints\s*```text\n(.*?)```', page, re.DOTALL
    )
    assert tour is not None
    code = f"{tour[1]}\nlg.save(ir, 'model.json')\n"
    printed = succeed(installed.python, "-c", code, cwd=installed.cwd)
    assert printed.strip() == tour[2].strip()
    (command,) = re.findall(r"```console\n\$ layergraph (.*?)```", page, re.DOTALL)
    arguments, _, shown = command.partition("\n")
    assert succeed(installed.layergraph, *arguments.split(), cwd=installed.cwd) == shown


PASSES = """
import json
import torch
from torch import nn
import layergraph as lg
torch.manual_seed(0)
linear = nn.Linear(2, 3)
linear.fixed_point = (8, 4)
model = nn.Sequential(linear, nn.ReLU(), nn.ReLU())
ir, state, report = lg.run_passes(
    lg.to_ir(model), ["acme-round-weights", "remove-identity"], model.state_dict()
)
weight = state["0.weight"] * 16
print(json.dumps({
    "types": [node.type for node in ir["root"].nodes.values()],
    "by": sorted({entry.by for entry in report.applied}),
    "on the grid": torch.equal(weight, weight.round()),
    "changed": not torch.equal(state["0.weight"], linear.weight),
}))
"""


def test_its_pass_and_its_rule_run_by_name(installed: Environment) -> None:
    assert installed.report(PASSES) == {
        "types": ["input", "linear", "relu", "output"],
        "by": ["acme-round-weights", "one-relu"],
        "on the grid": True,
        "changed": True,
    }
    listed = succeed(installed.layergraph, "passes", cwd=installed.cwd)
    assert "acme-round-weights" in listed
    assert "fold-batchnorm" in listed


QUANTIZED = """
import json
import torch
from torch import nn
import layergraph as lg
from acme_fixed_point import Binarize, RoundToFixedPoint, Ternarize
from layergraph.testing import bitwise_equal
torch.manual_seed(0)
x = torch.randn(3, 4)
class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
    def forward(self, x):
        y = self.lin(RoundToFixedPoint.apply(x, 8, 4))
        return Ternarize.apply(y, 0.1) + Binarize.apply(y)
model = Quantized()
lg.save(lg.to_ir(model, (x,)), "quantized.safetensors", model.state_dict())
loaded = lg.load_model("quantized.safetensors")
for each in (model, loaded):
    each(x).sum().backward()
grads = [each.get_submodule("lin").weight.grad for each in (model, loaded)]
print(json.dumps({"same": bitwise_equal(loaded(x), model(x)), "gradients": bitwise_equal(*grads)}))
"""
WITHOUT = """
import json
import os
os.environ["LAYERGRAPH_DISABLE"] = "acme-fixed-point"
import layergraph as lg
try:
    lg.load_model("quantized.safetensors")
except lg.errors.FileError as error:
    print(json.dumps(str(error)))
"""


def test_its_quantizers_are_names_in_a_file(installed: Environment) -> None:
    assert installed.report(QUANTIZED) == {"same": True, "gradients": True}
    error = installed.report(WITHOUT)
    assert "'acme_fixed_point.quantizers.RoundToFixedPoint'" in error
    assert f"{NAME} according to the file: install it if you trust it" in error


def test_its_subcommand_is_there_beside_the_others(installed: Environment) -> None:
    found = subcommands(installed)
    assert {"bits", "show", "new-plugin"} <= set(found)
    shown = succeed(installed.layergraph, "bits", "--help", cwd=installed.cwd)
    assert "Print the widths of the layers in a file." in shown
