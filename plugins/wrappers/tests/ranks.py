"""Conversions in two processes: each case runs in both.

The launcher of torch starts this script. ``ranks.py FOLDER [CASE …]`` writes the outcomes of each
process to a file of that folder.
"""

from __future__ import annotations

import copy
import datetime as dt
import importlib
import json
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, SplitPoint, pipeline
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import layergraph as lg
from layergraph.errors import CaptureError, StateError
from layergraph.testing import bitwise_equal

try:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
except ImportError:
    checkpoint_wrapper = None

IDS = (torch.arange(8).reshape(2, 4),)  # equal in both processes, as tensor parallel needs it
TIMEOUT = dt.timedelta(seconds=60)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(self.up(self.norm(x)).relu())


class Net(nn.Module):
    """A model with a tie, a frozen weight, and both kinds of buffers. Its shards differ in
    size."""

    def __init__(self, width=6):
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.scale = nn.Parameter(torch.rand(5), requires_grad=False)
        self.register_buffer("shift", torch.rand(width))
        self.register_buffer("angles", torch.rand(width), persistent=False)
        self.head = nn.Linear(width, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids) * self.angles + self.shift
        for block in self.blocks:
            x = block(x)
        return self.head(x) * self.scale.sum()


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        return self.lin(x) if self.lin.weight.sum() > 0 else x


def build(cls=Net, **options):
    torch.manual_seed(0)
    return cls(**options)


def on_meta(args):
    return tuple(each.to("meta") for each in args)


def without_annotations(ir):
    return {
        name: {key: each for key, each in said.items() if "." not in key}
        for name, said in ir.to_dict().items()
    }


def annotations(ir):
    return {
        name: {key: each for key, each in said.items() if "." in key}
        for name, said in ir.to_dict().items()
    }


def snapshot(model):
    """Return the modules, tensors and attributes of a model by identity."""
    found = []
    for module in model.modules():
        found.append((id(module), type(module), module.training))
        for name, value in vars(module).items():
            inside = tuple((k, id(v)) for k, v in value.items()) if type(value) is dict else ()
            found.append((name, id(value), inside))
    found += [
        (name, id(each), type(each), each.requires_grad) for name, each in model.named_parameters()
    ]
    return found


def converts(plain, wrapped, args, *, is_exact=True):
    """Convert a wrapped model in three ways; compare with the plain model. Return the IR."""
    if hasattr(wrapped, "reshard"):
        wrapped.reshard()
    before = snapshot(wrapped)
    irs = []
    for given in (args, None, on_meta(args)):
        irs.append(lg.to_ir(wrapped, given))
        assert without_annotations(irs[-1]) == without_annotations(
            lg.to_ir(plain, args if given else None)
        ), given
        assert annotations(irs[-1]) == annotations(irs[0])
    assert snapshot(wrapped) == before
    full = get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True))
    for ir in irs:
        assert bitwise_equal(lg.to_torch(ir, full)(*args), plain(*args))
    report = lg.verify(wrapped, args)
    assert report.ok, report
    check = report.checks[-1]
    assert (check.name, check.status) == ("in its wrappers", "passed"), check
    assert not is_exact or check.detail.endswith("bit for bit"), check
    return irs[0]


def refused(*said, by=CaptureError):
    class Expect:
        def __enter__(self):
            pass

        def __exit__(self, kind, error, trace):
            assert isinstance(error, by), error
            assert all(each in str(error) for each in said), error
            return True

    return Expect()


# --- the cases ---


def data_parallel():
    plain = build()
    wrapped = DistributedDataParallel(copy.deepcopy(plain))
    ir = converts(plain, wrapped, IDS)
    assert ir["root"].data == {"distributed.wrapper": "DistributedDataParallel"}
    # The state dict of the wrapper fits, too.
    assert bitwise_equal(lg.to_torch(ir, wrapped.state_dict())(*IDS), plain(*IDS))


