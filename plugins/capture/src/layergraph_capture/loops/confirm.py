"""Comparing what an IR gives with what its model gives, for one call."""

from __future__ import annotations

from typing import Any

from torch import nn

from layergraph import to_torch
from layergraph.ir import Ir
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.state.global_state import GlobalState
from layergraph.torch2ir.tracing.patches import with_room_for
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph.undo import raise_interrupt
from layergraph_capture.arguments import Arguments
from layergraph_capture.original import undone_call
from layergraph_capture.outcomes import are_same, buffers_left, leaves_of, without_graph
from layergraph_capture.trackers.constants import Constants


def is_like_model(
    ir: Ir, module_index: ModuleIndex, constants: Constants, arguments: Arguments
) -> bool:
    """Return whether an IR gives what its model gives, bit for bit, and leaves the same buffers.

    The rebuilt model reads the parameters of the model, which neither of them may change.

    Args:
        ir: the IR.
        module_index: the model.
        constants: the tensors that it has besides.
        arguments: those of the call.
    """
    model = module_index.root.module

    def compare() -> bool:
        with GlobalState(arguments.device).compared():
            # Layers draw numbers when they are made.
            rebuilt = _rebuilt(ir, model)
        with GlobalState(arguments.device).compared():
            # First this one: its guards say whether the model does what was recorded.
            ours = _leaves(rebuilt, arguments)
        with undone_call(module_index, constants, arguments):
            return are_same(ours, _leaves(model, arguments))

    try:
        return with_room_for(module_index.depth, compare)
    except Exception as error:
        raise_interrupt(error)
        return False


def _rebuilt(ir: Ir, model: nn.Module) -> nn.Module:
    rebuilt = to_torch(ir, device="meta")
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    state = {
        key: value if key in parameters else value.clone()
        for key, value in model.state_dict().items()
    }
    rebuilt.load_state_dict(state, assign=True)
    return rebuilt


def _leaves(model: nn.Module, arguments: Arguments) -> list[Any]:
    """Return what a model gives, and the buffers that it leaves."""
    args, kwargs, _ = arguments.bind(Recorder(), lambda *_: None)
    given = [*leaves_of(model(*args, **kwargs))]
    return [*map(without_graph, given + buffers_left(model))]
