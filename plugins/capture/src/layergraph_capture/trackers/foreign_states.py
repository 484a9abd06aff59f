"""Hidden states of layers that are not part of the model.

Some libraries reset all layers of a class at once, also those of other models:
``snntorch.utils.reset`` does. Computations from such states alone do not belong to the graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import nn

from layergraph.ir.values import leaves
from layergraph.tensors.hidden_states import hidden_states
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.opaque import is_of
from layergraph.torch2ir.tracing.module_call import (
    Call,
    StateRead,
    Trace,
    TracedValue,
    calls_in,
)

READS_FOREIGN = (
    "it reads a hidden state of a layer that is not part of the model; register the layer in the "
    "model"
)


class ForeignStates:
    """Recognizes the hidden states of other models, and drops computations from these states alone.

    Args:
        module_index: the model.
    """

    def __init__(self, module_index: ModuleIndex) -> None:
        self._module_index = module_index
        self._keys: set[str] = set()
        # The layers among the reached objects, and the number of objects checked so far.
        self._layers: list[tuple[nn.Module, tuple[str, ...]]] = []
        self._looked = 0

    def __contains__(self, tensor: torch.Tensor) -> bool:
        reached = self._module_index.reach.seen()
        for each in itertools.islice(reached, self._looked, None):
            if is_of(each, nn.Module) and self._module_index.get(each) is None:
                names = hidden_states(each)
                self._layers += [(each, names)] if names else []
        self._looked = len(reached)
        return any(
            layer._buffers.get(name) is tensor for layer, names in self._layers for name in names
        )

    def note(self, read: StateRead) -> None:
        """Record the key of such a state."""
        self._keys.add(read.key)

    def drop(self, trace: Trace) -> bool:
        """Remove the calls that read only such states; return whether other calls read one."""
        if not self._keys:
            return False
        derived: dict[TracedValue, Call] = {}
        read: set[TracedValue] = {*_values(trace.root.result)}
        is_read = False
        for call in calls_in(trace.root):
            tensors = [
                leaf
                for leaf in leaves(call.args, call.kwargs, *(call.when or ()))
                if isinstance(leaf, TracedValue | StateRead)
            ]
            foreign = [each for each in tensors if each in derived or self._is_key(each)]
            if foreign and len(foreign) == len(tensors) and call.kind == "function":
                derived[call.value] = call
            else:
                is_read |= bool(foreign)
                read.update(_values(*tensors))
        dropped = set(derived.values())
        for scope in trace.scopes:
            read.update(_values(scope.args, scope.kwargs, scope.result))
            scope.items = [each for each in scope.items if each not in dropped]
        for key in self._keys:
            trace.constants.pop(key, None)
        return is_read or not read.isdisjoint(derived)

    def _is_key(self, leaf: TracedValue | StateRead) -> bool:
        return isinstance(leaf, StateRead) and leaf.key in self._keys


def _values(*plain: object) -> Iterator[TracedValue]:
    return (leaf for leaf in leaves(*plain) if isinstance(leaf, TracedValue))
