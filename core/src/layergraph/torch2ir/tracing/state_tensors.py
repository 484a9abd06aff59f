"""The keys by which a graph reads the tensors of a model."""

from __future__ import annotations

import torch
from torch import nn

from layergraph.literals import UnknownValueError
from layergraph.tensors.state import Memory
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.unregistered import unregistered
from layergraph.torch2ir.tracing.module_call import StateRead


class StateTensors:
    """Maps each tensor of the model to its key, including tensors that no module has registered.

    Args:
        module_index: the model.
        keys: the state-dict key of each registered tensor, by ``id``.
        memory: where these tensors lie in memory.

    Attributes:
        keys: the key of each tensor seen so far, by ``id``.
        constants: the tensors that the model reads but has not registered, by key.
    """

    def __init__(self, module_index: ModuleIndex, keys: dict[int, str], memory: Memory) -> None:
        self.keys = dict(keys)
        self.constants: dict[str, torch.Tensor] = {}
        self._module_index = module_index
        self._memory = memory

    def refuse_unregistered(self, tensor: torch.Tensor) -> None:
        """Refuse a parameter that no module has registered.

        Raises:
            UnknownValueError: the tensor is a parameter.
        """
        if isinstance(tensor, nn.Parameter):
            raise UnknownValueError(unregistered(self._module_index, tensor))

    def is_packed(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is of a kind from the hook ``tensor_kinds``."""
        return self._module_index.kinds.flatten(tensor) is not None

    def constant(self, tensor: torch.Tensor) -> StateRead:
        """Record a tensor that the model reads and no module has registered."""
        self.refuse_unregistered(tensor)
        key = f":constant_{len(self.constants)}"
        with torch._C.DisableTorchFunction():
            self._memory.claim(tensor, "a tensor that the model has not registered")
        self.keys[id(tensor)] = key
        self.constants[key] = tensor
        return StateRead(key)
