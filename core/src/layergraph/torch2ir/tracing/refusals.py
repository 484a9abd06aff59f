"""Patches that refuse what a graph cannot hold, at the line where the model's code begins it.

Each function here takes ``is_here``, which returns whether the current thread captures. The patches
ignore other threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch._functorch import eager_transforms, vmap
from torch.nested._internal import nested_tensor

from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.patches import Patch
from layergraph.torch2ir.tracing.proxy import Proxy

IsHere = Callable[[], bool]


def transforms(is_here: IsHere) -> Iterator[Patch]:
    """Yield the patches that refuse function transforms of torch, such as ``torch.vmap``.

    A transform runs code on wrapped tensors. Modes outside the transform see neither its inputs nor
    its operations.
    """
    for module, name, known_as in _entrances():
        message = (
            f"a function transform of torch.func ({known_as}), which a graph cannot hold; write "
            "the computation with batched tensors, or keep the module whole by a handler"
        )
        yield module, name, _refused(getattr(module, name), is_here, message)


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


def jagged_tensors(is_here: IsHere) -> Iterator[Patch]:
    """Yield the patches that refuse to make a jagged tensor."""
    message = (
        "a jagged tensor, which a graph cannot hold; pad the sequences with "
        "torch.nn.utils.rnn.pad_sequence, or pack them with pack_sequence"
    )
    for name, function in list(vars(nested_tensor).items()):
        if name.startswith(("jagged_from", "nested_view_from")):
            yield nested_tensor, name, _refused(function, is_here, message)


def autocast(is_here: IsHere) -> Iterator[Patch]:
    """Yield the patch that refuses an autocast region, which symbols would drop."""
    message = "a graph cannot hold an autocast region"
    yield torch.autocast, "__enter__", _refused(torch.autocast.__enter__, is_here, message)


def questions_for_types(scope: dict[str, Any], is_here: IsHere) -> Iterator[Patch]:
    """Yield the patch of globals that refuses to tell the type of a symbol, which is no tensor."""
    original: Callable[..., bool] = scope.get("isinstance", isinstance)

    def check(value: object, kinds: Any) -> bool:
        if isinstance(value, Proxy) and is_here():
            raise CaptureError(f"the model asks whether a value is a {kinds!r}")
        return original(value, kinds)

    yield scope, "isinstance", check


def _refused(function: Callable[..., Any], is_here: IsHere, message: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_here():
            raise CaptureError(message)
        return function(*args, **kwargs)

    return call
