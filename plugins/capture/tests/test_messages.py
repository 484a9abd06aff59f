"""Numbers in texts: a message that only people read needs no guard, any other text has one."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from torch import _assert, nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal

logger = logging.getLogger(__name__)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 3)
        self.log = logger
        self.table = {f"of {n}": 1.0 + n for n in range(9)}
        self.names = []

    def forward(self, x):
        return self.lin(x) * self.factor(x, x.shape[0])


class Logs(Model):
    def factor(self, x, n):
        logger.warning(
            f"it has {n} rows, "
            f"so {n * 2:>5} and {list(x.shape)!r}, {x.sum().item():.3f}: {x.size(0)}"
        )
        return 2.0


class LogsByOthers(Model):
    def factor(self, x, n):
        self.log.info("of {}".format(n))  # noqa: UP032
        self.log.error("of " + str(n) + "!")
        logger.error("of %d" % n)  # noqa: UP031
        logger.error("of %d and %s", n, n)
        return 2.0


class Warns(Model):
    def factor(self, x, n):
        warnings.warn(f"of {n}", stacklevel=1)
        return 2.0


class Prints(Model):
    def factor(self, x, n):
        print(n, x.shape)
        print(f"of {n}")
        return 2.0


class Asserts(Model):
    def factor(self, x, n):
        torch._assert(n > 0, f"of {n}")
        _assert(x.shape[1] == 3, f"of {n:>3} and {x.shape[1]}")
        return 2.0


class Reads(Model):
    def factor(self, x, n):
        return self.table[f"of {n}"]


class Percent(Model):
    def factor(self, x, n):
        return self.table["of %s" % n]  # noqa: UP031


class Joins(Model):
    def factor(self, x, n):
        return self.table["of " + "".join(map(str, [n]))]


class Keeps(Model):
    def factor(self, x, n):
        self.names.append(f"of {n}")
        return self.table[self.names.pop()]


class LogsWhatItReads(Model):
    def factor(self, x, n):
        logger.info(f"it is {self.table[f'of {n}']}")
        return 2.0


class LogsLater(Model):
    def factor(self, x, n):
        text = f"of {n}"
        logger.info(text)
        return self.table[text]


class PrintsIntoFile(Model):
    def factor(self, x, n):
        print(f"of {n}", file=self)
        return self.table[self.names.pop()]

    def write(self, text):
        if text.strip():
            self.names.append(text)


class HasItsOwnPrint(Model):
    def print(self, text):
        return self.table[text]

    def factor(self, x, n):
        return self.print(f"of {n}")


class PrintsWhatItKeeps(Model):
    def factor(self, x, n):
        print(self.names.append(str(n)))
        return self.table[f"of {self.names.pop()}"]


@pytest.mark.filterwarnings("ignore:of ")
@pytest.mark.parametrize("kind", [Logs, LogsByOthers, Warns, Prints, Asserts])
def test_a_message_needs_no_guard(kind, tmp_path, recwarn):
    model = kind()
    ir = lg.to_ir(model, (torch.randn(4, 3),))
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for rebuilt in (lg.to_torch(ir, model.state_dict()), lg.load_model(tmp_path / "m.safetensors")):
        for rows in (1, 4, 7):
            x = torch.randn(rows, 3)
            assert bitwise_equal(rebuilt(x), model(x))


@pytest.mark.parametrize(
    "kind",
    [
        Reads,
        Percent,
        Joins,
        Keeps,
        LogsWhatItReads,
        LogsLater,
        PrintsIntoFile,
        HasItsOwnPrint,
        PrintsWhatItKeeps,
    ],
)
def test_another_text_has_a_guard(kind):
    model = kind()
    x = torch.randn(4, 3)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    assert bitwise_equal(rebuilt(x), model(x))
    with pytest.raises(AssumptionError, match="was 4 when"):
        rebuilt(torch.randn(7, 3))


class IsWhole(Model):
    def factor(self, x, n):
        return 2.0 if (n / 2).is_integer() else 3.0


@pytest.mark.parametrize("given", [2, 3])
def test_a_question_for_a_whole_number_fixes_no_size(given):
    model = IsWhole()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.randn(given, 3),)), model.state_dict())
    for rows in (given, given + 2, given + 1):
        x = torch.randn(rows, 3)
        try:
            assert bitwise_equal(rebuilt(x), model(x))
        except AssumptionError:
            assert rows == given + 1
