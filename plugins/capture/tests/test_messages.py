"""Sizes in messages: they fix no size, while texts by which code goes on do."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from torch import _assert

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal

LOGGER = logging.getLogger(__name__)


class Asserts(Base):
    def forward(self, x):
        rows, columns = x.shape
        _assert(rows > 0, f"the number of rows ({rows}) is not positive for {columns:>3} columns")
        torch._assert(columns == 4, f"{columns} columns")
        return self.lin(x)


class Reports(Base):
    def forward(self, x):
        print(f"{x.shape[0]} rows", x.shape, x.shape[0])
        LOGGER.info(f"{x.shape[0]} rows")
        warnings.warn(f"{x.shape[0]} rows", stacklevel=1)
        return self.lin(x)


@pytest.mark.parametrize("make", [Asserts, Reports])
@pytest.mark.filterwarnings("ignore:.*rows")
def test_a_message_fixes_no_size(make):
    model = make()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.rand(2, 4),)), model.state_dict())
    for rows in (1, 2, 5):
        x = torch.rand(rows, 4)
        assert bitwise_equal(rebuilt(x), model(x))


class ByText(Base):
    scale_2, scale_3 = 2.0, 3.0

    def forward(self, x):
        return self.lin(x) * getattr(self, f"scale_{x.shape[0]}")


class ByOwnPrint(Base):
    """It has a function of its own with the name of one that reports."""

    def print(self, text):
        return {"2 rows": 2.0}.get(text, 3.0)

    def forward(self, x):
        return self.lin(x) * self.print(f"{x.shape[0]} rows")


class ByNested(Base):
    def forward(self, x):
        scale = []
        print(scale.append({"2": 2.0}.get(str(x.shape[0]), 3.0)))
        return self.lin(x) * scale[0]


def info(text):
    return {"2 rows": 2.0}.get(text, 3.0)


class ByFunction(Base):
    def forward(self, x):
        return self.lin(x) * info(f"{x.shape[0]} rows")


@pytest.mark.parametrize("make", [ByText, ByOwnPrint, ByNested, ByFunction])
def test_a_text_by_which_code_goes_on_fixes_the_size(make):
    model = make()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.rand(2, 4),)), model.state_dict())
    x = torch.rand(2, 4)
    assert bitwise_equal(rebuilt(x), model(x))
    with pytest.raises(AssumptionError):
        rebuilt(torch.rand(3, 4))


class Whole(Base):
    """It asks whether a quotient is a whole number."""

    def forward(self, x):
        quotient = x.shape[0] / 2
        return self.lin(x) * (2 if quotient.is_integer() else 3)


@pytest.mark.parametrize("given", [2, 3])
def test_a_question_for_a_whole_number_fixes_no_size(given):
    model = Whole()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.rand(given, 4),)), model.state_dict())
    for rows in (given, given + 2, given + 1):
        x = torch.rand(rows, 4)
        try:
            assert bitwise_equal(rebuilt(x), model(x))
        except AssumptionError:
            assert rows == given + 1
