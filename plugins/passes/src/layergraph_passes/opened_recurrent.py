"""RNN, LSTM and GRU, unrolled for a length: from linear layers, or from cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from layergraph_passes.opened import NotOpenedError, Opened, only, stated, with_inputs

_GATES = {"rnn": 1, "gru": 3, "lstm": 4}
_CELLS: dict[str, Callable[..., nn.Module]] = {
    "rnn": nn.RNNCell,
    "gru": nn.GRUCell,
    "lstm": nn.LSTMCell,
}
_LAYERS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(Opened):
    """A recurrent layer, unrolled for a fixed length.

    Args:
        kind: ``"rnn"``, ``"gru"`` or ``"lstm"``.
        attributes: those of the layer, with all defaults.
        inputs: the names of the tensor arguments.
        length: the number of steps.
        of_cells: whether a step calls a cell; else linear layers.
    """

    def __init__(
        self,
        kind: str,
        attributes: Mapping[str, Any],
        inputs: tuple[str, ...],
        length: int,
        *,
        of_cells: bool,
    ) -> None:
        super().__init__(inputs)
        self.kind, self.length, self.of_cells = kind, length, of_cells
        self.size, self.layers = attributes["hidden_size"], attributes["num_layers"]
        self.projected = attributes.get("proj_size", 0) or 0
        self.is_batch_first = attributes["batch_first"]
        self.suffixes = ["", "_reverse"] if attributes["bidirectional"] else [""]
        self.nonlinearity = attributes.get("nonlinearity", "tanh")
        if of_cells and self.projected:
            raise NotOpenedError("no cell of torch has a projection; open it into linear layers")
        state = self.projected or self.size
        for layer in range(self.layers):
            width = attributes["input_size"] if layer == 0 else state * len(self.suffixes)
            for suffix in self.suffixes:
                self._add(f"l{layer}{suffix}", width, state, bias=attributes["bias"])
        has_dropout = attributes["dropout"] and self.layers > 1
        self.dropout = nn.Dropout(attributes["dropout"]) if has_dropout else None

    def _add(self, name: str, width: int, state: int, *, bias: bool) -> None:
        if self.of_cells:
            options = {"nonlinearity": self.nonlinearity} if self.kind == "rnn" else {}
            self.add_module(f"cell_{name}", _CELLS[self.kind](width, self.size, bias, **options))
            for each in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                self.origins[f"cell_{name}.{each}"] = f"{each}_{name}", None
            return
        gates = _GATES[self.kind] * self.size
        parts = {"ih": nn.Linear(width, gates, bias), "hh": nn.Linear(state, gates, bias)}
        if self.projected:
            parts["hr"] = nn.Linear(self.size, state, bias=False)
        for part, linear in parts.items():
            self.add_module(f"{part}_{name}", linear)
            for each in ("weight", "bias"):
                self.origins[f"{part}_{name}.{each}"] = f"{each}_{part}_{name}", None

    def compute(self, input: Any, **states: torch.Tensor) -> Any:  # noqa: A002 as torch
        """Return the output of all steps, and the last states."""
        # It has three dimensions, or permute raises an error; split raises one for another length.
        steps = input.permute(1, 0, 2) if self.is_batch_first else input.permute(0, 1, 2)
        parts = steps.split([1] * self.length)
        values = [parts[index].squeeze(0) for index in range(self.length)]
        known = [states[name] for name in self.inputs if name != "input"]
        if self.kind == "lstm" and len(known) == 1:
            known = [known[0][0], known[0][1]]
        ends: list[list[Any]] = []
        for layer in range(self.layers):
            if layer and self.dropout is not None:
                values = [self.dropout(each) for each in values]
            ways = []
            for way, suffix in enumerate(self.suffixes):
                index = layer * len(self.suffixes) + way
                state = [each[index] for each in known] or self._zeros(values[0])
                outputs, state = self._run(f"l{layer}{suffix}", values, state, is_back=bool(way))
                ways.append(outputs)
                ends.append(state)
            values = (
                ways[0]
                if len(ways) == 1
                else [torch.cat(pair, dim=-1) for pair in zip(*ways, strict=True)]
            )
        output = torch.stack(values, dim=1 if self.is_batch_first else 0)
        last = tuple(torch.stack(each) for each in zip(*ends, strict=True))
        return output, last if self.kind == "lstm" else last[0]

    def _zeros(self, value: torch.Tensor) -> list[torch.Tensor]:
        sizes = [self.projected or self.size, self.size] if self.kind == "lstm" else [self.size]
        return [value.new_zeros(value.size(0), size) for size in sizes]

    def _run(
        self, name: str, values: list[Any], state: list[Any], *, is_back: bool
    ) -> tuple[list[Any], list[Any]]:
        outputs = []
        for value in reversed(values) if is_back else values:
            state = (
                self._cell(name, value, state) if self.of_cells else self._step(name, value, state)
            )
            outputs.append(state[0])
        return outputs[::-1] if is_back else outputs, state

    def _cell(self, name: str, value: Any, state: list[Any]) -> list[Any]:
        cell = self.get_submodule(f"cell_{name}")
        if self.kind != "lstm":
            return [cell(value, state[0])]
        result = cell(value, (state[0], state[1]))
        return [result[0], result[1]]

    def _step(self, name: str, value: Any, state: list[Any]) -> list[Any]:
        ih = self.get_submodule(f"ih_{name}")(value)
        hh = self.get_submodule(f"hh_{name}")(state[0])
        if self.kind == "rnn":
            total = ih + hh
            return [torch.tanh(total) if self.nonlinearity == "tanh" else torch.relu(total)]
        if self.kind == "gru":
            given, before = ih.chunk(3, dim=-1), hh.chunk(3, dim=-1)
            reset = torch.sigmoid(given[0] + before[0])
            update = torch.sigmoid(given[1] + before[1])
            new = torch.tanh(given[2] + reset * before[2])
            return [(state[0] - new) * update + new]
        gates = (ih + hh).chunk(4, dim=-1)
        kept, let_in = torch.sigmoid(gates[1]), torch.sigmoid(gates[0])
        memory = kept * state[1] + let_in * torch.tanh(gates[2])
        output = torch.sigmoid(gates[3]) * torch.tanh(memory)
        if self.projected:
            output = self.get_submodule(f"hr_{name}")(output)
        return [output, memory]


def recurrent(kind: str, length: int, *, of_cells: bool) -> Any:
    """Return a function that makes the model of a recurrent layer."""

    def make(
        attributes: Mapping[str, Any], kinds: Mapping[str, str], constants: Mapping[str, Any]
    ) -> Opened:
        only(constants)
        names = tuple(kinds)
        cls: Any = with_inputs(Recurrent, names)
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        layer = {**defaults, "bidirectional": False, **stated(_LAYERS[kind], attributes)}
        made: Opened = cls(kind, layer, names, length, of_cells=of_cells)
        return made

    return make
