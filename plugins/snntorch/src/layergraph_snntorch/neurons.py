"""Rows for the neurons of snntorch: how to read their constructor arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import snntorch  # type: ignore[import-untyped]
import torch
from torch import nn

from layergraph import Implementation
from layergraph.ir import Value
from layergraph.layers import Layer, Reader, signature_of

from . import NEURONS, stateful
from .functions import levels_of, make_quantizer, make_surrogate, name_surrogate

_NUMBERS = ("alpha", "beta", "threshold", "graded_spikes_factor", "time_step", "R", "C", "V")
_FUNCTIONS = ("spike_grad", "state_quant")

# The constructor of Lapicque computes the arguments that the caller omits. The kinds, shapes and
# order of its tensors depend on the omitted ones, so we try these combinations.
_NOT_GIVEN = {"Lapicque": [("R", "C"), ("beta",), ("C",), ("R",)]}


def to_ir(module: nn.Module) -> Implementation | None:
    """Answer the hook ``torch_to_ir`` for a neuron."""
    with _registry_kept():
        for row in _ROWS[type(module)]:
            answer = row.to_ir(module)
            if answer is not None:
                return answer
    return None


def to_torch(implementation: Implementation) -> nn.Module:
    """Answer the hook ``ir_to_torch`` for a type of neurons."""
    home: Any = stateful if implementation.attributes.get("init_hidden") else snntorch
    return _row(getattr(home, _CLASSES[implementation.type])).to_torch(implementation)


@contextmanager
def _registry_kept() -> Iterator[None]:
    """Restore snntorch's list of all neurons: a row makes neurons for comparison."""
    instances = snntorch.SpikingNeuron.instances
    count = len(instances)
    try:
        yield
    finally:
        del instances[count:]


def _number(name: str) -> Reader:
    def read(module: nn.Module) -> Value:
        tensor = getattr(module, name)
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta:
            raise AttributeError(name)
        if tensor.dim():
            numbers: list[Value] = tensor.tolist()
            return numbers
        return _shortest(tensor)

    return read


def _shortest(tensor: torch.Tensor) -> Value:
    """Return the shortest decimal number that rounds to the number in a tensor, in its dtype."""
    number: Any = tensor.item()
    if tensor.is_floating_point():
        for digits in range(1, 17):
            short = float(f"{number:.{digits}g}")
            if torch.tensor(short, dtype=tensor.dtype).item() == number:
                return short
    plain: Value = number
    return plain


def _recurrent_weight(module: Any) -> Value:
    return 1.0 if module.all_to_all else _number("V")(module)


def _surrogate(module: Any) -> Value:
    return None if module.surrogate_disable else name_surrogate(module.spike_grad)


def _is_learned(name: str) -> Reader:
    return lambda module: isinstance(getattr(module, name), nn.Parameter)


def _to_tensor(value: Any) -> Any:
    return torch.tensor(value) if isinstance(value, list) else value


def _row(cls: Any, not_given: tuple[str, ...] = ()) -> Layer:
    takes = signature_of(cls).parameters
    numbers = [name for name in _NUMBERS if name in takes]
    readers: dict[str, Reader] = {
        "spike_grad": _surrogate,
        "state_quant": lambda each: levels_of(each.state_quant),
        **{name: _number(name) for name in numbers},
        **{f"learn_{name}": _is_learned(name) for name in numbers if f"learn_{name}" in takes},
    }
    if "V" in takes:
        readers["V"] = _recurrent_weight
    writers: dict[str, Callable[[Any], Any]] = {
        "spike_grad": make_surrogate,
        "state_quant": make_quantizer,
        **dict.fromkeys(numbers, _to_tensor),
    }
    return Layer(
        cls,
        type=cls.__name__.lower(),
        never=not_given,
        readers=readers,
        writers=writers,
        derived=_FUNCTIONS,
    )


_CLASSES = {name.lower(): name for name in NEURONS}
_ROWS = {
    getattr(home, name): [_row(getattr(home, name), each) for each in _NOT_GIVEN.get(name, [()])]
    for name in _CLASSES.values()
    for home in (snntorch, stateful)
}
