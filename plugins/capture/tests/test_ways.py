"""Models that decide by numbers: the rebuilt model goes each of their ways."""

# What the linter would have written otherwise are the traps.
# ruff: noqa: SIM108, RET505, TRY301

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base, Traps, check
from layergraph_capture.capturer import EagerCapturer

TRAPS = Traps()


def _draw(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[0])) + 0.1


UP = _draw(3, 4)
DOWN = -UP
MIXED = torch.cat([UP[:1], DOWN[:1]])
WIDE = UP * 40
CALLS = [
    (DOWN,),
    (MIXED,),
    (WIDE,),
    (-WIDE,),
    (_draw(1, 4),),
    (-_draw(5, 4),),
    (UP.new_zeros(2, 4),),
]


def exact(given=(UP,), others=CALLS, **options):
    return TRAPS.exact(given, others, values="both", **options)


def assumes(given=(UP,), others=CALLS, **options):
    return TRAPS.assumes(given, others, values="both", **options)


def refused(reason, given=(UP,), others=CALLS, **options):
    return TRAPS.refused(reason, given, others, values="both", **options)


class Two(Base):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(4)


# --- decisions one after the other and inside of each other ---


@exact()
class Nested(Two):
    def forward(self, x):
        if x.sum() > 0:
            if x.max() > 5:
                return self.lin(x)
            return self.other(x)
        if x.min() < -5:
            return self.lin(self.other(x))
        return x * 2


@exact()
class InSequence(Two):
    def forward(self, x):
        if x.sum() > 0:
            x = self.lin(x)
        if x.max() > 0.5:
            x = self.other(x)
        else:
            x = x - 1
        return x.relu()


@exact()
class SecondOnOneWayOnly(Two):
    def forward(self, x):
        y = self.lin(x)
        if x.sum() > 0:
            if y.sum() > 0:
                y = self.other(y)
            y = y + 1
        return y * 3


@exact()
class TwoCallsOfTwoConditions(Two):
    """The second question is asked on both ways, and calls need both answers."""

    def forward(self, x):
        up = bool(x.sum() > 0)
        high = bool(x.max() > 0.5)
        y = x
        if up and high:
            y = y.exp()
            y = y.tanh()
            y = y.sin()
        return self.lin(y)


@exact()
class SameQuestionTwice(Two):
    def forward(self, x):
        if x.sum() > 0:
            x = self.lin(x)
            first = True
        else:
            first = False
        if x.sum() > 0:
            x = self.other(x)
        return x if first else -x


@exact()
class EqualQuestionTwice(Two):
    def forward(self, x):
        y = self.lin(x) if x.sum() > 0 else x
        return self.other(y) if x.sum() > 0 else y + 1


@exact()
class EqualQuestionsOfMasks(Two):
    """As models with two kinds of attention ask: it is one question, and not four ways."""

    def is_full(self, x):
        mask = (x > -1).to(device=x.device, dtype=torch.bool)
        return mask.sum() == mask.numel()

    def forward(self, x):
        y = self.lin(x) if self.is_full(x) else x
        return self.other(y) if self.is_full(x) else y + 1


LAST_MISSING = torch.tensor([True, True, True, False]).expand(3, 4)


@exact((UP, UP > 0), [(UP, LAST_MISSING), (DOWN, DOWN > 0), (WIDE, WIDE > 0)])
class SliceOfAll(Two):
    """As models with a causal mask ask: the columns of the tokens are all columns."""

    def forward(self, x, mask):
        if mask.shape[1] == x.shape[1] and mask.all():
            return self.lin(x)
        return self.other(x) if mask[:, : x.shape[1]].all() else x + 1


@exact((UP, UP > 0), [(UP, LAST_MISSING), (DOWN, DOWN > 0), (WIDE, WIDE > 0)])
class SliceOfAllIsBounded(Two):
    def forward(self, x, mask):
        if mask.shape[1] > x.shape[1]:
            raise ValueError("the mask is too long")
        if mask.all():
            return self.lin(x)
        return self.other(x) if mask[:, : x.shape[1]].all() else x + 1


@exact((UP, UP > 0), [(UP, LAST_MISSING), (DOWN, DOWN > 0), (WIDE, WIDE > 0)])
class SliceOfSome(Two):
    def forward(self, x, mask):
        if mask.shape[1] == x.shape[1] and mask.all():
            return self.lin(x)
        return self.other(x) if mask[:, : x.shape[1] - 1].all() else x + 1


@exact((UP, UP > 0), [(UP, LAST_MISSING), (DOWN, DOWN > 0), (WIDE, WIDE > 0)])
class SliceOfFewer(Two):
    """The guard says that the mask is longer than the slice."""

    def forward(self, x, mask):
        if mask.shape[1] < x.shape[0]:
            raise ValueError("the mask is too short")
        if mask.all():
            return self.lin(x)
        return self.other(x) if mask[:, : x.shape[0]].all() else x + 1


@exact()
class OtherChangedBetween(Two):
    def forward(self, x):
        y = self.lin(x) if x.sum() > 0 else x
        places = torch.arange(x.shape[1], device=x.device)
        places += 1
        return (self.other(y) if x.sum() > 0 else y + 1) * places


@exact((UP, UP), [(UP, DOWN), (DOWN, UP), (DOWN, DOWN)])
class ChangedByAnother(Two):
    """The question is about what another input was written into."""

    def forward(self, x, written):
        held = torch.zeros_like(x)
        y = self.lin(x) if held.sum() > 0 else x + 1
        held.add_(written)
        return self.other(y) if held.sum() > 0 else y - 1


@assumes()
class SizeAskedAfterChange(Two):
    def forward(self, x):
        x = x.clone()
        x += 1
        if x.shape[0] == 1:
            x = self.lin(x)
        return F.dropout(self.other(x) if x.sum() > 0 else x, 0.5, self.training)


@exact()
class QuestionChangedBetween(Two):
    def forward(self, x):
        x = x.clone()
        y = self.lin(x) if x.sum() > 0 else x
        x.neg_()
        return self.other(y) if x.sum() > 0 else y + 1


@exact()
class ViewChangedBetween(Two):
    def forward(self, x):
        x = x.clone()
        total = x[0]
        y = self.lin(x) if total.sum() > 0 else x.exp()
        x[0] = -x[0]
        return self.other(y) if total.sum() > 0 else y + 1


@exact()
class ChangedThroughViewBetween(Two):
    def forward(self, x):
        x = x.clone()
        part = x[:, 1:]
        y = self.lin(x) if x.sum() > 0 else x.exp()
        part.neg_()
        return self.other(y) if x.sum() > 0 else y + 1


@exact((UP, UP), [(DOWN, UP), (UP, DOWN), (WIDE, DOWN)])
class OtherInputChangedBetween(Two):
    def forward(self, x, other):
        y = self.lin(x) if x.sum() > 0 else x.exp()
        other.neg_()
        return self.other(y) if x.sum() > 0 else y + 1


