"""The options of one run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch.sparse import check_sparse_tensor_invariants

from layergraph.capturing import Values
from layergraph.torch2ir.state.changes import Change
from layergraph_capture.arguments import Arguments
from layergraph_capture.interception.saved_tensors import SavedTensors
from layergraph_capture.loops.short_runs import ShortRuns
from layergraph_capture.symbolic.conversions import Conversions
from layergraph_capture.tables.keyed_tables import KeyedTables
from layergraph_capture.trackers.constants import Constants
from layergraph_capture.trackers.flags import Flags
from layergraph_capture.trackers.objects import Objects
from layergraph_capture.trackers.rebound_state import ReboundState
from layergraph_capture.ways.plans import Plan


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of one run.

    Attributes:
        arguments: the arguments of the call.
        objects: the classes of objects that it takes and returns.
        constants: the tensors that the model reads but does not register.
        values: the treatment of code that depends on a number in a tensor.
        conversions: whether ``int()`` and ``float()`` return symbolic numbers.
        short_runs: leaves a run of very many turns.
        tables: the dicts that are keyed by sizes.
        saved: the treatment of the tensors that autograd saves.
        doubts: takes the changes after which the IR is to be compared with the model.
        rebound: the tensors that the code of the model replaces.
        flags: the buffers by which code branches, and that it changes.
        answers: the forced answers of the first decisions.
        numbers_turns: whether the iteration numbers of loops are symbolic.
        knows: returns whether earlier runs have shown that changes affect no later run.
        branches: the lines whose comparisons of sizes of one tensor are decisions anyway.
        plan: answers the decisions by numbers, in a run to find loops.
    """

    arguments: Arguments
    objects: Objects
    constants: Constants
    values: Values
    conversions: Conversions
    short_runs: ShortRuns
    tables: KeyedTables
    saved: SavedTensors
    doubts: list[Change]
    rebound: ReboundState
    flags: Flags
    answers: Sequence[bool] = ()
    numbers_turns: bool = False
    knows: Callable[[Sequence[Change]], bool] | None = None
    branches: Collection[str] = ()
    plan: Plan | None = None

    def checks(self) -> AbstractContextManager[object]:
        """Return a region for the run, in which torch checks sparse tensors if answers are forced.

        The indices of a way that the numbers do not take may be unsorted or double. Kernels that
        trust them crash the process; the check raises an error.
        """
        is_forced = self.plan is not None or bool(self.answers)
        if not is_forced:
            return nullcontext()
        return check_sparse_tensor_invariants()  # type: ignore[no-untyped-call]
