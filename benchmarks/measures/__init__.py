"""The measures: a name, a module with a function ``rows``, and a description."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

from benchmarks.results import Row
from benchmarks.settings import Settings

Measure = Callable[[Settings], Iterator[Row]]

MEASURES = {
    "startup": "import, and a converter that is ready",
    "capture": "from a model to its IR",
    "memory": "a capture whose run is long: peak memory and seconds, in runs without gradients",
    "decisions": "all ways of a model that decides, against one",
    "loops": "a loop of 1,000 turns: its capture, its IR, its run",
    "steps": "the IR to a dict and to a file, and back",
    "rebuild": "from the IR to a model",
    "roundtrip": "through a file and back, against others",
    "weights": "files of a gigabyte: seconds and peak memory",
    "forward": "the rebuilt model against the original",
    "compiled": "the same under torch.compile",
    "scaling": "up to 100,000 layers, in four shapes",
    "rewriting": "matches found, and seconds against nodes, beside other matchers",
    "onnx": "a BERT of 12 layers as an ONNX file, beside torch.onnx",
    "targets": "ONNX, source, pages and NIR, beside the tools that make the same",
    "index": "10,000 files by their structure: files a second",
    "depth": "how deep modules may be nested",
    "large": "1.3 B parameters with weights, 70 B on the meta device",
    "sharded": "a model over 1, 2 and 4 processes, in parts, beside DCP and safetensors alone",
    "gpu": "on a GPU, if there is one",
}


def measure(name: str) -> Measure:
    """Import the module of a measure with its peers, and return its function."""
    rows: Measure = importlib.import_module(f"benchmarks.measures.{name}").rows
    return rows
