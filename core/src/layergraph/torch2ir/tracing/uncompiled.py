"""Contexts that run a model's own code: not its compiled form, and outside a FakeTensorMode."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from layergraph.torch2ir.indexing.kept_modes import modules_in
from layergraph.torch2ir.tracing.patches import Patch, Patcher


@contextmanager
def uncompiled(model: object) -> Iterator[None]:
    """Run the original code of a compiled model inside a ``with`` block."""
    compiler: Any = sys.modules.get("torch._dynamo")
    # If Dynamo is not imported, nothing is compiled.
    if compiler is None or not isinstance(model, nn.Module):
        yield
        return
    with Patcher(_patches(model, compiler.OptimizedModule)), _eager(compiler):
        yield


def outside_fake_mode() -> AbstractContextManager[object]:
    """Return a context that disables a FakeTensorMode of the caller."""
    is_on = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
    return _disable_current_modes() if is_on else nullcontext()


def _eager(compiler: Any) -> AbstractContextManager[object]:
    """Return a context in which compiled functions run their original code."""
    set_stance: Any = getattr(compiler, "set_stance", None)
    return nullcontext() if set_stance is None else set_stance("force_eager")


def _patches(model: nn.Module, wrapper: type) -> Iterator[Patch]:
    for module in modules_in(model):
        members = vars(module)
        if members.get("_compiled_call_impl") is not None:
            yield members, "_compiled_call_impl", None
        if isinstance(module, wrapper):
            yield members, "forward", _forward(module._modules["_orig_mod"])


def _forward(module: Any) -> Callable[..., Any]:
    # Capture reads its signature.
    @functools.wraps(module.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return module(*args, **kwargs)

    return forward
