"""A model under the library's tensor parallelism: the IR is that of the plain model."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("transformers.distributed.tensor_parallel")

CODE = """
import datetime as dt
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.distributed.tensor_parallel import apply_tensor_parallelism
import layergraph as lg
from layergraph.testing import bitwise_equal

store = distributed.HashStore()
distributed.init_process_group(
    "gloo", store=store, rank=0, world_size=1, timeout=dt.timedelta(seconds=60)
)
mesh = init_device_mesh("cpu", (1,), mesh_dim_names=("tp",))
sizes = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
plain, model = LlamaForCausalLM(config).eval(), LlamaForCausalLM(config).eval()
model.load_state_dict(plain.state_dict())
plan = {}
for number in range(2):
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj"):
        plan[f"model.layers.{number}.{name}"] = "colwise"
    plan[f"model.layers.{number}.mlp.up_proj"] = "colwise"
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        plan[f"model.layers.{number}.{name}"] = "rowwise"
plan |= {f"{name}.weight": style for name, style in plan.items()}
apply_tensor_parallelism(model, mesh, plan)
for name, weight in plain.named_parameters():
    now = model.get_parameter(name)
    if now.__class__.__name__ == "DTensor":
        path, _, last = name.rpartition(".")
        whole = distribute_tensor(weight.detach(), mesh, now.placements)
        setattr(model.get_submodule(path), last, torch.nn.Parameter(whole))
assert "forward" in vars(model.model.layers[0].self_attn.q_proj)
inputs = {"input_ids": torch.arange(10).reshape(2, 5), "use_cache": False}
assert torch.equal(model(**inputs).logits, plain(**inputs).logits)


def layers(ir):
    return {
        name: {key: each for key, each in said.items() if "." not in key}
        for name, said in ir.to_dict().items()
    }


ir = lg.to_ir(model, (), inputs)
assert layers(ir) == layers(lg.to_ir(plain, (), inputs))
down = ir["model.layers.1.mlp.down_proj"].data
assert down["distributed.mesh"] == {"shape": (1,), "dim_names": ("tp",)}
assert list(down["distributed.placements"]) == ["weight"]
assert "forward" in vars(model.model.layers[0].self_attn.q_proj)
rebuilt = lg.to_torch(ir, plain.state_dict())
assert bitwise_equal(rebuilt(**inputs)["logits"], plain(**inputs).logits)
assert lg.verify(model, (), inputs).ok
distributed.destroy_process_group()
print("ok")
"""


@pytest.mark.slow
def test_a_model_with_a_plan(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=120,
    )
    assert ran.stdout.endswith("ok\n"), ran.stderr[-3000:]