@exact()
class QuestionsOfTwoBuffers(Two):
    def __init__(self):
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(100.0))

    def forward(self, x):
        y = self.lin(x) if x.sum() > self.low else x.exp()
        return self.other(y) if x.sum() > self.high else y + 1


@exact()
class ChangedOnOneWayOnly(Two):
    def forward(self, x):
        x = x.clone()
        if x.sum() > 0:
            x.sub_(100)
        return self.other(x) if x.sum() > -50 else x + 1


@exact()
class BoolOfAnd(Two):
    def forward(self, x):
        if x.sum() > 0 and x.max() < 3:
            return self.lin(x)
        return self.other(x)


@exact()
class BoolOfOr(Two):
    def forward(self, x):
        if x.sum() > 0 or not (x.min() > -3):
            return self.lin(x)
        return self.other(x)


@exact()
class ElifChain(Two):
    def forward(self, x):
        if x.sum() > 20:
            return self.lin(x)
        elif x.sum() > 0:
            return self.other(x)
        elif x.sum() > -20:
            return x.exp()
        else:
            return x.sin()


@exact()
class KeptAnswer(Two):
    def forward(self, x):
        is_positive = bool(x.sum() > 0)
        y = self.lin(x)
        if is_positive:
            y = self.other(y)
        return y if not is_positive else y.relu()


@exact()
class AnswerAsNumber(Base):
    def forward(self, x):
        return self.lin(x) * int(bool(x.sum() > 0)) + x


@exact()
class AnswerIsReturned(Base):
    def forward(self, x):
        return self.lin(x), bool(x.sum() > 0)


@exact()
class AnswerInDict(Base):
    def forward(self, x):
        return {"x": self.lin(x), "positive": x.sum().item() > 0}


# --- kinds of questions ---


@exact()
class ItemCompared(Two):
    def forward(self, x):
        if x.sum().item() > 0:
            return self.lin(x)
        return self.other(x)


@exact()
class ItemsCompared(Two):
    def forward(self, x):
        if x.max().item() > -x.min().item():
            return self.lin(x)
        return self.other(x)


@exact()
class ItemTruth(Two):
    def forward(self, x):
        if x.sum().item():
            return self.lin(x)
        return self.other(x)


@exact()
class ItemFlows(Base):
    def forward(self, x):
        return self.lin(x) * x.sum().item() + x.max().item() ** 2


@exact()
class EqualTensors(Two):
    def forward(self, x):
        if torch.equal(x, x.abs()):
            return self.lin(x)
        return self.other(x)


@exact()
class EqualMethod(Two):
    def forward(self, x):
        return self.lin(x) if x.equal(x.abs()) else self.other(x)


@exact()
class AllClose(Two):
    def forward(self, x):
        return self.lin(x) if torch.allclose(x, x.abs(), rtol=1e-3, atol=1e-4) else self.other(x)


@exact()
class IsIn(Two):
    def forward(self, x):
        return self.lin(x) if 0.0 in x else self.other(x)


@exact()
class FirstOfMask(Two):
    def forward(self, x):
        mask = x > 0
        return self.lin(x) if bool(mask[0, 0]) else self.other(x)


@exact()
class NonzeroSize(Two):
    def forward(self, x):
        found = (x > 0).nonzero()
        if found.shape[0] == 0:
            return self.other(x)
        return self.lin(x) + found.sum()


@exact()
class NonzeroNumel(Two):
    def forward(self, x):
        found = torch.nonzero(x > 1)
        if found.numel() > 0:
            return self.lin(x)
        return self.other(x)


@exact()
class MaskedLength(Two):
    def forward(self, x):
        picked = x[x > 0]
        if len(picked) > 4:
            return picked * 2
        return self.lin(x)


@exact()
class UniqueSize(Two):
    def forward(self, x):
        if len(torch.unique(x > 0)) == 2:
            return self.lin(x)
        return self.other(x)


@exact()
class IsLeaf(Two):
    def forward(self, x):
        y = self.lin(x) if x.is_leaf else self.other(x)
        return y if x.sum() > 0 else -y


@exact()
class NotAny(Two):
    def forward(self, x):
        return self.lin(x) if not (x < 0).any() else self.other(x)


@exact()
class NanAsked(Two):
    def forward(self, x):
        y = x.sqrt()
        if torch.isnan(y).any():
            y = torch.nan_to_num(y, nan=1.0)
        return self.lin(y)


@exact()
class PythonAny(Two):
    def forward(self, x):
        return self.lin(x) if any(each > 0 for each in (x.sum(), x.max())) else self.other(x)


@exact()
class ConditionalExpressionArgument(Base):
    def forward(self, x):
        return F.leaky_relu(self.lin(x), 0.1 if x.sum() > 0 else 0.3)


@exact()
class DimByDecision(Base):
    def forward(self, x):
        return self.lin(x).softmax(-1 if x.sum() > 0 else 0)


# --- buffers and random numbers ---


@exact()
class BatchNormOnOneWay(Two):
    def forward(self, x):
        if x.sum() > 0:
            return self.norm(torch.cat([x, x + 1]))
        return self.lin(x)


@exact()
class BatchNormOnBothWays(Two):
    def forward(self, x):
        x = torch.cat([x, x + 1])
        y = self.norm(x)
        if y.max() > 1.2:
            return self.norm(y)
        return self.lin(y)


@exact()
class CounterDecides(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        if self.count > 1:
            return self.lin(x)
        return x.exp()


@exact()
class CounterOnOneWay(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        if x.sum() > 0:
            self.count += 1
        return self.lin(x) * self.count


@exact()
class InitializedOnce(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x):
        if not self.ready:
            self.scale.copy_(x.abs().amax(0))
            self.ready.fill_(True)
        return self.lin(x / self.scale)


@exact()
class DropoutOnOneWay(Two):
    def forward(self, x):
        y = self.lin(x)
        if x.sum() > 0:
            y = self.drop(y)
        return F.dropout(y, 0.3, self.training)


@exact()
class DropoutBeforeAndAfter(Two):
    def forward(self, x):
        y = self.drop(self.lin(x))
        if y.sum() > 0:
            y = F.dropout(y, 0.3, True)
        else:
            y = y + torch.rand_like(y)
        return self.drop(self.other(y))


@exact()
class RandomDecides(Two):
    def forward(self, x):
        if torch.rand(()) > 0.5:
            x = self.lin(x)
        if torch.rand(()) > 0.5:
            x = self.other(x)
        return x


@exact()
class LayerDrop(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        for layer in self.layers:
            if self.training and torch.rand([]) < 0.5:
                continue
            x = layer(x)
        return x


@exact()
class RandomItem(Two):
    def forward(self, x):
        if torch.rand(1).item() > 0.5:
            return self.lin(x)
        return self.other(x)


@exact()
class ModeDecidesToo(Two):
    def forward(self, x):
        y = self.lin(x)
        if self.training and x.sum() > 0:
            y = self.drop(y)
        elif x.max() > 1:
            y = self.other(y)
        return y


# --- modules ---


class Chooser(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)

    def forward(self, x):
        return self.one(x) if x.sum() > 0 else self.two(x)


@exact()
class CalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Chooser()

    def forward(self, x):
        return self.inner(self.inner(x))


@exact()
class CalledTwiceDifferently(nn.Module):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x, scale=None):
            if scale is not None:
                x = x * scale
            return self.lin(x) if x.sum() > 0 else x - 1

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        y = self.inner(x)
        return self.inner(y, 2.0) if y.max() > 0.2 else y


@exact()
class InlinedWhileConditional(nn.Module):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)
            self.chooser = Chooser()

        def forward(self, x, deep=False):
            x = self.lin(x)
            return self.chooser(x) if deep else x.relu()

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        if x.sum() > 0:
            x = self.inner(x, deep=True)
        y = self.inner(x)
        if y.sum() > 1:
            y = self.inner(y, deep=x is y)
        return y


@exact()
class InSequential(nn.Module):
    def __init__(self):
        super().__init__()
        self.seq = nn.Sequential(Chooser(), nn.ReLU(), Chooser())

    def forward(self, x):
        return self.seq(x)


@exact()
class SequentialItself(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 4), Chooser(), nn.Tanh())


