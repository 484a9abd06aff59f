"""``layergraph.save(ir, "m.onnx", state, args=…)``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import onnx_ir
import torch

from layergraph.errors import FileError
from layergraph.ir import Ir, check
from layergraph_files.atomic import Written, writing
from layergraph_files.bounds import check_writable
from layergraph_files.parse_errors import PathName, reading, shown
from layergraph_files.paths import to_path
from layergraph_files.save import refuse_unlisted
from layergraph_onnx.metadata import GUARDS, to_metadata
from layergraph_onnx.model import DEFAULT_OPSET, onnx_model
from layergraph_onnx.stream import bytes_of, write_model

_MOST = 1 << 31
"""The most bytes that a file of protobuf may have."""

_MARGIN = 1 << 24
_SMALL = 1 << 10
_ALIGNMENT = 1 << 12


def save(
    ir: Ir,
    path: PathName,
    state: Mapping[str, torch.Tensor] | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    opset: int | None = None,
    external_data: bool | None = None,
) -> None:
    """Write a model as an ONNX file, all of it or nothing.

    Each composite becomes a function; equal composites share one. The initializers have the keys of
    the state dict. The file also holds the structure itself for :func:`layergraph.load`.

    Args:
        ir: the structure.
        path: the ``.onnx`` file to write.
        state: the weights.
        args: the positional arguments of a call: tensors, or shapes. A name in a shape, as in
            ``("batch", 3, 224, 224)``, is a dynamic size.
        kwargs: the keyword arguments, in the same form.
        opset: the version of the operators; None: 20.
        external_data: True: the weights go to a second file, with the suffix ``.onnx.data``. None:
            they do if they have more than 2 GB.

    Raises:
        ArgumentError: the arguments do not fit.
        LoweringError: ONNX lacks layers or functions of the model; it lists all of them.
        FileError: the file cannot be written.
        InvalidIrError, BuildError, StateError: as for :func:`layergraph.save`.

    Warns:
        UserWarning: the file does not check a guard of the original.
    """
    target = to_path(path, "save(ir, path, state_dict)")
    check(ir)
    with reading(target):
        check_writable(ir)
    refuse_unlisted(ir, target)
    if state is None:
        raise FileError(
            f"{shown(target)}: an .onnx holds the weights: give the state dict, as in "
            "layergraph.save(ir, path, model.state_dict(), args=…)"
        )
    model, guards = onnx_model(
        ir, state, args, kwargs, opset=DEFAULT_OPSET if opset is None else opset
    )
    model.metadata_props.update(to_metadata(ir, state, model.graph.initializers, guards))
    weights = [each.const_value for each in model.graph.initializers.values()]
    size = sum(each.nbytes for each in weights if each is not None)
    is_external = size > _MOST - _MARGIN if external_data is None else external_data
    with reading(target), writing(target, lambda _names, _alone: ()) as written:
        if is_external:
            _write_tensors(written, target, model)
        with written.file(target.name) as file:
            if is_external:
                file.write(onnx_ir.to_proto(model).SerializeToString())
            else:
                write_model(file, model)
    for guard in guards:
        warnings.warn(
            f"{shown(target)}: the original checks, and the file does not: {guard}; "
            f"the metadata {GUARDS!r} lists this",
            stacklevel=3,
        )


def _write_tensors(written: Written, target: Path, model: onnx_ir.Model) -> None:
    """Write the numbers of the initializers to a second file."""
    name = f"{target.name}.data"
    with written.file(name) as file:
        for each in model.graph.initializers.values():
            tensor = each.const_value
            if tensor is None or tensor.nbytes < _SMALL:
                continue
            offset = _aligned(file)
            file.write(bytes_of(tensor))
            each.const_value = onnx_ir.ExternalTensor(
                name,
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=onnx_ir.Shape(tensor.shape.numpy()),
                name=str(each.name),
                base_dir=target.parent,
            )


def _aligned(file: BinaryIO) -> int:
    """Seek to the next aligned offset of a file, and return it."""
    file.write(bytes(-file.tell() % _ALIGNMENT))
    return file.tell()
