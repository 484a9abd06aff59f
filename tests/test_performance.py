"""The work of layergraph is linear in a model's size.

Instead of measuring time, the tests count the lines of Python that run and the calls of C
functions, which are the same on any machine. The bounds are the counts at the time of writing, plus
a quarter.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import layergraph as lg
from benchmarks.measures.compiled import counts
from benchmarks.measures.forward import pair
from benchmarks.shapes import SHAPES, example
from benchmarks.timing import exponent
from zoo import all_entries

pytestmark = pytest.mark.slow

SIZES = (100, 300, 800)
MOST = 1.1
SLACK = 1.25
# Room for a few small objects, in bytes for each layer.
ROOM = 16

# By step and shape, lines and calls for each further layer. Capture by running describes each
# result for the replay, so that it need not keep it.
WORK = {
    "chain": {
        "capture without inputs": 1_125,
        "capture by running": 1_602,
        "to dict": 155,
        "from dict": 374,
        "check": 305,
        "flatten": 649,
        "save": 525,
        "load": 720,
        "rebuild": 998,
        "load model": 1_654,
    },
    "nested": {
        "capture without inputs": 1_082,
        "capture by running": 1_176,
        "to dict": 204,
        "from dict": 607,
        "check": 627,
        "flatten": 1_047,
        "save": 1_285,
        "load": 1_245,
        "rebuild": 1_010,
        "load model": 1_985,
    },
    "wide": {
        "capture without inputs": 1_290,
        "capture by running": 1_730,
        "to dict": 209,
        "from dict": 490,
        "check": 432,
        "flatten": 823,
        "save": 671,
        "load": 911,
        "rebuild": 2_160,
        "load model": 3_141,
    },
    "shared": {
        "capture without inputs": 707,
        "capture by running": 1_260,
        "to dict": 18,
        "from dict": 70,
        "check": 73,
        "flatten": 430,
        "save": 153,
        "load": 132,
        "rebuild": 358,
        "load model": 404,
    },
}
# The same for the peak of memory, in bytes.
MEMORY = {
    "chain": {
        "capture without inputs": 5_942,
        "capture by running": 6_199,
        "to dict": 994,
        "from dict": 1_598,
        "check": 804,
        "flatten": 1_797,
        "save": 1_784,
        "load": 628,
        "rebuild": 3_665,
        "load model": 5_507,
    },
    "nested": {
        "capture without inputs": 6_982,
        "capture by running": 7_477,
        "to dict": 1_675,
        "from dict": 2_543,
        "check": 919,
        "flatten": 1_635,
        "save": 4_257,
        "load": 4_119,
        "rebuild": 3_334,
        "load model": 6_877,
    },
    "wide": {
        "capture without inputs": 6_569,
        "capture by running": 7_090,
        "to dict": 1_279,
        "from dict": 1_948,
        "check": 996,
        "flatten": 2_334,
        "save": 2_451,
        "load": 1_994,
        "rebuild": 15_522,
        "load model": 18_293,
    },
    "shared": {
        "capture without inputs": 1_564,
        "capture by running": 2_141,
        "to dict": 231,
        "from dict": 345,
        "check": 203,
        "flatten": 1_666,
        "save": 491,
        "load": 0,
        "rebuild": 4_569,
        "load model": 4_963,
    },
}


def _steps(shape: str, size: int, folder: Path) -> dict[str, Callable[[], object]]:
    model = SHAPES[shape](size).eval()
    ir = lg.to_ir(model)
    form = ir.to_dict()
    structure, whole = folder / f"{size}.json", folder / f"{size}.safetensors"
    lg.save(ir, structure)
    lg.save(ir, whole, model.state_dict())
    return {
        "capture without inputs": lambda: lg.to_ir(model),
        "capture by running": lambda: lg.to_ir(model, (example(),)),
        "to dict": ir.to_dict,
        "from dict": lambda: lg.Ir.from_dict(form),
        "check": lambda: lg.ir.check(ir),
        "flatten": ir.flatten,
        "save": lambda: lg.save(ir, folder / f"saved-{size}.json"),
        # The default limit would reserve memory for the longest text, and hide the cost of reading.
        "load": lambda: lg.load(structure, limits=lg.Limits(text_bytes=2_000_000)),
        "rebuild": lambda: lg.to_torch(ir, device="meta"),
        "load model": lambda: lg.load_model(whole),
    }


def _work(action: Callable[[], object]) -> int:
    """Return the number of lines that run plus that of calls of C functions."""
    count = 0

    def called(_frame, event, _arg):
        nonlocal count
        count += event == "c_call"

    def ran(_frame, event, _arg):
        nonlocal count
        count += event == "line"
        return ran

    before = sys.getprofile(), sys.gettrace()
    sys.setprofile(called)
    sys.settrace(ran)
    try:
        action()
    finally:
        sys.setprofile(before[0])
        sys.settrace(before[1])
    return count


def _memory(action: Callable[[], object]) -> int:
    """Return the peak of Python's memory in bytes, minus the memory before.

    The result is the smaller of two runs: a table that only grows, such as torch.fx's table of
    compiled code, doubles its memory in some run, no matter which run adds the entry.
    """
    return min(_peak(action), _peak(action))


def _peak(action: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        kept = action()
        peak = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return peak


class Counted:
    """The cost of each step for models of one shape, by size."""

    def __init__(self, shape: str, folder: Path) -> None:
        self.work: dict[str, list[int]] = {}
        self.memory: dict[str, list[int]] = {}
        for size in SIZES:
            for step, action in _steps(shape, size, folder).items():
                action()  # the first run sets things up, and is not counted
                self.work.setdefault(step, []).append(_work(action))
                if size >= SIZES[-2]:
                    self.memory.setdefault(step, []).append(_memory(action))


def _for_one_more(counts: list[int]) -> float:
    """Return the cost of one more layer, which excludes constant costs."""
    return (counts[-1] - counts[-2]) / (SIZES[-1] - SIZES[-2])


@pytest.fixture(scope="module", params=SHAPES)
def counted(request, tmp_path_factory):
    return request.param, Counted(request.param, tmp_path_factory.mktemp(request.param))


def test_work_grows_with_the_number_of_layers(counted):
    _, found = counted
    exponents = {
        step: exponent(zip(SIZES, counts, strict=True)) for step, counts in found.work.items()
    }
    assert {step: grows for step, grows in exponents.items() if grows > MOST} == {}


def test_a_layer_takes_no_more_work_than_it_did(counted):
    shape, found = counted
    each = {step: _for_one_more(counts) for step, counts in found.work.items()}
    assert each.keys() == WORK[shape].keys()
    assert {step: did for step, did in each.items() if did > SLACK * WORK[shape][step]} == {}


def test_a_layer_takes_no_more_memory_than_it_did(counted):
    shape, found = counted
    each = {step: _for_one_more(counts) for step, counts in found.memory.items()}
    assert each.keys() == MEMORY[shape].keys()
    assert {
        step: did for step, did in each.items() if did > SLACK * MEMORY[shape][step] + ROOM
    } == {}


def _searches(action: Callable[[], object]) -> int:
    """Return the number of Python's garbage collections."""
    found = []
    gc.collect()
    gc.callbacks.append(lambda phase, _: found.append(phase))
    try:
        kept = action()
    finally:
        del gc.callbacks[-1]
    del kept
    return found.count("start")


