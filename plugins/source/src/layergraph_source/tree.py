"""The model built on the meta device, and the places of its modules."""

from __future__ import annotations

import torch
from torch import nn

from layergraph.ir import MODULE, Ir
from layergraph.ir.submodules import pre_order
from layergraph.ir2torch import Ir2Torch
from layergraph.layers import signature_of
from layergraph.tensors.state import all_tensors

DEFAULT = (torch.float32, torch.complex64, torch.int64, torch.bool)


class Tree:
    """The modules of a model.

    Args:
        ir: a checked IR.
        converter: builds the model.

    Attributes:
        modules: by the names of implementations, the modules on the meta device.
        device: the device of values.
        uniform: the common dtype of all weights, if it is not float32; else None.
        shared: for each further place of a module, the parent, the name and the implementation.
    """

    def __init__(self, ir: Ir, converter: Ir2Torch) -> None:
        built = converter.meta_model(ir)
        self._ir = ir
        self._hooks = converter.hooks
        self.modules = built.modules
        self.model = built.model
        self.device = torch.device("cpu")
        self._way: dict[str, tuple[str, ...]] = {ir.root: ()}
        self._first: dict[str, tuple[str, str]] = {}
        self.shared: list[tuple[str, str, str]] = []
        for name, _ in pre_order(ir):
            for child, target in (ir[name].children or {}).items():
                if target in self._way:
                    self.shared.append((name, child, target))
                else:
                    self._way[target] = (*self._way[name], child)
                    self._first[target] = name, child
        constants = {
            (each.name, name)
            for each in ir.values()
            for name, spec in each.tensors.items()
            if spec.kind == "constant"
        }
        dtypes = {
            tensor.dtype
            for name, module in self.modules.items()
            for key, tensor, _ in all_tensors(module)
            if ir[name].children is None or "." not in key
            if (name, key) not in constants and (tensor.is_floating_point() or tensor.is_complex())
        }
        [only] = dtypes if len(dtypes) == 1 else [None]
        self.uniform = None if only in DEFAULT or only is None or only.is_complex else only

    def plain(self, name: str) -> nn.Module | None:
        """Return a layer as its handler makes it, without changes by tensor specs."""
        bare = self._ir[name].changed(tensors={}, name=self._ir[name].name)
        with torch.device("meta"):
            module: nn.Module | None = self._hooks.ask.ir_to_torch(implementation=bare, children={})
        return module

    def path(self, name: str) -> str:
        """Return the path of an implementation from the root, along first places."""
        return ".".join(self._way[name])

    def __contains__(self, name: str) -> bool:
        return name in self._way

    def is_first(self, parent: str, child: str) -> bool:
        """Return whether a child is in its first place, where the source constructs it."""
        target = (self._ir[parent].children or {})[child]
        return self._first.get(target) == (parent, child)

    def dtype(self, name: str) -> torch.dtype | None:
        """Return the dtype to ask the constructor of a layer for; None for its default."""
        if self.uniform is not None or self._ir[name].type == MODULE:
            return None
        module = self.modules[name]
        dtypes = {
            tensor.dtype
            for _, tensor, _ in all_tensors(module)
            if tensor.is_floating_point() or tensor.is_complex()
        }
        if len(dtypes) != 1 or dtypes & set(DEFAULT):
            return None
        try:
            takes = "dtype" in signature_of(type(module)).parameters
        except (TypeError, ValueError):
            return None
        return next(iter(dtypes)) if takes else None
