"""Loops are replaced by their turns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal
from layergraph_rewrite import EditError


class Recurrent(nn.Module):
    """Two loops, one in the other, with a layer, a carried and a collected value, and the turn."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(3, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state, found = torch.zeros(3), []
        for step in range(x.size(0)):
            state = torch.tanh(self.cell(self.drop(x[step])) + state * step)
            found.append(state)
        return torch.stack(found), state


def equal(one: nn.Module, other: nn.Module, x: torch.Tensor) -> bool:
    results = []
    for model in (one, other):
        torch.manual_seed(0)
        results.append(model(x))
    return bitwise_equal(*results)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("turns", [1, 4, 7])
def test_the_turns_compute_what_the_loop_does(training: bool, turns: int) -> None:
    model = Recurrent().train(training)
    edit = lg.edit(lg.to_ir(model, (torch.randn(5, 3),)), model.state_dict())
    edit.unroll("root:loop", turns)
    assert not any("/" in name for name in edit.ir)
    rebuilt = lg.to_torch(edit.ir, edit.state).train(training)
    assert equal(rebuilt, model, torch.randn(turns, 3))
    with pytest.raises(AssumptionError, match="the number of turns of loop"):
        rebuilt(torch.randn(turns + 1, 3))


def test_no_turn_leaves_what_was_carried() -> None:
    class Total(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = torch.zeros(2)
            for step in range(x.size(0)):
                total = total + x[step]
            return total

    edit = lg.edit(lg.to_ir(Total(), (torch.randn(5, 2),)))
    edit.unroll("root:loop", 0)
    assert [node.implementation for node in edit.ir["root"].nodes.values()][-2:] == [
        "layergraph.assume",
        "output",
    ]


@pytest.mark.parametrize(
    ("place", "turns", "said"),
    [
        ("root:stack", 3, "is no loop"),
        ("root:loop", None, "give a number"),
        ("root:loop", -1, "and not -1"),
    ],
)
def test_what_cannot_be_unrolled_is_refused(place: str, turns: int | None, said: str) -> None:
    edit = lg.edit(lg.to_ir(Recurrent(), (torch.randn(5, 3),)))
    with pytest.raises(EditError, match=said):
        edit.unroll(place, turns)
