"""The fallback handler: torch.onnx exports one step alone, and we copy the nodes.

The exporter needs a call with tensors, so the shapes of the arguments have to be known.
"""

from __future__ import annotations

import ast
import functools
import operator
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, NamedTuple

import onnx_ir
import torch
from torch import nn
from torch.utils import _pytree as pytree

import layergraph as lg
from layergraph.errors import first_line
from layergraph.ir.values import leaves, map_leaves
from layergraph_backends import Step
from layergraph_backends.plain import of_torch
from layergraph_onnx.call import merged
from layergraph_onnx.table import MAYBE, has_maybe
from layergraph_onnx.target import Onnx, Value
from layergraph_rewrite.effects import effect_of
from layergraph_shapes import TensorMeta

_CACHED = 512
_FIRST = 7


@dataclass(frozen=True)
class _Slot:
    """The place of a tensor among the arguments."""

    number: int
    meta: TensorMeta


class _Exported(NamedTuple):
    """The exported graph of one step."""

    graph: onnx_ir.Graph
    leaves: list[Any]
    spec: Any


@dataclass(frozen=True)
class _Output:
    """The place of a tensor in the result."""

    number: int


class _Alone(nn.Module):
    """A step as a separate model, with its tensors as inputs.

    Args:
        run: calls the step with its tensors by name and its arguments.
        args: the positional arguments, with slots for tensors.
        kwargs: the keyword arguments, with slots for tensors.
        record: receives the leaves of the result and its structure.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        args: Any,
        kwargs: Any,
        record: Callable[[tuple[list[Any], Any]], None],
    ) -> None:
        super().__init__()
        self._run = [run]  # in a list, so that the layer is no submodule
        self._args, self._kwargs = args, kwargs
        self._record = record

    def forward(self, given: list[torch.Tensor], own: dict[str, torch.Tensor]) -> Any:
        """Call the step."""

        def fill(leaf: Any) -> Any:
            return given[leaf.number] if isinstance(leaf, _Slot) else leaf

        args, kwargs = map_leaves(fill, self._args), map_leaves(fill, self._kwargs)
        found, spec = pytree.tree_flatten(self._run[0](own, args, kwargs))
        tensors = [each for each in found if isinstance(each, torch.Tensor)]
        numbers = iter(range(len(tensors)))
        listed = [
            _Output(next(numbers)) if isinstance(each, torch.Tensor) else each for each in found
        ]
        self._record((listed, spec))
        return tensors


def lower_exported(step: Step, backend: Onnx) -> Any:
    """Return the result of a step exported by torch.onnx; decline if the export fails."""
    if has_maybe(step):
        return lg.decline(MAYBE)
    run = _runner(step)
    if run is None:
        return lg.decline(f"ONNX has no operator for {step.kind}")
    slots: list[Value] = []
    refused: list[str] = []

    def place(value: Any, meta: Any) -> Any:
        if not isinstance(value, Value):
            return of_torch(value)
        if not isinstance(meta, TensorMeta):
            refused.append("it takes a number that the sizes or values of tensors decide")
            return value
        slots.append(value)
        return _Slot(len(slots) - 1, meta)

    args = _paired(place, step.args, merged(step.arg_metas))
    kwargs = _paired(place, step.kwargs, merged(step.kwarg_metas))
    if refused:
        return lg.decline(refused[0])
    if not slots and not step.tensors and not effect_of(step.node, {}):
        return _constants(run({}, args, kwargs), backend)
    try:
        found = _export(step, run, args, kwargs, backend.opset)
    except Exception as error:
        return lg.decline(f"torch.onnx cannot export it: {first_line(error)}")
    own = [backend.tensor(step.key(name), each) for name, each in step.tensors.items()]
    with backend.at(step):
        outputs = _spliced(found.graph, [*slots, *own], backend)
    values = [outputs[each.number] if isinstance(each, _Output) else each for each in found.leaves]
    return pytree.tree_unflatten(values, found.spec)


def _constants(result: Any, backend: Onnx) -> Any:
    """Return the constant results of a function of plain values, such as torch.eye."""
    found, spec = pytree.tree_flatten(result)
    values = [
        backend.constant(each, each.dtype) if isinstance(each, torch.Tensor) else each
        for each in found
    ]
    return pytree.tree_unflatten(values, spec)


def _paired(function: Callable[[Any, Any], Any], value: Any, meta: Any) -> Any:
    """Apply a function to nested values and their descriptions, which have the same structure."""
    if isinstance(value, dict):
        return {key: _paired(function, each, meta[key]) for key, each in value.items()}
    if isinstance(value, tuple | list) and isinstance(meta, tuple | list):
        inside = [_paired(function, *both) for both in zip(value, meta, strict=True)]
        return tuple(inside) if isinstance(value, tuple) else inside
    if isinstance(value, slice) and isinstance(meta, slice):
        ends = ("start", "stop", "step")
        return slice(
            *[_paired(function, getattr(value, each), getattr(meta, each)) for each in ends]
        )
    return function(value, meta)


def _runner(step: Step) -> Callable[..., Any] | None:
    """Return a function of the layer's tensors, the positional and the keyword arguments."""
    if step.module is not None:
        module = step.module
        return lambda own, args, kwargs: torch.func.functional_call(module, own, args, kwargs)
    if step.kind.startswith("layergraph."):
        return None
    if step.kind == "operator.setitem":
        return lambda _, args, kwargs: _set(*args, **kwargs)
    return lambda _, args, kwargs: step.compute(*args, **kwargs)


