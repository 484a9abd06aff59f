"""Models that torch has distributed over two processes: see the cases in ``ranks.py``."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("ranks.py")

spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
ranks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ranks)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    folder = tmp_path_factory.mktemp("ranks")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert {each.name for each in folder.iterdir()} == {"0.json", "1.json"}
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("case", ranks.CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_distributed_model(outcomes, case, rank):
    outcome = outcomes[rank][case.__name__]
    assert outcome == "ok", outcome
