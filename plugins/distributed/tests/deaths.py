"""Two processes, of which one ends in the middle of a save. Run it as ``python deaths.py FOLDER``.

``torchrun`` would end the other process too, and the test is about the error in that process.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch.distributed.device_mesh import init_device_mesh

import layergraph as lg
import layergraph_distributed.save as saving
from layergraph_files.reader import Part

FOLDER = Path(sys.argv[1])
TIED = FOLDER / "tied.safetensors"


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def save(rank: int, dying: int) -> str:
    mesh = init_device_mesh("cpu", (2,))
    model = lg.load_model(TIED, mesh=mesh, plan={"": "fully_shard"})
    state = {
        key: each * 2 if each.is_floating_point() else each
        for key, each in model.state_dict().items()
    }
    if rank == dying:
        saving._write_at = die
    lg.save(lg.load(TIED), TIED, state)
    return "saved"


def load(rank: int, dying: int) -> str:
    mesh = init_device_mesh("cpu", (2,))
    if rank == dying:
        Part.read_into = die
    model = lg.load_model(TIED, mesh=mesh, plan={"": "fully_shard"})
    model(torch.arange(5))
    return "loaded and run"


def run(rank: int, name: str, dying: int) -> None:
    torch.set_num_threads(1)
    path = FOLDER / f"{name}-{dying}"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{path}.store",
        rank=rank,
        world_size=2,
        timeout=dt.timedelta(seconds=20),
    )
    try:
        said = globals()[name](rank, dying)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    Path(f"{path}-{rank}.txt").write_text(said)
    os._exit(0)  # there is no group to leave


def main() -> None:
    for name, dying in (("save", 1), ("save", 0), ("load", 1)):
        started = processes.start_processes(
            run, (name, dying), nprocs=2, join=False, start_method="fork"
        )
        for each in started.processes:
            each.join(60)
        print(name, dying, [each.exitcode for each in started.processes], flush=True)


if __name__ == "__main__":
    main()
