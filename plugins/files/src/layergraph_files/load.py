"""``load`` and ``load_model`` for the formats of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from layergraph.errors import ArgumentError
from layergraph.gc_pause import gc_paused
from layergraph.ir import Ir
from layergraph_files.limits import DEFAULT_LIMITS, Limits
from layergraph_files.parse_errors import PathName
from layergraph_files.reader import opened, opened_weights

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh

Keys = Mapping[str, str] | Callable[[str], str | None]
"""The key in the model for each name in a file: a mapping, or a function of the name."""

T = TypeVar("T")


@gc_paused()
def load(path: PathName, *, limits: Limits = DEFAULT_LIMITS) -> Ir:
    """Read the structure of a model from a file, without its weights: see :func:`layergraph.load`.

    Args:
        path: a ``.safetensors`` or ``.json`` file that :func:`layergraph.save` wrote; the index of
            several; or a folder that holds one of these, named ``model``.
        limits: the limits for the file.
    """
    with opened(path, limits) as model:
        return model.ir


@gc_paused()
def load_model(
    path: PathName,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    limits: Limits = DEFAULT_LIMITS,
    weights: PathName | None = None,
    keys: Keys | None = None,
    mesh: DeviceMesh | None = None,
    plan: Any = None,
) -> nn.Module:
    """Build a model from a file with structure and weights: see :func:`layergraph.load_model`.

    Args:
        path: as for :func:`load`, except ``.json`` files, which hold no weights.
        device: the device of the parameters and buffers; None: torch's default.
        dtype: the dtype of the floating-point parameters and buffers; None keeps their dtypes.
        limits: the limits for the files.
        weights: a file that holds the weights instead: a ``.safetensors`` file of any program, the
            index of several, or a folder with one of these.
        keys: the keys of the model, by the names in the file; or a function that returns the key
            for a name, and None for a tensor that the model does not have. A name that the mapping
            lacks is a key of the model.
        mesh: the devices of several processes. Each process reads only the parts of the tensors
            that it holds.
        plan: the distribution of the tensors: see :mod:`layergraph_distributed`. None: the plan in
            the structure.
    """
    # load() needs no torch, so that this module does not import it.
    from layergraph_files.build import build

    with ExitStack() as stack:
        model = stack.enter_context(opened(path, limits, "load_model(path)"))
        stored = model.weights
        if weights is not None:
            stored = stack.enter_context(opened_weights(weights, limits))
        if keys is not None:
            stored = _renamed(stored, keys)
        return build(replace(model, weights=stored), device, dtype, limits, mesh, plan)


def _renamed(stored: Mapping[str, T], keys: Keys) -> dict[str, T]:
    """Return the tensors of a file under the keys of the model.

    Raises:
        ArgumentError: two tensors would have one key, or a key is not a text.
    """
    if not callable(keys) and not isinstance(keys, Mapping):
        raise ArgumentError(
            f"keys is a {type(keys).__name__}; give a function of the name, or a dict from names"
        )
    found: dict[str, T] = {}
    origin: dict[str, str] = {}
    for name, each in stored.items():
        key = keys(name) if callable(keys) else keys.get(name, name)
        if key is None:
            continue
        if not isinstance(key, str):
            raise ArgumentError(
                f"keys maps {name!r} to {key!r:.100}; map it to a key of the model, or to None"
            )
        if key in found:
            raise ArgumentError(
                f"keys maps both {origin[key]!r} and {name!r} to {key!r}; use different keys"
            )
        found[key], origin[key] = each, name
    return found
