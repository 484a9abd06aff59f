"""Write each model of the zoo as an ONNX file, and compare onnxruntime with the original."""

from __future__ import annotations

import gc
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

import layergraph as lg
from zoo.difference import differences
from zoo.entry import Entry, Inputs
from zoo.run import prepare

TOLERANCE = 1e-5
"""The largest difference that needs no comparison with torch.onnx, relative to the numbers."""


@dataclass
class OnnxOutcome:
    """The result for one model.

    Attributes:
        name: the name of the model.
        family: its family.
        error: the largest difference in an output, relative to its largest number; None if the
            file could not be written or run.
        peer: the same for the file of torch.onnx; None if it was not asked for, or failed.
        reason: why there is no error.
        seconds: how long capture and export took.
        functions: the number of functions in the file.
    """

    name: str
    family: str
    error: float | None = None
    peer: float | None = None
    reason: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    functions: int = 0

    @property
    def passed(self) -> bool:
        """True if the file gives what the original gives, or errs no more than torch.onnx's."""
        if self.error is None or math.isnan(self.error):
            return False
        return self.error <= TOLERANCE or (self.peer is not None and self.error <= self.peer)


def onnx_outcomes(entries: Iterable[Entry], *, peer: bool) -> Iterator[OnnxOutcome]:
    """Yield the outcome of each model.

    Args:
        entries: the models.
        peer: whether to compare with torch.onnx, too, where the difference is not small.
    """
    prepare()
    for entry in entries:
        outcome = OnnxOutcome(entry.name, entry.family)
        try:
            with tempfile.TemporaryDirectory() as folder:
                _compare(entry, Path(folder), outcome, peer)
        except Exception as error:
            outcome.reason = f"{type(error).__name__}: {error}"
        gc.collect()
        yield outcome


def _compare(entry: Entry, folder: Path, outcome: OnnxOutcome, peer: bool) -> None:
    model = entry.model()
    given = entry.inputs(entry.sizes.batch, entry.sizes.length, 1)
    fresh = entry.inputs(entry.sizes.batch, entry.sizes.length, 2)
    expected = _run(model, fresh)
    start = time.perf_counter()
    ir = lg.to_ir(model, *given)
    outcome.seconds["capture"] = time.perf_counter() - start
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lg.save(ir, folder / "m.onnx", model.state_dict(), args=given[0], kwargs=given[1])
    outcome.seconds["export"] = time.perf_counter() - start
    outcome.functions = _checked(folder / "m.onnx")
    found = _by_runtime(folder / "m.onnx", lambda: _named_inputs(ir, fresh))
    outcome.error = _error(expected, found)
    if peer and outcome.error > TOLERANCE:
        outcome.peer = _peer(model, given, fresh, expected, folder / "peer.onnx")


def _checked(path: Path) -> int:
    import onnx

    onnx.checker.check_model(str(path), full_check=True)
    return len(onnx.load(str(path), load_external_data=False).functions)


def _run(model: nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        result = model(*inputs[0], **inputs[1])
    return list(_tensors(result))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif hasattr(value, "items"):
        for each in value.values():
            yield from _tensors(each)
    elif hasattr(value, "to_legacy_cache"):
        yield from _tensors(value.to_legacy_cache())


def _by_runtime(path: Path, inputs: Callable[[], dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    given = inputs()
    feeds = {each.name: given[each.name].numpy() for each in session.get_inputs()}
    return [torch.from_numpy(each) for each in session.run(None, feeds)]


def _named_inputs(ir: lg.Ir, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Return the tensors of a call by the names that the file has for them."""
    names = [*ir[ir.root].parameters().values()] or ["input"]
    found = dict(_leaves(inputs[1], ""))
    for name, value in zip(names, inputs[0], strict=False):
        found |= dict(_leaves(value, name))
    return found


def _leaves(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, tuple | list):
        pairs = enumerate(value)
    for key, each in pairs:
        yield from _leaves(each, f"{name}_{key}" if name else str(key))


def _error(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Return the largest difference of two lists of tensors, relative to their numbers.

    Raises:
        ValueError: they have other shapes or dtypes.
    """
    if len(expected) != len(found):
        raise ValueError(f"the file gives {len(found)} tensors, and the original {len(expected)}")
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            raise ValueError(
                f"the file gives {other.dtype} {tuple(other.shape)}, and the original "
                f"{one.dtype} {tuple(one.shape)}"
            )
        if not any(differences(one, other)):
            continue
        a, b = one.double(), other.double()
        if not torch.equal(a.isfinite(), b.isfinite()):
            return math.inf
        kept = a.isfinite()
        a, b = a[kept], b[kept]
        if a.numel():
            worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)))
    return worst


def _peer(
    model: nn.Module, given: Inputs, fresh: Inputs, expected: Sequence[torch.Tensor], path: Path
) -> float | None:
    """Return the error of the file that torch.onnx writes; None if it writes none."""
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, given[0], path, kwargs=given[1], dynamo=True)
        tensors = [each for _, each in (*_leaves(fresh[0], "a"), *_leaves(fresh[1], "k"))]
        import onnx

        names = [each.name for each in onnx.load(str(path)).graph.input]
        return _error(expected, _by_runtime(path, lambda: dict(zip(names, tensors, strict=True))))
    except Exception:
        return None


def as_line(outcome: OnnxOutcome) -> str:
    """Return an outcome as a line of JSON."""
    return json.dumps(asdict(outcome) | {"passed": outcome.passed})
