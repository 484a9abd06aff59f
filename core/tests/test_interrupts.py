"""An interrupt in the middle of a capture leaves the process, and the model, as they were."""

from __future__ import annotations

import _thread
import gc
import os
import random
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _python_dispatch as dispatch

import layergraph as lg
from layergraph.torch2ir.tracing.interruptible import in_thread

pytestmark = pytest.mark.slow

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(1))
        self.last = 0

    def forward(self, x):
        self.calls += 1
        self.last = 1
        with torch.no_grad():
            y = self.lin(x)
        with torch.autocast("cpu"):
            y = self.norm(y) + self.lin(x).float()
        return self.drop(y) + torch.rand(3) if self.training else y


class Deep(nn.Module):
    """A model deeper than Python's stack, so that it runs in a new thread."""

    def __init__(self):
        super().__init__()
        inner: nn.Module = Inner()
        for _ in range(60):
            inner = nn.Sequential(inner)
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


# The objects whose attributes a capture replaces while a model runs.
PATCHED = [
    *(torch, torch._C, torch.random, torch.Tensor, torch.autocast, torch.autograd.Function),
    *(nn.Module, torch.backends.ContextProp, torch.jit.ScriptFunction, threading.Thread, Inner),
]


def _members(holder):
    return {key: id(value) for key, value in vars(holder).items() if not key.startswith("__w")}


def _process():
    """Return the state of the process and of torch that a capture may change."""
    return {
        "members": [_members(each) for each in PATCHED],
        "names": [name for name in ("len", "isinstance", "range") if name in globals()],
        "function modes": torch.overrides._get_current_function_mode_stack(),
        "dispatch modes": dispatch._get_current_dispatch_mode_stack(),
        "flags": [value for name, value in vars(dispatch).items() if name.startswith("_is_in")],
        "seen": torch._C._get_torch_function_state(),
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "numbers": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1][0]),
        "environment": (type(os.environ._data), dict(os.environ)),
        "collects": gc.isenabled(),
        "recursion": sys.getrecursionlimit(),
        "threads": threading.active_count(),
    }


