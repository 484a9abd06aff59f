"""Packed weights of torchao, torch.ao and others: kept, or refused by name; no process ends."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("packed_kinds.py")
# A part of the model that each refusal has to name.
NAMES = {
    "torch.ao static": "'1.0' (Linear) is a quantized module",
    "torch.ao dynamic": "'0' (Linear) is a quantized module",
    "packed class": "'0.weight' is a Packed of",
    "packed bytes": "'0' (Linear4)",
}

spec = importlib.util.spec_from_file_location("packed_kinds", SCRIPT)
kinds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kinds)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each kind needs a forked process")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return {line["name"]: line for line in map(json.loads, ran.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("name", kinds.CASES)
def test_packed_weights_are_kept_or_refused(outcomes, name):
    assert outcomes[name]["exit code"] == 0
    found = outcomes[name]["found"]
    if name not in NAMES:
        assert found == dict.fromkeys(kinds.FUNCTIONS, "kept")
        return
    assert {"to_ir", "to_torch", "save"} <= found.keys()
    assert NAMES[name] in found["to_ir"]
    for function, outcome in found.items():
        assert outcome.startswith("refused: "), f"{function}: {outcome}"
        assert "'0." in outcome or "'1.0." in outcome or "'0' " in outcome
