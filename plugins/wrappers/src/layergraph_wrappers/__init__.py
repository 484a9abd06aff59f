"""Models in the wrappers of torch: parallel, compiled and sharded models."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.hook_types.wrapping import Unwrapped
from layergraph_wrappers.modules import compiled_graph, inner_module


@hookimpl(trylast=True)
def unwrap(module: nn.Module, needs_numbers: bool) -> Unwrapped | None:
    """Return the original of a wrapper, or of a module with split tensors.

    Raises:
        CaptureError: a wrapper does not keep the original.
    """
    # Imported here, so that making a converter does not import it.
    from layergraph_wrappers.sharding import unsharded

    answer = inner_module(module)
    if answer is None and isinstance(module, nn.Module):
        answer = compiled_graph(module) or unsharded(module, needs_numbers=needs_numbers)
    return answer
