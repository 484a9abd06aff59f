"""A BERT of 12 layers as an ONNX file: seconds, nodes and functions, compared with torch.onnx.

Both export the same model in the same process, one after the other. Seconds are CPU seconds of this
process. Ours include the capture, because torch.onnx captures too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

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
        # Ours first: it imports what both need.
        taken = Spread.exactly(_seconds(lambda: _ours(model, ids, ours)))
        again = Spread.exactly(_seconds(lambda: _ours(model, ids, ours)))
        peer = Spread.exactly(_seconds(lambda: _theirs(model, ids, theirs)))
        ratio = Spread.exactly(taken.median / peer.median)
        yield Row("capture and export", _MODEL, taken, "torch.onnx", peer, ratio, AT_MOST)
        yield Row("capture and export again", _MODEL, again)
        for what, count in (("nodes", _nodes), ("functions", _functions)):
            found, other = count(ours), count(theirs)
            yield Row(
                what, _MODEL, Spread.exactly(found), "torch.onnx", Spread.exactly(other), unit=""
            )


def _seconds(way: Callable[[], object]) -> float:
    start = time.process_time()
    way()
    return time.process_time() - start


def _ours(model: nn.Module, ids: torch.Tensor, path: Path) -> None:
    lg.save(lg.to_ir(model, (ids,)), path, model.state_dict(), args=(ids,))


def _theirs(model: nn.Module, ids: torch.Tensor, path: Path) -> None:
    with redirect_stdout(StringIO()):
        torch.onnx.export(model, (ids,), path, dynamo=True)


def _nodes(path: Path) -> int:
    """Return the number of nodes of the graph and the functions."""
    file = onnx.load(str(path), load_external_data=False)
    return len(file.graph.node) + sum(len(each.node) for each in file.functions)


def _functions(path: Path) -> int:
    return len(onnx.load(str(path), load_external_data=False).functions)