def sharded():
    plain, wrapped = build(), build()
    for block in wrapped.blocks:
        fully_shard(block)
    fully_shard(wrapped)
    ir = converts(plain, wrapped, IDS)
    assert ir["blocks.1"].data == {"distributed.wrapper": "fully_shard"}
    up = ir["blocks.1.up"]
    assert up.data["distributed.mesh"]["shape"] == (2,)
    assert up.data["distributed.placements"] == dict.fromkeys(("weight", "bias"), ("Shard(dim=0)",))
    assert type(wrapped.blocks[0]).__name__ == "FSDPBlock"
    # A call leaves the parameters of the root gathered.
    wrapped(*IDS)
    assert lg.to_ir(wrapped, IDS) == ir
    with refused("'embed.weight'", "DTensor", "full_tensor()", by=StateError):
        lg.to_torch(ir, wrapped.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = wrapped(*IDS).sum()
    loss.backward()
    assert wrapped.blocks[0].up.weight.grad is not None


def sharded_in_two_ways():
    plain, wrapped = build(), build()
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard"))
    fully_shard(wrapped, mesh=mesh, reshard_after_forward=False)
    ir = converts(plain, wrapped, IDS)
    assert ir["head"].data["distributed.mesh"]["shape"] == (2, 1)


def replicated():
    # The function for tensors without and with a mesh: torch 2.14 has two.
    for home in ("replicate", "replicate_with_fsdp"):
        try:
            module = importlib.import_module(f"torch.distributed._composable.{home}")
        except ImportError:
            continue
        plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        ir = converts(plain, module.replicate(copy.deepcopy(plain)), (torch.randn(3, 4),))
        assert ir["root"].type == "sequential"
        assert ir["root"].data == {"distributed.wrapper": "replicate"}


def in_lower_precision():
    plain, wrapped = build(), build()
    fully_shard(wrapped, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    ir = lg.to_ir(wrapped, IDS)
    assert without_annotations(ir) == without_annotations(lg.to_ir(plain, IDS))
    said = {"param_dtype": "torch.bfloat16"}
    assert ir["root"].data["distributed.mixed_precision"] == said


def tensor_parallel():
    plain, wrapped = build(width=8), build(width=8)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    for block in wrapped.blocks:
        plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        parallelize_module(block, mesh, plan)
    ir = converts(plain, wrapped, IDS, is_exact=False)
    placements = {"weight": ("Shard(dim=1)",), "bias": ("Replicate()",)}
    assert ir["blocks.0.down"].data["distributed.placements"] == placements


def sequence_parallel():
    plain, wrapped = build(Block, width=8), build(Block, width=8)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    plan = {
        "norm": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Replicate()),
        "down": RowwiseParallel(),
    }
    parallelize_module(wrapped, mesh, plan)
    args = (torch.randn(2, 4, 8),)
    ir = lg.to_ir(wrapped, args)
    assert without_annotations(ir) == without_annotations(lg.to_ir(plain, args))
    assert ir["up"].data["distributed.mesh"] == {"shape": (2,), "dim_names": ("tp",)}
    assert ir["down"].data["distributed.placements"]["weight"] == ("Shard(dim=1)",)


def on_a_mesh_of_two_dimensions():
    plain, wrapped = build(width=8), build(width=8)
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("dp", "tp"))
    for block in wrapped.blocks:
        parallelize_module(block, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
        fully_shard(block, mesh=mesh["dp"])
    fully_shard(wrapped, mesh=mesh["dp"])
    ir = converts(plain, wrapped, IDS, is_exact=False)
    assert ir["blocks.0.up"].data["distributed.mesh"]["dim_names"] == ("dp", "tp")


def compiled_and_checkpointed():
    plain, wrapped = build(), build()
    for index, block in enumerate(wrapped.blocks):
        wrapped.blocks[index] = checkpoint_wrapper(block) if checkpoint_wrapper else block
        fully_shard(wrapped.blocks[index])
    fully_shard(wrapped)
    converts(plain, torch.compile(wrapped, backend="eager"), IDS)
    outer = DistributedDataParallel(torch.compile(build(), backend="eager"))
    converts(plain, outer, IDS)


class Recurs(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4, num_layers=2)

    def forward(self, x):
        return self.lstm(x)[0]


def recurrent():
    plain, wrapped = build(Recurs), build(Recurs)
    fully_shard(wrapped)
    converts(plain, wrapped, (torch.ones(3, 2, 4),))


def not_yet_there():
    plain = build()
    with torch.device("meta"):
        wrapped = Net()
        wrapped.angles = torch.rand(6)
    wrapped.angles = plain.angles
    fully_shard(wrapped)
    ir = lg.to_ir(wrapped, on_meta(IDS))
    assert without_annotations(ir) == without_annotations(lg.to_ir(plain, IDS))


def alone_on_meta():
    wrapped = build()
    fully_shard(wrapped)
    if dist.get_rank() == 0:  # the other process does not call this: a gather would hang
        lg.to_ir(wrapped, on_meta(IDS))
        lg.to_ir(wrapped)
    dist.barrier()


def decisions():
    plain, wrapped = build(Decides), build(Decides)
    fully_shard(wrapped)
    args = (torch.randn(2, 4),)
    assert without_annotations(lg.to_ir(wrapped, args)) == without_annotations(
        lg.to_ir(plain, args)
    )
    with refused("inputs with numbers"):
        lg.to_ir(wrapped, on_meta(args))


def stages():
    layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
    rank = dist.get_rank()
    stage = PipelineStage(layers[rank], rank, 2, torch.device("cpu"))
    ir = lg.to_ir(stage, (torch.randn(2, 4),))
    assert ir["root"].attributes == lg.to_ir(layers[rank])["root"].attributes
    assert annotations(ir) == {
        "root": {"distributed.pipeline_stage": rank, "distributed.stages": 2}
    }
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    x = torch.randn(2, 4)
    pipe = pipeline(model, (x,), split_spec={"2": SplitPoint.BEGINNING})
    stage = pipe.build_stage(rank, torch.device("cpu"))
    ir = lg.to_ir(stage, (x,))
    state = {
        key: each for key, each in model.state_dict().items() if key in stage.submod.state_dict()
    }
    assert len(state) == 2
    assert bitwise_equal(lg.to_torch(ir, state)(x), stage.submod(x))
    with refused("Pipe", "before it is split"):
        lg.to_ir(pipe, (x,))


def flat_parameters():
    with refused("FullyShardedDataParallel", "fully_shard"):
        lg.to_ir(FullyShardedDataParallel(build(Decides), device_id=torch.device("cpu")), IDS)


CASES: list[Callable[[], None]] = [
    data_parallel,
    sharded,
    sharded_in_two_ways,
    replicated,
    in_lower_precision,
    tensor_parallel,
    sequence_parallel,
    on_a_mesh_of_two_dimensions,
    compiled_and_checkpointed,
    recurrent,
    not_yet_there,
    alone_on_meta,
    decisions,
    stages,
    flat_parameters,
]


def main(folder: Path, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    dist.init_process_group("gloo", timeout=TIMEOUT)
    outcomes = {}
    for case in CASES:
        if names and case.__name__ not in names:
            continue
        try:
            case()
            outcome = "ok"
        except Exception:
            outcome = traceback.format_exc()
        outcomes[case.__name__] = outcome
        (folder / f"{dist.get_rank()}.json").write_text(json.dumps(outcomes))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
