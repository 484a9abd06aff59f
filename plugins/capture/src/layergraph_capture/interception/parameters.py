"""Parameters that model code makes while it runs, as those of a layer made in forward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.torch2ir.tracing.patches import Patch

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer


def made_parameters(run: EagerTracer) -> Iterator[Patch]:
    """Yield the patch of ``nn.Parameter(data)``, which torch's modes do not see.

    Args:
        run: the tracer.
    """
    original: Callable[..., Any] = nn.Parameter.__new__

    @functools.wraps(original)
    def new(cls: type, data: Any = None, requires_grad: bool = True) -> Any:
        made = run.unrecorded(original, (cls, data, requires_grad), {})
        if run.is_recording() and cls is nn.Parameter and type(data) in (torch.Tensor, cls):
            args = (run.to_literal(data), requires_grad)
            run.tensors.bind(made, run.recorder.call("function", "torch.nn.Parameter", args, {}))
        return made

    yield nn.Parameter, "__new__", new
