"""Rows for the layers of elasticai-creator, with readers of their constructor arguments."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Mapping
from typing import Any

from elasticai.creator import nn as creator
from elasticai.creator.arithmetic import FxpArithmetic, FxpParams
from elasticai.creator.nn.fixed_point import MathOperations
from torch import nn

from layergraph import Implementation
from layergraph.errors import BuildError
from layergraph.ir import Value
from layergraph.layers import Layer, LayerTable, Reader, signature_of

from . import SEQUENTIAL, TYPES

# The attributes that hold a number format. They lack `==`, so `_bits` compares the formats.
_FORMATS = ("_params", "_config", "_operations")


def to_ir(module: nn.Module) -> Implementation | None:
    """Implement the hook ``torch_to_ir`` for a layer or a container."""
    if type(module) is creator.Sequential:
        holds_tensors = module._parameters or module._buffers
        return None if holds_tensors else Implementation(SEQUENTIAL, children={})
    return _TABLE.to_ir(module)


def to_torch(implementation: Implementation, children: Mapping[str, nn.Module]) -> nn.Module | None:
    """Implement the hook ``ir_to_torch`` for a layer or a container."""
    if implementation.type != SEQUENTIAL:
        return _TABLE.to_torch(implementation)
    runs = list((implementation.children or {}).values())
    if any(graph.nodes and graph.chain() != runs for graph in implementation.graphs):
        raise BuildError(
            f"implementation {implementation.name!r}: its graph is not what a {SEQUENTIAL} runs; "
            "give it the type 'module', which runs any graph"
        )
    container = creator.Sequential()
    for name, child in children.items():
        container.add_module(name, child)
    return container


def _bits(name: str) -> Reader:
    """Return a reader of a bit width, which must be equal in all parts of a layer."""

    def read(module: nn.Module) -> Value:
        formats = {
            _format(vars(part)[each])
            for part in module.modules()
            for each in _FORMATS
            if each in vars(part)
        }
        if len(formats) != 1:
            raise AttributeError(name)
        (found,) = formats
        bits: int = getattr(found, name)
        return bits

    return read


def _format(holder: object) -> FxpParams:
    """Return the number format of an object that contains nothing else."""
    if type(holder) is MathOperations and vars(holder).keys() == {"config"}:
        holder = holder.config
    if type(holder) is FxpArithmetic and vars(holder).keys() == {"_config"}:
        holder = holder.config
    if type(holder) is not FxpParams or not holder.signed:
        raise AttributeError("signed")
    return holder


def _ends(module: Any) -> Value:
    """Return the ends of the table; with them, the constructor makes the same table."""
    table = module._lut_input
    return float(table[0]), float(table[-1])


# The attributes that may hold an argument, by argument.
_PLACES = {
    "total_bits": ("_total_bits", "_num_input_bits"),
    "use_clock": ("_use_clock",),
    "num_input_features": ("_num_input_features",),
    "signal_length": ("_signal_length",),
    "in_features": ("in_features", "_linear.in_features"),
    "out_features": ("out_features", "_linear.out_features"),
    "in_channels": ("in_channels", "_conv1d.in_channels"),
    "out_channels": ("out_channels", "_conv1d.out_channels"),
    "kernel_size": ("kernel_size", "_conv1d.kernel_size"),
    "stride": ("stride", "_conv1d.stride"),
    "padding": ("padding", "_conv1d.padding"),
    "bn_eps": ("_batch_norm.eps",),
    "bn_momentum": ("_batch_norm.momentum",),
    "bn_affine": ("_batch_norm.affine",),
}
_READERS: dict[str, Reader] = {
    "frac_bits": _bits("frac_bits"),
    "num_steps": lambda module: int(operator.attrgetter("_lut_input")(module).numel()),
    "sampling_intervall": _ends,
}


def _reader(cls: type[nn.Module], name: str) -> Reader | None:
    has_format = "frac_bits" in signature_of(cls).parameters
    if name == "total_bits" and has_format:
        return _bits(name)
    if name == "bias":
        return _has_bias
    if name in _PLACES:
        return lambda module: _first(module, _PLACES[name])
    return _READERS.get(name)


def _first(module: nn.Module, places: tuple[str, ...]) -> Any:
    for place in places[:-1]:
        try:
            return operator.attrgetter(place)(module)
        except AttributeError:
            continue
    return operator.attrgetter(places[-1])(module)


def _has_bias(module: Any) -> Value:
    if hasattr(module, "cell"):
        return bool(module.cell.bias)
    inner = module._modules.get("_linear") or module._modules.get("_conv1d") or module
    return inner.bias is not None


def _row(place: str, kind: str) -> Layer:
    home, _, name = f"{creator.__name__}.{place}".rpartition(".")
    cls: Any = getattr(importlib.import_module(home), name)
    readers: dict[str, Reader] = {}
    for argument in signature_of(cls).parameters:
        reader = _reader(cls, argument)
        if reader is not None:
            readers[argument] = reader
    return Layer(cls, type=kind, readers=readers, derived=_FORMATS)


_TABLE = LayerTable([_row(place, kind) for place, kind in TYPES.items()])
