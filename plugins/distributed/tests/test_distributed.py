"""Models on several processes: loaded and saved in parts, with gloo on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal
from plugins.distributed.tests.models import Tied

HERE = Path(__file__).parent
transformers = pytest.importorskip("transformers")

# The parts of the structure that each process reads besides its part of the weights are small only
# beside weights of some megabytes.
CONFIG = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 2000,
    "initializer_range": 0.01,  # keep logits below 1, so that rounding errors stay below 1e-6
    "use_cache": False,
    "tie_word_embeddings": False,
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the programs count reads in /proc"),
]


def _foreign(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write weights as other programs do: two shards and an index, without a structure."""
    folder.mkdir()
    tensors = {f"base.{key}": each.double() for key, each in state.items()}
    tensors["extra"] = torch.zeros(3)
    names = list(tensors)
    homes = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, folder / file)
        homes |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(
        str({"metadata": {"total_size": 1}, "weight_map": homes}).replace("'", '"')
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the programs read."""
    folder = tmp_path_factory.mktemp("distributed")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG)).eval()
    ids = torch.randint(2000, (2, 6))
    ir = lg.to_ir(model, (), {"input_ids": ids}, values="assume")
    fresh = torch.randint(2000, (3, 9))
    with torch.no_grad():
        torch.save((fresh, model(input_ids=fresh).logits), folder / "expected.pt")
    torch.save(dict(model.tp_plan), folder / "tensor-plan.pt")
    state = model.state_dict()
    lg.save(ir, folder / "one.safetensors", state)
    lg.save(ir, folder / "one.json")
    lg.save(ir, folder / "many.safetensors", state, max_shard_size="2MB")
    plan = {"": "fully_shard", "model.layers.*": "fully_shard"}
    lg.save(lg.annotate_plan(ir, plan), folder / "planned.safetensors", state)
    _foreign(state, folder / "foreign")
    tied = Tied()
    lg.save(lg.to_ir(tied), folder / "tied.safetensors", tied.state_dict())
    two = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6), nn.BatchNorm1d(6))
    lg.save(lg.to_ir(two), folder / "stages.safetensors", two.state_dict())
    return folder


def _run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _found(program: str, count: int, folder: Path) -> list[dict[str, Any]]:
    _run(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)),
        *(str(HERE / f"{program}.py"), str(folder)),
    )
    return [
        torch.load(folder / f"{program}-{rank}.pt", weights_only=False) for rank in range(count)
    ]


@pytest.fixture(scope="module")
def four(folder: Path) -> list[dict[str, Any]]:
    return _found("four", 4, folder)


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    return _found("two", 2, folder)


def _size(folder: Path) -> int:
    return (folder / "one.safetensors").stat().st_size


def test_fsdp_computes_the_same_bits(four):
    for rank in four:
        outputs = {name: each for name, each in rank.items() if name.startswith("outputs")}
        assert len(outputs) == 9
        assert all(outputs.values()), outputs
        assert rank["gradients"]
        assert rank["cast"]


@pytest.mark.parametrize("program", ["four", "two"])
def test_each_rank_reads_its_part_only(program, request, folder):
    ranks = request.getfixturevalue(program)
    for rank in ranks:
        counts = {name: each for name, each in rank.items() if name.startswith("bytes")}
        assert len(counts) >= 2
        for name, count in counts.items():
            assert count <= _size(folder) * (1 / len(ranks) + 0.05), name


def test_strided_placements_of_a_mesh_of_two_dimensions(four, folder):
    for rank in four:
        assert rank["strided"]
        assert rank["error"] < 1e-5
        assert rank["wrong regions"] == []
        assert rank["partial"].startswith("StateError: 'sums' has the placement")
    assert (folder / "two.safetensors").read_bytes() == (folder / "one.safetensors").read_bytes()


def test_a_save_from_all_ranks_is_the_plain_file(four, two, folder):
    expected = (folder / "one.safetensors").read_bytes()
    for name in ("saved", "parallel", "wrappedmodule", "wrapped_orig_mod"):
        assert (folder / f"{name}.safetensors").read_bytes() == expected
    several = lg.load_model(folder / "several.safetensors.index.json")
    plain = lg.load_model(folder / "one.safetensors")
    assert len(list(folder.glob("several-*"))) > 4
    for one, other in zip(several.parameters(), plain.parameters(), strict=True):
        assert bitwise_equal(one, other)
    assert not list(folder.glob(".saving*"))


def test_a_save_from_the_stages_of_a_pipeline(four, folder):
    shared = {f"2.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    for number, rank in enumerate(four):
        stage = number // 2
        own = {f"{stage}.weight", f"{stage}.bias", "2.num_batches_tracked"}
        assert set(rank["keys of a stage"]) == shared | own
    expected = (folder / "stages.safetensors").read_bytes()
    assert (folder / "stages-again.safetensors").read_bytes() == expected


def test_a_refusal_in_one_rank_is_one_in_all(four):
    for number, rank in enumerate(four):
        where = "StateError" if number == 2 else "the save failed in rank 2: StateError"
        assert where in rank["one rank has another key"]
        assert "'unknown' is not one of the model" in rank["one rank has another key"]
        assert rank["one rank has another model"] is not None
        assert "'lm_head.weight' is missing in" in rank["no rank has a key"]
        said = "'lm_head.weight' is distributed over the ranks [0, 1, 2, 3], but missing"
        assert f"{said} in the state dict of rank 1" in rank["one rank lacks its part"]


def test_a_plan_that_puts_layers_into_wrappers(four, folder):
    for rank in four:
        assert rank["wrapped"]
        assert rank["wrapped and tied"]
    expected = (folder / "tied.safetensors").read_bytes()
    assert (folder / "wrapped-tied.safetensors").read_bytes() == expected


def test_ties_and_buffers(four):
    for rank in four:
        assert rank["is tied"]
        assert rank["tied again"]
        assert rank["tied outputs True"]
        assert rank["tied outputs False"]
        assert rank["tied after a save"]
        for name in ("separated by FSDP", "separated by styles"):
            assert "'embed.weight' and 'head.weight' are one tensor" in rank[name]


def test_tensor_parallel_outputs(two):
    for rank in two:
        assert rank["error one.safetensors"] < 1e-6
        assert rank["error many.safetensors"] < 1e-6


def test_weights_of_other_programs(two):
    assert all(rank["foreign"] for rank in two)


def test_plans_that_do_not_fit_are_refused(two):
    said = {
        "no plan": "ArgumentError: there is a mesh, but no plan",
        "no mesh": "ArgumentError: there is a plan, but no mesh",
        "no such style": "'sideways' for 'lm_head'; known are colwise",
        "no such layer": "the plan names 'lm_tail', but no layer has such a path",
        "torch cannot": "torch cannot apply the style ",
        "no names": "name the one for tensor parallelism 'tp'",
        "no mapping": "plan is a int",
        "no mesh of torch": "mesh is a int",
        "another module": "the plan returned another module, a Sequential",
    }
    for rank in two:
        for name, text in said.items():
            assert text in str(rank["refusals"][name]), name


def test_a_rank_that_dies(folder):
    before = (folder / "tied.safetensors").read_bytes()
    _run(str(HERE / "deaths.py"), str(folder))
    for dying, other in ((1, 0), (0, 1)):
        text = (folder / f"save-{dying}-{other}.txt").read_text()
        assert text.startswith("FileError: "), text
        assert "another process has ended" in text
        assert not (folder / f"save-{dying}-{dying}.txt").exists()
    # The other rank loads its part. A later exchange of data fails with torch's own error.
    assert (folder / "load-1-0.txt").read_text().startswith(("RuntimeError", "DistBackendError"))
    assert (folder / "tied.safetensors").read_bytes() == before
    # The next save removes the files that the killed rank 0 left.
    model = lg.load_model(folder / "tied.safetensors")
    lg.save(lg.load(folder / "tied.safetensors"), folder / "tied.safetensors", model.state_dict())
    assert not list(folder.glob(".saving*"))