@exact()
class SharedModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = Chooser()
        self.same = self.one

    def forward(self, x):
        return self.one(x) if x.max() > 5 else self.same(self.one(x))


@exact()
class TiedWeights(Two):
    def __init__(self):
        super().__init__()
        self.other.weight = self.lin.weight

    def forward(self, x):
        return self.lin(x) if x.sum() > 0 else self.other(x)


@exact()
class BreaksLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            if x.sum() > 0.5:
                break
        return x


@exact()
class EarlyExit(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.exits = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))

    def forward(self, x):
        for layer, out in zip(self.layers, self.exits, strict=True):
            x = layer(x)
            y = out(x)
            if y.softmax(-1).max() > 0.6:
                return y
        return y


@exact(
    given=(torch.full((2, 4), 0.3),),
    others=[(torch.full((2, 4), each),) for each in (0.05, 0.7, 4)],
)
class WhileLoop(Base):
    def forward(self, x):
        while x.sum() < 4:
            x = x * 2
        return self.lin(x)


@assumes(
    given=(torch.full((2, 4), 0.3),),
    others=[(torch.full((2, 4), each),) for each in (1e-9, 0.7, 4)],
)
class ManyDecisions(Base):
    def forward(self, x):
        count = 0
        for _ in range(30):
            if x.sum() < 4:
                x = x * 2
                count += 1
        return self.lin(x), count


@exact()
class ModulesInOtherOrder(Two):
    def forward(self, x):
        if x.sum() > 0:
            x = self.lin(x)
            return self.other(x)
        x = self.other(x)
        return self.lin(x)


@exact()
class OtherNumberOfCalls(Two):
    def forward(self, x):
        for _ in range(3 if x.sum() > 0 else 1):
            x = self.lin(x)
        return self.other(x)


@exact()
class CrossedResults(Two):
    def forward(self, x):
        one, two = self.lin(x), self.other(x)
        if x.sum() > 0:
            one, two = two, one
        return one - 2 * two


@exact()
class Recursive(Base):
    def forward(self, x, depth=0):
        if depth < 3 and x.sum() > 0:
            return self(x - 1, depth + 1)
        return self.lin(x)