def test_no_garbage_is_looked_for_while_an_ir_is_made_that_stays(tmp_path):
    steps = _steps("chain", SIZES[-1], tmp_path)
    stays = ("from dict", "flatten", "load", "load model")
    searches = {step: _searches(steps[step]) for step in stays}
    assert {step: count for step, count in searches.items() if count > 1} == {}


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/resnet18",
        "torchvision/vit_b_32",
        "transformers/ViTModel",
        "transformers/BertModel",
        "transformers/LlamaModel",
        "transformers/GPT2Model",
    ],
)
def test_it_compiles_into_as_many_graphs_as_the_original(name):
    (entry,) = [each for each in all_entries() if each.name == name]
    original, rebuilt, args, kwargs = pair(entry)
    assert counts(rebuilt, args, kwargs) == counts(original, args, kwargs)


def test_plugins_are_loaded_once_and_not_before_a_converter_is_made():
    code = """
import collections, json
import importlib_metadata

loaded = collections.Counter()
load = importlib_metadata.EntryPoint.load

def counting(self):
    loaded[f"{self.group}: {self.name}"] += 1
    return load(self)

importlib_metadata.EntryPoint.load = counting
import layergraph, torch
before = len(loaded)
from layergraph.torch2ir import Torch2Ir
from layergraph.ir2torch import Ir2Torch
for _ in range(3):
    Torch2Ir(), Ir2Torch()
layergraph.to_torch(layergraph.to_ir(torch.nn.Linear(1, 1)))
print(json.dumps([before, loaded]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, loaded = json.loads(done.stdout)
    assert before == 0
    assert len(loaded) >= 15
    assert set(loaded.values()) == {1}
