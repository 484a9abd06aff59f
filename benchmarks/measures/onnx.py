"""A BERT of 12 layers as an ONNX file: seconds, nodes and functions, compared with torch.onnx.

Both export the same model in the same process, by turns. Seconds are CPU seconds of this process.
The export starts from an IR. With the capture it does what torch.onnx does, which captures too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers
from torch import nn

import layergraph as lg
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.timing import Spread

AT_MOST = 0.1
_MODEL = "BERT, 12 layers"


def rows(settings: Settings) -> Iterator[Row]:
    hidden = 64 if settings.quick else 768
    config = transformers.BertConfig(
        hidden_size=hidden, intermediate_size=4 * hidden, num_attention_heads=hidden // 64
    )
    model = transformers.BertModel(config).eval()
    ids = torch.randint(0, 1000, (2, 16))
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.onnx", Path(folder) / "theirs.onnx"
        # Ours first: it imports what both need. The second time counts.
        captured, exported, peers = [], [], []
        for _ in range(2):
            ir, seconds = _timed(lambda: lg.to_ir(model, (ids,)))
            captured.append(seconds)
            export = partial(lg.save, ir, ours, model.state_dict(), args=(ids,))
            exported.append(_timed(export)[1])
            peers.append(_timed(lambda: _theirs(model, ids, theirs))[1])
        peer = Spread.exactly(peers[-1])
        for what, taken, most in (
            ("export", exported[-1], AT_MOST),
            ("capture and export", captured[-1] + exported[-1], None),
        ):
            ratio = Spread.exactly(taken / peer.median)
            yield Row(what, _MODEL, Spread.exactly(taken), "torch.onnx", peer, ratio, most)
        yield Row("the first of a process", _MODEL, Spread.exactly(captured[0] + exported[0]))
        for what, count in (("nodes", _nodes), ("functions", _functions)):
            found, other = count(ours), count(theirs)
            yield Row(
                what, _MODEL, Spread.exactly(found), "torch.onnx", Spread.exactly(other), unit=""
            )


def _timed(way: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = way()
    return result, time.process_time() - start


def _theirs(model: nn.Module, ids: torch.Tensor, path: Path) -> None:
    with redirect_stdout(StringIO()):
        torch.onnx.export(model, (ids,), path, dynamo=True)


def _nodes(path: Path) -> int:
    """Return the number of nodes of the graph and the functions."""
    file = onnx.load(str(path), load_external_data=False)
    return len(file.graph.node) + sum(len(each.node) for each in file.functions)


def _functions(path: Path) -> int:
    return len(onnx.load(str(path), load_external_data=False).functions)
