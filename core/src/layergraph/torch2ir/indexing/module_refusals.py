"""Refusals of modules that an IR cannot hold, before the model runs."""

from __future__ import annotations

import torch
from torch import nn

from layergraph.errors import CaptureError, Unsupported
from layergraph.tensors.state import UnrunnableError


class Found(list[Unsupported]):
    """The refusals that are found before the model runs.

    Attributes:
        is_runnable: whether the model can still run, so that capture can find further refusals.
    """

    is_runnable = True


class Noted:
    """Context manager that turns an error into a refusal, so that the search continues."""

    def __init__(self, found: Found, module: nn.Module, path: str) -> None:
        self._found, self._module, self._path = found, module, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, CaptureError):
            return False
        cls = type(self._module)
        kind = f"{cls.__module__}.{cls.__qualname__}"
        self._found.append(Unsupported(self._path, kind, str(error)))
        if isinstance(error, UnrunnableError):
            self._found.is_runnable = False
        return True


def refuse_unseen(module: nn.Module, path: str) -> None:
    """Refuse a module whose behavior capture cannot see completely."""
    if isinstance(module, torch.jit.ScriptModule):
        kind = CaptureError if path else UnrunnableError
        raise kind(
            f"{place_of(module, path)} is a ScriptModule, which a graph cannot hold; convert the "
            "module that was scripted or traced"
        )
    if module._backward_hooks or module._backward_pre_hooks:
        raise CaptureError(
            f"{place_of(module, path)} has backward hooks, which a graph cannot hold; convert the "
            "model before they are registered"
        )


# By name, because importing these classes is slow.
_DISTRIBUTING = frozenset(
    {
        ("torch.nn.parallel.data_parallel", "DataParallel"),
        ("torch.nn.parallel.distributed", "DistributedDataParallel"),
        ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"),
    }
)


# In these packages, a module that makes its own state dict packs its weights in it.
_QUANTIZED = (
    "torch.ao.nn.quantized.",
    "torch.ao.nn.intrinsic.quantized.",
    "torch.ao.nn.sparse.quantized.",
)


def refuse_unheld(module: nn.Module, path: str) -> None:
    """Refuse a module that needs a handler and has none."""
    cls = type(module)
    for name, buffer in module._buffers.items():
        if isinstance(buffer, nn.Parameter):
            raise CaptureError(
                f"{place_of(module, path)} has the parameter {name!r} registered as a buffer; "
                "register its data as a buffer, or itself as a parameter"
            )
    if any((base.__module__, base.__name__) in _DISTRIBUTING for base in cls.__mro__):
        raise UnrunnableError(
            f"{place_of(module, path)} places a model on devices; convert its .module"
        )
    if cls.__module__.startswith(_QUANTIZED) and any(
        type(each)._save_to_state_dict is not nn.Module._save_to_state_dict
        for each in module.modules()
    ):
        raise CaptureError(
            f"{place_of(module, path)} is a quantized module, which a graph cannot hold; convert "
            "the model before quantizing it, or register a handler for the class"
        )
    if not path and _has_no_forward(module):
        raise CaptureError(
            f"{place_of(module, path)} cannot be called: it has no forward; convert the model that "
            "calls what it holds"
        )


def _has_no_forward(module: nn.Module) -> bool:
    cls = next(each for each in type(module).__mro__ if "forward" in vars(each))
    has_none = cls is nn.Module and "forward" not in vars(module)
    # A class may have a call of its own instead; that of torch's ParameterList only raises.
    return has_none and type(module).__call__.__module__.startswith("torch.")


def place_of(module: nn.Module, path: str) -> str:
    """Return the path and the class of a module for a message."""
    return f"{path or 'the model'!r} ({type(module).__qualname__})"
