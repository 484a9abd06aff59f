"""No kind of tensor ends the process: each is kept, or refused by name, in every place."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("tensor_matrix.py")
# The kinds that are kept bit for bit in every place.
KEPT = {"complex", "conjugate", "dense", "negative"}
# Torch's own calls make and use these, so that a graph holds the calls.
KEPT_IF_MADE = {*KEPT, "coo", "onednn", "quantized"}
NAMES = {"parameter": "'held'", "buffer": "'held'", "hidden": "held", "constant": "'held'"}

spec = importlib.util.spec_from_file_location("tensor_kinds", SCRIPT)
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
    assert not list(folder.iterdir())
    return {line["kind"]: line for line in map(json.loads, ran.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_kind_is_kept_or_refused(outcomes, kind):
    outcome = outcomes[kind]
    assert outcome["exit code"] == 0
    places = outcome["places"]
    # Torch itself ends the process if a kernel reads freed memory.
    assert {*kinds.PLACES} - {*places} == ({"made in forward"} if kind == "freed" else set())
    for place, what in places.items():
        word, _, text = what.partition(":")
        assert word in ("kept", "refused", "none"), f"{place}: {what}"
        if word == "refused" and place in NAMES:
            assert NAMES[place] in text or "attribute 'held'" in text or "self.held" in text, text
    if kind in KEPT:
        assert {*places.values()} == {"kept"}
    if kind in KEPT_IF_MADE:
        assert places["made in forward"] == "kept"
