"""Wrappers that are a module, or another object, around a module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from layergraph.errors import CaptureError
from layergraph.hook_types.wrapping import Unwrapped
from layergraph_wrappers.hooks import has_hooks_of_others


class _Row(NamedTuple):
    """A class of wrappers.

    Attributes:
        inner: the attribute that holds the wrapped module.
        annotate: returns the annotations of the layer.
    """

    inner: str
    annotate: Callable[[Any], Mapping[str, Any]] = lambda _: {}


def _name(wrapper: Any) -> Mapping[str, Any]:
    return {"distributed.wrapper": type(wrapper).__name__}


def _stage(stage: Any) -> Mapping[str, Any]:
    return {"distributed.pipeline_stage": stage.stage_index, "distributed.stages": stage.num_stages}


# The keys are names instead of classes, because importing some of the classes takes seconds.
_ROWS = {
    ("torch._dynamo.eval_frame", "OptimizedModule"): _Row("_orig_mod"),
    ("torch.distributed.algorithms._checkpoint.checkpoint_wrapper", "ActivationWrapper"): _Row(
        "_checkpoint_wrapped_module"
    ),
    ("torch.distributed.pipelining.stage", "_PipelineStageBase"): _Row("submod", _stage),
    ("torch.nn.parallel.data_parallel", "DataParallel"): _Row("module", _name),
    ("torch.nn.parallel.distributed", "DistributedDataParallel"): _Row("module", _name),
}

_REFUSED = {
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"): (
        "FullyShardedDataParallel flattens the parameters of a model; shard it with "
        "torch.distributed.fsdp.fully_shard, or convert the model before it is wrapped"
    ),
    ("torch.distributed.pipelining._IR", "Pipe"): (
        "a Pipe holds a model that is split into stages; convert the model before it is split, or "
        "a stage (pipe.get_stage_module(0))"
    ),
}


def inner_module(wrapper: object) -> Unwrapped | None:
    """Return the module inside a wrapper; None for an object that is not a wrapper.

    A subclass with its own ``forward``, a wrapper with hooks and one that casts do not count: their
    outputs may differ from those of the module inside.

    Raises:
        CaptureError: the wrapper does not keep the original.
    """
    cls: Any = type(wrapper)
    found = _known_base(cls)
    if found is None:
        return None
    if isinstance(found, str):
        raise CaptureError(found)
    base, row = found
    is_known = cls.__module__.startswith("torch.") or cls.forward is base.forward
    if not is_known or has_hooks_of_others(wrapper) or _casts(wrapper):
        return None
    return Unwrapped(getattr(wrapper, row.inner), annotations=row.annotate(wrapper))


@functools.lru_cache(maxsize=4096)
def _known_base(cls: type) -> tuple[Any, _Row] | str | None:
    """Return the wrapper that a class is or extends, with its row or the text to refuse it."""
    for base in cls.__mro__:
        where = base.__module__, base.__name__
        if where in _REFUSED:
            return _REFUSED[where]
        if where in _ROWS:
            return base, _ROWS[where]
    return None


def _casts(wrapper: object) -> bool:
    return getattr(wrapper, "mixed_precision", None) is not None


def compiled_graph(module: nn.Module) -> Unwrapped | None:
    """Return a module of a pipeline that runs its generated code; None for any other module.

    The modules in the stages of ``torch.distributed.pipelining`` run their graphs in an
    interpreter, which starts a thread to show the progress.
    """
    members = vars(module)
    if not members.get("_run_with_interpreter"):
        return None
    return Unwrapped(module, attributes=members | {"_run_with_interpreter": False})
