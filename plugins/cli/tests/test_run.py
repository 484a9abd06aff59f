"""``layergraph run``: the options of passes."""

from __future__ import annotations

import pytest
from torch import nn

import layergraph as lg
from layergraph_cli.passes import _options
from plugins.cli.tests.harness import spawn


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("split.at=3", "3"),
        ("split.at='3'", "3"),
        ("open-leaves.length=3", 3),
        ("open-leaves.masks=None", None),
        ("dead-code.keep-layers=true", True),
        ("dead-code.keep-layers=False", False),
        ("dead-code.keep-layers=yes", "yes"),
        ("fuse-chain.types=relu,linear", "relu,linear"),
        ("fuse-chain.types=['relu', 'linear']", ["relu", "linear"]),
        ("annotate.value=8", 8),
        ("annotate.value=[1, true]", [1, True]),
        ("annotate.value=__import__('os')", "__import__('os')"),
        ("unknown.value=8", 8),
    ],
)
def test_a_value_is_a_literal_if_the_option_takes_it(setting, value):
    (options,) = _options([setting]).values()
    (found,) = options.values()
    assert found == value
    assert type(found) is type(value)


def test_a_layer_whose_name_is_a_number(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    file, out = tmp_path / "m.json", tmp_path / "o.json"
    lg.save(lg.to_ir(model), file)
    done = spawn("run", "split", file, "-o", out, "--set", "split.at=1")
    assert done.code == 0, done
    assert list(lg.load(out)["root"].children) == ["first", "second"]
    spawn("run", "split", file, "-o", out, "--set", "split.at=7").refused("no layer '7'")
