"""``layergraph show --shapes``: the shape of every value of a file."""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layergraph.errors import ArgumentError
from layergraph.ir import Ir
from layergraph_cli.output import as_json, line

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_TENSOR = re.compile(r"(?:(\w+)?\[([\w\s,]*)\]|(\w+(?:\s*,\s*\w+)+))")


def show_shapes(file: Path, ir: Ir, inputs: Sequence[str], *, json: bool) -> None:
    """Print the shape of every value that a call computes.

    Args:
        file: the file, for the JSON text.
        ir: the model.
        inputs: the texts of the inputs: see :func:`argument`.
        json: whether to print JSON.

    Raises:
        LayergraphError: as for :func:`layergraph.shapes`.
    """
    from layergraph import shapes

    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for each in inputs:
        named = _NAMED.fullmatch(each)
        if named is None:
            args.append(argument(each))
        else:
            kwargs[named[1]] = argument(named[2])
    found = shapes(ir, args, kwargs)
    if json:
        as_json({"file": str(file), "shapes": str(found).splitlines()})
        return
    for each in str(found).splitlines():
        line(each)


def argument(text: str) -> Any:
    """Return the argument that a text stands for.

    Args:
        text: ``2,3`` or ``[2,3]`` for a float32 tensor of this shape, ``int64[batch,5]`` for one of
            another dtype and with a size that has a name, or JSON.

    Raises:
        ArgumentError: the text is nothing of these.
    """
    import torch

    from layergraph_shapes import TensorMeta

    tensor = _TENSOR.fullmatch(text.strip())
    if tensor is not None:
        dtype = getattr(torch, tensor[1] or "float32", None)
        if not isinstance(dtype, torch.dtype):
            raise ArgumentError(f"{tensor[1]!r} in {text!r} is no dtype; write float32 or int64")
        sizes = [each.strip() for each in (tensor[3] or tensor[2]).split(",") if each.strip()]
        return TensorMeta(tuple([int(each) if each.isdigit() else each for each in sizes]), dtype)
    try:
        return json_text.loads(text)
    except ValueError:
        raise ArgumentError(
            f"{text!r} is no input; write sizes as 2,3,32,32 or int64[batch,5], or JSON"
        ) from None
