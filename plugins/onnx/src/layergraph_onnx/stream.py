"""Writing a model without a copy of its weights in memory.

A message of protobuf is a sequence of fields, each with its number, its length and its bytes. So we
write the bytes of the weights directly from the tensors, after the fields that protobuf serializes.
"""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import onnx
import onnx_ir
import torch

_LENGTH_DELIMITED = 2


def write_model(file: BinaryIO, model: onnx_ir.Model) -> None:
    """Write a model with its weights.

    Args:
        file: the file to write to.
        model: the model; this function removes its initializers.
    """
    weights = [each.const_value for each in model.graph.initializers.values()]
    model.graph.initializers.clear()
    proto = onnx_ir.to_proto(model)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    heads = [_tensor_head(each) for each in weights if each is not None]
    bodies = [bytes_of(each) for each in weights if each is not None]
    number = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
    tags = [_field(number, len(head) + len(body)) for head, body in zip(heads, bodies, strict=True)]
    size = len(graph) + sum(map(len, (*tags, *heads, *bodies)))
    file.write(proto.SerializeToString())
    file.write(_field(onnx.ModelProto.GRAPH_FIELD_NUMBER, size))
    file.write(graph)
    for parts in zip(tags, heads, bodies, strict=True):
        for part in parts:
            file.write(part)


def _tensor_head(tensor: Any) -> bytes:
    """Return the fields of a tensor, up to its bytes."""
    proto = onnx.TensorProto(
        name=tensor.name, data_type=int(tensor.dtype), dims=tuple(tensor.shape.numpy())
    )
    head: bytes = proto.SerializeToString()
    return head + _field(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, tensor.nbytes)


def bytes_of(tensor: Any) -> memoryview | bytes:
    """Return the bytes of a tensor, without a copy if memory and file have the same layout."""
    raw = tensor.raw
    is_plain = isinstance(raw, torch.Tensor) and raw.nbytes == tensor.nbytes
    if is_plain and raw.is_contiguous() and raw.numel() and sys.byteorder == "little":
        view: memoryview = raw.reshape(-1).view(torch.uint8).numpy().data
        return view
    found: bytes = tensor.tobytes()
    return found


def _field(number: int, length: int) -> bytes:
    """Return the head of a field with a length."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    """Return a number as a varint: 7 bits per byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
