"""Running written modules: here, and in an interpreter that cannot import layergraph."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

import layergraph as lg
from layergraph.known_objects import parts_of

_PROGRAM = """
import importlib.util, pickle, sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("layergraph"):
            raise ImportError(f"{name} is not to be imported here")


sys.meta_path.insert(0, Blocked())
import torch

spec = importlib.util.spec_from_file_location("net", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
state, calls, training = pickle.loads(sys.stdin.buffer.read())
model = module.Net()
model.load_state_dict(state)
if training is not None:
    model.train(training)
found = []
for args in calls:
    torch.manual_seed(0)
    output = model(*args)
    grads = []
    if isinstance(output, torch.Tensor) and output.requires_grad:
        output.sum().backward()
        grads = [each.grad for each in model.parameters()]
        model.zero_grad()
        output = output.detach()
    found.append((output, grads))
assert not any(name.startswith("layergraph") for name in sys.modules)
sys.stdout.buffer.write(pickle.dumps(found))
"""


def in_new_interpreter(
    source: str,
    folder: Path,
    state: Mapping[str, torch.Tensor],
    calls: list[tuple[Any, ...]],
    training: bool | None = None,
) -> list[tuple[Any, list[torch.Tensor]]]:
    """Return, for each call, the output and the gradients of the parameters."""
    path = folder / "net.py"
    path.write_text(source)
    given = pickle.dumps((dict(state), calls, training))
    done = subprocess.run(
        [sys.executable, "-I", "-c", _PROGRAM, str(path)],
        input=given,
        capture_output=True,
        check=False,
    )
    assert not done.returncode, done.stderr.decode()
    return pickle.loads(done.stdout)


def imported(source: str) -> ModuleType:
    """Return the module of a source. A capture of it needs no file."""
    module = ModuleType("written")
    sys.modules["written"] = module
    exec(compile(source, "<written>", "exec"), vars(module))
    return module


def written(model: nn.Module, *args: Any, **options: Any) -> nn.Module:
    """Return the model that the source of a model makes, with its weights."""
    ir = lg.to_ir(model, args, **options) if args else lg.to_ir(model, **options)
    return loaded(lg.to_source(ir), model)


def loaded(source: str, model: nn.Module) -> nn.Module:
    """Return the model of a source, with the weights of another."""
    made: nn.Module = imported(source).Net()
    made.load_state_dict(model.state_dict())
    return made


def same(one: Any, other: Any) -> bool:
    """Return whether two outputs are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        fits = isinstance(other, torch.Tensor) and one.dtype is other.dtype
        return fits and torch.equal(one, other)
    apart = parts_of(one)  # of an object of Python, numpy or torch
    if apart is not None:
        return type(one) is type(other) and same(apart, parts_of(other))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(each, other[key]) for key, each in one.items())
    return bool(one == other)