class Deep(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.inner = Deep(depth - 1) if depth else Chooser()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(self.lin(x)) + x


@exact()
class DeepNesting(nn.Module):
    def __init__(self):
        super().__init__()
        self.deep = Deep(6)

    def forward(self, x):
        return self.deep(x) if x.sum() > 0 else self.deep(x).relu()


@exact()
class ConditionalContainer(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = Deep(1)
        self.two = Deep(1)

    def forward(self, x):
        y = self.one(x) if x.sum() > 0 else self.two(x)
        return self.two(y) if y.max() > 0 else y


@exact()
class WithHooks(Two):
    def __init__(self):
        super().__init__()
        self.lin.register_forward_hook(lambda module, args, result: result * 2)
        self.other.register_forward_pre_hook(lambda module, args: (args[0] + 1,))

    def forward(self, x):
        return self.lin(x) if x.sum() > 0 else self.other(x)


@exact()
class HookDecides(Two):
    def __init__(self):
        super().__init__()
        self.lin.register_forward_hook(
            lambda module, args, result: result * 2 if result.sum() > 0 else None
        )

    def forward(self, x):
        return self.lin(x) + 1


@exact()
class ReadOnOneWay(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.plain = torch.arange(4.0)
        self.register_buffer("unsaved", torch.full((4,), 3.0), persistent=False)

    def forward(self, x):
        if x.sum() > 0:
            return x * self.plain
        if x.min() < -5:
            return x + self.weight
        return x - self.unsaved


OUTSIDE = torch.full((4,), 2.5)


@exact()
class ClosureOnOneWay(Base):
    def forward(self, x):
        if x.sum() > 0:
            return self.lin(x) * OUTSIDE
        return self.lin(x) + torch.tensor([1.0, 2.0, 3.0, 4.0])


@exact()
class OtherConstants(Base):
    def forward(self, x):
        scale = torch.tensor([1.0, 2.0, 3.0, 4.0] if x.sum() > 0 else [4.0, 3.0, 2.0, 1.0])
        return self.lin(x) * scale


# --- what the ways give ---


@exact()
class OtherKeys(Base):
    def forward(self, x):
        if x.sum() > 0:
            return {"x": self.lin(x), "extra": x}
        return {"x": self.lin(x)}


@exact()
class OtherOrderOfKeys(Base):
    def forward(self, x):
        y = self.lin(x)
        return {"a": x, "b": y} if x.sum() > 0 else {"b": y, "a": x}


@exact()
class OtherLengths(Base):
    def forward(self, x):
        y = self.lin(x)
        return (y, x) if x.sum() > 0 else (y,)


@exact()
class TupleOrTensor(Base):
    def forward(self, x):
        y = self.lin(x)
        return (y, x) if x.sum() > 0 else y


@exact()
class NoneOrTensor(Base):
    def forward(self, x):
        return self.lin(x) if x.sum() > 0 else None


@exact()
class NoneInside(Base):
    def forward(self, x):
        return self.lin(x), (x.exp() if x.sum() > 0 else None)


@exact()
class SubmoduleGivesNone(nn.Module):
    class Inner(Base):
        def forward(self, x):
            return self.lin(x) if x.sum() > 0 else None

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        y = self.inner(x)
        return x if y is None else y * 2


@exact()
class SubmoduleGivesOtherForms(nn.Module):
    class Inner(Base):
        def forward(self, x):
            y = self.lin(x)
            return (y, x) if x.sum() > 0 else (y, None)

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()
        self.other = nn.Linear(4, 4)

    def forward(self, x):
        y, z = self.inner(x)
        if z is not None:
            y = y + z
        return self.other(y)


@exact()
class InputItself(Base):
    def forward(self, x):
        return x if x.sum() > 0 else self.lin(x)


@exact()
class ListOfWays(Base):
    def forward(self, x):
        kept = []
        for index in range(3):
            y = x + index - 1
            if y.sum() > 0:
                kept.append(self.lin(y))
        return kept


@exact()
class StackOfWays(Base):
    def forward(self, x):
        kept = [x]
        for index in range(3):
            y = x + index - 1
            if y.sum() > 0:
                kept.append(self.lin(y))
        return torch.stack(kept)


@exact()
class OtherDtypes(Base):
    def forward(self, x):
        y = self.lin(x)
        y = y.double() if x.sum() > 0 else y
        return y * 2, y.dtype == torch.float64


@exact()
class OtherRanks(Base):
    def forward(self, x):
        y = self.lin(x)
        y = y[0] if x.sum() > 0 else y
        return y.mean(-1) if y.dim() == 2 else y.exp()


@exact()
class OtherShapes(Base):
    def forward(self, x):
        y = self.lin(x)
        y = torch.cat([y, y]) if x.sum() > 0 else y
        return y.view(y.shape[0] * 2, -1), y.shape[0]


@exact()
class RankThroughModule(Base):
    def forward(self, x):
        y = x[:1, 0] if x.sum() > 0 else x
        if y.dim() == 1:
            y = y.expand(4)
        return self.lin(y).sum(tuple(range(y.dim())))


@assumes(others=[*CALLS, (UP[None],), (DOWN[None],)])
class RankInsideModule(nn.Module):
    class Inner(Base):
        def forward(self, x):
            return self.lin(x.unsqueeze(0)).squeeze(0) if x.dim() == 1 else self.lin(x).mean(0)

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        return self.inner(x[0] if x.sum() > 0 else x)


@assumes(others=[*CALLS, (UP[None],), (DOWN[None],)])
class RankAskedOnTheOtherWay(nn.Module):
    class Inner(Base):
        def forward(self, x, asks):
            y = self.lin(x)
            return y.sum(1) if asks and x.dim() == 2 else y

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        return self.inner(x, bool(x.sum() < 0))


@assumes(others=[*CALLS, (UP.bfloat16(),), (DOWN.bfloat16(),)])
class DtypeInsideModule(nn.Module):
    class Inner(Base):
        def forward(self, x):
            if x.dtype == torch.float64:
                return self.lin(x.float()).double()
            return self.lin(x)

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        return self.inner(x.double() if x.sum() > 0 else x)


# --- effects ---


@exact()
class ChangesInputOnOneWay(Base):
    def forward(self, x):
        if x.sum() > 0:
            x.mul_(2)
        return self.lin(x)


@exact()
class ChangesInputOnBothWays(Base):
    def forward(self, x):
        x.mul_(2) if x.sum() > 0 else x.add_(1)
        return self.lin(x)


@exact()
class ChangesView(Base):
    def forward(self, x):
        y = self.lin(x)
        part = y[0] if x.sum() > 0 else y[-1]
        part.mul_(3)
        return y


@exact()
class NoGradOnOneWay(Two):
    def forward(self, x):
        if x.sum() > 0:
            with torch.no_grad():
                y = self.lin(x)
        else:
            y = self.lin(x)
        return self.other(y)


@exact()
class DecidesInsideNoGrad(Two):
    def forward(self, x):
        with torch.no_grad():
            y = self.other(x) if x.sum() > 0 else x.exp()
        return self.lin(y)


@exact()
class LeavesNoGradEarly(Two):
    def forward(self, x):
        with torch.no_grad():
            y = self.lin(x)
            if y.sum() > 0:
                return self.other(y)
        return self.other(y)


@exact()
class AutocastOnOneWay(Two):
    def forward(self, x):
        if x.sum() > 0:
            with torch.autocast("cpu", torch.bfloat16):
                return self.lin(x)
        return self.other(x)


@exact()
class AutocastByDecision(Two):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(x.sum() > 0)):
            return self.lin(x)


@exact()
class GradModeByDecision(Two):
    def forward(self, x):
        with torch.set_grad_enabled(bool(x.sum() > 0)):
            return self.lin(x)


@exact()
class GradModeOutside(Two):
    def forward(self, x):
        y = self.lin(x)
        if torch.is_grad_enabled():
            y = self.other(y)
        return y if x.sum() > 0 else y * 2


@exact()
class GradModeInside(Two):
    def forward(self, x):
        with torch.no_grad():
            y = self.lin(x) if torch.is_grad_enabled() else x
        with torch.enable_grad():
            z = self.lin(x) if torch.is_grad_enabled() else x
        if torch.is_grad_enabled() and self.training:
            z = self.other(z)
        return y + z


@exact()
class DetachedOnOneWay(Two):
    def forward(self, x):
        y = self.lin(x)
        if y.sum() > 0:
            y = y.detach()
        return self.other(y)


@assumes()
class Raises(Base):
    def forward(self, x):
        if x.sum() < 0:
            raise ValueError("the sum is negative")
        return self.lin(x)


@assumes()
class RaisesInModule(nn.Module):
    class Inner(Base):
        def forward(self, x):
            if x.min() < 0:
                raise RuntimeError("no negative numbers")
            return self.lin(x)

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        return self.inner(x) if x.sum() > -10 else x


@assumes()
class Asserts(Base):
    def forward(self, x):
        assert (x > 0).all(), "all have to be positive"
        return self.lin(x)


@exact()
class CatchesItsError(Base):
    def forward(self, x):
        try:
            if x.sum() < 0:
                raise ValueError
            y = self.lin(x)
        except ValueError:
            y = x.exp()
        return y


@refused("catches an error")
class CatchesErrorOfTorch(Base):
    def forward(self, x):
        try:
            return x @ x if x.sum() > 0 else self.lin(x)
        except RuntimeError:
            return x.exp()


@assumes()
class AssignsToSelf(Base):
    def __init__(self):
        super().__init__()
        self.last = 0

    def forward(self, x):
        if x.sum() < 0:
            self.last = 1
        return self.lin(x) + self.last


@exact()
class KeepsTensorOnOneWay(Base):
    def __init__(self):
        super().__init__()
        self.last = None

    def forward(self, x):
        if x.sum() < 0:
            self.last = x
        return self.lin(x)


@assumes()
class CountsOnOneWay(Base):
    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        if x.sum() < 0:
            self.calls.append(1)
        return self.lin(x) * (len(self.calls) + 1)


@exact(given=({"x": UP},), others=[({"x": each},) for (each,) in CALLS])
class ChangesDictOfCaller(Base):
    def forward(self, batch):
        if batch["x"].sum() > 0:
            batch["y"] = self.lin(batch["x"])
        return batch


@exact(given=([UP],), others=[([each],) for (each,) in CALLS])
class ChangesListOfCaller(Base):
    def forward(self, batch):
        y = self.lin(batch[0])
        if y.sum() > 0:
            batch.append(y)
        return y


# --- sizes ---


ONE = [(_draw(1, 4),), (-_draw(1, 4),), (-_draw(5, 4),), (_draw(2, 4),)]


@exact(others=ONE)
class BatchOfOne(Two):
    def forward(self, x):
        if x.shape[0] == 1:
            return self.lin(x)
        return self.other(x)


@assumes(others=ONE)
class BatchOfOneThenRanks(Two):
    def forward(self, x):
        if x.shape[0] == 1:
            x = x.squeeze(0)
        y = self.lin(x)
        return y.unsqueeze(0) if y.dim() == 1 else y.mean(0, keepdim=True)


@assumes(others=ONE)
class BatchOfOneThenRanksInside(nn.Module):
    class Inner(Base):
        def forward(self, x):
            y = self.lin(x)
            return y.unsqueeze(0) if x.dim() == 1 else y.mean(0, keepdim=True)

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        return self.inner(x.squeeze(0) if x.shape[0] == 1 else x)


@exact(others=ONE)
class BatchOfOneThenOtherRank(Two):
    def forward(self, x):
        x = x.reshape(-1) if x.shape[0] == 1 else self.other(x)
        return x.exp() if x.dim() == 1 else self.lin(x)


@exact(others=ONE)
class BatchOfOneThenSameRanks(Two):
    def forward(self, x):
        y = self.lin(x) if x.shape[0] == 1 else x
        for _ in range(3):
            y = self.other(y).view(y.shape).transpose(0, y.dim() - 1).transpose(0, 1)
        return y


@exact(given=(_draw(1, 4),), others=[*ONE, (UP,)])
class ManyAfterOne(Two):
    def forward(self, x):
        if x.shape[0] == 1:
            x = x.squeeze()
        y = self.lin(x)
        if y.dim() == 1:
            return y.exp()
        return self.other(y)


@assumes(others=ONE)
class OneAndNumbers(Two):
    def forward(self, x):
        y = self.lin(x) if x.size(0) == 1 else self.other(x)
        return y.relu() if x.sum() > 0 else y.squeeze(0)


@assumes(others=ONE)
class OneInsideNumbers(Two):
    def forward(self, x):
        if x.sum() > 0:
            return self.lin(x).squeeze() if x.size(0) == 1 else self.other(x)
        return x


# --- layers of torch ---


PADDED = torch.tensor([[False, False, True], [False, False, False]])
X3 = _draw(2, 3, 4)


@exact(
    given=(X3, PADDED),
    others=[
        (-X3, PADDED),
        (X3, ~PADDED[:, [2, 0, 1]] & False),
        (_draw(2, 3, 4) - 1, PADDED[[1, 1]]),
    ],
)
class AttentionWithMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x, mask):
        if mask.any():
            return self.attention(x, x, x, key_padding_mask=mask, need_weights=False)[0]
        return self.attention(x, x, x)[0]


@exact(given=(X3, PADDED), others=[(-X3, PADDED), (X3, PADDED & False)])
class EncoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x, mask):
        return self.layer(x, src_key_padding_mask=mask if mask.any() else None)


