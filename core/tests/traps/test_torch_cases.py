"""Torch's own collections of test cases: every case is rebuilt equal, or refused by name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.tests.traps.torch_cases import BASES
from layergraph.torch_versions import RELEASE

CHECKOUT = Path(__file__).parents[3]

# The minimum of cases that are rebuilt, and the prefixes of the names of cases that may be refused.
BOUNDS = {
    "exportdb": (34, ""),
    "custom_op_db": (22, ""),
    # A function that returns a numpy array.
    "autograd_function_db": (26, "NumpyCubeNotComposable"),
    "hop_db": (
        8 if RELEASE < (2, 14) else 18,
        "auto_functionalize flex_ invoke_quant_packed local_map_hop register_hook while_loop_stack",
    ),
}
# Cases that may be refused with older releases, where the functions have another home.
OF_OLDER_TORCH = "constrain_as_size_example dynamic_shape_map map"

# The path and the line, and the remedy.
WHERE = r"refused: .*in the model .*\.py, line \d+, in \w+: "
REMEDY = "a handler for the module can keep it whole"


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_a_base_of_torch(base):
    if base != "exportdb":
        pytest.importorskip("expecttest", reason="torch.testing._internal imports it")
    done = subprocess.run(
        [sys.executable, "-m", "core.tests.traps.torch_cases", base],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)
    least, refused = BOUNDS[base]
    assert sum(not outcome for outcome in outcomes.values()) >= least
    may_be_refused = tuple(f"{refused} {OF_OLDER_TORCH if RELEASE < (2, 14) else ''}".split())
    for name, outcome in outcomes.items():
        if outcome:
            assert name.startswith(may_be_refused), (name, outcome)
            assert [*outcome] == ["capture"], (name, outcome)
            assert re.match(WHERE, outcome["capture"], re.DOTALL), outcome
            assert REMEDY in outcome["capture"], outcome
