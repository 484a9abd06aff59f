"""Measures on a GPU: IRs captured on the CPU, and files loaded directly to the GPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

import layergraph as lg
from benchmarks.large import few_large
from benchmarks.measures.forward import AT_MOST
from benchmarks.models import assert_close
from benchmarks.results import Row, compared
from benchmarks.settings import Settings
from benchmarks.timing import take_turns

RUNS = 20


def rows(settings: Settings) -> Iterator[Row]:
    if not torch.cuda.is_available():
        yield Row("all", "", note="skipped: there is no GPU")
        return
    for name, (make, inputs) in MODELS.items():
        yield from _latencies(settings, name, make, inputs)
    yield from _load(settings)


def _resnet() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50()


def _bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(use_cache=False))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "ResNet-50": (_resnet, lambda: (torch.randn(8, 3, 224, 224, dtype=torch.bfloat16),)),
    "BERT-base": (_bert, lambda: (torch.ones(8, 128, dtype=torch.long),)),
}


def _latencies(
    settings: Settings,
    name: str,
    make: Callable[[], nn.Module],
    inputs: Callable[[], tuple[Any, ...]],
) -> Iterator[Row]:
    torch.manual_seed(0)
    original, args = make().bfloat16().eval(), inputs()
    with torch.no_grad():
        ir = lg.to_ir(original, args, values="assume")
        rebuilt = lg.to_torch(ir, original.state_dict()).eval().cuda()
        original, args = original.cuda(), tuple(each.cuda() for each in args)
        assert_close(original(*args), rebuilt(*args))
        yield Row("captured on the CPU, run on the GPU", name, note="the same outputs")
        models = {"rebuilt": rebuilt, "original": original}
        for what, prepare in WAYS.items():
            torch._dynamo.reset()
            ways = {which: partial(_run, prepare(model, args)) for which, model in models.items()}
            timed = take_turns(ways, rounds=15 if settings.quick else 51)
            yield compared(what, name, timed, ("rebuilt", "original"), at_most=AT_MOST)


def _run(call: Callable[[], object]) -> None:
    for _ in range(RUNS):
        call()
    torch.cuda.synchronize()


def _eager(model: nn.Module, args: tuple[Any, ...]) -> Callable[[], object]:
    return lambda: model(*args)


def _compiled(model: nn.Module, args: tuple[Any, ...]) -> Callable[[], object]:
    compiled = torch.compile(model)
    return lambda: compiled(*args)


def _graph(model: nn.Module, args: tuple[Any, ...]) -> Callable[[], object]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm up outside of the CUDA graph
        for _ in range(3):
            model(*args)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(*args)
    return graph.replay


WAYS = {"eager": _eager, "compiled": _compiled, "CUDA graph": _graph}


def _load(settings: Settings) -> Iterator[Row]:
    """Measure loading a gigabyte from the page cache, compared with the bandwidth to the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        path, plain = Path(folder) / "model.safetensors", Path(folder) / "plain.safetensors"
        model = few_large()
        state = model.state_dict()
        lg.save(lg.to_ir(model), path, state)
        safetensors.torch.save_file(state, plain)
        size = plain.stat().st_size
        pinned = torch.empty(size, dtype=torch.uint8).pin_memory()
        pageable = torch.empty(size, dtype=torch.uint8).fill_(1)
        ways = {
            "layergraph": lambda: lg.load_model(path, device="cuda"),
            "safetensors.torch.load_file": lambda: safetensors.torch.load_file(
                plain, device="cuda"
            ),
            "a copy of pinned memory": pinned.cuda,
            "a copy of pageable memory": pageable.cuda,
        }
        timed = take_turns(
            {name: partial(_synchronized, way) for name, way in ways.items()},
            rounds=settings.rounds,
        )
    for peer in list(ways)[1:]:
        carried = size / timed[peer].median / 1e9
        mine = size / timed["layergraph"].median / 1e9
        note = f"{mine:.1f} against {carried:.1f} GB/s"
        yield compared("load a file", "1.1 GB", timed, ("layergraph", peer), note=note)


def _synchronized(way: Callable[[], object]) -> object:
    given = way()
    torch.cuda.synchronize()
    return given