@exact(
    given=(X3, torch.tensor([3, 2])),
    others=[(-X3, torch.tensor([3, 1])), (X3, torch.tensor([3, 3]))],
)
class PackedSequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x, lengths):
        if (lengths < x.shape[1]).any():
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            packed, state = self.lstm(packed)
            y, _ = nn.utils.rnn.pad_packed_sequence(
                packed, batch_first=True, total_length=x.shape[1]
            )
            return y, state
        return self.lstm(x)


@exact()
class LossOrNot(Two):
    def forward(self, x):
        logits = self.lin(x)
        loss = None
        if (x > 0).any():
            loss = F.mse_loss(logits, x)
        return {"loss": loss, "logits": logits} if loss is not None else {"logits": logits}


# --- and more of all kinds ---


@exact()
class ViewOfBufferChanged(Two):
    def __init__(self):
        super().__init__()
        self.register_buffer("b", torch.zeros(4))

    def forward(self, x):
        v = self.b[:2]
        if x.sum() > 0:
            v += 1
        if self.b.sum() > 1:
            return self.lin(x)
        return self.other(x)


@exact()
class BNStatsDecide(Two):
    def forward(self, x):
        y = self.norm(torch.cat([x, x + 1]))
        if self.norm.running_mean.sum() > 0.1:
            return self.lin(y)
        return self.other(y)


@exact()
class LeafInplaceRelu(Two):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = x + 0
        a = y.sum() > 0
        z = self.lin(y) if a else y.exp()
        self.act(y)
        return self.other(z) if y.sum() > 0 else z


@exact()
class NoneCheckAfter(Two):
    def forward(self, x):
        extra = None
        if x.sum() > 0:
            extra = self.lin(x)
        if extra is None:
            return x
        return extra + x


