"""Example inputs, caches and tensor parallelism for the models of transformers.

This plugin does not import transformers. Only a rebuilt model that makes a cache does.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from typing import Any

from torch import nn

from layergraph import Structure, hookimpl
from layergraph.hook_types.wrapping import Unwrapped


@hookimpl(trylast=True)
def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return texts, images, videos or audio for a model of transformers."""
    library = sys.modules.get("transformers.modeling_utils")
    if library is None or not isinstance(model, library.PreTrainedModel):
        return None
    from .inputs import inputs_of

    kwargs = inputs_of(model)
    return None if kwargs is None else ((), kwargs)


@hookimpl
def functions() -> Collection[str]:
    """List the functions for caches, and the functions with their own gradients."""
    caches = [f"{__name__}.caches.{name}" for name in ("flatten_cache", "unflatten_cache")]
    return [*caches, *[f"transformers.models.{name}" for name in _OWN_GRADIENTS]]


_OWN_GRADIENTS = (
    "bloom.modeling_bloom.GeLUFunction",
    "phimoe.modeling_phimoe.PhimoeMultiplier",
    "recurrent_gemma.modeling_recurrent_gemma.SqrtBoundDerivative",
    "sew_d.modeling_sew_d.XSoftmax",
    "yoso.modeling_yoso.YosoCumulation",
)


@hookimpl
def structures() -> Iterable[Structure]:
    """List the caches of transformers, if the program has imported them."""
    library = sys.modules.get("transformers.cache_utils")
    if library is None:
        return []
    from .caches import flatten_cache, unflatten_cache

    return [
        Structure(each, flatten_cache, unflatten_cache)
        for each in {each for each in vars(library).values() if isinstance(each, type)}
        if issubclass(each, library.Cache) and each.__module__ == library.__name__
    ]


@hookimpl(trylast=True)
def unwrap(module: nn.Module) -> Unwrapped | None:
    """Return a module without the wrapper of the library's tensor parallelism."""
    if "transformers.distributed.tensor_parallel" not in sys.modules:
        return None
    from .tensor_parallel import without_plan

    return without_plan(module) if isinstance(module, nn.Module) else None
