"""The program of two processes: tensor parallelism. Run it as ``torchrun two.py FOLDER``."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

import layergraph as lg
from layergraph.errors import LayergraphError

FOLDER = Path(sys.argv[1])
# A plan may have torch's own styles in place of their names.
STYLES = {"colwise": ColwiseParallel(), "rowwise": RowwiseParallel()}


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def refusal(**options):
    try:
        lg.load_model(FOLDER / "one.safetensors", **options)
    except LayergraphError as error:
        return f"{type(error).__name__}: {error}"
    return None


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=60))
    mesh, plan = init_device_mesh("cpu", (2,)), torch.load(FOLDER / "tensor-plan.pt")
    ids, expected = torch.load(FOLDER / "expected.pt")
    found = {}
    for name in ("one.safetensors", "one.safetensors", "many.safetensors"):
        before = bytes_read()
        model = lg.load_model(FOLDER / name, mesh=mesh, plan=plan)
        found[f"bytes {name}"] = bytes_read() - before  # the first load imports modules
        with torch.no_grad():
            out = model(input_ids=ids)["logits"]
        found[f"error {name}"] = (out - expected).abs().max().item()
    lg.save(
        lg.load(FOLDER / "one.safetensors"), FOLDER / "parallel.safetensors", model.state_dict()
    )
    # Weights in the files of another program, of another dtype and with other names.
    renamed = lg.load_model(
        FOLDER / "one.json",
        weights=FOLDER / "foreign",
        keys=lambda name: None if name == "extra" else name.removeprefix("base."),
        mesh=mesh,
        plan={path: STYLES.get(style, style) for path, style in plan.items()},
    )
    found["foreign"] = all(
        torch.equal(one.full_tensor() if hasattr(one, "full_tensor") else one, other)
        for one, other in zip(
            renamed.state_dict().values(),
            [
                each.full_tensor() if hasattr(each, "full_tensor") else each
                for each in model.state_dict().values()
            ],
            strict=True,
        )
    )
    found["refusals"] = {
        "no plan": refusal(mesh=mesh),
        "no mesh": refusal(plan=plan),
        "no such style": refusal(mesh=mesh, plan={"lm_head": "sideways"}),
        "no such layer": refusal(mesh=mesh, plan={"lm_tail": "colwise"}),
        "torch cannot": refusal(mesh=mesh, plan={"model.layers.0": "colwise"}),
        "no names": refusal(mesh=mesh, plan={"": "fully_shard", "lm_head": "colwise"}),
        "no mapping": refusal(mesh=mesh, plan=5),
        "no mesh of torch": refusal(mesh=5, plan=plan),
        "another module": refusal(mesh=mesh, plan=lambda model, _: torch.nn.Sequential(model)),
    }
    torch.save(found, FOLDER / f"two-{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