@assumes()
class WhileSubmodule(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Chooser()

    def forward(self, x):
        n = 0
        while x.abs().max() > 0.5 and n < 3:
            x = self.inner(x) * 0.5
            n += 1
        return x, n


@exact()
class ItemAsSize(Two):
    def forward(self, x):
        n = int((x > 0).sum())
        return x.flatten()[:n].sum() + self.lin(x)


@assumes()
class ItemRange(Two):
    def forward(self, x):
        n = int((x > 0).sum()) % 3
        for _ in range(n):
            x = self.lin(x)
        return x


@assumes()
class ItemIndexesLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        return self.layers[int((x > 0).sum()) % 3](x)


@exact()
class ItemInDict(Two):
    def forward(self, x):
        k = (x.sum() > 0).item()
        return {True: self.lin, False: self.other}[k](x)


@exact()
class MinMaxItems(Two):
    def forward(self, x):
        return self.lin(x) * max(x.max().item(), 0.3) + min(x.min().item(), 0.0)


@exact()
class RoundItem(Two):
    def forward(self, x):
        return self.lin(x) * round(x.sum().item()) + int(x.max().item()) + float(int(x.min()))


@exact()
class MaxIntItem(Two):
    def forward(self, x):
        return torch.arange(int(x.abs().max()) + 1, dtype=x.dtype).sum() * x


@exact()
class SortedItems(Two):
    def forward(self, x):
        a = sorted([x[0, 0].item(), x[0, 1].item(), 0.0])
        return self.lin(x) * a[1]


@assumes()
class TolistDecides(Two):
    def forward(self, x):
        return self.lin(x) if x.sum(1).tolist()[0] > 0 else self.other(x)


@exact()
class CountTruth(Two):
    def forward(self, x):
        m = x > 0
        if m.sum():
            return self.lin(x)
        return self.other(x)


@exact()
class IntTruth(Two):
    def forward(self, x):
        n = (x > 0).sum()
        if n:
            x = self.lin(x)
        if int(n):
            x = self.other(x)
        if n == 0:
            x = x + 1
        if n.item() != 0:
            x = x * 2
        return x


@exact()
class FloatEqual(Two):
    def forward(self, x):
        if float(x.sum()) > 0:
            return self.lin(x)
        return self.other(x)


@exact()
class NotEqualsOne(Two):
    def forward(self, x):
        n = (x > 0).sum().item()
        if n == 1:
            return self.lin(x)
        if n != 1 and n > 5:
            return self.other(x)
        return x


@exact()
class WhereSingle(Two):
    def forward(self, x):
        i = torch.where(x[:, 0] > 0)[0]
        if i.numel() == 0:
            return x
        return self.lin(x[i])


@exact()
class ForOverNonzero(Two):
    def forward(self, x):
        y = torch.zeros_like(x)
        for i in range(4):
            idx = (x[:, i] > 0).nonzero().flatten()
            if idx.numel() == 0:
                continue
            y[idx] += self.lin(x[idx])
        return y


@exact()
class MoE(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 3)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        w, i = self.gate(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            tok, pos = torch.where(i == e)
            if tok.numel() > 0:
                out.index_add_(0, tok, expert(x[tok]) * w[tok, pos, None])
        return out


@exact()
class AnyInComprehension(Two):
    def forward(self, x):
        return [self.lin(r[None]) for r in (x, x + 1)[0][:1] if r.sum() > 0]


@exact()
class TryFinally(Two):
    def forward(self, x):
        try:
            if x.sum() > 0:
                return self.lin(x)
        finally:
            y = 1
        return self.other(x) * y


@exact()
class GeneratorDecides(Two):
    def _each(self, x):
        yield x
        if x.sum() > 0:
            yield self.lin(x)

    def forward(self, x):
        return torch.cat(list(self._each(x)))


@exact()
class NamedTuples(Two):
    def forward(self, x):
        from collections import namedtuple

        P = namedtuple("P", "a b")
        return P(self.lin(x), x) if x.sum() > 0 else P(x, None)


class Risen(NamedTuple):
    risen: torch.Tensor


class Fallen(NamedTuple):
    fallen: torch.Tensor


@exact()
class OtherFieldsByWay(Two):
    def forward(self, x):
        return Risen(self.lin(x)) if x.sum() > 0 else Fallen(self.lin(x))


@exact()
class RequiresGradAsk(Two):
    def forward(self, x):
        y = self.lin(x)
        if y.sum() > 0:
            y = y.detach()
        if y.requires_grad:
            y = y * 2
        return y + self.other(x)


@exact()
class DeviceDtypeAfter(Two):
    def forward(self, x):
        y = x.double() if x.sum() > 0 else x
        z = torch.ones(4, dtype=y.dtype, device=y.device)
        return z + y


@exact()
class ShapeAfter(Two):
    def forward(self, x):
        y = x[:, :2] if x.sum() > 0 else x
        z = y.new_zeros(y.shape[1], 4)
        return y @ z, z.shape[0], y.numel()


@exact()
class ContiguousAsk(Two):
    def forward(self, x):
        y = x.t() if x.sum() > 0 else x
        if not y.is_contiguous():
            y = y.contiguous()
        return y.reshape(-1)


@exact()
class StrideAfter(Two):
    def forward(self, x):
        y = x.t() if x.sum() > 0 else x.clone()
        return torch.as_strided(y, (2,), (y.stride(0),))


@exact()
class SplitLengths(Two):
    def forward(self, x):
        y = torch.cat([x, x], 1) if x.sum() > 0 else x
        parts = y.split(2, 1)
        return sum(p.sum() for p in parts) + self.lin(x)


@exact()
class UnbindLengths(Two):
    def forward(self, x):
        y = x if x.sum() > 0 else x[:, :2]
        return torch.stack([self.lin(x) * c.sum() for c in y.unbind(1)])


@exact()
class SharedSubWithState(nn.Module):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm1d(4)
            self.lin = nn.Linear(4, 4)

        def forward(self, x):
            x = torch.cat([x, x + 1])
            return self.bn(x) if x.sum() > 0 else self.lin(x)

    def __init__(self):
        super().__init__()
        self.a = self.Inner()
        self.b = self.a

    def forward(self, x):
        y = self.a(x)
        if y.sum() > 0:
            y = self.b(y)
        return self.a(y)


@exact()
class DropModule(Two):
    def forward(self, x):
        x = self.drop(x)
        if x.sum() > 1:
            x = self.drop(self.lin(x))
        elif x.sum() > -1:
            x = self.lin(x)
        return self.drop(x)


@assumes(fickle=True)
class MultinomialPick(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x):
        i = torch.randint(0, 2, (1,))
        return self.layers[i](x) if self.training else self.layers[0](x)


@exact()
class EnableGradCtxOfFlag(Two):
    def forward(self, x):
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.training):
            y = self.lin(x)
            if torch.is_grad_enabled():
                y = self.other(y)
        return y


@exact()
class CheckpointLike(Two):
    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            x = x + 0
            x = self.lin(x)
        with torch.no_grad():
            z = x * 2
        if torch.is_grad_enabled():
            return self.other(x) + z
        return z


@exact()
class GradDecorator(Two):
    @torch.no_grad()
    def ask(self, x):
        return x.sum() > 0 and torch.is_grad_enabled()

    def forward(self, x):
        if self.ask(x):
            return self.lin(x)
        if torch.is_grad_enabled():
            return self.other(x)
        return x


@exact()
class BareSetGrad(Two):
    def forward(self, x):
        was = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        y = self.lin(x) if x.sum() > 0 else x
        torch.set_grad_enabled(was)
        if torch.is_grad_enabled():
            y = self.other(y)
        return y


@exact()
class ClampByDecision(Two):
    def forward(self, x):
        if torch.isinf(x).any() or torch.isnan(x).any():
            c = torch.finfo(x.dtype).max - 1000
            x = torch.clamp(x, -c, c)
        return self.lin(x)


@exact()
class AssignsItems(Two):
    def forward(self, x):
        x = x.clone()
        if x.sum() > 0:
            x[0] = 0
        else:
            x[:, 0] = 1
        if x[0].sum() == 0:
            return self.lin(x)
        return x


@exact()
class MaskedFillInplace(Two):
    def forward(self, x):
        y = self.lin(x)
        m = y > 0
        if m.any():
            y[m] = 0.5
        return y


@exact()
class NestedFunctionsState(Two):
    def forward(self, x):
        d = {}
        if x.sum() > 0:
            d["a"] = self.lin(x)
        if x.max() > 5:
            d["b"] = self.other(x)
        out = x
        for each in d.values():
            out = out + each
        return out, d


@assumes()
class RaisesNested(Two):
    def forward(self, x):
        if x.sum() > 0:
            if x.max() > 5:
                raise ValueError("too large")
            return self.lin(x)
        return self.other(x)


@exact()
class XorDecision(Two):
    def forward(self, x):
        a, b = bool(x.sum() > 0), bool(x.max() > 5)
        if a != b:
            return self.lin(x)
        if a ^ b:
            return x
        return self.other(x)


@exact()
class CountAnswers(Two):
    def forward(self, x):
        n = sum(bool(r > 0) for r in (x.sum(), x.max(), x.min()))
        return self.lin(x) * n


@exact()
class StrKey(Two):
    def forward(self, x):
        k = "pos" if x.sum() > 0 else "neg"
        return {k: self.lin(x)}


@exact()
class ParamDecides(Two):
    def forward(self, x):
        if self.lin.weight.sum() > 0:
            return self.lin(x)
        return self.other(x)


@exact()
class CatOfDifferent(Two):
    def forward(self, x):
        kept = [x]
        if x.sum() > 0:
            kept += [self.lin(x)]
        if x.max() > 5:
            kept += [self.other(x)]
        return torch.cat(kept, 1)


@exact()
class EightChoosers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Chooser() for _ in range(8))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@exact()
class BareSetGradOnOneWay(Two):
    def forward(self, x):
        torch.set_grad_enabled(False)
        y = self.lin(x)
        if x.sum() > 0:
            torch.set_grad_enabled(True)
            y = self.other(y)
            torch.set_grad_enabled(False)
        y = y * 2
        torch.set_grad_enabled(True)
        return y


