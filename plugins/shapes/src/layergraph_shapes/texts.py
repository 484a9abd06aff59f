"""Arguments of a call as texts, which command lines take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import torch

from layergraph.errors import ArgumentError
from layergraph_shapes.described import TensorMeta

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_TENSOR = re.compile(r"(?:(\w+)?\[([\w\s,]*)\]|(\w+(?:\s*,\s*\w+)+))")


def arguments_of(texts: Iterable[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and keyword arguments that texts describe.

    Args:
        texts: see :func:`argument`, each after ``name=`` for an argument by name.

    Raises:
        ArgumentError: a text is no argument.

    Example:
        >>> from layergraph_shapes.texts import arguments_of
        >>> arguments_of(["2,3", "scale=0.5"])
        ([TensorMeta(shape=(2, 3), dtype=torch.float32)], {'scale': 0.5})
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for each in texts:
        named = _NAMED.fullmatch(each)
        if named is None:
            args.append(argument(each))
        else:
            kwargs[named[1]] = argument(named[2])
    return args, kwargs


def argument(text: str) -> Any:
    """Return the argument that a text describes.

    Args:
        text: ``2,3`` or ``[2,3]`` for a float32 tensor of this shape, ``int64[batch,5]`` for one of
            another dtype and with a size that has a name, or JSON.

    Raises:
        ArgumentError: the text has another form.
    """
    tensor = _TENSOR.fullmatch(text.strip())
    if tensor is not None:
        dtype = getattr(torch, tensor[1] or "float32", None)
        if not isinstance(dtype, torch.dtype):
            raise ArgumentError(f"{tensor[1]!r} in {text!r} is no dtype; write float32 or int64")
        sizes = [each.strip() for each in (tensor[3] or tensor[2]).split(",") if each.strip()]
        return TensorMeta(tuple([int(each) if each.isdigit() else each for each in sizes]), dtype)
    try:
        return json.loads(text)
    except ValueError:
        raise ArgumentError(
            f"{text!r} is no input; write sizes as 2,3,32,32 or int64[batch,5], or JSON"
        ) from None
