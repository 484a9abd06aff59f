"""The peers of the back ends: tools that export models to the same targets."""

# ruff: noqa: ARG001

from __future__ import annotations

import copy
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from zoo.difference import differences
from zoo.entry import Entry, Inputs
from zoo.onnx_files import _by_runtime, _error, _leaves, _named_inputs, _run, _tensors


@dataclass(frozen=True)
class Made:
    """The result of a tool.

    Attributes:
        size: its bytes.
        check: says how it compares with the original; it is called when the clock has stopped.
    """

    size: int
    check: Callable[[], str]


@dataclass(frozen=True)
class Subject:
    """A model, its inputs, and fresh inputs for the comparison."""

    name: str
    model: nn.Module
    given: Inputs
    fresh: Inputs

    @classmethod
    def of_entry(cls, entry: Entry) -> Subject:
        batch, length = entry.sizes.batch, entry.sizes.length
        return cls(
            entry.name,
            entry.model(),
            entry.inputs(batch, length, 1),
            entry.inputs(batch, length, 2),
        )


def spiking() -> Iterator[Subject]:
    """Yield networks that NIR supports: layers, and cases that users of nirtorch report."""
    import snntorch

    torch.manual_seed(0)
    shared = nn.Linear(8, 8)
    convolution = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    leaky = snntorch.Leaky(torch.full((4,), 0.9), threshold=torch.ones(4), init_hidden=True)
    for name, model, shape in (
        ("two layers", nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), (2, 8)),
        ("a convolution", convolution, (2, 1, 6, 6)),
        ("spiking", nn.Sequential(nn.Linear(8, 4), leaky), (2, 8)),
        ("a layer called twice", nn.Sequential(shared, shared), (2, 8)),
        ("without bias", nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 2)), (2, 8)),
    ):  # fmt: skip
        given, fresh = torch.randn(shape), torch.randn(shape)
        yield Subject(name, model.eval(), ((given,), {}), ((fresh,), {}))


# --- comparisons ---


def bits(subject: Subject, model: Callable[..., Any]) -> str:
    """Return a text: whether a model computes the same bits on fresh inputs."""
    one, other = (_run(each, subject.fresh) for each in (subject.model, model))
    return "same bits" if not any(differences(one, other)) else f"error {_error(one, other):.0e}"


def error_in_runtime(subject: Subject, path: Path, ir: Any = None) -> str:
    """Return a text: the error of onnxruntime's outputs relative to the model's."""
    import onnx

    expected = _run(subject.model, subject.fresh)
    if ir is None:
        args, kwargs = subject.fresh
        tensors = [each for _, each in (*_leaves(args, "a"), *_leaves(kwargs, "k"))]
        names = [each.name for each in onnx.load(str(path), load_external_data=False).graph.input]
        found = _by_runtime(path, lambda: dict(zip(names, tensors, strict=True)))
    else:
        found = _by_runtime(path, lambda: _named_inputs(ir, subject.fresh))
    count = len(onnx.load(str(path), load_external_data=False).functions)
    return f"error {_error(expected, found):.0e}, {count} functions"


def same_steps(subject: Subject, model: Callable[..., Any]) -> str:
    """Return a text: whether a model computes the same in three time steps."""
    original, (x,) = copy.deepcopy(subject.model), subject.fresh[0]
    state: tuple[Any, ...] = ()
    other = []
    with torch.no_grad():
        expected = [original(x) for _ in range(3)]
        for _ in range(3):
            found = model(x, *state)
            if isinstance(found, tuple):  # the caller keeps the state
                found, *state = found  # type: ignore[assignment]
            other.append(found)
    if all(torch.equal(*pair) for pair in zip(expected, other, strict=True)):
        return "same bits"
    return f"error {_error(expected, other):.0e}"


def imported(path: Path) -> ModuleType:
    """Import a file, or the package of a folder."""
    name = f"made_{abs(hash(str(path)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress all output, also of child processes."""
    before = os.dup(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        with _warned_of_nothing():
            yield
    finally:
        os.dup2(before, 1)
        os.close(before)


@contextmanager
def _warned_of_nothing() -> Iterator[None]:
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield


# --- peers ---


class _Positional(nn.Module):
    """A model with tensors as positional arguments and results.

    Args:
        model: the model.
        given: the arguments of a call, whose tensors are replaced.
    """

    def __init__(self, model: nn.Module, given: Inputs) -> None:
        super().__init__()
        self.model = model
        self._given = [given]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the model."""
        rest = iter(tensors)
        args, kwargs = tree_map_only(torch.Tensor, lambda _: next(rest), self._given[0])
        return tuple(_tensors(self.model(*args, **kwargs)))


def torch_onnx(subject: Subject, folder: Path) -> Made:
    args, kwargs = subject.given
    path = folder / "m.onnx"
    with _quiet():
        torch.onnx.export(subject.model, args, path, kwargs=kwargs, dynamo=True)
    size = sum(each.stat().st_size for each in folder.iterdir())
    return Made(size, lambda: error_in_runtime(subject, path))


def fx_to_folder(subject: Subject, folder: Path) -> Made:
    import torch.fx

    traced = torch.fx.symbolic_trace(subject.model)
    with _quiet():
        traced.to_folder(folder / "net", "Net")
    path = folder / "net" / "module.py"

    def check() -> str:
        return f"{bits(subject, imported(path).Net().eval())}, its weights and some layers pickled"

    return Made(path.stat().st_size, check)


def pnnx(subject: Subject, folder: Path) -> Made:
    import pnnx as tool

    model = _Positional(subject.model, subject.given)
    base = str(folder / "net")
    with _quiet():
        tool.export(model, f"{base}.pt", tuple(_tensors(subject.given)), fp16=False)
    path = folder / "net_pnnx.py"

    def check() -> str:
        made = imported(path).Model().float().eval()
        return bits(subject, lambda *args, **kwargs: made(*_tensors((args, kwargs))))

    return Made(path.stat().st_size, check)


def torchview(subject: Subject, folder: Path) -> Made:
    import torchview as tool

    args, kwargs = subject.given
    graph = tool.draw_graph(subject.model, list(args) or kwargs, expand_nested=True, depth=20)
    (folder / "m.dot").write_text(graph.visual_graph.source)
    return Made((folder / "m.dot").stat().st_size, lambda: "dot, to be drawn by Graphviz")


def model_explorer(subject: Subject, folder: Path) -> Made:
    from dataclasses import asdict

    from model_explorer.pytorch_exported_program_adapter_impl import (
        PytorchExportedProgramAdapterImpl,
    )

    args, kwargs = subject.given
    with _quiet():
        program = torch.export.export(subject.model, args, kwargs, strict=False)
        found = PytorchExportedProgramAdapterImpl(
            program, {"const_element_count_limit": 16}
        ).convert()
    text = json.dumps([asdict(each) for each in found["graphs"]])
    return Made(len(text), lambda: "JSON, for its server")


def netron(subject: Subject, folder: Path) -> Made:
    raise NotImplementedError("it draws files of others in its own server, and writes none")


def nirtorch(subject: Subject, folder: Path) -> Made:
    """Export and import by snntorch, which passes the table of its layers to nirtorch."""
    import nir
    from snntorch.export_nir import export_to_nir
    from snntorch.import_nir import import_from_nir

    (x,), _ = subject.given
    graph = export_to_nir(copy.deepcopy(subject.model), x, ignore_dims=[0])
    path = folder / "m.nir"
    nir.write(path, graph)
    return Made(path.stat().st_size, lambda: same_steps(subject, import_from_nir(nir.read(path))))
