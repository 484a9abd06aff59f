"""Decisions and guards: the file computes both ways, and an ``If`` selects a result."""

from __future__ import annotations

from typing import Any

import onnx_ir
import torch

import layergraph as lg
from layergraph.control_flow import guards
from layergraph.errors import AssumptionError
from layergraph.ir.values import parts, rebuilt
from layergraph_onnx.call import Call, is_value
from layergraph_onnx.table import TABLE
from layergraph_onnx.target import Maybe, Value


@TABLE.functions("truth")
def lower_truth(call: Call) -> Any:
    """Return whether a number is not 0."""
    value = call.x
    if not is_value(value):
        return bool(value)
    return call.backend.number(
        call.op("Reshape", call.cast(value, torch.bool), call.ints([])), torch.bool
    )


@TABLE.functions("holds")
def lower_holds(call: Call) -> Any:
    """Return whether a guard lets a value pass."""
    name, value, *given = call.step.args
    if not is_value(value):
        try:
            getattr(guards, name)(value, *given)
        except AssumptionError:
            return False
        return True
    if name == "assume_truth":
        found = call.op("Reshape", call.cast(value, torch.bool), call.ints([]))
        return found if given[0] else call.op("Not", found)
    if name == "assume" and isinstance(given[0], bool | int | float):
        dtype = call.dtype(1)
        found = call.op("Equal", value, call.backend.constant(given[0], dtype))
        return call.op("Reshape", found, call.ints([]))
    return lg.decline(f"ONNX cannot decide by the guard {name!r}")


@TABLE.functions("choose")
def lower_choose(call: Call) -> Any:
    """Return one of two values."""
    condition, if_true, if_false = call.step.args
    if not is_value(condition):
        return if_true if condition else if_false
    return _chosen(call, condition, if_true, if_false)


def _chosen(call: Call, condition: Value, if_true: Any, if_false: Any) -> Any:
    if if_true is None or if_false is None:
        value = if_true if if_false is None else if_false
        if value is None or isinstance(value, Maybe) or not is_value(value):
            return None if value is None else lg.decline("its ways are None and no tensor")
        return Maybe(condition, if_true is not None, value)
    inside, other = parts(if_true), parts(if_false)
    if inside is not None and other is not None and len(inside) == len(other):
        pairs = zip(inside, other, strict=True)
        return rebuilt(if_true, [_chosen(call, condition, *pair) for pair in pairs])
    if not is_value(if_true) and not is_value(if_false) and if_true == if_false:
        return if_true
    values = [_as_value(call, each) for each in (if_true, if_false)]
    if None in values:
        return lg.decline("the two ways give values of different kinds")
    # Not Where, which would broadcast results of different shapes.
    branches = [_branch(call, each) for each in values if each is not None]
    chosen = call.op("If", condition, then_branch=branches[0], else_branch=branches[1])
    dtype = next((each.meta["dtype"] for each in values if each and "dtype" in each.meta), None)
    return chosen if dtype is None else call.backend.number(chosen, dtype)


def _as_value(call: Call, value: Any) -> Value | None:
    if is_value(value):
        found: Value = value
        return found
    kinds = {bool: torch.bool, int: torch.int64, float: torch.float32}
    dtype = kinds.get(type(value))
    return None if dtype is None else call.backend.constant(value, dtype)


def _branch(call: Call, value: Value) -> onnx_ir.Graph:
    copy = onnx_ir.Node("", "Identity", [value], num_outputs=1)
    copy.outputs[0].name = call.backend.scope.name("way")
    return onnx_ir.Graph([], list(copy.outputs), nodes=[copy], name="way")