@assumes(others=[*CALLS, (UP[None],), (DOWN[None],), (UP.double(),)])
class AsksRankOnOneWay(Two):
    def forward(self, x):
        if x.sum() > 0:
            return self.lin(x) * x.dim()
        return self.other(x)


@assumes(others=[*CALLS, (UP[None],), (DOWN[None],)])
class SubmoduleAsksRankOnOneWay(nn.Module):
    class Inner(Base):
        def forward(self, x, asks):
            y = self.lin(x)
            return y * x.dim() if asks else y

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        return self.inner(x + 1, bool(x.sum() > 0))


@exact()
class SizeOfPickedRows(Two):
    def forward(self, x):
        rows = x[(x[:, 0] > 0).nonzero().flatten()]
        return self.lin(rows) if len(rows) > 1 else self.other(x)


# --- equal questions with other answers ---


class AsksStatistics(Two):
    def is_asked(self, x):
        return (self.norm.running_mean > x.mean()).any()

    def forward(self, x):
        y = self.lin(x) if self.is_asked(x) else x
        self.change(torch.cat([x * 90, x + 5]))
        return self.other(y) if self.is_asked(x) else y


@exact()
class LayerChangesStatistics(AsksStatistics):
    def change(self, x):
        self.norm(x)


@exact()
class FunctionChangesStatistics(AsksStatistics):
    def change(self, x):
        F.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)


@exact()
class ViewOfStatistics(AsksStatistics):
    def forward(self, x):
        mean = self.norm.running_mean.narrow(0, 0, 2)
        y = self.lin(x) if mean.sum() > x.mean() else x
        self.norm(torch.cat([x * 90, x + 5]))
        return self.other(y) if mean.sum() > x.mean() else y


@exact()
class AskedBeforeTheChange(AsksStatistics):
    def forward(self, x):
        before = self.is_asked(x)
        self.norm(torch.cat([x * 90, x + 5]))
        after = self.is_asked(x)
        y = self.lin(x) if before else x
        return self.other(y) if after else y


@exact(others=[(_draw(1, 4),), (-_draw(5, 4),)])
class AsksForOneTwice(Two):
    def ask(self, x):
        return self.lin(x) if x.shape[0] != 1 else self.other(x)

    def forward(self, x):
        return self.ask(x), self.drop(self.ask(x * 2 if x.shape[0] != 1 else x))


@exact()
class EqualQuestionsOfOtherDtypes(Two):
    def forward(self, x):
        whole = x.to(torch.int64).float()
        if x.sum() > 0:
            x = self.lin(x)
        if whole.sum() > 0:
            x = self.other(x)
        if whole.sum() > 0.0:
            x = x + 1
        return x


@exact()
class EqualNamesOfOtherQuestions(Two):
    def forward(self, x):
        if x.max() > 0.5:
            x = self.lin(x)
        if x.max(0)[0][0] > 0.5:
            x = self.other(x)
        return x + 1 if x.max(1)[0][0] > 0.5 else x


@exact()
class RandomQuestionTwice(Two):
    def forward(self, x):
        y = self.lin(x) if F.dropout(x, 0.5, True).sum() > 4 else x
        y = y + 1 if self.drop(x).sum() > 4 else y
        return self.other(y) if F.dropout(x, 0.5, True).sum() > 4 else y


@TRAPS.assumes((UP,), CALLS, values="assume")
class GuardOfViewTwice(Two):
    def forward(self, x):
        mask = x.flatten() == x.flatten()
        v = mask[0]
        y = self.lin(x) if v else x
        mask.copy_(x.flatten() > 0)
        return self.other(y) if v else y


@exact()
class GuardOfViewTwiceBoth(GuardOfViewTwice):
    pass


@TRAPS.assumes((UP,), CALLS, values="assume")
class ItemOfViewTwice(Two):
    def forward(self, x):
        t = x.flatten() * 0
        v = t[0]
        a = v.item()
        t.copy_(x.flatten())
        b = v.item()
        return self.lin(x) * b + a


@exact()
class ItemOfViewTwiceBoth(ItemOfViewTwice):
    pass


@assumes()
class TolistTwiceBoth(Two):
    def forward(self, x):
        t = x.flatten() * 0
        a = t.tolist()
        t.copy_((x > 0).flatten().float())
        return self.lin(x) * t.tolist()[0] + a[0]


@exact()
class IntTwiceBoth(Two):
    def forward(self, x):
        t = x.flatten() * 0
        v = t[0]
        a = int(v)
        t.copy_((x > 0).flatten().float())
        return self.lin(x) * int(v) + a


# --- values that flow from the ways ---


@assumes()
class StatsViewItem(Two):
    def forward(self, x):
        m = self.norm.running_mean[0]
        a = m.item()
        self.norm(torch.cat([x * 90, x + 5]))
        b = m.item()
        return (self.lin(x) if a > 0 else x) * (2 if b > 0 else 3) * b


@exact()
class ItemTwiceInPlace(Two):
    def forward(self, x):
        t = x.sum()
        a = t.item()
        t.neg_()
        b = t.item()
        return self.lin(x) * a + b, a > 0, b > 0


@exact()
class ItemKeptOnWays(Two):
    def forward(self, x):
        a = x.sum().item()
        if a > 0:
            a = a * 2
        else:
            a = a - 1
        return self.lin(x) * a, a


@exact()
class ItemOfConditional(Two):
    def forward(self, x):
        if x.sum() > 0:
            n = self.lin(x).sum().item()
        else:
            n = 3.0
        return x * n, n > 3


@exact()
class SizeOfConditional(Two):
    def forward(self, x):
        y = x[:, :2] if x.sum() > 0 else torch.cat([x, x], 1)
        n = y.shape[1]
        if n * 2 > 4:
            z = self.lin(x)
        else:
            z = self.other(x)
        return z * n, list(y.shape), torch.arange(n)


@exact()
class SplitSizes(Two):
    def forward(self, x):
        n = 1 if x.sum() > 0 else 3
        a, b = x.split([n, 4 - n], 1)
        return F.pad(a, (0, 4 - n)), b, self.lin(x)


