"""IRs of several examples: the rebuilt model serves calls like each of them."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base, _difference, _made, observe, watched
from layergraph.errors import AssumptionError, CaptureError

TRAPS: dict[str, Examples] = {}


@dataclass
class Examples:
    """A model, the calls that it is captured with, others like them, and calls that fit none.

    ``refused`` is the text of the error if it cannot be captured.
    """

    make: type[nn.Module]
    given: list[Any]
    like: list[Any]
    unlike: list[Any] = field(default_factory=list)
    refused: str = ""
    training: bool = True


def call(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def examples(*given: Any, like: Any = (), unlike: Any = (), refused: str = "") -> Any:
    def add(cls: type[nn.Module]) -> type[nn.Module]:
        TRAPS[cls.__name__] = Examples(cls, list(given), list(like), list(unlike), refused)
        return cls

    return add


X = _draw(3, 4)
Y = _draw(5, 4)
ONE = _draw(1, 4)


class Two(Base):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)


# --- optional arguments ---


@examples(call(X), call(X, X), like=[call(Y), call(Y, Y), call(X, y=Y[:3]), call(Y, None)])
class OptionalTensor(Two):
    def forward(self, x, y=None):
        x = self.lin(x)
        return x if y is None else self.other(x + y)


@examples(
    call(X, (X, X)),
    call(X, None),
    like=[call(Y, (Y, Y)), call(Y)],
    unlike=[call(X, (X,)), call(X, X), call(X, [X, X])],
)
class OptionalTuple(Two):
    def forward(self, x, pair=None):
        if pair is not None:
            x = self.other(pair[0]) * pair[1] + x
        return self.lin(x)


@examples(
    call({"x": X}),
    call({"x": X, "mask": X > 0}),
    like=[call({"x": Y}), call({"x": Y, "mask": Y > 1})],
    unlike=[call({"y": X}), call(X)],
)
class OptionalKey(Two):
    def forward(self, batch):
        x = self.lin(batch["x"])
        if "mask" in batch:
            x = x.masked_fill(batch["mask"], 0.0)
        return {"out": x}


@examples(
    call(X, {"double": True, "y": X}),
    call(X, {"double": False, "y": X}),
    like=[call(Y, {"double": True, "y": Y}), call(Y, {"double": False, "y": Y})],
    unlike=[call(X, {"double": 1, "y": X}), call(X, {"double": True, "y": None})],
)
class FlagInADict(Two):
    def forward(self, x, options):
        x = self.lin(x)
        return x * 2 if options["double"] else self.other(x) + options["y"]


@examples(
    call(X, (X, X)),
    call(X, [X]),
    call(X, {"y": X}),
    call(X, X),
    call(X),
    like=[
        call(Y, (Y, Y)),
        call(Y, [Y]),
        call(Y, {"y": Y}),
        call(Y, Y),
        call(Y, None),
    ],
    unlike=[call(X, (X,)), call(X, {"z": X}), call(X, 1.0)],
)
class FiveForms(Two):
    def forward(self, x, more=None):
        x = self.lin(x)
        if more is None:
            return x
        if isinstance(more, dict):
            return self.other(x + more["y"])
        if isinstance(more, list):
            return self.other(x) - more[0]
        if isinstance(more, tuple):
            return self.drop(x) * more[0] + more[1]
        return x / more


@examples(call(X, flag=True), call(X, flag=False), like=[call(Y, flag=True), call(Y, flag=False)])
class PlainFlag(Two):
    def forward(self, x, flag):
        return self.lin(x) if flag else self.other(x)


@examples(
    call(X, "sum"),
    call(X, "mean"),
    call(X, "none"),
    like=[call(Y, "sum"), call(Y, "mean"), call(Y, "none")],
    unlike=[call(X, "max"), call(X, None)],
)
class PlainText(Two):
    def forward(self, x, reduction):
        x = self.lin(x)
        return getattr(x, reduction)() if reduction != "none" else x


@examples(call(X, 1), call(X, True), call(X, 1.0), like=[call(Y, 1), call(Y, True), call(Y, 1.0)])
class OneTrueAndFloat(Two):
    def forward(self, x, what):
        return self.lin(x), type(what) is bool, type(what) is float


@examples(call(X, X), call(X), like=[call(Y, Y), call(Y)])
class BothModes(Two):
    def forward(self, x, y=None):
        x = self.drop(self.lin(x))
        if y is not None:
            if self.training:
                y = y * 2
            x = self.other(x + self.drop(y))
        return self.drop(x)


@examples(call(X, X), call(X), like=[call(Y, Y), call(-Y, Y), call(Y), call(-Y)])
class DecisionInEach(Two):
    def forward(self, x, y=None):
        if y is not None:
            return self.lin(y) if y.sum() > 0 else self.other(x)
        return self.other(x) if x.sum() > 0 else self.lin(x) * 2


@examples(call(X, X), call(X), like=[call(Y, Y), call(-Y, Y), call(Y), call(-Y)])
class SharedDecision(Two):
    def forward(self, x, y=None):
        if x.sum() > 0:
            x = self.lin(x)
        if y is not None:
            x = self.other(x) + y
        return x if x.max() > 0 else -x


@examples(call(X, X), call(X), like=[call(Y, Y), call(Y)], unlike=[call(X, (X,)), call(X, 2)])
class NoDifference(Two):
    def forward(self, x, unused=None):
        return self.lin(x)


@examples(call(X), call(Y), like=[call(ONE)])
class SameTwice(Two):
    def forward(self, x):
        return self.lin(x)


@examples(
    call(X, None, X),
    call(X, X, None),
    call(X, None, None),
    call(X, X, X),
    like=[call(Y, *each) for each in itertools.product((None, Y), repeat=2)],
)
class TwoOptional(Two):
    def forward(self, x, y, z):
        if y is not None:
            x = self.lin(x) + y
        if z is not None:
            x = self.other(x) * z
        return x


@examples(
    call(X, None, X),
    call(X, X, None),
    like=[call(Y, None, Y), call(Y, Y, None)],
    unlike=[call(X, X, X), call(X, None, None)],
)
class NotEachOfBoth(TwoOptional):
    """Each of the two is given in an example, but never both, and never none."""


# --- sizes ---


@examples(call(ONE), call(X), like=[call(ONE * 2), call(Y), call(_draw(2, 4))])
class BatchOneAndMore(Two):
    def forward(self, x):
        if x.shape[0] == 1:
            return self.lin(x[0])
        return self.other(x)


class Batch(NamedTuple):
    x: torch.Tensor
    mask: object = None


@examples(call(Batch(X)), call(Batch(X, X)), call(Batch(X, (X, X))), like=[call(Batch(-X, X))])
class PartOfTuple(Two):
    def forward(self, batch):
        x, mask = batch
        if isinstance(mask, tuple):
            x, mask = x + mask[0], mask[1]
        return self.lin(x) if mask is None else self.other(x) * mask


@examples(
    call({"x": X, "mask": X}),
    call({"x": X, "mask": None}),
    like=[call({"x": -Y, "mask": None})],
    unlike=[call({"x": X, "mask": 1})],
)
class PartOfDict(Two):
    def forward(self, batch):
        mask = batch["mask"]
        return self.lin(batch["x"]) if mask is None else self.other(batch["x"]) * mask


@examples(call(X), call(ONE), like=[call(-X), call(-ONE), call(_draw(5, 4))])
class SqueezeOfOne(Two):
    def forward(self, x):
        x = self.lin(x).squeeze()
        return x.mean(-1) if x.dim() == 1 else self.other(x)


@examples(call(X), call(Y), like=[call(-X), call(-Y), call(_draw(4, 4)), call(_draw(9, 4))])
class LengthsOfOneLoop(Two):
    def forward(self, x):
        out = []
        state = torch.zeros(4)
        for row in x:
            state = torch.tanh(self.lin(row) + self.other(state))
            out.append(state)
        return torch.stack(out)


@examples(
    call(_draw(2, 4)),
    call(X),
    call(_draw(4, 4)),
    like=[call(-_draw(2, 4)), call(-X), call(-_draw(4, 4))],
    unlike=[call(Y)],
)
class ThreeLengths(Two):
    def forward(self, x):
        for row in x.unbind(0):
            x = x + self.lin(row)
        return x


@examples(call(X), call(_draw(8, 4)), like=[call(Y), call(_draw(9, 4)), call(_draw(6, 4))])
class LongAndShort(Two):
    def forward(self, x):
        if x.shape[0] > 6:
            return self.lin(x[:6])
        return self.other(x)


@examples(call(X), call(Y), like=[call(-X), call(-Y)], unlike=[call(_draw(4, 4))])
class GuardsAlikeBefore(Two):
    def forward(self, x):
        scale = 2 if x.shape[1] == 4 and x.is_contiguous() else 3
        for row in x:
            x = x + self.lin(row)
        return x * scale


# --- ranks and dtypes ---


@examples(call(X), call(X[0]), like=[call(Y), call(Y[0])], unlike=[call(X[None])])
class OtherRank(Two):
    def forward(self, x):
        y = self.lin(x)
        return y.sum(0) if x.dim() == 2 else self.other(y)


@examples(call(X), call(X[0]), call(X[None]), like=[call(Y), call(Y[0]), call(Y[None])])
class ThreeRanks(Two):
    def forward(self, x):
        is_batched = x.ndim > 1
        if not is_batched:
            x = x[None]
        y = self.lin(x).flatten(0, -2)
        return y if is_batched else y[0]


@examples(call(X), call(X.double()), like=[call(Y), call(Y.double())], unlike=[call(X.half())])
class OtherDtype(Two):
    def forward(self, x):
        if x.dtype == torch.float64:
            return self.lin(x.float()).double()
        return self.lin(x)


@examples(
    call(torch.tensor([1, 2])),
    call(_draw(2, 4)),
    like=[call(torch.tensor([3, 0, 1])), call(Y)],
)
class IdsOrVectors(Two):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 4)

    def forward(self, x):
        if not x.is_floating_point():
            x = self.embed(x)
        return self.lin(x)


@examples(call(X, X), call(X, X[0]), like=[call(Y, Y), call(Y, Y[0])])
class RankOfOptional(nn.Module):
    class Inner(Base):
        def forward(self, x, y):
            return self.lin(x) + (y if y.dim() == 2 else y.expand(x.shape[0], -1))

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x, y):
        return self.inner(x, y)


# --- signatures ---


@examples(
    call(X),
    call(X, X),
    call(X, X, X),
    like=[call(Y), call(Y, Y), call(Y, Y, Y)],
    unlike=[call(X, None), call(X, X, None)],
)
class AnyNumber(Two):
    def forward(self, *xs):
        return self.lin(sum(xs)), len(xs)


@examples(
    call(x=X),
    call(x=X, bias=X),
    like=[call(x=Y), call(x=Y, bias=Y)],
    unlike=[call(x=X, bias=None)],
)
class AnyNames(Two):
    def forward(self, **named):
        x = self.lin(named["x"])
        return x + named["bias"] if "bias" in named else x


@examples(
    call(X), call(X, scale=2.0), like=[call(Y), call(Y, scale=3.0)], unlike=[call(X, scale=3)]
)
class DefaultOrNot(Two):
    def forward(self, x, scale=1.0):
        return self.lin(x) * scale


@examples(call(X, X), call(y=X, x=X), like=[call(Y, Y), call(x=Y, y=Y), call(Y, y=Y)])
class ByNameOrNot(Two):
    def forward(self, x, y):
        return self.lin(x) + self.other(y)


# --- what the calls do ---


@examples(call(X, True), call(X, False), like=[call(Y, True), call(Y, False)])
class OtherStructure(Two):
    def forward(self, x, return_dict):
        y = self.lin(x)
        return {"y": y, "x": x} if return_dict else (y,)


@examples(call(X, True), call(X, False), like=[call(Y, True), call(Y, False)])
class ChangesInput(Two):
    def forward(self, x, inplace):
        if inplace:
            x.mul_(2)
        return self.lin(x)


@examples(call(X, []), call(X, None), like=[call(Y, []), call(Y, None)])
class FillsList(Two):
    def forward(self, x, kept):
        y = self.lin(x)
        if kept is not None:
            kept.append(y)
        return self.other(y)


@examples(call(X, None), call(X, (X, X)), like=[call(Y, None), call(Y, (Y, Y)), call(Y, (X, X))])
class Cache(Two):
    """Prefill and decode."""

    def forward(self, x, past):
        k, v = self.lin(x), self.other(x)
        if past is not None:
            k, v = torch.cat([past[0], k]), torch.cat([past[1], v])
        return (x @ k.t()).softmax(-1) @ v, (k, v)


@examples(call(X, None), call(X, X), like=[call(Y, None), call(Y, Y)])
class BuffersOnOneWay(Two):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x, y):
        if y is not None:
            self.seen += 1
            x = self.norm(torch.cat([x, y]))
        return self.lin(x) * (1 + self.seen)


@examples(call(X, None), call(X, X), like=[call(Y, None), call(Y, Y)])
class NoGradOnOneWay(Two):
    def forward(self, x, y):
        with torch.set_grad_enabled(y is None):
            z = self.lin(x)
        return self.other(z) if y is None else self.other(z) + y


@examples(call(X, None), call(X, X), like=[call(Y, None), call(Y, Y)])
class GradientsAndExamples(Two):
    def forward(self, x, y):
        x = self.lin(x)
        if torch.is_grad_enabled() and self.training:
            x = self.other(x)
        return x if y is None else x + y


@examples(call(X, None), call(X, X), like=[call(Y, None), call(Y, Y)], unlike=[call(X, (X, X))])
class SharedSubmodule(nn.Module):
    class Inner(Base):
        def forward(self, x, y=None):
            x = self.lin(x)
            return x if y is None else x * y

    def __init__(self):
        super().__init__()
        self.one, self.two = self.Inner(), self.Inner()

    def forward(self, x, y):
        x = self.one(self.two(x, y))
        return self.one(x, y) if y is not None else self.two(x)


@examples(call(X, None), call(X, X), refused="assigns self.last")
class AssignsInOneExample(Two):
    def __init__(self):
        super().__init__()
        self.last = 0

    def forward(self, x, y):
        if y is not None:
            self.last = 1
        return self.lin(x) + self.last


@examples(call(X, X), call(X, X[:1]), like=[call(Y, Y), call(Y, Y[:1])])
class Broadcast(Two):
    def forward(self, x, y):
        return self.lin(x) + self.other(y)


@examples(call(X, 0), call(X, 2), like=[call(Y, 0), call(Y, 2)], unlike=[call(X, 1)])
class CountOfCalls(Two):
    def forward(self, x, count):
        for _ in range(count):
            x = self.lin(x)
        return self.other(x)


@examples(
    call(X, X > 0), call(X, None), call(X, X), like=[call(Y, Y > 0), call(Y, None), call(Y, Y)]
)
class MaskKinds(Two):
    def forward(self, x, mask):
        y = self.lin(x)
        if mask is None:
            return y
        if mask.dtype == torch.bool:
            if not mask.any():
                return self.other(y)
            return y.masked_fill(mask, -1.0)
        return y + mask


@examples(call(X, X), call(X, lambda x: x), refused="'f' holds .*a function")
class Callable(Two):
    def forward(self, x, f):
        return self.lin(x) if isinstance(f, torch.Tensor) else f(x)


# --- the test ---


# --- examples of several lengths ---

STEPS = [_draw(turns, 3, 4) for turns in (4, 7, 2, 1, 12)]


@examples(call(STEPS[0]), call(STEPS[1]), like=[call(each) for each in STEPS[2:]])
class Recurs(Two):
    """A loop of any number of turns."""

    def forward(self, steps):
        state = steps[0] * 0
        for step in steps:
            state = torch.tanh(self.lin(step) + self.other(state))
        return state


@examples(call(STEPS[0]), call(STEPS[1]), like=[call(each) for each in STEPS[2:]])
class RecursInEachMode(Two):
    """The other mode has a loop of its own."""

    def forward(self, steps):
        collected = []
        for number in range(steps.shape[0]):
            each = self.lin(steps[number])
            collected.append(each if self.training else self.other(each))
        return torch.stack(collected)


@examples(
    call(STEPS[0]), call(STEPS[1]), call(STEPS[2]), like=[call(STEPS[0])], unlike=[call(STEPS[4])]
)
class TakesTheLength(Two):
    """No loop serves what a table of plain numbers says for each length."""

    def forward(self, steps):
        state = self.lin(steps[0])
        for step in steps:
            state = state + step * {4: 1.5, 7: 0.5, 2: 3.0, 12: 1.0, 1: 2.0}[len(steps)]
        return state


@examples(call(STEPS[0]), call(STEPS[1], STEPS[1]), like=[call(STEPS[0])], unlike=[call(STEPS[4])])
class RecursWithMore(Two):
    """One more argument in one example: each has its length."""

    def forward(self, steps, more=None):
        state = steps[0] * 0
        for number in range(len(steps)):
            state = torch.tanh(self.lin(steps[number]) + self.other(state))
            if more is not None:
                state = state + more[number]
        return state


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_serves_each_example(name):
    trap = TRAPS[name]
    outcomes = explore(trap)
    if trap.refused:
        import re

        assert re.search(trap.refused, outcomes["capture"])
        return
    wrong = {where: what for where, what in outcomes.items() if what != "same"}
    assert not wrong


def explore(trap):
    model = _made(trap)
    given = trap.given

    def capture():
        return lg.to_ir(model, examples=given)

    ir, touched = watched(model, *_all_of(given), capture)
    outcomes = {f"touched {each}": "WRONG touched" for each in touched}
    if isinstance(ir, CaptureError):
        return {**outcomes, "capture": str(ir)}
    if capture() != ir:
        outcomes["again"] = "WRONG captured again it is another graph"
    rebuilt = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    flat = lg.to_torch(ir.flatten(), model.state_dict())
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    calls = {f"given {n}": each for n, each in enumerate(given)}
    calls |= {f"like {n}": each for n, each in enumerate(trap.like)}
    calls |= {f"unlike {n}": each for n, each in enumerate(trap.unlike)}
    for (where, (args, kwargs)), training, context in itertools.product(
        calls.items(), (True, False), (nullcontext, torch.no_grad)
    ):
        options = {"training": training, "context": context}
        mine = observe(_made(trap), args, kwargs, **options)
        rebuilt.load_state_dict(_made(trap).state_dict())
        said = _difference(mine, observe(rebuilt, args, kwargs, **options))
        if where.startswith("unlike"):
            said = "same" if said.startswith("assumption") else f"WRONG not refused: {said}"
        outcomes[f"{where}, {'train' if training else 'eval'}, {context.__name__}"] = said
        if training == trap.training and not where.startswith("unlike"):
            flat.load_state_dict(_made(trap).state_dict())
            said = _difference(mine, observe(flat, args, kwargs, **options))
            outcomes[f"{where}, flat, {context.__name__}"] = said
    return outcomes


def _all_of(given):
    return [each for each, _ in given], {str(n): each for n, (_, each) in enumerate(given)}


def test_a_call_that_fits_none_says_what_fits():
    ir = lg.to_ir(_made(TRAPS["OptionalTuple"]), examples=TRAPS["OptionalTuple"].given)
    rebuilt = lg.to_torch(ir)
    with pytest.raises(AssumptionError, match=r"fits none of the examples.*pair"):
        rebuilt(X, X)
