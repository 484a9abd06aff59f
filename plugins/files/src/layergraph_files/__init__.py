"""Models in files: ``.json`` for the structure, ``.safetensors`` for the structure and the weights.

``docs/reference/file-format.md`` is the specification. The functions of each format import the
reader and the writer on first use, because reading a structure needs no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from layergraph.hook_types.formats import Format
from layergraph.hookspecs import hookimpl
from layergraph.ir import Ir
from layergraph_files.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh

    from layergraph_files.load import Keys


def _write(
    ir: Ir,
    path: Any,
    state_dict: Mapping[str, torch.Tensor] | None,
    *,
    max_shard_size: int | str | None = None,
) -> None:
    save = importlib.import_module("layergraph_files.save").save
    save(ir, path, state_dict, max_shard_size=max_shard_size)


def _read(path: Any, *, limits: Limits = DEFAULT_LIMITS) -> Ir:
    ir: Ir = importlib.import_module("layergraph_files.load").load(path, limits=limits)
    return ir


def _build(
    path: Any,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    limits: Limits = DEFAULT_LIMITS,
    weights: Any = None,
    keys: Keys | None = None,
    mesh: DeviceMesh | None = None,
    plan: Any = None,
) -> nn.Module:
    load_model = importlib.import_module("layergraph_files.load").load_model
    model: nn.Module = load_model(
        path,
        device=device,
        dtype=dtype,
        limits=limits,
        weights=weights,
        keys=keys,
        mesh=mesh,
        plan=plan,
    )
    return model


_DESCRIPTIONS = {
    ".safetensors": "structure and weights",
    ".safetensors.index.json": "structure and weights in several files",
    ".json": "structure, as readable text",
    "": "a folder with a file named model",
}


@hookimpl
def formats() -> list[Format]:
    """List the formats by suffix; a path without a suffix is a folder that holds a model."""
    return [Format(suffix, text, _write, _read, _build) for suffix, text in _DESCRIPTIONS.items()]
