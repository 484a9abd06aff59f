"""``layergraph.cost``: FLOPs, parameters and memory of one call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from layergraph.errors import ShapeError
from layergraph.ir import BODY, Implementation, Ir
from layergraph.ir2torch.submodules import owner_of
from layergraph_shapes.alternatives import Answers, Decision
from layergraph_shapes.arguments import Arguments
from layergraph_shapes.described import text
from layergraph_shapes.describing import Describing
from layergraph_shapes.fake_model import FakeModel, meta_model
from layergraph_shapes.formulas import Formula, LayerCall
from layergraph_shapes.memory import Memory
from layergraph_shapes.propagation import check_options
from layergraph_shapes.recurrent import Recurrent
from layergraph_shapes.sizes import Sizes
from layergraph_shapes.walk import Walk

_MOST_DECISIONS = 10
"""The most decisions whose combinations are all compared."""


@dataclass(slots=True)
class LayerCost:
    """The cost of one layer, in all its calls.

    Attributes:
        name: the path of the layer in the model.
        type: its type.
        calls: the number of calls.
        output: the description of the result of its last call; None without a call.
        parameters: the number of elements of its own parameters, without those shared with an
            earlier layer.
        bytes: the bytes of its parameters, and of its buffers that state dicts hold.
        flops: its own FLOPs; for a composite, those of the functions in its graph.
        uncounted: the operators in it whose cost is unknown.
    """

    name: str
    type: str
    calls: int = 0
    output: Any = None
    parameters: int = 0
    bytes: int = 0
    flops: int = 0
    uncounted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one call of a model.

    ``print`` shows it as a table.

    Attributes:
        layers: the cost of each layer, in the order of the model.
        peak_activation_bytes: the maximum over time of the bytes of live inputs and values.
        training: the mode: True for training.
        decisions: the answers to decisions by numbers, by name: the combination with the most
            FLOPs.
    """

    layers: tuple[LayerCost, ...]
    peak_activation_bytes: int
    training: bool
    decisions: Mapping[str, bool]

    @property
    def flops(self) -> int:
        """Return the FLOPs of the call, two for each multiply-add."""
        return sum(each.flops for each in self.layers)

    @property
    def parameters(self) -> int:
        """Return the number of elements of all parameters, each counted once."""
        return sum(each.parameters for each in self.layers)

    @property
    def bytes(self) -> int:
        """Return the bytes of parameters, and of buffers that state dicts hold, each once."""
        return sum(each.bytes for each in self.layers)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Return the layers whose FLOPs are unknown, each with the unknown operators."""
        return tuple(
            f"{each.name} ({', '.join(dict.fromkeys(each.uncounted))})"
            for each in self.layers
            if each.uncounted
        )

    def __getitem__(self, name: str) -> LayerCost:
        for each in self.layers:
            if each.name == name:
                return each
        raise KeyError(name)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def cost(
    ir: Ir,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    training: bool | None = None,
    decisions: Mapping[str, bool] | None = None,
    formulas: Mapping[str, Formula] | None = None,
) -> Cost:
    """Return the cost of one call of a model: FLOPs, parameters, bytes and memory.

    Layers and functions run on fake tensors, so nothing is computed. Each operator has a formula. A
    FLOP is half of a multiply-add in a product of matrices, in a convolution or in attention; all
    else is free. The page "Cost" of the documentation has the definitions.

    Args:
        ir: the IR of the model.
        args: the positional arguments, as for :func:`layergraph.shapes`.
        kwargs: the keyword arguments, as for :func:`layergraph.shapes`.
        sizes: the number for each size that ``args`` names.
        training: the mode; None: the mode of the IR.
        decisions: the answers to decisions by numbers, by name. Of the ways that remain, the one
            with the most FLOPs counts.
        formulas: for a type of layer, or the name of a function: a function that takes a
            :class:`~layergraph_shapes.LayerCall` and returns its FLOPs.

    Returns:
        The cost. ``.uncounted`` names the layers with operators whose FLOPs are unknown; these
        count as 0.

    Raises:
        ArgumentError, AssumptionError, ShapeError: as for :func:`layergraph.shapes`.
        InvalidIrError, BuildError, PluginError: as for :func:`layergraph.to_torch`.

    Example:
        >>> import torch, layergraph as lg
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> lg.cost(ir, [(5, 2)]).flops
        60
    """
    check_options(ir, sizes, decisions)
    symbols = Sizes({})
    model = FakeModel(meta_model(ir, training=training), symbols)
    costs = _owned(model)
    counting = _Counting(model, symbols, costs, formulas or {})
    walk = Walk(model, symbols, counting, decisions)
    with model.running():
        walk.call(*Arguments(None, sizes or {}).of(args, kwargs))
    answers = counting.dearest(walk.decisions.values())
    counting.add_up(answers)
    return Cost(
        tuple(costs.values()),
        counting.memory.peak,
        model.modules[ir.root].training,
        {each.name: answer for each, answer in answers.items()},
    )


def _owned(model: FakeModel) -> dict[str, LayerCost]:
    """Return the costs of layers, with their parameters and bytes."""
    costs = {
        name: LayerCost(name, each.type) for name, each in model.ir.items() if each.type != BODY
    }
    seen: set[int] = set()
    for key, tensor, persists in model.weights:
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        own = costs[owner_of(model.ir, key)[0]]
        is_parameter = isinstance(tensor, nn.Parameter)
        own.parameters += tensor.numel() if is_parameter else 0
        size = sum([each.nbytes for each in model.kinds.blocks(tensor)])
        own.bytes += size if is_parameter or persists else 0
    return costs


class _Counting(Describing):
    """Counts the FLOPs of each call, and the memory."""

    def __init__(
        self,
        model: FakeModel,
        sizes: Sizes,
        costs: Mapping[str, LayerCost],
        formulas: Mapping[str, Formula],
    ) -> None:
        super().__init__(sizes)
        self._model = model
        self._costs = costs
        self._formulas = formulas
        self._events: list[tuple[LayerCost, Answers, int]] = []
        self.memory = Memory(model.tensors.values())

    def enter(self, _: Implementation, values: Sequence[Any], _training: bool, /) -> None:
        self.memory.hold(values)

    def computed(self, value: Any, released: Sequence[Any], /) -> None:
        self.memory.hold([value])
        self.memory.release(released)

    def failed(self, kept: Sequence[Any], /) -> None:
        self.memory.release(kept)

    def leave(self, implementation: Implementation, result: Any, kept: Sequence[Any], /) -> None:
        self.memory.release(kept)
        self._called(self._costs[implementation.name], result)

    def _called(self, own: LayerCost, result: Any) -> None:
        own.calls += 1
        own.output = self.describe(result)

    def run(
        self,
        owner: Implementation,
        called: Implementation | str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answers: Answers,
        /,
    ) -> Any:
        operators = self._model.operators
        operators.reset()
        result = function(*args, **kwargs)
        flops, uncounted = operators.flops, operators.uncounted
        layer = called if isinstance(called, Implementation) else None
        own = self._costs[owner.name]
        formula = self._formulas.get(called if isinstance(called, str) else called.type)
        if formula is not None:
            flops, uncounted = formula(LayerCall(layer, args, kwargs, result)), []
        elif isinstance(function, Recurrent):
            flops = function.flops(args[0])
        if layer is not None and layer.name != self._model.ir.root:
            self._called(own, result)
        if isinstance(flops, torch.SymInt):
            uncounted, flops = [*uncounted, "a size that numbers decide"], 0
        own.uncounted += uncounted
        if flops:
            self._events.append((own, answers, flops))
        return result

    def dearest(self, decisions: Sequence[Decision] | Any) -> dict[Decision, bool]:
        """Return the answers to decisions with the most FLOPs.

        Raises:
            ShapeError: there are too many decisions.
        """
        asked = list(decisions)
        if len(asked) > _MOST_DECISIONS:
            raise ShapeError(
                f"the model makes {len(asked)} decisions by numbers; answer all but "
                f"{_MOST_DECISIONS} of them, as in decisions={{{asked[0].name!r}: True}}"
            )
        ways = [
            dict(zip(asked, answers, strict=True))
            for answers in itertools.product((True, False), repeat=len(asked))
        ]
        return max(ways, key=lambda way: sum(flops for _, flops in self._on(way)))

    def _on(self, way: Answers) -> Iterator[tuple[LayerCost, int]]:
        for own, answers, flops in self._events:
            if all(way[decision] is answer for decision, answer in answers.items()):
                yield own, flops

    def add_up(self, way: Answers) -> None:
        """Add the FLOPs of a way to the costs of the layers."""
        for own, flops in self._on(way):
            own.flops += flops


def _lines(total: Cost) -> Iterator[str]:
    heads = ("layer", "type", "output", "parameters", "FLOPs")
    rows = [
        (
            each.name,
            each.type,
            text(each.output) if each.calls else "not called",
            f"{each.parameters:,}",
            f"{each.flops:,}{' + ?' if each.uncounted else ''}",
        )
        for each in total.layers
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells)
    mode = "training" if total.training else "evaluation"
    yield f"{total.flops:,} FLOPs, {total.parameters:,} parameters, {total.bytes:,} bytes"
    yield f"{total.peak_activation_bytes:,} bytes of activations at most, in {mode} mode"
    if total.decisions:
        listed = ", ".join(f"{name} is {answer}" for name, answer in total.decisions.items())
        yield f"on the way with the most FLOPs: {listed}"
    if total.uncounted:
        yield f"not counted: {', '.join(total.uncounted)}"
