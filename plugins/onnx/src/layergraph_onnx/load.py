"""``layergraph.load("m.onnx")`` and ``layergraph.load_model("m.onnx")``."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from torch import nn

from layergraph.errors import FileError
from layergraph.ir import Ir
from layergraph.ir2torch.converter import device_of
from layergraph_files.build import build_meta_model
from layergraph_files.container import Stored
from layergraph_files.limits import DEFAULT_LIMITS, Limits
from layergraph_files.parse_errors import ParseError, PathName, reading, shown
from layergraph_files.paths import open_file, to_path, within
from layergraph_files.reader import Opened, Part, opened_document
from layergraph_files.text import parse
from layergraph_onnx.dtypes import torch_dtype
from layergraph_onnx.foreign import from_foreign
from layergraph_onnx.metadata import STRUCTURE, UNREAD, read_unread, tensor_of


def load(path: PathName, *, limits: Limits = DEFAULT_LIMITS) -> Ir:
    """Read the structure of a model from an ONNX file.

    Args:
        path: an ``.onnx`` file. For a file of :func:`layergraph.save`, the result is the saved IR.
            For a file of another program, operators become layers where possible.
        limits: the limits for the structure that the file holds.

    Raises:
        FileError: the file cannot be read, has another form, or exceeds a limit; or another program
            wrote it, and an operator is no layer: the error names the node.
        InvalidIrError: the file describes an IR that breaks a rule.
    """
    target = to_path(path, "load(path)")
    model = _read(target)
    if STRUCTURE in _metadata(model):
        return _structure(target, model, limits).ir
    with reading(target):
        return from_foreign(model, _initializers(model, target))[0]


def load_model(
    path: PathName,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> nn.Module:
    """Build a model from an ONNX file: see :func:`load`.

    Args:
        path: an ``.onnx`` file.
        device: the device of the parameters and buffers; None: torch's default.
        dtype: the dtype of the floating-point parameters and buffers; None keeps their dtypes.
        limits: the limits for the structure that the file holds.

    Raises:
        FileError, InvalidIrError: as for :func:`load`.
        BuildError: a layer has no handler, or cannot be made.
        StateError: the weights do not fit the structure.
    """
    target = to_path(path, "load_model(path)")
    model = _read(target)
    with reading(target):
        state = _initializers(model, target)
    metadata = _metadata(model)
    if STRUCTURE in metadata:
        opened = _structure(target, model, limits)
        with reading(target):
            state |= read_unread(metadata.get(UNREAD, "{}"))
    else:
        with reading(target):
            ir, state = from_foreign(model, state)
        opened = Opened(target, ir, {}, {})
    opened.weights.update({key: (cast("Part", None), _stored(each)) for key, each in state.items()})
    meta_model = build_meta_model(opened, limits)
    wanted = {key for key, _, persists in meta_model.listed if persists}
    # Constants are initializers too, and their numbers are in the structure.
    kept = {key: each for key, each in state.items() if key in wanted}
    return meta_model.fill(kept, device_of(device), dtype)


def _stored(tensor: torch.Tensor) -> Stored:
    """Return the description of a tensor, from which the limits for building are computed."""
    name = str(tensor.dtype).removeprefix("torch.")
    return Stored(name, tuple(tensor.shape), 0, tensor.numel() * tensor.itemsize)


def _read(path: Path) -> onnx.ModelProto:
    with reading(path), open_file(path) as file:
        data = file.read()
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise FileError(f"{shown(path)}: it is no ONNX file; give another one") from None
    if not model.HasField("graph"):
        raise FileError(f"{shown(path)}: it has no graph, so it is no ONNX file; give another one")
    return model


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {each.key: each.value for each in model.metadata_props}


def _structure(path: Path, model: onnx.ModelProto, limits: Limits) -> Opened:
    text = _metadata(model)[STRUCTURE].encode("utf-8", "surrogatepass")
    with reading(path):
        if len(text) > limits.text_bytes:
            remedy = "if you trust it, give Limits(text_bytes=…)"
            raise ParseError(None, f"its structure has {len(text)} bytes", remedy)
        document = parse(text)
    return opened_document(path, document)


# --- tensors ---


def _initializers(model: onnx.ModelProto, path: Path) -> dict[str, torch.Tensor]:
    """Return the initializers of a model by name.

    Raises:
        ParseError: one is not a tensor that torch has, or its numbers are not where they may be.
    """
    return {each.name: tensor(each, path) for each in model.graph.initializer}


def tensor(proto: onnx.TensorProto, path: Path) -> torch.Tensor:
    """Return a tensor of a file.

    Args:
        proto: the tensor.
        path: the file; numbers in another file may be in its folder only.

    Raises:
        ParseError: it is not a tensor that torch has, or its numbers are not where they may be.
    """
    dtype = torch_dtype(proto.data_type)
    if dtype is None:
        message = f"{proto.name!r} has a dtype that torch lacks"
        raise ParseError(None, message, "write it in another dtype")
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        return tensor_of(_external(proto, path), dtype, proto.dims, proto.name)
    if proto.HasField("raw_data"):
        return tensor_of(proto.raw_data, dtype, proto.dims, proto.name)
    try:
        array = onnx.numpy_helper.to_array(proto)
    except Exception as error:  # of numpy
        raise ParseError(None, f"{proto.name!r}: {error}", "write the file again") from None
    return tensor_of(array.tobytes(), dtype, proto.dims, proto.name)


def _external(proto: onnx.TensorProto, path: Path) -> bytes:
    settings = {each.key: each.value for each in proto.external_data}
    name = settings.get("location", "")
    if not name or Path(name).name != name or name in (".", ".."):
        message = f"the numbers of {proto.name!r} are in {name!r}, which is no name of a file"
        raise ParseError(None, message, "put them in a file beside this one")
    beside = within(path.with_name(name), path)
    with open_file(beside) as file:
        size = beside.stat().st_size
        try:
            offset = int(settings.get("offset", 0))
            length = int(settings.get("length", size - offset))
        except ValueError:
            offset, length = -1, 0
        if offset < 0 or length < 0 or offset + length > size:
            message = f"the numbers of {proto.name!r} are not in {name!r}, which has {size} bytes"
            raise ParseError(None, message, "copy the files again")
        file.seek(offset)
        return file.read(length)
