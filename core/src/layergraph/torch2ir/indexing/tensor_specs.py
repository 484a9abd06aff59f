"""The keys and specs of the tensors of a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from layergraph.errors import CaptureError
from layergraph.ir import TensorSpec
from layergraph.tensors.hidden_states import hidden_states
from layergraph.tensors.kinds import TensorKinds
from layergraph.tensors.state import Memory, describe
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.indexing.module_refusals import Found, Noted, place_of
from layergraph.torch2ir.indexing.overrides import kept_dtypes, kept_modes
from layergraph.torch2ir.indexing.state_dicts import other_state_dicts, own_state_dict


def describe_tensors(
    module_index: ModuleIndex, memory: Memory, found: Found, numbers: Mapping[int, torch.Tensor]
) -> tuple[dict[int, str], dict[str, dict[str, TensorSpec]]]:
    """Return the key of each tensor by its ``id``, and the specs of the tensors by module path.

    Args:
        module_index: the modules.
        memory: receives the memory of the tensors.
        found: receives the refusals.
        numbers: by the ``id`` of a tensor on meta, the tensor that it stands for.
    """
    keys: dict[int, str] = {}
    tensors: dict[str, dict[str, TensorSpec]] = {}
    for module_info in module_index:
        specs = tensors[module_info.path] = {}
        with Noted(found, module_info.module, module_info.path):
            module_info.kept_dtypes = kept_dtypes(module_info.module, is_leaf=module_info.is_leaf)
            _describe(module_info, memory, keys, specs, numbers, module_index.kinds)
    if found.is_runnable:
        for module_info in module_index:
            if not module_info.is_leaf:
                with Noted(found, module_info.module, module_info.path):
                    module_info.kept_modes = _kept_modes(module_info)
        for module_info in other_state_dicts(module_index):
            with Noted(found, module_info.module, module_info.path):
                raise CaptureError(
                    f"{place_of(module_info.module, module_info.path)} makes its own state dict "
                    f"({own_state_dict(module_info.module)}): the same keys cannot be promised; a "
                    "handler for the class can keep it whole"
                )
    return keys, tensors


def _kept_modes(module_info: ModuleInfo) -> dict[str, bool | None]:
    module = module_info.module
    try:
        return kept_modes(module, kept_dtypes=module_info.kept_dtypes)
    except CaptureError as error:
        raise CaptureError(f"{place_of(module, module_info.path)}: {error}") from error


def _describe(
    module_info: ModuleInfo,
    memory: Memory,
    keys: dict[int, str],
    specs: dict[str, TensorSpec],
    numbers: Mapping[int, torch.Tensor],
    kinds: TensorKinds,
) -> None:
    for name, tensor, persistent in module_info.tensors():
        key = module_info.key(name)
        first = keys.setdefault(id(tensor), key)
        if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
            raise CaptureError(f"{key!r} has hooks on its gradient, which a graph cannot hold")
        is_leaf = module_info.is_leaf
        spec = describe(
            numbers.get(id(tensor), tensor),
            key,
            persistent=persistent,
            whole=not is_leaf,
            hidden=not persistent and is_leaf and name in hidden_states(module_info.module),
            kinds=kinds,
        )
        if spec.kind == "buffer" and name in getattr(module_info.module, "_uncast", ()):
            # In a rebuilt model, a constant is such a buffer; casts leave it unchanged.
            spec.kind, spec.persistent = "constant", None
        if name in module_info.kept_dtypes:
            spec.narrows = False
        if first != key:
            spec.tied, spec.value, spec.packed = first, None, None
        else:
            memory.claim(tensor, repr(key))
        if spec != _UNSAID:
            specs[name] = spec


_UNSAID = TensorSpec()
