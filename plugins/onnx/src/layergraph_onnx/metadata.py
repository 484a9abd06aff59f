"""Metadata of a file: the structure, and the tensors that no graph reads.

The structure has the form of a ``.json`` file of ``layergraph-files``, so that one reader checks
both, and :func:`layergraph.load` returns the same IR.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from layergraph.api import default_ir2torch
from layergraph.ir import Ir
from layergraph.ir2torch.load import fitting, names_of
from layergraph.ir2torch.wrapper_keys import under_plain_keys
from layergraph.tensors.memory import numbers_of
from layergraph_files.document import to_document
from layergraph_files.parse_errors import ParseError, expect
from layergraph_files.save import homes_of
from layergraph_files.text import compact, parse
from layergraph_files.values import decode_bytes, encode_bytes

STRUCTURE = "layergraph.ir"
"""The metadata that holds the structure."""

UNREAD = "layergraph.tensors"
"""The metadata that holds the tensors of the state dict that no graph reads."""

GUARDS = "layergraph.guards"
"""The metadata that lists the guards which the file does not check, one per line."""

_BYTES = torch.uint8


def to_metadata(
    ir: Ir,
    state: Mapping[str, torch.Tensor],
    stored: Collection[str],
    guards: tuple[str, ...],
) -> dict[str, str]:
    """Return the metadata of a model.

    Args:
        ir: the structure.
        state: the weights.
        stored: the keys that are initializers.
        guards: the guards that the file does not check.

    Raises:
        StateError: the weights do not fit the structure.
    """
    found = {STRUCTURE: compact(to_document(ir, homes_of(ir)))}
    unread = {}
    wanted: Mapping[str, torch.Tensor] = {}
    if not all(key in stored for key in state):
        listed = default_ir2torch().tensors(ir)
        state = under_plain_keys(listed, state)
        wanted = fitting(listed, state)
    for names in names_of(wanted).values():
        if not any(name in stored for name in names):
            key = next(name for name in names if name in state)
            unread[key] = _to_json(state[key].detach().to(wanted[key].dtype).cpu())
    if unread:
        found[UNREAD] = compact(unread)
    if guards:
        found[GUARDS] = "\n".join(guards)
    return found


def _to_json(tensor: torch.Tensor) -> list[Any]:
    numbers = tensor.contiguous().reshape(-1).view(_BYTES) if tensor.numel() else tensor
    data = encode_bytes(bytes(numbers_of(numbers)[0]) if tensor.numel() else b"")
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), data]


def read_unread(text: str) -> dict[str, torch.Tensor]:
    """Return the tensors that no graph reads, from their metadata.

    Raises:
        ParseError: the text has another form.
    """
    document = parse(text.encode("utf-8", "surrogatepass"))
    found = {}
    for key, form in expect(document, dict, (None, UNREAD), "tensors by key").items():
        spot: Any = (None, UNREAD, key)
        listed = expect(form, list, spot, "a dtype, a shape and numbers")
        if len(listed) != 3 or not isinstance(listed[0], str) or not isinstance(listed[1], list):
            raise ParseError(spot, "it is no dtype, shape and numbers", "save the model again")
        dtype = getattr(torch, listed[0], None)
        found[key] = tensor_of(decode_bytes(listed[2], spot), dtype, listed[1], key)
    return found


def tensor_of(
    data: bytes | bytearray, dtype: object, shape: Collection[Any], name: str
) -> torch.Tensor:
    """Return the tensor of some bytes.

    Raises:
        ParseError: the bytes do not fit the dtype and shape.
    """
    is_shape = all(type(each) is int and each >= 0 for each in shape)
    if not isinstance(dtype, torch.dtype) or not is_shape:
        raise ParseError(None, f"{name!r} has no dtype or shape", "save the model again")
    count = 1
    for each in shape:
        count *= each
    if count * dtype.itemsize != len(data):
        message = f"{name!r} has {len(data)} bytes, and its shape needs {count * dtype.itemsize}"
        raise ParseError(None, message, "save the model again")
    if not count:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).view(tuple(shape))