def _set(tensor: torch.Tensor, key: Any, value: Any) -> torch.Tensor:
    changed = tensor.clone()
    changed[key] = value
    return changed


# --- the export ---

_EXPORTS: dict[Any, _Exported] = {}


def _export(step: Step, run: Callable[..., Any], args: Any, kwargs: Any, opset: int) -> _Exported:
    own = step.tensors
    shapes = tuple((name, tuple(each.shape), each.dtype) for name, each in own.items())
    key = repr((step.kind, step.attributes, args, kwargs, shapes, opset))
    if key in _EXPORTS:
        return _EXPORTS[key]
    slots = [each for each in leaves(args, kwargs) if isinstance(each, _Slot)]
    names: dict[str, int] = {}
    given = [_example(each.meta, names).clone() for each in slots]
    dynamic = [
        {
            axis: torch.export.Dim.DYNAMIC
            for axis, size in enumerate(each.meta.shape)
            if isinstance(size, str)
        }
        for each in slots
    ]
    # Not an attribute, because torch.export restores attributes after a trace.
    results: list[tuple[list[Any], Any]] = []
    alone = _Alone(run, args, kwargs, results.append).eval()
    with _quiet():
        program = torch.export.export(
            alone,
            (given, dict(own)),
            strict=False,
            dynamic_shapes={"given": dynamic, "own": {name: {} for name in own}},
        )
        model = _model(program, opset)
    found = _Exported(model.graph, *results[-1])
    if len(_EXPORTS) >= _CACHED:
        _EXPORTS.clear()
    _EXPORTS[key] = found
    return found


def _model(program: Any, opset: int) -> onnx_ir.Model:
    """Return the optimized ONNX model of a program in an opset version."""
    from onnxscript import optimizer, version_converter

    model = _translated(program, opset)
    optimizer.optimize(model, inline=True)
    if model.opset_imports.get("", opset) != opset:
        version_converter.convert_version(model, opset)
    return model


def _translated(program: Any, opset: int) -> onnx_ir.Model:
    try:
        registry = _registry(opset)
        from torch.onnx._internal.exporter._core import exported_program_to_ir
    except (ImportError, AttributeError):  # another release of torch: the public way is slower
        made = torch.onnx.export(program, dynamo=True, optimize=False, opset_version=opset)
        return made.model  # type: ignore[union-attr]
    return exported_program_to_ir(program, registry=registry)


@functools.cache
def _registry(opset: int) -> Any:
    """Return the table of torch.onnx, which takes seconds to make."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return ONNXRegistry.from_torchlib(opset_version=opset)


@contextmanager
def _quiet() -> Any:
    with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def _example(meta: TensorMeta, names: dict[str, int]) -> torch.Tensor:
    return torch.zeros([_size(each, names) for each in meta.shape], dtype=meta.dtype)


def _size(size: int | str, names: dict[str, int]) -> int:
    """Return an example number for a size, which may be an expression of names."""
    return (
        size if isinstance(size, int) else int(_computed(ast.parse(size, mode="eval").body, names))
    )


_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def _computed(tree: ast.expr, names: dict[str, int]) -> Any:
    if isinstance(tree, ast.Name):
        return names.setdefault(tree.id, _FIRST + 4 * len(names))
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return tree.value
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_computed(tree.operand, names)
    if isinstance(tree, ast.BinOp) and type(tree.op) in _ARITHMETIC:
        given = _computed(tree.left, names), _computed(tree.right, names)
        return _ARITHMETIC[type(tree.op)](*given)
    raise ValueError(f"there is no example for the size {ast.unparse(tree)}")


# --- taking over the nodes ---


def _spliced(graph: onnx_ir.Graph, given: list[Value], backend: Onnx) -> list[Value]:
    """Add a copy of the nodes of a graph, and return the values of its outputs."""
    copy = graph.clone()
    swapped: dict[Value, Value] = dict(zip(copy.inputs, given, strict=True))
    for each in list(copy.initializers.values()):
        if each.uses() or each in copy.outputs:
            tensor = torch.from_numpy(each.const_value.numpy().copy())  # type: ignore[union-attr]
            swapped[each] = backend.constant(tensor, tensor.dtype)
    for old, new in swapped.items():
        if old is not new:
            onnx_ir.convenience.replace_all_uses_with(old, new)
    outputs = [swapped.get(each, each) for each in copy.outputs]
    nodes = list(copy)
    copy.outputs.clear()
    for node in nodes:
        copy.remove(node)
        node.metadata_props.clear()
        for each in node.outputs:
            each.name = backend.scope.name(node.op_type.lower())
            each.shape, each.type = None, None
        node.name = node.outputs[0].name
        backend.add(node)
    return outputs
