"""Transforms of functions, such as torch.vmap: a model that uses them is refused by their names.

Torch runs the function on wrapped tensors, level by level, and shows no mode what it does there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

import torch
from torch._functorch import eager_transforms
from torch._functorch import vmap as vmapping

from layergraph.errors import CaptureError
from layergraph.torch2ir.patches import Patch


class _Records(Protocol):
    def is_recording(self) -> bool: ...


# What begins a level, where torch looks it up; and by which names users know it.
_LEVELS: tuple[tuple[Any, str, str], ...] = (
    (vmapping, "_vmap_increment_nesting", "torch.vmap, or a transform that is made of it"),
    (torch._C, "_vmapmode_increment_nesting", "a vectorized function of torch.autograd.functional"),
    (eager_transforms, "_grad_increment_nesting", "torch.func.grad, vjp or jacrev"),
    (eager_transforms, "_jvp_increment_nesting", "torch.func.jvp, linearize or jacfwd"),
    (eager_transforms, "_func_increment_nesting", "torch.func.functionalize"),
)


def transforms(capture: _Records) -> Iterator[Patch]:
    """The patches that refuse to begin a level while the model is recorded."""
    for holder, name, known_as in _LEVELS:
        if hasattr(holder, name):
            yield holder, name, _refused(capture, getattr(holder, name), known_as)


def _refused(capture: _Records, begin: Callable[..., Any], known_as: str) -> Callable[..., Any]:
    @functools.wraps(begin)
    def call(*args: Any) -> Any:
        return _refuse(known_as) if capture.is_recording() else begin(*args)

    return call


def _refuse(known_as: str) -> NoReturn:
    raise CaptureError(
        f"the model uses {known_as}: a graph cannot hold a function that torch transforms; write "
        "the computation out, for a whole batch"
    )
