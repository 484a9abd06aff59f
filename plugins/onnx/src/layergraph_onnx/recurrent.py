"""Recurrent layers: LSTM, GRU and RNN."""

from __future__ import annotations

from typing import Any

import layergraph as lg
from layergraph_onnx.call import Call, is_value
from layergraph_onnx.table import TABLE
from layergraph_onnx.target import Value
from layergraph_shapes import TensorMeta

# The gates of torch, in the order of ONNX.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


@TABLE.layers("lstm gru rnn")
def lower_recurrent(call: Call) -> Any:
    """A stack of recurrent layers, in one direction or both."""
    module: Any = call.step.module
    if not isinstance(call.meta(), TensorMeta) or call.rank() != 3:
        return lg.decline("its input is a packed sequence, or has no batch")
    if getattr(module, "proj_size", 0):
        return lg.decline("it has a projection")
    kind = call.step.kind.upper()
    x = call.op("Transpose", call.x, perm=[1, 0, 2]) if module.batch_first else call.x
    states = _states(call.arg(1, "hx"))
    last: list[tuple[Value, ...]] = []
    for level in range(module.num_layers):
        x, found = _level(call, kind, level, x, states)
        last.append(found)
    if module.batch_first:
        x = call.op("Transpose", x, perm=[1, 0, 2])
    ends = [_joined(call, list(each)) for each in zip(*last, strict=True)]
    return x, tuple(ends) if kind == "LSTM" else ends[0]


def _states(given: Any) -> list[Value]:
    if given is None:
        return []
    return [given] if is_value(given) else list(given)


def _joined(call: Call, values: list[Value]) -> Value:
    return values[0] if len(values) == 1 else call.op("Concat", *values, axis=0)


def _level(
    call: Call, kind: str, level: int, x: Value, states: list[Value]
) -> tuple[Value, tuple[Value, ...]]:
    """Return the output of one layer of the stack, and its last states."""
    module: Any = call.step.module
    both = 2 if module.bidirectional else 1
    suffixes = [f"l{level}{each}" for each in ("", "_reverse")[:both]]

    def weights(name: str) -> Value:
        listed = [_gated(call, kind, f"{name}_{each}") for each in suffixes]
        return _joined(call, [call.unsqueeze(each, [0]) for each in listed])

    bias = None
    if module.bias:
        pairs = [
            call.op(
                "Concat",
                *(_gated(call, kind, f"{name}_{each}") for name in ("bias_ih", "bias_hh")),
                axis=0,
            )
            for each in suffixes
        ]
        bias = _joined(call, [call.unsqueeze(each, [0]) for each in pairs])
    begin = [call.cut(each, 0, level * both, (level + 1) * both) for each in states]
    attributes: dict[str, Any] = {
        "hidden_size": module.hidden_size,
        "direction": "bidirectional" if both == 2 else "forward",
    }
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    if kind == "RNN" and module.nonlinearity == "relu":
        attributes["activations"] = ["Relu"] * both
    found = call.op(
        kind,
        x,
        weights("weight_ih"),
        weights("weight_hh"),
        bias,
        None,
        *begin,
        outputs=3 if kind == "LSTM" else 2,
        **attributes,
    )
    ordered = call.op("Transpose", found[0], perm=[0, 2, 1, 3])
    return call.op("Reshape", ordered, call.ints([0, 0, -1])), found[1:]


def _gated(call: Call, kind: str, name: str) -> Any:
    """Return a tensor with its gates in the order of ONNX."""
    module: Any = call.step.module
    tensor: Any = call.weight(name)
    order = _GATES[kind]
    if len(order) == 1:
        return tensor
    size = module.hidden_size
    parts = [call.cut(tensor, 0, each * size, (each + 1) * size) for each in order]
    return call.op("Concat", *parts, axis=0)
