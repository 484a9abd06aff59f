"""Passes that merge and drop adapters, and files of adapters without their base."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from layergraph import Format, Pass, hookimpl
from layergraph.ir import Ir

if TYPE_CHECKING:
    import torch
    from torch import nn

SUFFIX = ".adapters.safetensors"


@hookimpl
def passes() -> list[Pass]:
    """List the passes."""
    from layergraph_adapters.lora import drop_adapters, merge_adapters

    return [Pass("merge-adapters", merge_adapters), Pass("drop-adapters", drop_adapters)]


def _write(ir: Ir, path: Any, state_dict: Mapping[str, torch.Tensor] | None, *, base: Any) -> None:
    importlib.import_module("layergraph_adapters.file").save(ir, path, state_dict, base)


def _read(path: Any) -> Ir:
    ir: Ir = importlib.import_module("layergraph_files.load").load(path)
    return ir


def _build(
    path: Any,
    *,
    base: Any,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    build = importlib.import_module("layergraph_adapters.file").build
    model: nn.Module = build(path, base, device, dtype)
    return model


@hookimpl
def formats() -> list[Format]:
    """List the file format for adapters."""
    description = "a model without the weights that another file, its base, has"
    return [Format(SUFFIX, description, _write, _read, _build)]
