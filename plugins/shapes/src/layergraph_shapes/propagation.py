"""``layergraph.shapes``: the shape and dtype of every value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layergraph.errors import ArgumentError
from layergraph.ir import Implementation, Ir, Node
from layergraph.ir2torch.meta_model import MetaModel
from layergraph_shapes.alternatives import Answers
from layergraph_shapes.arguments import Arguments
from layergraph_shapes.described import Either, text
from layergraph_shapes.describing import Describing
from layergraph_shapes.fake_model import FakeModel, meta_model
from layergraph_shapes.observer import Path
from layergraph_shapes.sizes import Sizes, check_name
from layergraph_shapes.walk import Walk


class Shapes(Mapping[Path, Any]):
    """The description of every value that one call of a model computes.

    A key is the path of a value: the names of the nodes that make the call, from the root of the IR
    on, then the name of the node. A composite that is called twice has its nodes twice. A single
    name is a node of the root. The order is that of execution.

    A tensor is described by a :class:`~layergraph_shapes.TensorMeta`, in the containers that hold
    it. A named tuple is a :class:`layergraph.ir.Record`. Symbolic numbers are texts; other values
    are unchanged.

    Attributes:
        calls: for each path of a call, the name of the called layer.
        modes: for each composite that ran, True for its training graph.
        output: the description of the model's result.
        decisions: the decisions by numbers in the inputs: from name to the line of the model's
            code. Later values are described on both ways; if these differ, the description is an
            :class:`~layergraph_shapes.Either`. A value that exists on one way is described for it.
        conditions: the conditions on symbolic sizes under which the descriptions hold.
    """

    def __init__(
        self,
        values: Mapping[Path, Any],
        calls: Mapping[Path, str],
        modes: Mapping[str, bool],
        output: Any,
        decisions: Mapping[str, str],
        conditions: tuple[str, ...],
    ) -> None:
        self._values = dict(values)
        self.calls = dict(calls)
        self.modes = dict(modes)
        self.output = output
        self.decisions = dict(decisions)
        self.conditions = conditions

    def __getitem__(self, path: Path | str) -> Any:
        return self._values[(path,) if isinstance(path, str) else path]

    def __iter__(self) -> Iterator[Path]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def of(self, layer: str) -> list[Any]:
        """Return the descriptions of a layer's results, one per call.

        Args:
            layer: the name of its implementation, such as ``"layer1.0.conv1"``.
        """
        return [self[path] for path in self if self.calls.get(path) == layer]

    def __repr__(self) -> str:
        return f"Shapes({len(self)} values)"

    def __str__(self) -> str:
        lines = [f"{'/'.join(path)}: {text(value)}" for path, value in self.items()]
        lines.append(f"return {text(self.output)}")
        lines += [f"both ways of {name}: {where}" for name, where in self.decisions.items()]
        lines += [f"if {condition}" for condition in self.conditions]
        return "\n".join(lines)


def shapes(
    ir: Ir,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    training: bool | None = None,
    decisions: Mapping[str, bool] | None = None,
) -> Shapes:
    """Return the shape and dtype of every value that a call of a model computes.

    Layers and functions run on fake tensors, so nothing is computed, and no weights are needed.

    Args:
        ir: the IR of the model.
        args: the positional arguments of a call, as a tuple. Only the shapes and dtypes of tensors
            count, also inside containers. A tuple of sizes stands for a float32 tensor of this
            shape, and a :class:`~layergraph_shapes.TensorMeta` for a tensor of any dtype. A size
            may be a name, such as ``"batch"``: then the sizes in the result are expressions of it.
            Give a tuple of numbers that is no shape as a list.
        kwargs: the keyword arguments, in the same form.
        sizes: example numbers for named sizes. If code branches on a size, the result describes the
            branch of the example, and ``.conditions`` states which sizes take it.
        training: the mode; None: the mode of the IR.
        decisions: the answers to decisions by numbers, by name: see :attr:`Shapes.decisions`.

    Raises:
        ArgumentError: the arguments are not those that the model takes.
        AssumptionError: an input does not pass a guard, such as that for its rank.
        ShapeError: a layer or function refuses its inputs, a named size can have only one value, or
            a result depends on numbers in tensors. The message names the node. InvalidIrError,
            BuildError, PluginError: as for :func:`layergraph.to_torch`.

    Example:
        >>> import torch, layergraph as lg
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> print(lg.shapes(ir, [("batch", 2)]))
        input_1: float32[batch, 2]
        _0: float32[batch, 3]
        _1: float32[batch, 3]
        return float32[batch, 3]
    """
    check_options(ir, sizes, decisions)
    return shapes_of(
        meta_model(ir, training=training), args, kwargs, sizes=sizes, decisions=decisions
    )


def shapes_of(
    built: MetaModel,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    decisions: Mapping[str, bool] | None = None,
) -> Shapes:
    """Return what :func:`shapes` returns, for a model that :func:`meta_model` built.

    Args:
        built: the model. It is as before afterwards, so that it can be filled with tensors.
        args: see :func:`shapes`.
        kwargs: see :func:`shapes`.
        sizes: see :func:`shapes`.
        decisions: see :func:`shapes`.

    Raises:
        ArgumentError, AssumptionError, ShapeError: as for :func:`shapes`.
    """
    symbols = Sizes(sizes or {})
    model = FakeModel(built, symbols)
    seen = _Described(symbols)
    walk = Walk(model, symbols, seen, decisions)
    with model.running():
        result = walk.call(*Arguments(symbols, sizes or {}).of(args, kwargs))
    values = {path: seen.of(path) for path in seen.found}
    lines = {name: each.where for name, each in walk.decisions.items()}
    return Shapes(
        values, seen.calls, seen.modes, seen.describe(result), lines, symbols.conditions()
    )


def check_options(
    ir: object, sizes: Mapping[str, int] | None, decisions: Mapping[str, bool] | None
) -> None:
    """Raise if arguments of :func:`shapes` have wrong types.

    Raises:
        ArgumentError: one has.
    """
    if not isinstance(ir, Ir):
        raise ArgumentError(f"{type(ir).__name__} is no IR; give what to_ir or load returned")
    for name, size in (sizes or {}).items():
        check_name(name)
        if type(size) is not int or size < 1:
            raise ArgumentError(f"the size {name!r} is {size!r}; give a number of 1 or more")
    for name, answer in (decisions or {}).items():
        if type(answer) is not bool:
            raise ArgumentError(f"the decision {name!r} is {answer!r}; give True or False")


class _Described(Describing):
    """Stores the descriptions of values for each combination of answers."""

    takes_repeats = True

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.found: dict[Path, list[tuple[Answers, Any]]] = {}
        self.calls: dict[Path, str] = {}
        self.modes: dict[str, bool] = {}

    def enter(self, implementation: Implementation, _: Sequence[Any], training: bool, /) -> None:
        self.modes[implementation.name] = training

    def value(self, path: Path, node: Node, value: Any, answers: Answers, /) -> None:
        if node.is_call:
            self.calls[path] = node.implementation
        self.found.setdefault(path, []).append((answers, self.describe(value)))

    def repeat(self, first: Path, path: Path, node: Node, /) -> None:
        if first in self.found:
            self.found[path] = list(self.found[first])
            if node.is_call:
                self.calls[path] = node.implementation

    def of(self, path: Path) -> Any:
        return _folded(self.found[path])


def _folded(ways: list[tuple[Answers, Any]]) -> Any:
    """Return one description of a value from its descriptions on several ways."""
    first = ways[0][1]
    if all(value == first for _, value in ways):
        return first
    for decision in ways[0][0]:
        sides = [
            [way for way in ways if way[0].get(decision) is not side] for side in (False, True)
        ]
        if all(len(side) < len(ways) for side in sides):
            answers = tuple(_folded(side) for side in sides)
            return answers[0] if answers[0] == answers[1] else Either(decision.name, *answers)
    return ways[-1][1]
