"""Refusal of function transforms of torch, such as ``torch.vmap``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch._functorch import eager_transforms, vmap

from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.patches import Patch


def transforms(is_here: Callable[[], bool]) -> Iterator[Patch]:
    """Yield the patches that refuse a transform where it begins.

    A transform runs code on wrapped tensors. Modes outside the transform see neither its inputs nor
    its operations.

    Args:
        is_here: returns whether the current thread captures; the patches ignore other threads.
    """
    for module, name, known_as in _entrances():
        yield module, name, _refused(known_as, getattr(module, name), is_here)


@functools.cache
def _entrances() -> list[tuple[ModuleType, str, str]]:
    """Return the functions that begin transforms: module, attribute and public name."""
    found = [
        (module, name, _KNOWN_AS[name.strip("_").partition("_")[0]])
        for module in (eager_transforms, vmap)
        for name in vars(module)
        if name.endswith("_increment_nesting") and name.strip("_").partition("_")[0] in _KNOWN_AS
    ]
    # torch.autograd.functional enters its own vmap.
    return [*found, (torch._C, "_vmapmode_increment_nesting", _KNOWN_AS["vmap"])]


_KNOWN_AS = {
    "vmap": "torch.vmap, or a transform that is made of it",
    "grad": "torch.func.grad, vjp or jacrev",
    "jvp": "torch.func.jvp, linearize or jacfwd",
    "func": "torch.func.functionalize",
}


def _refused(
    name: str, enter: Callable[..., Any], is_here: Callable[[], bool]
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_here():
            raise CaptureError(
                f"a function transform of torch.func ({name}), which a graph cannot hold; write "
                "the computation with batched tensors, or keep the module whole by a handler"
            )
        return enter(*args, **kwargs)

    return call
