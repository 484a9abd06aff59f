"""The program of four processes: FSDP, a mesh of two dimensions, and saves from all ranks.

Run it as ``torchrun four.py FOLDER``. It writes its results to ``FOLDER/four-RANK.pt``.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointWrapper,
    apply_activation_checkpointing,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

import layergraph as lg
from layergraph.errors import LayergraphError
from layergraph.testing import bitwise_equal
from layergraph_distributed.parts import region_of, take

FOLDER = Path(sys.argv[1])
FULLY = {"": "fully_shard", "model.layers.*": "fully_shard"}


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def by_hand(model, mesh):
    for layer in model.model.layers.children():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def counted(name, **options):
    """Load a model after the first imports, and count the bytes that the process reads."""
    lg.load_model(FOLDER / name, **options)
    before = bytes_read()
    model = lg.load_model(FOLDER / name, **options)
    return model, bytes_read() - before


def outputs(model):
    ids, expected = torch.load(FOLDER / "expected.pt")
    with torch.no_grad():
        return bitwise_equal(model(input_ids=ids)["logits"], expected)


def gradients_agree(model, plain):
    ids, _ = torch.load(FOLDER / "expected.pt")
    for each in (model.train(), plain.train()):
        each(input_ids=ids)["logits"].square().mean().backward()
    return all(
        bitwise_equal(one.grad.full_tensor(), other.grad)
        for one, other in zip(model.parameters(), plain.parameters(), strict=True)
    )


def refusal(action):
    try:
        action()
    except LayergraphError as error:
        return f"{type(error).__name__}: {error}"
    return None


def loads(mesh):
    found = {}
    for name in ("one.safetensors", "many.safetensors"):
        for kind, plan in (("function", by_hand), ("table", FULLY)):
            model, count = counted(name, mesh=mesh, plan=plan)
            found[f"bytes {kind} {name}"] = count
            found[f"outputs {kind} {name}"] = outputs(model)
    found["gradients"] = gradients_agree(model, lg.load_model(FOLDER / "one.safetensors"))
    planned, _ = counted("planned.safetensors", mesh=mesh)
    found["outputs of the plan in the file"] = outputs(planned)
    cast = lg.load_model(FOLDER / "one.safetensors", mesh=mesh, plan=by_hand, dtype=torch.bfloat16)
    plain = lg.load_model(FOLDER / "one.safetensors", dtype=torch.bfloat16)
    found["cast"] = all(
        bitwise_equal(one.full_tensor().detach(), other.detach())
        for one, other in zip(cast.parameters(), plain.parameters(), strict=True)
    )
    return found


def saves(mesh):
    found = {}
    ir = lg.load(FOLDER / "one.safetensors")
    model = lg.load_model(FOLDER / "one.safetensors", mesh=mesh, plan=FULLY)
    lg.save(ir, FOLDER / "saved.safetensors", model.state_dict())
    lg.save(ir, FOLDER / "several.safetensors", model.state_dict(), max_shard_size="1MB")
    for name in ("saved.safetensors", "several.safetensors.index.json"):
        again = lg.load_model(FOLDER / name, mesh=mesh, plan=FULLY)
        found[f"outputs of {name}"] = outputs(again)
    state = model.state_dict()
    if dist.get_rank() == 2:
        state["unknown"] = torch.zeros(1)
    found["one rank has another key"] = refusal(
        lambda: lg.save(ir, FOLDER / "saved.safetensors", state)
    )
    other = lg.to_ir(nn.Linear(3, 3)) if dist.get_rank() == 3 else ir
    found["one rank has another model"] = refusal(
        lambda: lg.save(other, FOLDER / "saved.safetensors", model.state_dict())
    )
    short = {key: each for key, each in model.state_dict().items() if key != "lm_head.weight"}
    found["no rank has a key"] = refusal(lambda: lg.save(ir, FOLDER / "saved.safetensors", short))
    lacking = short if dist.get_rank() == 1 else model.state_dict()
    found["one rank lacks its part"] = refusal(
        lambda: lg.save(ir, FOLDER / "saved.safetensors", lacking)
    )
    for name in ("module", "_orig_mod"):
        wrapped = {f"{name}.{key}": each for key, each in model.state_dict().items()}
        lg.save(ir, FOLDER / f"wrapped{name}.safetensors", wrapped)
    return found


def wrappers(mesh):
    """Test a plan that wraps layers, as for activation checkpointing."""

    def plan(model, mesh):
        apply_activation_checkpointing(
            model, check_fn=lambda each: isinstance(each, nn.Embedding | nn.Linear)
        )
        fully_shard(model, mesh=mesh)

    path = FOLDER / "tied.safetensors"
    model, plain = lg.load_model(path, mesh=mesh, plan=plan), lg.load_model(path)
    lg.save(lg.load(path), FOLDER / "wrapped-tied.safetensors", model.state_dict())
    x = torch.arange(5)
    return {
        "wrapped": isinstance(model.embed, CheckpointWrapper),
        "wrapped and tied": model.embed.weight is model.head.weight,
        "outputs in wrappers": bitwise_equal(model.train()(x), plain.train()(x)),
    }


def checkpoints(mesh):
    """Test that DCP writes a checkpoint of a rebuilt model, and reads it into another one."""
    model = lg.load_model(FOLDER / "one.safetensors", mesh=mesh, plan=by_hand)
    dcp.save(model.state_dict(), checkpoint_id=FOLDER / "checkpoint")
    empty = lg.to_torch(lg.load(FOLDER / "one.safetensors"), device="meta")
    by_hand(empty, mesh)
    empty.to_empty(device="cpu")
    state = empty.state_dict()
    dcp.load(state, checkpoint_id=FOLDER / "checkpoint")
    empty.load_state_dict(state)
    return {"outputs after DCP": outputs(empty.eval())}


def ties(mesh):
    """Tensors with two names, of sizes that four does not divide, and buffers of all kinds."""
    path, found = FOLDER / "tied.safetensors", {}
    plain = lg.load_model(path)
    model = lg.load_model(path, mesh=mesh, plan={"": "fully_shard"})
    x = torch.arange(5)
    found["is tied"] = model.embed.weight is model.head.weight
    for training in (True, False):
        out = model.train(training)(x), plain.train(training)(x)
        found[f"tied outputs {training}"] = bitwise_equal(*out)
    lg.save(lg.load(path), FOLDER / "tied-again.safetensors", model.state_dict())
    again = lg.load_model(FOLDER / "tied-again.safetensors")
    found["tied after a save"] = again.embed.weight is again.head.weight and all(
        bitwise_equal(one, other)
        for one, other in zip(again.state_dict().values(), plain.state_dict().values(), strict=True)
    )
    found["separated by FSDP"] = refusal(
        lambda: lg.load_model(path, mesh=mesh, plan={"embed": "fully_shard", "": "fully_shard"})
    )
    alike = {"embed": "embedding_rowwise", "head": "colwise_gather_output"}
    model = lg.load_model(path, mesh=mesh, plan=alike)
    found["tied again"] = model.embed.weight is model.head.weight
    found["separated by styles"] = refusal(
        lambda: lg.load_model(path, mesh=mesh, plan={"head": "rowwise"})
    )
    return found


def two_dimensions():
    """Test tensor parallelism inside FSDP, which makes strided placements."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    tensors = torch.load(FOLDER / "tensor-plan.pt")
    model, count = counted("one.safetensors", mesh=mesh, plan={**tensors, **FULLY})
    ids, expected = torch.load(FOLDER / "expected.pt")
    with torch.no_grad():
        out = model(input_ids=ids)["logits"]
    ir = lg.load(FOLDER / "one.safetensors")
    lg.save(ir, FOLDER / "two.safetensors", model.state_dict())
    found = {"bytes in two dimensions": count, "error": (out - expected).abs().max().item()}
    found["strided"] = any(
        "Strided" in type(place).__name__
        for each in model.parameters()
        for place in each.placements
    )
    placements = [Shard(0), Shard(1), Replicate()]
    wrong = []
    for shape in ((8, 8), (5, 7), (1, 3), (4, 2, 3)):
        whole = torch.arange(torch.Size(shape).numel()).view(shape)
        for one in placements:
            for other in placements:
                held = distribute_tensor(whole, mesh, [one, other])
                if not bitwise_equal(
                    take(whole, region_of("", held)), held.to_local(), strides=False
                ):
                    wrong.append((shape, one, other))
    found["wrong regions"] = wrong
    sums = DTensor.from_local(torch.ones(2), mesh, [Partial(), Replicate()])
    found["partial"] = refusal(lambda: region_of("sums", sums))
    return found


def stages():
    """A pipeline of two stages, each with tensor parallelism: no process has all keys."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("pp", "tp"))
    own = mesh.get_local_rank("pp")

    def plan(model, mesh):
        model[1 - own] = nn.Identity()
        parallelize_module(model, mesh["tp"], {str(own): ColwiseParallel()})

    path = FOLDER / "stages.safetensors"
    model = lg.load_model(path, mesh=mesh, plan=plan)
    lg.save(lg.load(path), FOLDER / "stages-again.safetensors", model.state_dict())
    return {"keys of a stage": sorted(model.state_dict())}


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=60))
    mesh = init_device_mesh("cpu", (4,))
    found = loads(mesh) | saves(mesh) | checkpoints(mesh) | ties(mesh) | two_dimensions()
    found |= stages() | wrappers(mesh)
    torch.save(found, FOLDER / f"four-{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
