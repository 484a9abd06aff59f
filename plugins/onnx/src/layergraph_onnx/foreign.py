"""Files of other programs: an IR with layers for operators that are layers.

The graph becomes a module of torch.fx, which layergraph converts as any other module. Generated
code contains no names of the file: this module makes the names of nodes and layers.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import fx, nn

import layergraph as lg
from layergraph.ir import Ir
from layergraph_files.parse_errors import ParseError
from layergraph_onnx.operators import LAYERS, Operator, function_call, linear

_MOST = 100_000
_SAFE = re.compile(r"[^0-9A-Za-z_]")


def from_foreign(
    model: onnx.ModelProto, tensors: dict[str, torch.Tensor]
) -> tuple[Ir, dict[str, torch.Tensor]]:
    """Return the structure of a model that another program wrote, and its state dict.

    Args:
        model: the model.
        tensors: its initializers.

    Raises:
        ParseError: an operator is no layer; the error names the node.
    """
    if len(model.graph.node) > _MOST:
        raise ParseError(None, f"it has more than {_MOST} nodes", "give a smaller model")
    reader = _Reader(model.graph, tensors)
    forward = type(fx.GraphModule(reader.layers, reader.graph())).forward
    # Not a GraphModule, which runs code of torch.fx around forward.
    module = reader.layers.eval()
    module.__class__ = type("OnnxModel", (nn.Module,), {"forward": forward})
    return lg.to_ir(module), module.state_dict()


class _Reader:
    """Reads one graph.

    Args:
        proto: the graph.
        tensors: its initializers.

    Attributes:
        layers: the layers, by names that are safe in code.
    """

    def __init__(self, proto: onnx.GraphProto, tensors: dict[str, torch.Tensor]) -> None:
        self._proto = proto
        self._tensors = tensors
        self._values: dict[str, Any] = dict(tensors)
        self._graph = fx.Graph()
        self._fused: set[str] = set()
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in proto.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {each.name for each in proto.output}
        self.layers = nn.Module()

    def graph(self) -> fx.Graph:
        """Return the graph in the terms of torch.fx."""
        for each in self._proto.input:
            if each.name not in self._tensors:
                self._values[each.name] = self._graph.placeholder(self._safe(each.name, "input"))
        for number, node in enumerate(self._proto.node):
            if node.output and node.output[0] not in self._fused:
                self._read(node, number)
        results = tuple(self._value(each.name, "the outputs") for each in self._proto.output)
        self._graph.output(results[0] if len(results) == 1 else results)
        return self._graph

    def _read(self, node: onnx.NodeProto, number: int) -> None:
        place = f"node {node.name or number!r}, {node.op_type}"
        settings = {each.name: _attribute(each, place) for each in node.attribute}
        given = [self._value(name, place) if name else None for name in node.input]
        operator = Operator(node.op_type, place, settings, given)
        if node.domain not in ("", "ai.onnx"):
            raise operator.refuse(f"it is of the domain {node.domain!r}")
        self._values[node.output[0]] = self._made(operator, node, number)

    def _made(self, operator: Operator, node: onnx.NodeProto, number: int) -> Any:
        kind = operator.kind
        if kind == "Constant" and isinstance(operator.get("value", None), torch.Tensor):
            return operator.settings["value"]
        if kind == "Identity":
            return operator.inputs[0]
        layer = self._linear(operator, node)
        if layer is None and kind in LAYERS and not _is_constant(operator):
            layer = LAYERS[kind](operator)
        if layer is None:
            function, args, kwargs = function_call(operator)
            if any(isinstance(each, torch.Tensor) for each in args):
                args = tuple(self._kept(each, number, at) for at, each in enumerate(args))
            return self._graph.call_function(function, args, kwargs)
        name = self._safe(node.name or kind.lower(), kind.lower())
        self.layers.add_module(name, layer)
        computed = next(each for each in operator.inputs if isinstance(each, fx.Node))
        return self._graph.call_module(name, (computed,))

    def _linear(self, operator: Operator, node: onnx.NodeProto) -> nn.Module | None:
        """Return a linear layer for a product with a matrix of the file, and a following Add."""
        if operator.kind != "MatMul" or not isinstance(operator.inputs[0], fx.Node):
            return None
        weight = operator.inputs[1]
        if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
            return None
        readers = self._readers.get(node.output[0], [])
        bias = None
        is_inner = len(readers) == 1 and node.output[0] not in self._outputs
        if is_inner and readers[0].op_type == "Add":
            other = [each for each in readers[0].input if each != node.output[0]]
            found = self._tensors.get(other[0]) if other else None
            if found is not None and tuple(found.shape) == (weight.shape[1],):
                bias = found
                self._fused.add(readers[0].output[0])
                node.output[0] = readers[0].output[0]
        return linear(weight.T.contiguous(), bias)

    def _kept(self, value: Any, number: int, at: int) -> Any:
        """Return a tensor of the file as a buffer of the model."""
        if not isinstance(value, torch.Tensor):
            return value
        name = self._safe(f"tensor_{number}_{at}", "tensor")
        self.layers.register_buffer(name, value)
        return self._graph.get_attr(name)

    def _value(self, name: str, place: str) -> Any:
        if name not in self._values:
            raise ParseError(None, f"{place}: {name!r} is not computed before", "mend the file")
        return self._values[name]

    def _safe(self, name: str, kind: str) -> str:
        """Return a unique name that is safe in code."""
        safe = _SAFE.sub("_", name).strip("_")[:100] or kind
        if not safe.isidentifier() or keyword.iskeyword(safe):
            safe = f"{kind}_{safe}"
        taken = {*dir(self.layers), *(each.name for each in self._graph.nodes)}
        found, count = safe, 0
        while found in taken:
            count += 1
            found = f"{safe}_{count}"
        return found


def _is_constant(operator: Operator) -> bool:
    return not any(isinstance(each, fx.Node) for each in operator.inputs)


def _attribute(attribute: onnx.AttributeProto, place: str) -> Any:
    from layergraph_onnx.load import tensor

    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return tensor(attribute.t, Path(place))
    if attribute.type in (kinds.INT, kinds.FLOAT, kinds.STRING, kinds.INTS, kinds.FLOATS):
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value if isinstance(value, int | float) else list(value)
    return None
