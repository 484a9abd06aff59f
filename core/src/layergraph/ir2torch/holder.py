"""Modules that hold constants, and tensors that keep their dtype in a cast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import nn

from layergraph.ir2torch.paths import find_module


class Holder(nn.Module):
    """A module that holds constants: tensors that the original read and did not register.

    Constants are buffers that do not persist, so that they move to a device with the model. A cast
    of the model leaves them as they are, as in the original.
    """

    _uncast = frozenset[str]()
    # Buffers that keep their dtype, and so their numbers, in a cast to a narrower dtype.
    _unnarrowed = cast("Mapping[str, torch.dtype]", MappingProxyType({}))
    # The methods that the core overrides here, and whose effect a capture of this module keeps.
    _held_by_ir = frozenset({"_apply"})
    _kept_modes = cast("Mapping[str, bool | None]", MappingProxyType({}))

    def train(self, mode: bool = True) -> Holder:
        """Set the mode of all submodules, except those that the original's ``train`` leaves."""
        kept = [(find_module(self, path), to) for path, to in self._kept_modes.items()]
        modes = [(each, each.training if to is None else to) for each, to in kept if each]
        super().train(mode)
        for module, own in modes:
            module.training = own
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Holder:
        kept = {*self._uncast, *self._unnarrowed} & self._buffers.keys()
        before = {name: self._buffers[name] for name in kept}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, was in before.items():
            now = self._buffers[name]
            if was is None or now is None or (was.is_meta and not now.is_meta):
                continue
            dtype = self._unnarrowed.get(name)
            if dtype is None:
                self._buffers[name] = was.to(now.device)
            elif now.dtype.itemsize < dtype.itemsize:
                self._buffers[name] = was.to(now.device, dtype)
        return self
