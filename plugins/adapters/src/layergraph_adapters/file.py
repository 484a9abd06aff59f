"""Files that hold a model without the weights that another file, its base, has.

If a weight of the model has the same bits as a weight of the base, the file contains only the key
of that weight in the base. So the file contains the adapters and all other weights that training
changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from layergraph.errors import FileError, StateError
from layergraph.ir import Ir
from layergraph_files.atomic import writing
from layergraph_files.build import build as build_model
from layergraph_files.container import Stored
from layergraph_files.limits import DEFAULT_LIMITS
from layergraph_files.parse_errors import (
    JsonPath,
    ParseError,
    PathName,
    expect,
    expect_fields,
    reading,
    shown,
)
from layergraph_files.paths import to_path
from layergraph_files.reader import Opened, Part, opened
from layergraph_files.save import Item, prepare, weights_of, write_part
from layergraph_files.text import compact, parse
from layergraph_files.versions import FORMAT

BASE = "layergraph_base"
"""The key of the metadata with the digest of the base, and the weights taken from it."""

_CHUNK = 1 << 24


def save(
    ir: Ir, path: PathName, state_dict: Mapping[str, torch.Tensor] | None, base: PathName
) -> None:
    """Write a model to a file, without the weights that its base has.

    Args:
        ir: the structure of the model with its adapters.
        path: the file to write, named ``….adapters.safetensors``.
        state_dict: the weights of the model, including those of the base.
        base: the file of the base, which :func:`layergraph.save` wrote.

    Raises:
        StateError: there is no state dict, or it does not fit.
        FileError: the base cannot be read, or the file cannot be written.
    """
    target = to_path(path, "save(ir, path, state_dict, base=…)")
    if state_dict is None:
        raise StateError("the weights of the adapters are missing; pass the state dict")
    prepared = prepare(ir, target, None)
    weights = weights_of(ir, state_dict)
    with opened(base, DEFAULT_LIMITS, "save(ir, path, state_dict, base=…)") as found:
        digests = {name: _digest_of(*each) for name, each in found.weights.items()}
        held = {digest: name for name, digest in reversed(digests.items())}
        # Read only weights that may be equal to one of the base.
        outlines = {(each.dtype, each.shape) for _, each in found.weights.values()}
        taken = {
            key: held[digest]
            for key, item in weights.items()
            if (item.dtype, item.shape) in outlines and (digest := _digest(item)) in held
        }
        about = {"digest": _digest_of_base(found, digests), "weights": taken}
    own = {key: item for key, item in weights.items() if key not in taken}
    with reading(target), writing(target, lambda _names, _alone: ()) as written:
        write_part(
            written, target.name, prepared.values | own, {**prepared.metadata, BASE: compact(about)}
        )


def build(
    path: PathName,
    base: PathName,
    device: torch.device | str | int | None,
    dtype: torch.dtype | None,
) -> nn.Module:
    """Build the model of a file and its base.

    Args:
        path: the file.
        base: the file of the base.
        device: as for :func:`layergraph.load_model`.
        dtype: as for :func:`layergraph.load_model`.

    Raises:
        FileError: a file cannot be read, or the base is not the one of the save.
    """
    call = "load_model(path, base=…)"
    with opened(path, DEFAULT_LIMITS, call) as model, opened(base, DEFAULT_LIMITS, call) as found:
        digest, taken = _about(model)
        digests = {name: _digest_of(*each) for name, each in found.weights.items()}
        if digest != _digest_of_base(found, digests):
            raise FileError(
                f"{shown(model.path)}: it was saved for another base than {shown(found.path)}, "
                f"for one with the digest {digest[:16]}…; pass the file of that base"
            )
        with reading(model.path):
            for key, name in taken.items():
                spot: JsonPath = ((None, "weights"), key)
                if name not in found.weights:
                    raise ParseError(spot, f"the base has no weight {name!r}", "save it again")
                if key in model.weights:
                    raise ParseError(spot, f"{key!r} is in the file too", "save it again")
        weights = {key: found.weights[name] for key, name in taken.items()}
        return build_model(
            replace(model, weights=model.weights | weights), device, dtype, DEFAULT_LIMITS
        )


def _about(model: Opened) -> tuple[str, dict[str, str]]:
    """Return the digest of the base, and the keys of the base by keys of the model."""
    with reading(model.path):
        text = model.metadata.get(BASE)
        if text is None:
            message = "it does not tell of a base"
            raise ParseError(None, message, f"save it with the suffix .adapters{model.path.suffix}")
    with reading(f"{shown(model.path)}, {BASE}"):
        about = expect_fields(parse(text.encode()), None, "digest weights")
        digest: str = expect(about["digest"], str, (None, "digest"), "a digest")
        spot: JsonPath = (None, "weights")
        taken: dict[str, str] = expect(about["weights"], dict, spot, "keys by name")
        for key, name in taken.items():
            expect(name, str, (spot, key), "a key of the base")
    return digest, taken


def _digest(item: Item) -> str:
    digest = hashlib.sha256(_outline(item.dtype, item.shape))
    item.give(digest.update)
    return digest.hexdigest()


def _digest_of(part: Part, stored: Stored) -> str:
    digest = hashlib.sha256(_outline(stored.dtype, stored.shape))
    for start in range(0, stored.length, _CHUNK):
        size = min(_CHUNK, stored.length - start)
        piece = Stored("uint8", (size,), stored.start + start, size)
        digest.update(part.bytes_of(piece))
    return digest.hexdigest()


def _outline(dtype: str, shape: tuple[int, ...]) -> bytes:
    return json.dumps([dtype, shape]).encode()


def _digest_of_base(base: Opened, weights: Mapping[str, str]) -> str:
    """Return the digest of the structure and all weights of a model."""
    told: dict[str, Any] = {"structure": base.metadata.get(FORMAT, ""), "weights": dict(weights)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