def _of(model):
    """Return the state of a model that a capture may change."""
    attributes = [{**vars(each)} for each in model.modules()]
    return (
        [(each["training"], each.get("last"), list(each)) for each in attributes],
        {key: value.tolist() for key, value in model.state_dict().items()},
    )


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line that runs in some files."""

    def __init__(self, line, files):
        self.left = line
        self.files = files
        self.done = 0

    def __call__(self, frame, event, _arg):
        if event == "line" and frame.f_code.co_filename.endswith(self.files):
            self.done += 1
            self.left -= 1
            if not self.left:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def _interrupted(convert, line, files=""):
    """Convert, interrupt at a line, and return whether that happened and how many lines ran."""
    interrupt, before = Interrupt(line, files), sys.gettrace()
    sys.settrace(interrupt)
    try:
        convert()
    except KeyboardInterrupt:
        return True, interrupt.done
    finally:
        sys.settrace(before)
    return False, interrupt.done


COUNT = 25


@pytest.mark.parametrize("args", [(X,), None], ids=["run", "traced"])
def test_an_interrupt_at_any_line(args):
    model = Inner() if args else nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.ReLU())

    def convert():
        return lg.to_ir(model, args)

    expected = convert()
    _, lines = _interrupted(convert, -1)
    process, members = _process(), _of(model)
    for line in range(1, lines, lines // COUNT):
        was_interrupted, done = _interrupted(convert, line)
        assert was_interrupted or done < line, f"the interrupt at line {line} is lost"
        assert _process() == process, f"after an interrupt at line {line}"
        assert _of(model) == members, f"after an interrupt at line {line}"
    assert convert() == expected


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = Inner()
    path = tmp_path_factory.mktemp("saved") / "m.safetensors"
    lg.save(lg.to_ir(model, (X,)), path, model.state_dict())
    return path


# Files of torch and of Python with the code that enters and leaves modes.
OF_MODES = ("torch/overrides.py", "torch/utils/_device.py", "/contextlib.py", "grad_mode.py")

BUILDS = {
    "without weights": lambda path: lg.to_torch(lg.load(path)),
    "without memory": lambda path: lg.to_torch(lg.load(path), device="meta"),
    "from a file": lg.load_model,
    "in a verification": lambda path: lg.verify(nn.Sequential(nn.Linear(3, 3)), (X,)),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_an_interrupt_while_a_model_is_built(saved, build):
    def process_now():
        return {**_process(), "numbers": None}  # a constructor may have drawn random numbers

    build(saved)
    _, lines = _interrupted(lambda: build(saved), -1, OF_MODES)
    process = process_now()
    for line in range(1, lines, max(1, lines // 150)):
        was_interrupted, done = _interrupted(lambda: build(saved), line, OF_MODES)
        assert was_interrupted or done < line, f"the interrupt at line {line} is lost"
        assert process_now() == process, f"after an interrupt at line {line}"


def test_an_error_after_an_interrupt_that_is_handled_is_told():
    for convert in (lambda: lg.to_ir(nn.Sequential(Fails()), (X,)), lambda: lg.to_torch({})):
        try:
            raise KeyboardInterrupt  # noqa: TRY301
        except KeyboardInterrupt:
            with pytest.raises(lg.errors.LayergraphError):
                convert()


class Fails(nn.Module):
    def forward(self, x):
        raise ValueError


class Stops(nn.Module):
    """Interrupts the main thread in the middle of a call, a given number of times."""

    times = 0

    def forward(self, x):
        while Stops.times:
            Stops.times -= 1
            _thread.interrupt_main()
            for _ in range(3000):
                x = x + 0
        return x


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_while_another_thread_captures(times):
    model = Deep()
    model.stops = Stops()
    model.inner = nn.Sequential(model.stops, model.inner)
    expected = lg.to_ir(model, (X,))
    process, members = _process(), _of(model)
    Stops.times = times
    with pytest.raises(KeyboardInterrupt):
        lg.to_ir(model, (X,))
    Stops.times = 0
    assert _process() == process
    assert _of(model) == members
    assert lg.to_ir(model, (X,)) == expected


@pytest.mark.parametrize("line", range(1, 40, 3))
def test_an_interrupt_while_another_thread_is_started(line):
    begun = []

    def interrupted():
        return in_thread(lambda: begun.append(1))

    was_interrupted, _ = _interrupted(interrupted, line)
    count = len(begun)
    time.sleep(0.01)
    assert len(begun) == count, "the thread goes on after the call"
    assert was_interrupted or begun


@pytest.mark.parametrize("region", [torch.no_grad, lambda: torch.autocast("cpu")])
def test_a_deep_model_runs_in_the_regions_around_the_call(region):
    class Asks(nn.Module):
        def forward(self, x):
            is_usual = torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
            return x - 1 if is_usual else x * 2

    model = nn.Sequential(Asks())
    for _ in range(60):
        model = nn.Sequential(model)
    with region():
        assert "mul" in str(lg.to_ir(model, (X,)))


def test_what_fails_to_be_undone_does_not_keep_the_rest():
    from layergraph.undo import undoing, undone

    told = []

    def fails():
        raise ZeroDivisionError

    def does():
        with undoing(lambda: told.append("first")), undoing(fails), undoing(lambda: told.append(2)):
            told.append("does")

    with pytest.raises(ZeroDivisionError):
        undone(does)
    assert told == ["does", 2, "first"]


def test_an_interrupt_leaves_captures_to_other_threads():
    model, files, line, interrupted = nn.Linear(3, 3), ("converter.py", "one_at_a_time.py"), 0, True
    while interrupted:
        line += 1
        interrupted, _ = _interrupted(lambda: lg.to_ir(model), line, files)
        other = threading.Thread(target=lambda: lg.to_ir(nn.Linear(3, 3)), daemon=True)
        other.start()
        other.join(60)
        assert not other.is_alive(), f"interrupted at line {line}, no other thread can capture"
    assert line > 10
