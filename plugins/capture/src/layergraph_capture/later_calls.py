"""Later calls of a model that keeps tables, as a proof that the tables change nothing.

A model computes such a table in its first call, and reads it or replaces it in later ones; its IR
computes it in each call. The calls have other sizes, in several orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from layergraph import to_torch
from layergraph.capturing import Example
from layergraph.errors import AssumptionError, CaptureError
from layergraph.ir import Ir
from layergraph.torch2ir.indexing.module_index import ModuleIndex, other_mode
from layergraph.torch2ir.state.global_state import GlobalState
from layergraph.torch2ir.tracing.patches import with_room_for
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph.undo import raise_interrupt
from layergraph_capture.arguments import Arguments, tensors_in
from layergraph_capture.loops.lengths import Length, by_dimension, shapes_of, sizes_of
from layergraph_capture.original import undone_call
from layergraph_capture.outcomes import are_same, buffers_left, leaves_of
from layergraph_capture.trackers.constants import Constants

# The most sizes of the inputs that are varied.
_MOST_SIZES = 6


class LaterCalls:
    """Compares calls of a model, made one after another, with calls of its rebuilt model.

    Args:
        ir: the IR.
        module_index: the model.
        constants: the tensors that it has besides.
        arguments_of: returns the arguments of an example.
        keeps_state: whether each call depends on the one before, so that nothing is to be compared
            after a call that raises an error.
    """

    def __init__(
        self,
        ir: Ir,
        module_index: ModuleIndex,
        constants: Constants,
        arguments_of: Callable[[Example], Arguments],
        keeps_state: bool,
    ) -> None:
        self._ir = ir
        self._module_index = module_index
        self._model = module_index.root.module
        self._constants = constants
        self._arguments_of = arguments_of
        self._keeps_state = keeps_state

    def are_like_first_ones(self, example: Example, others: Sequence[int] = ()) -> bool:
        """Return whether later calls give what first calls give, bit for bit, in both modes.

        Args:
            example: the call whose sizes are varied.
            others: further sizes that a call has had.
        """
        sizes = [*_sizes(example)]
        varied = [_Varied(example, each) for each in sizes]
        around = [[example]] * 2
        around += [step for each in varied for step in (each.longer, [example], each.shorter)]
        orders = [around, *[[each.longer, each.shorter, [example]] for each in varied]]
        orders += [[[each.call(example, one - each.size)]] for each in sizes for one in others]

        def compare() -> bool:
            own = all(map(self._is_alike, orders))
            with other_mode(self._module_index):
                return own and self._is_alike(around)

        try:
            return with_room_for(self._module_index.depth, compare)
        except CaptureError:
            # The calls make changes that cannot be undone.
            return False

    def _is_alike(self, order: list[list[Example]]) -> bool:
        """Return whether calls in a row give the same; of each list, the first possible call."""
        given = [list(map(self._arguments_of, each)) for each in order]
        device = given[0][0].device
        with GlobalState(device).compared():
            # Layers draw numbers when they are made.
            rebuilt = to_torch(self._ir, device="meta")
            state = self._model.state_dict(keep_vars=True)
            parameters = {id(each) for each in self._model.parameters()}
            # A model may write entries of its own that are no tensors.
            owned = {
                key: each if id(each) in parameters else each.detach().clone()
                for key, each in state.items()
                if isinstance(each, torch.Tensor)
            }
            rebuilt.load_state_dict(owned, assign=True)
            modes = {name: each.training for name, each in self._model.named_modules()}
            for name, each in rebuilt.named_modules():
                each.training = modes.get(name, each.training)
        with undone_call(self._module_index, self._constants, given[0][0]):
            # Tables are often made in a call that needs no gradients.
            with torch.no_grad():
                is_alike = self._step(rebuilt, given[0])
            for each in given[1:]:
                if not is_alike:
                    break
                is_alike = self._step(rebuilt, each)
            return is_alike is not False

    def _step(self, rebuilt: nn.Module, calls: list[Arguments]) -> bool | None:
        """Compare the first call that is possible; those before it are impossible for both.

        Returns:
            Whether both give the same; None if the calls after it are not to be compared.
        """
        for each in calls:
            theirs, ours = _outcome(self._model, each), _outcome(rebuilt, each)
            if isinstance(ours, AssumptionError):
                return None if self._keeps_state else True
            if isinstance(theirs, list) or isinstance(ours, list):
                return (
                    isinstance(theirs, list) and isinstance(ours, list) and are_same(ours, theirs)
                )
            if self._keeps_state:
                # The model may have replaced tensors before its error; a graph does so later.
                return None
        return True


class _Varied:
    """The calls in which one size is larger, and those in which it is smaller: likely ones first.

    Args:
        example: the call of the user.
        length: the size.
    """

    def __init__(self, example: Example, length: Length) -> None:
        size = length.size
        more, less = (1, max(size // 2, 1), size), (1, size - size // 2)
        self.longer = [length.call(example, each) for each in dict.fromkeys(more)]
        self.shorter = [length.call(example, -each) for each in dict.fromkeys(less) if each < size]


def _sizes(example: Example) -> Iterator[Length]:
    shapes = shapes_of(example)
    for size in [each for each in sizes_of(example) if each][:_MOST_SIZES]:
        yield Length(size, 1)
        groups = by_dimension(shapes, size)
        if len(groups) > 1:
            for group in groups:
                yield Length(size, 1, group)


def _outcome(model: nn.Module, arguments: Arguments) -> list[Any] | Exception:
    try:
        return _results(model, arguments)
    except Exception as error:
        raise_interrupt(error)
        return error


def _results(model: nn.Module, arguments: Arguments) -> list[Any]:
    """Return what a model gives, the gradients of that, and the buffers that it leaves."""
    with GlobalState(arguments.device).compared():
        args, kwargs, _ = arguments.bind(Recorder(), lambda *_: None)
        given = [*leaves_of(model(*args, **kwargs))]
        outputs = [each for each in given if isinstance(each, torch.Tensor) and each.requires_grad]
        trained = [
            each
            for each in (*model.parameters(), *tensors_in((args, kwargs)))
            if each.requires_grad
        ]
        gradients: tuple[Any, ...] = ()
        if outputs and trained:
            gradients = torch.autograd.grad(
                outputs, trained, [each.detach() for each in outputs], allow_unused=True
            )
    return [*given, *gradients, *buffers_left(model)]
