"""Models as ONNX files: ``.onnx``.

The functions of the format import onnx on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layergraph.hook_types.formats import Format
from layergraph.hook_types.lowerings import Lowering
from layergraph.hookspecs import hookimpl
from layergraph.ir import Ir
from layergraph_files.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import torch
    from torch import nn


def _write(
    ir: Ir,
    path: Any,
    state_dict: Mapping[str, torch.Tensor] | None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    opset: int | None = None,
    external_data: bool | None = None,
) -> None:
    save = importlib.import_module("layergraph_onnx.save").save
    save(ir, path, state_dict, args, kwargs, opset=opset, external_data=external_data)


def _read(path: Any, *, limits: Limits = DEFAULT_LIMITS) -> Ir:
    ir: Ir = importlib.import_module("layergraph_onnx.load").load(path, limits=limits)
    return ir


def _build(
    path: Any,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> nn.Module:
    load_model = importlib.import_module("layergraph_onnx.load").load_model
    model: nn.Module = load_model(path, device=device, dtype=dtype, limits=limits)
    return model


@hookimpl
def formats() -> list[Format]:
    """List the format."""
    return [Format(".onnx", "a model of ONNX, with layers as functions", _write, _read, _build)]


@hookimpl(trylast=True)
def lowerings() -> list[Lowering]:
    """List the handlers of layers and functions."""
    rows: list[Lowering] = importlib.import_module("layergraph_onnx.rows").rows()
    return rows
