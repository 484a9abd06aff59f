"""Tensors that code reaches by globals and classes, in containers and objects there too."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal
from layergraph_capture.trackers import constants


class Tableau(NamedTuple):
    alpha: torch.Tensor
    beta: list[torch.Tensor]


class Solver:
    tableau = Tableau(torch.tensor([0.1, 0.2]), [torch.tensor([0.3, 0.4])])

    def __init__(self):
        self.tableau = Tableau(
            self.tableau.alpha.to(torch.float64), [each + 1 for each in self.tableau.beta]
        )


class Settings:
    def __init__(self):
        self.scale = torch.tensor([3.0, 4.0])


TABLE = {"steps": [torch.tensor([1.0, 2.0])]}
SETTINGS = Settings()
PLAIN = torch.tensor([1.0, 2.0])


class ReadsThem(nn.Module):
    def forward(self, x):
        tableau = Solver().tableau
        x = x * TABLE["steps"][0] + SETTINGS.scale
        return x * tableau.alpha + tableau.beta[0]


def test_tensors_inside_globals_and_classes_are_constants():
    model, x = ReadsThem(), torch.randn(3, 2)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    for each in x, torch.randn(5, 2):
        assert bitwise_equal(rebuilt(each), model(each))


def in_place(x):
    PLAIN.add_(1)
    return x * PLAIN


def inside(x):
    TABLE["steps"][0].mul_(2)
    return x * TABLE["steps"][0]


def by_a_view(x):
    PLAIN[:1].add_(1)
    return x * PLAIN


def as_an_output(x):
    torch.add(PLAIN, 1, out=PLAIN)
    return x * PLAIN


def as_statistics(x):
    return nn.functional.batch_norm(x, PLAIN, SETTINGS.scale, training=True)


@pytest.mark.parametrize("change", [in_place, inside, by_a_view, as_an_output, as_statistics])
def test_a_capture_leaves_them_as_they_were(change):
    class Changes(nn.Module):
        def forward(self, x):
            return change(x)

    held = PLAIN, TABLE["steps"][0], SETTINGS.scale
    was = [each.clone() for each in held]
    with pytest.raises(CaptureError, match=r"a tensor that (it|the model) has not registered"):
        lg.to_ir(Changes(), (torch.randn(3, 2),))
    assert all(map(torch.equal, held, was))


SCALE, SHIFT, STEP = torch.tensor(2.0), torch.tensor(3.0), (torch.tensor(4.0), torch.tensor(5.0))


class ReadsGlobals(nn.Module):
    def forward(self, x):
        return ((x * SCALE + SHIFT) * STEP[0] + STEP[1]) / SCALE


def test_the_globals_are_searched_once(monkeypatch):
    searched, search = [], constants._global_tensors
    monkeypatch.setattr(constants, "_global_tensors", lambda: searched.append(1) or search())
    model, x = ReadsGlobals(), torch.randn(3)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)))
    assert torch.equal(rebuilt(x), model(x))
    assert len(searched) == 1
