"""Parameters that model code makes while it runs, as those of a layer made in forward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.trackers.tensors import Tensors

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer


def made_parameters(run: Tracer, tensors: Tensors, record: Callable[..., Any]) -> Iterator[Patch]:
    """Yield the patch of ``nn.Parameter(data)``, which torch's modes do not see.

    Args:
        run: the tracer.
        tensors: maps tensors to their values.
        record: records a call by the name of the function and its arguments.
    """
    original: Callable[..., Any] = nn.Parameter.__new__

    @functools.wraps(original)
    def new(cls: type, data: Any = None, requires_grad: bool = True) -> Any:
        made = run.unrecorded(original, (cls, data, requires_grad), {})
        if run.is_recording() and cls is nn.Parameter and type(data) in (torch.Tensor, cls):
            tensors.bind(made, record("torch.nn.Parameter", tensors.read(data), requires_grad))
        return made

    yield nn.Parameter, "__new__", new
