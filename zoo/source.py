"""Models as Python source, run in another interpreter, which cannot import layergraph."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import layergraph as lg
from zoo.entry import Inputs

# What the other interpreter runs. It answers each task with True and a value, or False and a text.
_PROGRAM = """
import importlib.util, pickle, sys, warnings


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("layergraph"):
            raise ImportError(f"{name} is not to be imported here")


sys.meta_path.insert(0, Blocked())
answers, sys.stdout = sys.stdout.buffer, sys.stderr
warnings.simplefilter("ignore")
import torch

torch.set_num_threads(1)
models = {}


def opened(name, path, state):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    models[name] = module.Net()
    models[name].load_state_dict(state)
    return dict(models[name].state_dict())


def run(name, args, kwargs):
    torch.manual_seed(0)
    with torch.no_grad():
        return models[name](*args, **kwargs)


def closed(name):
    models.pop(name, None)
    sys.modules.pop(name, None)


while True:
    kind, *given = pickle.load(sys.stdin.buffer)
    try:
        answer = pickle.dumps((True, {"open": opened, "run": run, "close": closed}[kind](*given)))
    except Exception as error:
        answer = pickle.dumps((False, f"{type(error).__name__}: {error}"))
    answers.write(answer)
    answers.flush()
"""


@functools.cache
def _interpreter() -> subprocess.Popen[bytes]:
    """Start the other interpreter; it ends with this one, as its input ends."""
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _asked(*task: Any) -> Any:
    process = _interpreter()
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(pickle.dumps(task))
        process.stdin.flush()
        worked, answer = pickle.load(process.stdout)  # noqa: S301 our own process
    except (OSError, EOFError) as error:
        _interpreter.cache_clear()
        raise RuntimeError("the other interpreter ended") from error
    if not worked:
        raise RuntimeError(answer)
    return answer


class Elsewhere(nn.Module):
    """A model that runs in the other interpreter.

    Args:
        source: the source of the model.
        state: its weights.
    """

    def __init__(self, source: str, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "net.py"
        path.write_text(source)
        # Here too, because the classes of outputs are unpickled by name.
        self._name = f"net_{abs(hash(self._folder.name))}"
        spec = importlib.util.spec_from_file_location(self._name, path)
        assert spec is not None  # noqa: S101
        assert spec.loader is not None  # noqa: S101
        module = sys.modules[self._name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._state = _asked("open", self._name, str(path), state)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        """The state as the other interpreter has it."""
        return self._state

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run there."""
        return _asked("run", self._name, args, kwargs)

    def close(self) -> None:
        """Free the memory there."""
        sys.modules.pop(self._name, None)
        with contextlib.suppress(RuntimeError):
            _asked("close", self._name)

    def __del__(self) -> None:
        self.close()


def through_source(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, float]:
    """The model that the other interpreter makes of the source of a model."""
    start = time.perf_counter()
    ir = lg.to_ir(model, *inputs)
    seconds = time.perf_counter() - start
    return Elsewhere(lg.to_source(ir), dict(model.state_dict())), seconds
