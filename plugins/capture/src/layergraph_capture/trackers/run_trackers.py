"""The trackers of one run, which write to one recorder."""

from __future__ import annotations

from layergraph.torch2ir.tracing.tracer import Tracer
from layergraph_capture.interception.torch_modes import RecordingSwitch
from layergraph_capture.loops.frame_state import PlainStates
from layergraph_capture.run_options import RunOptions
from layergraph_capture.symbolic.sizes import Sizes
from layergraph_capture.trackers.borders import Borders
from layergraph_capture.trackers.devices import Devices
from layergraph_capture.trackers.foreign_states import ForeignStates
from layergraph_capture.trackers.guards import Guards
from layergraph_capture.trackers.hidden_states import HiddenStates
from layergraph_capture.trackers.snapshot import StateSnapshot
from layergraph_capture.trackers.tensors import Tensors
from layergraph_capture.ways.decisions import Decisions


class RunTrackers:
    """The trackers of one run.

    Args:
        tracer: the tracer of the run.
        options: the options of the run.
        switch: turns recording off for a call.

    Attributes:
        guards: records guards.
        decisions: answers decisions.
        states: compares states at loop iterations; None if these are not marked.
        sizes: makes symbolic sizes, and maps them to their values.
        devices: maps device objects to the tensors that they were read from.
        foreign: finds layers outside the model.
        snapshot: saves tensors of the model before they may change.
        tensors: maps tensors to their values.
        borders: gives the model aliases of tensors that cross the border of a module call.
        hidden: maps the hidden states of layers to values.
    """

    def __init__(self, tracer: Tracer, options: RunOptions, switch: RecordingSwitch) -> None:
        recorder, module_index = tracer.recorder, tracer.module_index
        self.guards = Guards(recorder)
        self.decisions = Decisions(
            recorder, self.guards, options.answers, options.plan, options.flags.followed
        )
        self.states = PlainStates(tracer.outside) if options.numbers_turns else None
        self.sizes = Sizes(
            recorder,
            self.guards,
            tracer.is_recording,
            self.decisions if options.values == "both" else None,
            self.states,
            options.branches,
        )
        self.devices = Devices(recorder, options.arguments.device)
        self.foreign = ForeignStates(module_index)
        self.snapshot = StateSnapshot(module_index, options.constants)
        self.tensors = Tensors(
            recorder,
            switch,
            tracer.state_tensors,
            options.constants,
            self.guards,
            self.foreign,
            self.snapshot,
        )
        self.borders = Borders(recorder, self.tensors)
        self.hidden = HiddenStates(recorder, self.tensors, tracer.to_literal)
