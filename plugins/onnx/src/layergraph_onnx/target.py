"""The target ``onnx``: a back end that writes graphs and functions of onnx-ir."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
import torch

from layergraph.errors import ArgumentError
from layergraph.ir.values import leaves, map_leaves
from layergraph_backends import Backend, Step
from layergraph_backends.backend import Tensors
from layergraph_backends.plain import UNKNOWN
from layergraph_onnx.dtypes import to_onnx
from layergraph_onnx.scope import Form, Scope, form_of, used
from layergraph_shapes import Either, TensorMeta

DOMAIN = "layergraph"
"""The domain of the functions."""

PATH = "layergraph.path"
TYPE = "layergraph.type"

Value = onnx_ir.Value


@dataclass(frozen=True, eq=False)
class Maybe:
    """A value that is None if a decision goes the other way.

    Attributes:
        condition: the decision.
        expected: the answer for which there is a value.
        value: the value.
    """

    condition: Value
    expected: bool
    value: Value


@dataclass(frozen=True, eq=False)
class FunctionCall:
    """A call of a composite.

    Attributes:
        name: the name of the function.
        inputs: the inputs of its body.
        outputs: the values of its body that it returns.
        scope: the body.
        result: what the composite returns, with values of the body.
    """

    name: str
    inputs: list[Value]
    outputs: list[Value]
    scope: Scope
    result: Any


def _values(step: Step) -> list[Value]:
    """Return the values among the arguments of a step."""
    found: list[Value] = []
    mapped(lambda each: found.append(each) or each, (step.args, step.kwargs))  # type: ignore[func-returns-value]
    return found


def mapped(function: Callable[[Value], Value], value: Any) -> Any:
    """Return nested values with a function applied to each value of ONNX."""

    def leaf(each: Any) -> Any:
        if isinstance(each, Maybe):
            return Maybe(function(each.condition), each.expected, function(each.value))
        return function(each) if isinstance(each, Value) else each

    return map_leaves(leaf, value)


class Onnx(Backend):
    """Collects the graph and the functions of a model.

    A composite becomes a function. Composites whose bodies are equal, apart from names, become one
    function; the tensors of the model that they read are inputs of it.

    Args:
        opset: the version of the operators.

    Attributes:
        opset: the version of the operators.
        scope: the body that is being written.
        inputs: the inputs of the model.
        functions: the functions by their form.
        initializers: the tensors that graphs read, by key.
        guards: the guards that the file does not check.
    """

    target = "onnx"
    computes_both_ways = True
    repeats = True

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.scope = Scope()
        self.inputs: list[Value] = []
        self.functions: dict[Form, onnx_ir.Function] = {}
        self.initializers: dict[str, Value] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self._enclosing: list[Scope] = []
        self._step: Step | None = None
        self._keys: dict[Any, str] = {}
        self._titles: dict[str, int] = {}
        self._calls: dict[Step, FunctionCall] = {}

    # --- what the walk calls ---

    def input(self, name: str, meta: Any) -> Value:
        """Return an input of the graph."""
        if meta is None:
            raise ArgumentError(
                f"an ONNX file states the shape of the input {name!r}: give args=(…), as for a "
                'call, or shapes such as args=(("batch", 3, 224, 224),)'
            )
        if not isinstance(meta, TensorMeta):
            meta = TensorMeta((), torch.int64)
        value = self.number(Value(name=self.scope.name(name)), meta.dtype)
        value.dtype = to_onnx(meta.dtype)
        value.shape = onnx_ir.Shape(meta.shape)
        self.inputs.append(value)
        return value

    def tensor(self, key: str, tensor: torch.Tensor) -> Value:
        """Return the initializer of a tensor, or its input in a function."""
        # Tensors in the same memory are one initializer.
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        known = self._keys.setdefault(place, key) if tensor.numel() else key
        self.tensors.setdefault(known, tensor)
        scopes = [*self._enclosing, self.scope]
        for each in scopes:
            each.keys[key] = known
        return self._weight(known, scopes)

    def _weight(self, key: str, scopes: Sequence[Scope]) -> Value:
        *outer, scope = scopes
        if key not in scope.weights:
            if outer:
                scope.weights[key] = scope.input(self._weight(key, outer))
            else:
                value = Value(name=scope.name(key))
                value.dtype = to_onnx(self.tensors[key].dtype)
                value.shape = onnx_ir.Shape(self.tensors[key].shape)
                scope.weights[key] = self.initializers[key] = value
        return scope.weights[key]

    def composite(self, step: Step, lower: Callable[..., Any]) -> Any:
        """Return the outputs of a call of a function; write the function at its first call."""
        outer, scope = self.scope, Scope()
        self._enclosing.append(outer)
        self.scope = scope
        try:
            args, kwargs = mapped(scope.input, step.args), mapped(scope.input, step.kwargs)
            result = lower(*args, **kwargs)
        finally:
            self.scope = self._enclosing.pop()
        if any(leaf is UNKNOWN for leaf in leaves(result)):
            return result
        found = {inner: given for given, inner in scope.inputs.items()}
        computed: list[Value] = []
        mapped(lambda each: computed.append(each) or each, result)  # type: ignore[func-returns-value]
        outputs = [each for each in dict.fromkeys(computed) if each not in found]
        call = FunctionCall("", [], outputs, scope, result)
        if outputs:
            call = self._function(step, scope, outputs, result)
        self._calls[step] = call
        return self._called(step, call, found)

    def repeated(self, step: Step, first: Step, tensors: Tensors) -> Any:
        """Return the outputs of another call of the function that the first call has written."""
        call = self._calls.get(first)
        if call is None:
            return None
        pairs = list(zip(_values(first), _values(step), strict=True))
        metas = leaves(step.arg_metas, step.kwarg_metas)
        has_numbers = any(isinstance(each, str | Either) for each in metas)
        # Handlers ask a number for its dtype, and the description of a tensor.
        if has_numbers and any(one.meta != other.meta for one, other in pairs):
            return None
        outside = {inner: outer for outer, inner in call.scope.inputs.items()}
        for key, known in call.scope.keys.items():
            pairs.append((outside[call.scope.weights[known]], self.tensor(*tensors(key))))
        same = dict(pairs)
        # What was one tensor in the first call is one in this call, and what was two is two.
        if len({*pairs}) != len(same) or len({*same.values()}) != len(same):
            return None
        found = {inner: same[outer] for inner, outer in outside.items() if outer in same}
        return self._called(step, call, found)

    def _called(self, step: Step, call: FunctionCall, found: dict[Value, Value]) -> Any:
        """Write a call of a function, and return its result.

        Args:
            step: the call.
            call: the function.
            found: the values that stand outside for inputs of the function.
        """
        if call.outputs:
            given = [found[inner] for inner in call.inputs]
            with self.at(step):
                made = self.op(call.name, *given, outputs=len(call.outputs), domain=DOMAIN)
            listed = [made] if len(call.outputs) == 1 else made
            found = found | dict(zip(call.outputs, listed, strict=True))
        return mapped(found.__getitem__, call.result)

    def _function(
        self, step: Step, scope: Scope, outputs: list[Value], result: Any
    ) -> FunctionCall:
        """Return the function with a body, which this writes if there is none yet."""
        nodes = scope.needed(outputs)
        read = {each for node in nodes for each in used(node)}
        inputs = [inner for inner in scope.inputs.values() if inner in read]
        form = form_of(inputs, nodes, outputs)
        if form not in self.functions:
            graph = onnx_ir.Graph(inputs, outputs, nodes=nodes, opset_imports=self.imports)
            self.functions[form] = onnx_ir.Function(
                DOMAIN, self._title(step), graph=graph, attributes=()
            )
        return FunctionCall(self.functions[form].name, inputs, outputs, scope, result)

    def _title(self, step: Step) -> str:
        """Return the name of a function: the place of its first call, without numbers."""
        words = [each for each in step.node.implementation.split(".") if not each.isdigit()]
        title = re.sub(r"\W", "_", "_".join(words)) or "layer"
        count = self._titles[title] = self._titles.get(title, 0) + 1
        return title if count == 1 else f"{title}_{count}"

    # --- what handlers call ---

    @property
    def imports(self) -> dict[str, int]:
        """The opset version of each domain."""
        return {"": self.opset, DOMAIN: 1}

    @contextmanager
    def at(self, step: Step) -> Iterator[None]:
        """Name the nodes written in this ``with`` block after a step."""
        before, self._step = self._step, step
        try:
            yield
        finally:
            self._step = before

    def op(
        self, kind: str, *inputs: Any, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """Write a node, and return its output; a tuple of them if there are several.

        Args:
            kind: the name of the operator.
            inputs: values; None for an omitted one.
            outputs: the number of outputs.
            domain: the domain of the operator.
            attributes: the attributes; None omits an attribute.
        """
        base = kind if self._step is None else self._step.name
        scope = self.scope
        made = [Value(name=scope.name(base)) for _ in range(outputs)]
        node = onnx_ir.Node(
            domain,
            kind,
            list(inputs),
            [
                onnx_ir.convenience.convert_attribute(name, value)
                for name, value in attributes.items()
                if value is not None
            ],
            outputs=made,
            name=made[0].name,
        )
        self.add(node)
        return made[0] if outputs == 1 else tuple(made)

    def add(self, node: onnx_ir.Node) -> None:
        """Add an existing node."""
        step = self._step
        if step is not None:
            layer = step.node.implementation if step.layer is not None else ""
            node.metadata_props[PATH] = layer.removeprefix(f"{step.graph}.") or step.name
            node.metadata_props[TYPE] = step.kind
        self.scope.nodes.append(node)

    def number(self, value: Value, dtype: torch.dtype) -> Value:
        """Record the dtype of a value for handlers."""
        value.meta["dtype"] = dtype
        return value

    def constant(self, numbers: Any, dtype: torch.dtype) -> Value:
        """Return a constant: the same one for the same numbers.

        Args:
            numbers: a number, nested lists of numbers, or a tensor.
            dtype: its dtype.
        """
        tensor = torch.as_tensor(numbers).detach().to(dtype).contiguous()
        key = dtype, tuple(tensor.shape), tensor.view(-1).view(torch.uint8).numpy().tobytes()
        known = self.scope.constants
        if key not in known:
            value = onnx_ir.tensor(tensor.clone())
            if dtype.is_floating_point or dtype in (torch.int64, torch.int32, torch.bool):
                value = onnx_ir.tensor(_array(tensor), dtype=to_onnx(dtype))
            known[key] = self.number(self.op("Constant", value=value), dtype)
        return known[key]


def _array(tensor: torch.Tensor) -> Any:
    if tensor.dtype is torch.bfloat16:
        return onnx_ir.tensor(tensor).numpy()
    try:
        return np.array(tensor.numpy())
    except TypeError:
        return onnx_ir.tensor(tensor).numpy()
