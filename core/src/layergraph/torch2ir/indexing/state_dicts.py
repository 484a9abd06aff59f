"""Modules whose own state dict differs from the one that torch would make."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from layergraph.tensors.memory import lie_alike, same_bits
from layergraph.tensors.state import own_tensors
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo

_METHODS = ("state_dict", "_save_to_state_dict", "get_extra_state")


def own_state_dict(module: nn.Module) -> str | None:
    """Return the method or hook by which a module changes its state dict; None if it has none."""
    for name in _METHODS:
        if getattr(type(module), name) is not getattr(nn.Module, name) or name in vars(module):
            return name
    return "a state-dict hook" if module._state_dict_hooks or module._state_dict_pre_hooks else None


def other_state_dicts(module_index: ModuleIndex) -> Iterator[ModuleInfo]:
    """Yield the modules whose state dict differs from torch's in keys, order or numbers."""
    suspects = [each for each in module_index if not each.is_leaf and own_state_dict(each.module)]
    # The state dict of the model contains those of all modules.
    if not suspects or _is_usual(module_index.root, module_index):
        return
    for each in suspects:
        if not _is_usual(each, module_index):
            yield each


def _is_usual(module_info: ModuleInfo, module_index: ModuleIndex) -> bool:
    module = module_info.module
    usual: dict[str, torch.Tensor] = {}
    of_leaves: list[str] = []
    for path, inner in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        known = module_index.get(inner)
        if known is not None and known.is_leaf:
            of_leaves.append(prefix)
        tensors = {prefix + name: tensor for name, tensor, kept in own_tensors(inner) if kept}
        usual.update(tensors)
    leaves = tuple(of_leaves)
    try:
        found = dict(module.state_dict())
    except Exception:
        return False
    # Keys that a leaf adds or drops are the concern of its handler.
    found = {key: each for key, each in found.items() if key in usual or not key.startswith(leaves)}
    usual = {key: each for key, each in usual.items() if key in found or not key.startswith(leaves)}
    return list(found) == list(usual) and all(
        key.startswith(leaves) or _are_alike(each, usual[key]) for key, each in found.items()
    )


def _are_alike(found: object, usual: torch.Tensor) -> bool:
    return isinstance(found, torch.Tensor) and (lie_alike(found, usual) or same_bits(found, usual))
