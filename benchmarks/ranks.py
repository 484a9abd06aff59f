"""One rank of a job that loads and saves a model: ``torchrun -m benchmarks.ranks``."""

from __future__ import annotations

import datetime as dt
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

import layergraph as lg
from benchmarks.fresh import forget_peak, peak_memory
from zoo.run import prepare

PLAN = {"": "fully_shard", "*": "fully_shard"}


def read_so_far() -> int:
    """Return the bytes read by system calls of this process. Pages of mapped files do not count."""
    return int(Path("/proc/self/io").read_text().split()[1])


def empty(folder: Path, mesh: DeviceMesh) -> nn.Module:
    """Return the model with allocated, uninitialized parts, as the peers require."""
    from layergraph_distributed.plans import apply

    ir = lg.load(folder / "model.safetensors")
    model = lg.to_torch(ir, device="meta")
    apply(ir, model, mesh, PLAN)
    return model.to_empty(device="cpu")


def with_layergraph(folder: Path, mesh: DeviceMesh) -> nn.Module:
    return lg.load_model(folder / "model.safetensors", mesh=mesh, plan=PLAN)


def with_dcp(folder: Path, mesh: DeviceMesh) -> nn.Module:
    model = empty(folder, mesh)
    state = model.state_dict()
    dcp.load(state, checkpoint_id=folder / "checkpoint")
    model.load_state_dict(state)
    return model


def with_safetensors(folder: Path, mesh: DeviceMesh) -> nn.Module:
    """Load with safetensors by hand, for tensors sharded evenly by rows."""
    model = empty(folder, mesh)
    with safe_open(folder / "model.safetensors", "pt") as file, torch.no_grad():
        for key, tensor in model.state_dict().items():
            rows = file.get_slice(key)
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            start = len(local) * mesh.get_local_rank()
            local.copy_(rows[start : start + len(local)])
    return model


LOADS: dict[str, Callable[[Path, DeviceMesh], nn.Module]] = {
    "layergraph": with_layergraph,
    "torch DCP": with_dcp,
    "safetensors": with_safetensors,
}


def measured(action: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return the median seconds of the slowest process, the bytes read, the peak memory."""
    seconds, read, memory = [], 0, 0
    for _ in range(rounds + 1):
        gc.collect()
        dist.barrier()
        before, bytes_before, start = forget_peak(), read_so_far(), time.perf_counter()
        kept = action()
        read, memory = read_so_far() - bytes_before, peak_memory() - before
        dist.barrier()
        seconds.append(time.perf_counter() - start)
        del kept
    return {"seconds": statistics.median(seconds[1:]), "bytes": read, "memory": memory}


def main() -> None:
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    prepare()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=300))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    found: dict[str, Any] = {}
    for way, load in LOADS.items():
        found[f"load {way}"] = measured(lambda load=load: load(folder, mesh), rounds)
    ir = lg.load(folder / "model.safetensors")
    state = with_layergraph(folder, mesh).state_dict()
    saves = {
        "layergraph": lambda: lg.save(ir, folder / "saved.safetensors", state),
        "torch DCP": lambda: dcp.save(state, checkpoint_id=folder / "saved"),
    }
    for way, save in saves.items():
        found[f"save {way}"] = measured(save, rounds)
    (folder / f"rank-{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
