"""Peak memory and seconds of a capture of a long run, compared with one run.

Each variant runs in a separate process to measure its peak memory. The run has gradients off; the
capture has gradients on, as users do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

import layergraph as lg
from benchmarks.fresh import forget_peak, peak_memory, run_function
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.timing import Spread

MEMORY_AT_MOST = 1.2
SECONDS_AT_MOST = 1.3
MIB = 2**20
WAYS = {"one mode": "own", "both modes": "both"}


def rows(settings: Settings) -> Iterator[Row]:
    for name in ("sam small",) if settings.quick else ("sam small", "sam vit-b"):
        peak, seconds = run_function(taken, name, None)
        for way, modes in WAYS.items():
            own_peak, own_seconds = run_function(taken, name, modes)
            yield Row(
                f"memory, {way}",
                name,
                Spread.exactly(own_peak / MIB),
                "a run",
                Spread.exactly(peak / MIB),
                Spread.exactly(own_peak / peak),
                MEMORY_AT_MOST,
                "MiB",
            )
            yield Row(
                f"seconds, {way}",
                name,
                Spread.exactly(own_seconds),
                "a run",
                Spread.exactly(seconds),
                Spread.exactly(own_seconds / seconds),
                SECONDS_AT_MOST,
            )


def taken(name: str, modes: Any) -> tuple[int, float]:
    """Return the peak growth of memory in a run or capture, and its CPU seconds.

    Args:
        name: the model.
        modes: the modes to capture; None: only run the model.
    """
    model, image = _model(name)
    small, tiny = _model("sam tiny")
    # Warm up both.
    lg.to_ir(small, (tiny,))
    with torch.no_grad():
        model(image)
    before, begin = forget_peak(), time.process_time()
    if modes is None:
        with torch.no_grad():
            model(image)
    else:
        lg.to_ir(model, (image,), modes=modes)
    seconds = time.process_time() - begin
    return peak_memory() - before, seconds


def _model(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    size, config = {
        "sam tiny": (32, {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}),
        "sam small": (
            768,
            {
                "hidden_size": 384,
                "num_attention_heads": 6,
                "num_hidden_layers": 6,
                "mlp_dim": 1536,
                "global_attn_indexes": [2, 5],
            },
        ),
        "sam vit-b": (1024, {}),
    }[name]
    torch.manual_seed(0)
    model = SamVisionEncoder(SamVisionConfig(image_size=size, **config)).eval()
    return model, torch.randn(1, 3, size, size)
