"""Models under the wrappers of torch: parallel ones, compiled ones, sharded ones."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.hook_types.wrapping import Unwrapped
from layergraph_wrappers.modules import compiled_graph, inner_module


@hookimpl(trylast=True)
def unwrap(module: nn.Module, needs_numbers: bool) -> Unwrapped | None:
    """Answer for modules around modules, and for modules whose tensors are split.

    Raises:
        CaptureError: a wrapper does not hold the model as it was.
    """
    # A converter is ready before what reads tensors is imported.
    from layergraph_wrappers.sharding import unsharded

    answer = inner_module(module)
    if answer is None and isinstance(module, nn.Module):
        answer = compiled_graph(module) or unsharded(module, needs_numbers=needs_numbers)
    return answer
