"""Activations, as layers and as functions."""

from __future__ import annotations

import math
from typing import Any

import layergraph as lg
from layergraph_onnx.call import Call
from layergraph_onnx.table import TABLE


def _setting(call: Call, name: str, position: int, default: Any) -> Any:
    """Return an argument of a function, or an attribute of a layer."""
    if call.step.layer is not None:
        return call.step.attributes.get(name, default)
    return call.arg(position, name, default)


@TABLE.functions("gelu")
@TABLE.layers("gelu")
def lower_gelu(call: Call) -> Any:
    """GELU."""
    approximate = _setting(call, "approximate", 1, "none")
    if call.backend.opset >= 20:
        return call.op("Gelu", call.x, approximate=approximate)
    dtype = call.out_dtype
    number = call.backend.constant
    if approximate == "tanh":
        return lg.decline("operators before opset 20 have no Gelu")
    scaled = call.op("Mul", call.x, number(math.sqrt(0.5), dtype))
    half = call.op("Mul", call.x, number(0.5, dtype))
    return call.op("Mul", half, call.op("Add", call.op("Erf", scaled), number(1, dtype)))


@TABLE.functions("silu")
@TABLE.layers("silu")
def lower_silu(call: Call) -> Any:
    """SiLU."""
    return call.op("Mul", call.x, call.op("Sigmoid", call.x))


@TABLE.functions("relu6")
@TABLE.layers("relu6")
def lower_relu6(call: Call) -> Any:
    """Keep numbers between 0 and 6."""
    bounds = (call.backend.constant(each, call.out_dtype) for each in (0, 6))
    return call.op("Clip", call.x, *bounds)


@TABLE.functions("hardtanh")
@TABLE.layers("hardtanh")
def lower_hardtanh(call: Call) -> Any:
    """Keep numbers between bounds."""
    low, high = _setting(call, "min_val", 1, -1.0), _setting(call, "max_val", 2, 1.0)
    bounds = (call.backend.constant(each, call.out_dtype) for each in (low, high))
    return call.op("Clip", call.x, *bounds)


@TABLE.functions("hardsigmoid")
@TABLE.layers("hardsigmoid")
def lower_hardsigmoid(call: Call) -> Any:
    """Hard sigmoid."""
    return call.op("HardSigmoid", call.x, alpha=1 / 6, beta=0.5)


@TABLE.functions("leaky_relu")
@TABLE.layers("leakyrelu")
def lower_leaky_relu(call: Call) -> Any:
    """Leaky ReLU."""
    slope = _setting(call, "negative_slope", 1, 0.01)
    return call.op("LeakyRelu", call.x, alpha=float(slope))


@TABLE.functions("elu")
@TABLE.layers("elu")
def lower_elu(call: Call) -> Any:
    """ELU."""
    return call.op("Elu", call.x, alpha=float(_setting(call, "alpha", 1, 1.0)))


@TABLE.functions("softmax")
@TABLE.layers("softmax")
def lower_softmax(call: Call) -> Any:
    """Softmax."""
    return _softmax(call, "Softmax")


@TABLE.functions("log_softmax")
@TABLE.layers("logsoftmax")
def lower_log_softmax(call: Call) -> Any:
    """Logarithm of the softmax."""
    return _softmax(call, "LogSoftmax")


def _softmax(call: Call, kind: str) -> Any:
    dim = _setting(call, "dim", 1, None)
    if dim is None:
        return lg.decline("it has no dim")
    return call.op(kind, call.operand(0, call.out_dtype), axis=dim)


@TABLE.functions("softplus")
@TABLE.layers("softplus")
def lower_softplus(call: Call) -> Any:
    """Softplus."""
    if (_setting(call, "beta", 1, 1), _setting(call, "threshold", 2, 20)) != (1, 20):
        return lg.decline("its beta is not 1, or its threshold not 20")
    return call.op("Softplus", call.x)


@TABLE.functions("glu")
@TABLE.layers("glu")
def lower_glu(call: Call) -> Any:
    """Gated linear unit."""
    axis = call.axis(_setting(call, "dim", 1, -1))
    a, b = call.op("Split", call.x, outputs=2, axis=axis, num_outputs=2)
    return call.op("Mul", a, call.op("Sigmoid", b))