@exact()
class IndexByWay(Two):
    def forward(self, x):
        s = slice(0, 2) if x.sum() > 0 else slice(None, None, 3)
        return self.lin(x)[:, s], x[..., None] if x.sum() > 0 else x[None, ...]


@exact()
class DtypeArg(Two):
    def forward(self, x):
        return self.lin(x).to(torch.float64 if x.sum() > 0 else torch.bfloat16)


@exact()
class KwargOrNot(Two):
    def forward(self, x):
        y = self.lin(x)
        return y.sum(dim=0) if x.sum() > 0 else y.sum(dim=0, keepdim=True)


@exact()
class InfinitiesAndZeros(Two):
    def forward(self, x):
        c = float("-inf") if x.sum() > 0 else float("inf")
        d = -0.0 if x.sum() > 0 else 0.0
        return self.lin(x) * c, x * 0 + d, x * d, d


@exact()
class OneOrTrue(Two):
    def forward(self, x):
        v = 1 if x.sum() > 0 else True
        w = 1 if x.sum() > 0 else 1.0
        return {"v": v, "w": w, "y": x.to(torch.int64) * w}


@exact()
class SameTupleOtherKind(Two):
    def forward(self, x):
        return (x, self.lin(x)) if x.sum() > 0 else [x, self.lin(x)]


@exact()
class FlagsOfSubmodule(nn.Module):
    class Inner(Two):
        def forward(self, x, flag=False, pair=(None, None)):
            if flag:
                x = self.lin(x)
            if pair[0] is not None:
                x = x + pair[0]
            if pair[1] is not None:
                x = self.other(x) + pair[1]
            return x

    def __init__(self):
        super().__init__()
        self.i = self.Inner()

    def forward(self, x):
        if x.sum() > 0:
            return self.i(x, True, (x, None))
        if x.max() > -0.2:
            return self.i(x, pair=(None, x))
        return self.i(x)


@exact()
class GradThroughChoose(Two):
    def forward(self, x):
        y = self.lin(x)
        z = y if x.sum() > 0 else y.detach()
        w = x if x.sum() > 0 else x.detach()
        return z * w


@exact()
class ParamChoice(Two):
    def forward(self, x):
        w = self.lin.weight if x.sum() > 0 else self.other.weight
        b = self.lin.bias if x.max() > 5 else None
        return F.linear(x, w, b)


@exact()
class BufferOrConst(Two):
    def __init__(self):
        super().__init__()
        self.register_buffer("b", torch.arange(4.0))
        self.c = torch.ones(4)

    def forward(self, x):
        w = self.b if x.sum() > 0 else self.c
        w2 = w + 1
        if x.sum() > 0:
            self.b += 1
        return self.lin(x) * w2 + w


@assumes()
class ModulesInlined(nn.Module):
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, k=1):
            return self.inner(x) * k

    def __init__(self):
        super().__init__()
        self.shared = Chooser()
        self.a = self.Outer(self.shared)
        self.b = self.Outer(self.shared)

    def forward(self, x):
        if x.sum() > 0:
            x = self.a(x)
        x = self.b(x, 2)
        if x.max() > 1:
            x = self.a(x, 3)
        return x


# --- attributes that a way or a mode leaves behind ---


@exact()
class AssignsTheSameEachTime(Two):
    def forward(self, x):
        self.last = 5
        if self.training:
            x = x * 2
        return self.lin(x) + self.last


@exact()
class AssignsTheSameOnEachWay(Two):
    def forward(self, x):
        self.last = 5
        x = self.drop(self.lin(x)) if x.sum() > 0 else self.other(x)
        if self.training:
            x = x * self.last
        return x


@assumes()
class TrainingAssigns(Two):
    def __init__(self):
        super().__init__()
        self.last = 0

    def forward(self, x):
        if self.training:
            self.last = 1
        return self.lin(x) + self.last


@assumes()
class TrainingAssignsOnOneWay(Two):
    def __init__(self):
        super().__init__()
        self.last = 0

    def forward(self, x):
        if self.training and x.sum() > 0:
            self.last = 1
        return self.lin(x) + self.last


@assumes()
class EvaluationAssigns(Two):
    def __init__(self):
        super().__init__()
        self.last = 0

    def forward(self, x):
        if not self.training:
            self.last = 1
        return (self.lin(x) if x.sum() > 0 else self.other(x)) + self.last


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_goes_each_way(name):
    check(TRAPS[name])


def test_a_choice_inside_of_a_module_stays_there():
    trap = TRAPS["SequentialItself"]
    ir = lg.to_ir(trap.make(), trap.given)
    chosen = [each.name for each in ir.values() for graph in each.graphs if _chooses(graph)]
    assert chosen == ["1"]


def _chooses(graph):
    return any(node.implementation == "layergraph.choose" for node in graph.nodes.values())


def _nodes(name):
    ir = lg.to_ir(TRAPS[name].make(), TRAPS[name].given)
    return [node for each in ir.values() for graph in each.graphs for node in graph.nodes.values()]


def test_a_way_by_a_size_guards_no_rank_that_follows_from_ranks():
    nodes = _nodes("BatchOfOneThenSameRanks")
    assert not any(node.implementation == "torch.Tensor.dim" for node in nodes)


def test_calls_of_two_equal_conditions_share_one_choice():
    nodes = _nodes("TwoCallsOfTwoConditions")
    assert sum(node.args[1:] == (True, False) for node in nodes) == 1


@pytest.mark.parametrize(
    ("name", "questions"),
    [
        ("EqualQuestionsOfMasks", 1),
        ("SliceOfAll", 1),
        ("SliceOfAllIsBounded", 1),
        ("SliceOfSome", 2),
        ("SliceOfFewer", 2),
        ("OtherChangedBetween", 1),
        ("QuestionChangedBetween", 2),
        ("ViewChangedBetween", 2),
        ("ChangedThroughViewBetween", 2),
        ("OtherInputChangedBetween", 2),
        ("QuestionsOfTwoBuffers", 2),
    ],
)
def test_only_another_question_is_a_further_way(name, questions):
    truths = [node for node in _nodes(name) if node.implementation == "layergraph.truth"]
    assert len(truths) == questions


def test_a_change_reaches_an_input_in_the_same_memory():
    model = TRAPS["OtherInputChangedBetween"].make()
    rebuilt = lg.to_torch(lg.to_ir(model, (UP, UP.clone())), model.state_dict())
    ours, theirs = UP.clone(), UP.clone()
    assert torch.equal(rebuilt(ours, ours), model(theirs, theirs))


def test_a_replay_answers_a_question_about_a_size_after_a_change(monkeypatch):
    completed, complete = [], EagerCapturer.complete
    monkeypatch.setattr(
        EagerCapturer, "complete", lambda *given: completed.append(1) or complete(*given)
    )
    trap = TRAPS["SizeAskedAfterChange"]
    lg.to_ir(trap.make(), trap.given)
    assert len(completed) == 1, "the other mode needs no runs of its own"
