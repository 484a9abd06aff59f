"""Refusal of jagged tensors, at the line that makes one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from torch.nested._internal import nested_tensor

from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.patches import Patch

_MAKING = ("jagged_from", "nested_view_from")


def jagged_tensors(is_here: Callable[[], bool]) -> Iterator[Patch]:
    """Yield the patches that refuse to make a jagged tensor.

    Args:
        is_here: returns whether the current thread captures; the patches ignore other threads.
    """
    for name, function in list(vars(nested_tensor).items()):
        if name.startswith(_MAKING):
            yield nested_tensor, name, _refused(function, is_here)


def _refused(make: Callable[..., Any], is_here: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(make)
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_here():
            raise CaptureError(
                "a jagged tensor, which a graph cannot hold; pad the sequences with "
                "torch.nn.utils.rnn.pad_sequence, or pack them with pack_sequence"
            )
        return make(*args, **kwargs)

    return call
