"""Back ends compared with tools for the same targets: support, exactness, size and seconds.

Each row is one model and one peer. Seconds are CPU seconds of this process and of the programs that
a peer starts. Ours include the capture, because the peers capture too. Each tool runs twice, and
the second run counts, because the first one imports. Outputs are compared on fresh inputs. The
error is the largest difference, relative to the largest number.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import layergraph as lg
from benchmarks import target_peers as peers
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.target_peers import Made, Subject
from benchmarks.timing import Spread, refusal

MODELS = (
    *("torchvision/resnet18", "torchvision/mobilenet_v3_small", "torchvision/vit_b_16"),
    *("transformers/BertModel", "transformers/LlamaModel", "transformers/GPT2LMHeadModel"),
    *("transformers/T5ForConditionalGeneration", "transformers/ViTModel"),
    *("transformers/WhisperForConditionalGeneration", "transformers/MixtralForCausalLM"),
)
Way = Callable[[Subject, Path], Made]


@dataclass(frozen=True)
class _Result:
    """The result of one tool for one model, or the reason of its failure."""

    seconds: float | None = None
    said: str = ""

    @property
    def spread(self) -> Spread | None:
        return None if self.seconds is None else Spread.exactly(self.seconds)


def rows(settings: Settings) -> Iterator[Row]:
    known = {each.name: each for each in Settings(pattern="*").entries()}
    wanted = MODELS if settings.pattern is None else [each.name for each in settings.entries()]
    for name in wanted[:2] if settings.quick else wanted:
        subject = Subject.of_entry(known[name])
        for target, (ours, others) in _TARGETS.items():
            yield from _compared(target, subject, ours, others)
    for subject in peers.spiking():
        yield from _compared("nir", subject, _nir, {"nirtorch": peers.nirtorch})


def _compared(target: str, subject: Subject, ours: Way, others: dict[str, Way]) -> Iterator[Row]:
    own = _measured(ours, subject)
    for peer, way in others.items():
        other = _measured(way, subject)
        ratio = None
        if own.seconds and other.seconds:
            ratio = Spread.exactly(own.seconds / other.seconds)
        note = f"ours: {own.said}; theirs: {other.said}"
        yield Row(target, subject.name, own.spread, peer, other.spread, ratio, note=note)


def _measured(way: Way, subject: Subject) -> _Result:
    try:
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                torch.manual_seed(0)
                start = _cpu()
                made = way(subject, Path(folder))
                seconds = _cpu() - start
                said = f"{made.size:,} bytes, {made.check()}"
    except Exception as error:
        return _Result(said=f"no: {refusal(error)[:160]}")
    return _Result(seconds, said)


def _cpu() -> float:
    """Return the CPU seconds of this process and of those that it has started."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _onnx(subject: Subject, folder: Path) -> Made:
    args, kwargs = subject.given
    path = folder / "m.onnx"
    ir = lg.to_ir(subject.model, args, kwargs)
    lg.save(ir, path, subject.model.state_dict(), args=args, kwargs=kwargs)
    return Made(path.stat().st_size, lambda: peers.error_in_runtime(subject, path, ir))


def _source(subject: Subject, folder: Path) -> Made:
    text = lg.to_source(lg.to_ir(subject.model, *subject.given))
    path = folder / "net.py"
    path.write_text(text)

    def check() -> str:
        model = peers.imported(path).Net()
        model.load_state_dict(subject.model.state_dict())
        return peers.bits(subject, model.eval())

    return Made(len(text.encode()), check)


def _view(subject: Subject, folder: Path) -> Made:
    path = folder / "m.html"
    args, kwargs = subject.given
    lg.view(lg.to_ir(subject.model, args, kwargs), path)
    return Made(path.stat().st_size, lambda: "opens in a browser, offline")


def _nir(subject: Subject, folder: Path) -> Made:
    path = folder / "m.nir"
    shape: Any = tuple(subject.given[0][0].shape)
    lg.save(lg.to_ir(subject.model), path, subject.model.state_dict(), args=[shape])
    return Made(path.stat().st_size, lambda: peers.same_steps(subject, lg.load_model(path)))


_TARGETS: dict[str, tuple[Way, dict[str, Way]]] = {
    "onnx": (_onnx, {"torch.onnx": peers.torch_onnx}),
    "source": (_source, {"fx.to_folder": peers.fx_to_folder, "pnnx": peers.pnnx}),
    "view": (
        _view,
        {
            "torchview": peers.torchview,
            "Model Explorer": peers.model_explorer,
            "Netron": peers.netron,
        },
    ),
}
