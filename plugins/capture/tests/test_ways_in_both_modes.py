"""Models that decide by numbers and read their mode: one run along each way holds both modes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base, Traps, check
from layergraph_capture.capturer import EagerCapturer

TRAPS = Traps()


def _draw(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.1


UP = _draw(3, 4)
CALLS = [(-UP,), (_draw(1, 4),), (-_draw(5, 4),), (UP * 40,), (UP * -40,)]


def exact(**options):
    return TRAPS.exact((UP,), CALLS, values="both", **options)


class Two(Base):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(4, 4)


# --- the runs hold both modes ---


@exact()
class DropsAfterTheChoice(Two):
    def forward(self, x):
        y = self.lin(x) if x.sum() > 0 else x
        return F.dropout(y, 0.5, self.training)


@exact(training=False)
class DropsOnEachWay(Two):
    def forward(self, x):
        if x.sum() > 0:
            return F.dropout(self.lin(x), 0.5, self.training)
        return F.dropout(self.other(x), 0.25, training=self.training) + 1


@exact(training=False)
class DropsOnOneWay(Two):
    def forward(self, x):
        if x.sum() > 0:
            return F.dropout(self.lin(x), 0.5, self.training)
        return self.other(x)


@exact()
class RateByWay(Two):
    def forward(self, x):
        rate = 0.1 if x.sum() > 0 else 0.6
        return F.dropout(self.lin(x), rate, self.training)


@exact(training=False)
class WayInsideOfModule(Base):
    def __init__(self):
        super().__init__()
        self.inside = DropsOnEachWay()

    def forward(self, x):
        return F.dropout(self.inside(x), 0.5, self.training) * 2


@exact()
class DropsOnThreeWays(Two):
    def forward(self, x):
        if x.sum() > 0:
            if x.max() > 5:
                return F.dropout(self.lin(x), 0.5, self.training)
            x = self.other(x)
        return F.dropout(x, 0.3, self.training)


@exact(training=False)
class RaisesOnOneWay(Two):
    def forward(self, x):
        if x.max() > 1000:
            raise ValueError("too large")
        y = self.lin(x) if x.sum() > 0 else self.other(x)
        return F.dropout(y, 0.5, self.training)


# --- modules make other calls in the other mode ---


class _ScalesInTraining(nn.Module):
    def forward(self, x):
        return x.exp() * 3 if self.training else x + 1


class _DropsPath(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        kept = torch.rand(x.shape[0], 1) + 0.5
        return x.div(0.5) * kept.floor_()


class _Block(Two):
    def __init__(self):
        super().__init__()
        self.drop = _DropsPath()
        self.scale = _ScalesInTraining()

    def forward(self, x, up):
        y = self.drop(self.lin(x) if up else self.other(x).tanh())
        return x + self.scale(F.dropout(y, 0.5, self.training))


@exact(training=False)
class OtherCallsByMode(Two):
    def __init__(self):
        super().__init__()
        self.inside = _ScalesInTraining()

    def forward(self, x):
        return self.inside(self.lin(x) if x.sum() > 0 else self.other(x))


@exact()
class BlocksOnThreeWays(Two):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([_Block(), _Block()])

    def forward(self, x):
        up, high = bool(x.sum() > 0), bool(x.max() > 1)
        for block in self.blocks:
            x = block(x, up)
        return x if high else -x


@exact(training=False)
class OtherCallsOnOneWay(Two):
    def __init__(self):
        super().__init__()
        self.drop, self.scale = _DropsPath(), _ScalesInTraining()

    def forward(self, x):
        if x.sum() > 0:
            return self.scale(self.drop(self.lin(x)))
        return self.scale(self.other(x)).relu()


@exact(training=False)
class RateByWayInOneMode(Two):
    def forward(self, x):
        rate = 0.1 if x.sum() > 0 else 0.6
        return F.dropout(self.lin(x), rate if self.training else 0.3, training=True)


@exact()
class RateByWayInTheOtherMode(Two):
    def forward(self, x):
        rate = 0.1 if x.sum() > 0 else 0.6
        return F.dropout(self.lin(x), 0.3 if self.training else rate, training=True)


@exact()
class ChoiceReadInOneMode(Two):
    """The value that the module reads in one mode only is a choice made around it."""

    def __init__(self):
        super().__init__()
        self.inside = _AddsInOneMode()

    def forward(self, x):
        y = x * (2 if x.sum() > 0 else 3)
        return self.inside(self.lin(x), 2 if x.sum() > 0 else 3) + y


class _AddsInOneMode(nn.Module):
    def forward(self, x, number):
        return torch.mul(x, 5 if self.training else number)


# --- the other mode has runs of its own ---


@exact(training=False)
class NormalizesInTraining(Base):
    def __init__(self):
        super().__init__()
        self.inside = _Normalizes()

    def forward(self, x):
        y = self.inside(torch.cat([x, x + 1])) if x.sum() > 0 else self.inside(torch.cat([x, -x]))
        return self.lin(y)


class _Normalizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(x) * 2 if self.training else x.tanh()


@exact(training=False)
class DecidesByADroppedValue(Two):
    def forward(self, x):
        y = F.dropout(x, 0.5, self.training)
        return self.lin(y) if y.sum() > 0 else self.other(y)


@exact(training=False)
class DecidesInAModuleWithOtherCalls(Base):
    def __init__(self):
        super().__init__()
        self.inside = _DecidesAndScales()

    def forward(self, x):
        return self.inside(self.lin(x), x.shape[0]) + 1


class _DecidesAndScales(Two):
    def forward(self, x, rows):
        y = self.lin(x) if rows == 1 else self.other(x)
        return y.exp() * 3 if self.training else y


@exact()
class OtherValueByMode(Two):
    def forward(self, x):
        y = self.lin(x) if x.sum() > 0 else self.other(x)
        return torch.add(y, x if self.training else y)


SHARED = (
    "DropsAfterTheChoice DropsOnEachWay DropsOnOneWay RateByWay WayInsideOfModule "
    "DropsOnThreeWays RaisesOnOneWay OtherCallsByMode BlocksOnThreeWays OtherCallsOnOneWay "
    "RateByWayInOneMode RateByWayInTheOtherMode ChoiceReadInOneMode"
).split()


@pytest.mark.parametrize("name", TRAPS)
def test_goes_each_way_in_both_modes(name):
    check(TRAPS[name])


@pytest.mark.parametrize("name", TRAPS)
def test_runs_in_the_other_mode_only_if_it_must(name, monkeypatch):
    completed, complete = [], EagerCapturer.complete
    monkeypatch.setattr(
        EagerCapturer, "complete", lambda *given: completed.append(1) or complete(*given)
    )
    trap = TRAPS[name]
    lg.to_ir(trap.make().train(trap.training), trap.given)
    assert len(completed) == (1 if name in SHARED else 2)


class DimensionByMode(Two):
    """In evaluation, both examples make the same calls."""

    def forward(self, x):
        return self.lin(x).softmax(0 if self.training and x.dim() == 3 else -1)


@pytest.mark.parametrize("training", [False, True])
def test_examples_that_differ_in_the_other_mode_only(training):
    model = DimensionByMode().train(training)
    ones, others = _draw(3, 4), _draw(2, 3, 4)
    rebuilt = lg.to_torch(lg.to_ir(model, examples=[((ones,), {}), ((others,), {})]))
    rebuilt.load_state_dict(model.state_dict())
    for mode in (training, not training):
        for each in (ones, others):
            assert torch.equal(rebuilt.train(mode)(each), model.train(mode)(each))


class ScalesInTraining(Two):
    """Both examples make the same calls in each mode, and a module makes others in training."""

    def __init__(self):
        super().__init__()
        self.inside = _ScalesInTraining()

    def forward(self, x):
        return self.inside(self.lin(x))


class ScalesByForm(ScalesInTraining):
    def forward(self, x, y=None):
        return self.inside(self.lin(x)) if y is None else self.inside(self.other(x)) + y


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [ScalesInTraining, ScalesByForm])
def test_examples_of_a_module_with_other_calls(kind, training, monkeypatch):
    completed, complete = [], EagerCapturer.complete
    monkeypatch.setattr(
        EagerCapturer, "complete", lambda *given: completed.append(1) or complete(*given)
    )
    model = kind().train(training)
    calls = [(_draw(3, 4),), (_draw(5, 4), *([_draw(5, 4)] if kind is ScalesByForm else []))]
    rebuilt = lg.to_torch(lg.to_ir(model, examples=[(each, {}) for each in calls]))
    rebuilt.load_state_dict(model.state_dict())
    for mode in (training, not training):
        for each in calls:
            assert torch.equal(rebuilt.train(mode)(*each), model.train(mode)(*each))
    assert len(completed) == 1


class _Updater(nn.Module):
    """Makes other calls in training, as an average of the weights does."""

    def __init__(self):
        super().__init__()
        self.inside = Two()
        self.register_buffer("updates", torch.tensor(0))

    def forward(self, x):
        if self.training:
            self.updates += 1
        return self.inside.lin(self.inside.other(x))


class AsksForTheRank(nn.Module):
    """The root call reads the rank of a value of the module that makes other calls."""

    def __init__(self):
        super().__init__()
        self.updater = nn.Sequential(_Updater())

    def forward(self, x):
        if x.dim() == 3:
            x = x.flatten(1)
        if x.sum() > 0:
            x = x * 2
        return self.updater(x) + 1


class _Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(4, 4))
        self.updates = _Count()

    def forward(self, x):
        self.updates.add()
        return self.inside(x)


class _Count(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("updates", torch.tensor(0))

    def add(self):
        if self.training:
            self.updates += 1


class ReturnsAnInnerResult(AsksForTheRank):
    """The module that makes other calls returns the result of a module inside it as it is."""

    def __init__(self):
        super().__init__()
        self.updater = _Nested()


class _Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        return self.lin(x) * 2


class ReturnsAnInnerModule(AsksForTheRank):
    def __init__(self):
        super().__init__()
        self.updater = _Nested()
        self.updater.inside = _Inner()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [AsksForTheRank, ReturnsAnInnerResult, ReturnsAnInnerModule])
def test_a_module_with_other_calls_behind_a_rank(kind, training):
    model = kind().train(training)
    rebuilt = lg.to_torch(lg.to_ir(model, (UP,)), model.state_dict())
    for mode in (training, not training):
        for given in CALLS:
            theirs, ours = model.train(mode)(*given), rebuilt.train(mode)(*given)
            assert torch.equal(ours, theirs)
            for name, each in model.named_buffers():
                assert torch.equal(rebuilt.get_buffer(name), each)


@dataclass
class _Fields:
    mixed: torch.Tensor
    parts: list = field(default_factory=list)


class OutputWithADefault(Two):
    """The constructor of the output compares its argument with a constant, by identity."""

    def __init__(self):
        super().__init__()
        self.inside = _ContiguousInTraining()

    def forward(self, x, y):
        if torch.is_grad_enabled() and x.sum() > 0:
            x = self.lin(x)
        return _Fields(self.inside(x) + y)


class _ContiguousInTraining(Base):
    def forward(self, x):
        if self.training:
            x = x.contiguous()
        return self.lin(x)


@pytest.mark.parametrize("training", [False, True])
def test_the_constructor_of_a_dataclass_compares_no_inputs(training):
    model = OutputWithADefault().train(training)
    ir = lg.to_ir(model, (UP, UP + 1))
    rebuilt = lg.to_torch(ir, model.state_dict())
    for mode in (training, not training):
        for given in ((UP, UP), (-UP, UP), (_draw(5, 4), _draw(5, 4))):
            for region in (torch.enable_grad, torch.no_grad):
                with region():
                    theirs, ours = model.train(mode)(*given), rebuilt.train(mode)(*given)
                assert torch.equal(ours.mixed, theirs.mixed)
                assert ours.parts == theirs.parts
