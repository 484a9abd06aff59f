"""An ``Ir`` as a model of ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir
import torch

from layergraph.errors import ArgumentError
from layergraph.ir import Ir, Record
from layergraph_backends import lower
from layergraph_onnx.dtypes import to_onnx
from layergraph_onnx.scope import used
from layergraph_onnx.target import DOMAIN, Onnx, Value
from layergraph_shapes import Either, TensorMeta

OPSETS = range(18, 24)
"""The versions of the operators that this package writes."""

DEFAULT_OPSET = 20
_IR_VERSION = 10


def onnx_model(
    ir: Ir,
    state: Mapping[str, torch.Tensor] | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    opset: int = DEFAULT_OPSET,
) -> tuple[onnx_ir.Model, tuple[str, ...]]:
    """Return a model as one of onnx-ir, in evaluation mode, and the guards that it does not check.

    Args:
        ir: the structure.
        state: the weights.
        args: the positional arguments of a call: tensors, or shapes, in which a name is a dynamic
            size.
        kwargs: the keyword arguments, in the same form.
        opset: the version of the operators.

    Raises:
        ArgumentError: the arguments do not fit, or the opset is not one that this package writes.
        LoweringError: ONNX lacks layers or functions of the model.
    """
    if opset not in OPSETS:
        raise ArgumentError(
            f"opset is {opset!r}; give one from {OPSETS.start} to {OPSETS.stop - 1}"
        )
    backend = Onnx(opset)
    lowered = lower(ir, backend, state, args, kwargs)
    outputs = list(_outputs(backend, lowered.value, lowered.meta))
    graph = onnx_ir.Graph(
        backend.inputs,
        outputs,
        nodes=backend.scope.needed(outputs),
        initializers=_with_values(backend, outputs),
        opset_imports=backend.imports,
        name="model",
    )
    model = onnx_ir.Model(
        graph,
        ir_version=_IR_VERSION,
        producer_name="layergraph",
        functions=_called(graph, backend.functions.values()),
    )
    return model, lowered.guards


def _outputs(backend: Onnx, value: Any, meta: Any) -> Iterator[Value]:
    """Yield a value for each tensor of the model's result, with its output name."""
    taken: set[Value] = {*backend.inputs, *backend.initializers.values()}
    for path, leaf, described in _named(value, meta, ""):
        if not isinstance(leaf, Value):
            continue
        output = backend.op("Identity", leaf) if leaf in taken else leaf
        taken.add(output)
        output.name = backend.scope.name(path or "output")
        _describe(output, described, leaf)
        yield output


def _describe(output: Value, meta: Any, origin: Value) -> None:
    """Set the dtype and shape of an output."""
    if isinstance(meta, Either):
        ways = [each for each in (meta.if_true, meta.if_false) if isinstance(each, TensorMeta)]
        if len(ways) == 2 and len(ways[0].shape) == len(ways[1].shape):
            pairs = zip(ways[0].shape, ways[1].shape, strict=True)
            output.shape = onnx_ir.Shape([a if a == b else None for a, b in pairs])
        if ways:
            output.dtype = to_onnx(ways[0].dtype)
    elif isinstance(meta, TensorMeta):
        output.dtype, output.shape = to_onnx(meta.dtype), onnx_ir.Shape(meta.shape)
    else:  # a number
        output.dtype = to_onnx(origin.meta.get("dtype", torch.int64))
        output.shape = onnx_ir.Shape(())


def _named(value: Any, meta: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    value, meta = map(_fields, (value, meta))
    if isinstance(value, dict):
        # An output of transformers has no key for a field that is None.
        by_name = meta if isinstance(meta, dict) else dict(zip(value, meta, strict=True))
        inside = [(str(key), each, by_name.get(key)) for key, each in value.items()]
    elif isinstance(value, tuple | list):
        numbers = range(len(value))
        inside = [(str(at), each, own) for at, each, own in zip(numbers, value, meta, strict=True)]
        path = path or "output"
    else:
        yield path, value, meta
        return
    for key, each, own in inside:
        yield from _named(each, own, f"{path}_{key}" if path else key)


def _fields(value: Any) -> Any:
    """Return the fields of a record by name; of one with items, such as an ordered dict, those."""
    if not isinstance(value, Record):
        return value
    return value.fields["items"] if [*value.fields] == ["items"] else value.fields


def _with_values(backend: Onnx, outputs: list[Value]) -> list[Value]:
    """Return the initializers that nodes read, with their numbers."""
    read = {each for node in backend.scope.needed(outputs) for each in used(node)}
    found = []
    for key, value in backend.initializers.items():
        if value in read:
            tensor = backend.tensors[key].detach().cpu().contiguous()
            value.const_value = onnx_ir.tensor(tensor, name=key)
            found.append(value)
    return found


def _called(graph: onnx_ir.Graph, functions: Any) -> list[onnx_ir.Function]:
    """Return the functions that a graph calls, directly or not."""
    known = {each.name: each for each in functions}
    found: dict[str, onnx_ir.Function] = {}
    pending: list[Any] = [graph]
    while pending:
        for node in pending.pop():
            if node.domain == DOMAIN and node.op_type not in found:
                found[node.op_type] = known[node.op_type]
                pending.append(known[node.op_type])
    return list(found.values())
