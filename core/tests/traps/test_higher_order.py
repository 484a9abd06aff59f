"""Traps: functions of torch that run functions of the model."""

from __future__ import annotations

import functools

import functorch
import pytest
import torch
import torch._higher_order_ops as ops
from torch import nn
from torch.autograd import functional as autograd
from torch.func import functional_call, grad, grad_and_value, jacfwd, jacrev, jvp, vjp, vmap
from torch.nn.attention import flex_attention
from torch.utils.checkpoint import checkpoint

from core.tests.traps.harness import Base, Traps, check
from layergraph.torch2ir.tracing.higher_order import higher_order_functions

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.rows = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.drop = nn.Dropout(0.5)
        self.register_buffer("scale", torch.linspace(1, 2, 4))
        self.unregistered = torch.linspace(0, 1, 4)


def _of_torch(name):
    """Return a function of torch, which older releases have in a module of the same name."""
    found = getattr(ops, name)
    return found if callable(found) else getattr(found, name)


# --- torch.cond ---


@exact()
class CondOfLayers(Layers):
    def forward(self, x):
        return torch.cond(x.sum() > 0, self.lin, self.rows, (x,))


@exact()
class CondOverValuesAround(Layers):
    """Both functions read values, sizes, tensors of the model and a constant from outside."""

    def forward(self, x):
        mean, rows = x.mean(), x.shape[0]
        return torch.cond(
            x.sum() > 0,
            lambda y: y * mean + self.unregistered,
            lambda y: y * rows - self.scale,
            (x,),
        )


@exact()
class CondWithoutOperands(Layers):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda: self.lin(x), lambda: x * 2)


@exact()
class CondInCond(Layers):
    def forward(self, x):
        def inner(y):
            return torch.cond(y.mean() > 0.5, lambda z: z.sin(), self.lin, (y,))

        return torch.cond(x.sum() > 0, inner, lambda y: y.cos(), (x,))


@exact()
class CondOfContainers(Base):
    def forward(self, x):
        given = {"a": x, "b": [self.lin(x)]}
        result = torch.cond(
            x.sum() > 0,
            lambda each: {"sum": each["a"] + each["b"][0], "one": each["a"].clone()},
            lambda each: {"sum": each["a"] - each["b"][0], "one": each["b"][0].clone()},
            (given,),
        )
        return result["sum"], result["one"]


@exact()
class CondOfTheMode(Layers):
    """Both functions depend on the mode, and draw random numbers in training."""

    def forward(self, x):
        def either(y):
            return self.drop(y) * (2 if self.training else 3)

        with torch.no_grad():
            return torch.cond(x.sum() > 0, either, lambda y: y + 1, (x,))


@exact()
class CondBesideADecision(Layers):
    def forward(self, x):
        y = torch.cond(x.sum() > 0, self.lin, lambda each: each * 2, (x,))
        if y.mean() > 0:
            return y * 3
        return y


@exact()
class CondBehindADecision(Base):
    def forward(self, x):
        by = x.max() if x.mean() > 0 else x.min()
        return torch.cond(x.sum() > 1, lambda y: y * by, lambda y: y - by, (self.lin(x),))


@exact()
class CondOnOneWayOnly(Base):
    def forward(self, x):
        if x.mean() > 0:
            return torch.cond(x.sum() > 1, lambda y: y * 2, lambda y: y - 2, (self.lin(x),))
        return torch.cond(x.sum() > -1, lambda y: y * 3, lambda y: y - 1, (self.lin(x),))


class _Choosing(nn.Module):
    def forward(self, x, by):
        return torch.cond(x.sum() > by, lambda y: y * by, lambda y: y + by, (x,))


@exact()
class CondOfAModuleCalledTwice(Base):
    def __init__(self):
        super().__init__()
        self.choosing = _Choosing()

    def forward(self, x):
        return self.choosing(self.choosing(self.lin(x), 1), 2)


@exact()
class CondOfANumber(Base):
    def forward(self, x):
        return torch.cond(x.shape[1] > 3, lambda y: y * 2, lambda y: y + 1, (self.lin(x),))


@refused("changes in place a tensor from outside")
class CondThatChangesWhatIsAround(Base):
    def forward(self, x):
        y = self.lin(x)

        def change(each):
            y.add_(1)
            return each * y

        return torch.cond(x.sum() > 0, change, lambda each: each * 2, (x,))


@refused("leaves it by another way than by its result", placed=False)
class VmapThatLeaks(Base):
    def forward(self, x):
        kept = []

        def leak(row):
            kept.append(row * 2)
            return row + 1

        result = vmap(leak)(self.lin(x))
        return result, kept[0]


# --- loops ---


@exact()
class WhileLoop(Base):
    def forward(self, x):
        turns = torch.tensor(3)
        with torch.no_grad():
            return torch.while_loop(
                lambda n, _: n > 0, lambda n, y: (n - 1, self.lin(y).sin()), (turns, x)
            )


@exact()
class WhileLoopOfNumbers(Base):
    """The values of tensors decide the number of iterations, which may be zero."""

    def forward(self, x):
        with torch.no_grad():
            limit = x.abs().sum() / 2
            return torch.while_loop(
                lambda y: y.abs().sum() > limit, lambda y: (y * 0.8,), (x * self.lin.bias.exp(),)
            )[0]


@exact()
class Scan(Base):
    def forward(self, x):
        # Torch 2.6 wants a first carry that requires gradients, as the later ones do.
        return ops.scan(lambda h, row: (self.lin(h) + row, h * 2), self.lin.bias * 0, x)


@exact()
class ScanBackwards(Base):
    def forward(self, x):
        last, seen = ops.scan(
            lambda h, column: (h + column, h * column), x[:, 0] * 0, x, dim=1, reverse=True
        )
        return self.lin(seen.reshape(x.shape)) + last[:, None]


@exact()
class AssociativeScan(Base):
    def forward(self, x):
        def combine(one, other):
            by = other["by"]
            return {"by": one["by"] * by, "value": one["value"] * by + other["value"]}

        given = {"by": x.sigmoid(), "value": self.lin(x)}
        return _of_torch("associative_scan")(combine, given, 0, combine_mode="generic")["value"]


@(exact() if "torch._higher_order_ops.map" in higher_order_functions() else refused("map"))
class Map(Base):
    def forward(self, x):
        return _of_torch("map")(lambda row, by: self.lin(row) * by, x, x.mean())


# --- torch.func ---


@exact()
class VmapOverValuesAround(Layers):
    def forward(self, x):
        mean, columns = x.mean(0), x.shape[1]
        return vmap(lambda row: torch.outer(row, mean) * columns + self.scale)(self.lin(x))


@exact()
class VmapOverOneOfTwo(Base):
    def forward(self, x):
        rows, columns = vmap(
            lambda row, other: (row * other, row.sum() + other), (0, None), (1, 0)
        )(x, self.lin.bias)
        return rows, columns


@exact()
class VmapByName(Base):
    def forward(self, x):
        return vmap(lambda row, *, by: row * by.sum())(self.lin(x), by=x)


@exact()
class VmapInVmap(Base):
    def forward(self, x):
        return vmap(vmap(lambda each: each.sin() + self.lin.bias[0]), in_dims=1)(x)


class Memo(Base):
    def __init__(self):
        super().__init__()
        self.known = {}


@exact()
class VmapWithAMemo(Memo):
    """Some libraries put functions of theirs into torch's vmap, which keep a memo of types."""

    def forward(self, x):
        self.known.setdefault(type(x), True)
        return vmap(lambda row, scale: self.lin(row) - scale, in_dims=(0, None))(x, x[0])


@refused("what a model keeps from one call to the next", placed=False)
class VmapThatReadsAMemo(Memo):
    """The later call makes the same calls with the arguments of the function exchanged."""

    def forward(self, x):
        is_first = self.known.setdefault("calls", 0) == 0
        self.known["calls"] = 1
        return vmap(lambda one, other: one - other if is_first else other - one)(x, self.lin(x))


@exact()
class VmapOfMasks(Base):
    """Makes masks as transformers does."""

    def forward(self, x):
        places = torch.arange(x.shape[0])
        mask = vmap(vmap(lambda q, k: q >= k, (None, 0)), (0, None))(places, places)
        return mask.to(x.dtype) @ self.lin(x)


@exact()
class VmapInChunks(Base):
    def forward(self, x):
        return vmap(lambda row: row.cumsum(0), chunk_size=2)(self.lin(x))


@exact()
class VmapThatDraws(Base):
    def forward(self, x):
        return vmap(lambda row: row + torch.rand(4), randomness="different")(self.lin(x))


@exact()
class VmapInPlaceInside(Base):
    def forward(self, x):
        return vmap(lambda row: row.clone().add_(1))(self.lin(x))


_made_before = vmap(torch.sin)
_kept = {"vmap": functools.partial(torch.vmap, in_dims=1)}


@exact()
class VmapMadeBefore(Base):
    def __init__(self):
        super().__init__()
        self.own = torch.vmap(lambda row: row * 2)

    def forward(self, x):
        return _made_before(self.lin(x)) + _kept["vmap"](torch.cos)(x).T + self.own(x)


@exact()
class VmapOfFunctorch(Base):
    def forward(self, x):
        return functorch.vmap(lambda row: row.softmax(0))(self.lin(x))


@exact()
class GradOfALayer(Layers):
    def forward(self, x):
        return grad(lambda y: self.rows(y).tanh().sum())(x)


@exact()
class GradOfTwoAndMore(Base):
    def forward(self, x):
        found, (value, more) = grad_and_value(
            lambda y, by: ((y * by).sum(), y + 1), argnums=(-1, 0), has_aux=True
        )(self.lin(x), x)
        return found, value, more


@assumes()
class GradByADecision(Base):
    def forward(self, x):
        return grad(lambda y: y.sum() if y.sum() > 0 else -2 * y.sum())(x)


@exact()
class GradientsOfSamples(Base):
    def forward(self, x):
        def loss(weights, row):
            return functional_call(self.lin, weights, (row,)).square().sum()

        weights = dict(self.lin.named_parameters())
        return vmap(grad(loss), in_dims=(None, 0))(weights, x)["weight"]


@exact()
class Jvp(Layers):
    def forward(self, x):
        return jvp(self.rows, (x,), (self.lin(x),))


@exact()
class FunctionalCallOfALayer(nn.Module):
    """Replaces the tensors of a layer for one of its calls."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        weights = {"weight": self.lin.weight[0] * 2, "bias": x.mean(0)}
        return functional_call(self.norm, weights, (self.lin(x),)) + self.norm(x)


@exact()
class FunctionalCallInAnotherMode(Layers):
    def forward(self, x):
        self.drop.eval()
        y = functional_call(self.drop, {}, (self.lin(x),))
        self.drop.train(self.training)
        return y


@exact()
class Hessian(Base):
    def forward(self, x):
        return torch.func.hessian(lambda y: self.lin(y).sin().sum())(x[0])


@exact()
class JacobiansOfRows(Layers):
    """Both directions, in a vmap, over values and tensors from around."""

    def forward(self, x):
        mean = x.mean()
        back = vmap(jacrev(lambda y: self.rows(y) * self.scale))(x)
        ahead = jacfwd(lambda y: (self.lin(y) * mean).sin())(x[0])
        return back.sum(1) + ahead.sum(0)


@exact()
class JacobianOfTwoAndMore(Layers):
    def forward(self, x):
        (one, other), more = jacrev(
            lambda y, by: ((y * by).sin(), y.mean()), argnums=(0, -1), has_aux=True
        )(x[0], self.lin(x)[0])
        return one.sum(0) + other.sum(0) + more


@exact()
class VjpCalledTwice(Layers):
    def forward(self, x):
        y, pull, more = vjp(
            lambda a, by: ((self.lin(a) * by).sin(), a.mean()), x, x + 1, has_aux=True
        )
        one, other = pull(torch.ones_like(y))
        return y + one * other + pull(y)[0] + more


@exact()
class AutogradFunctional(Layers):
    def forward(self, x):
        y = self.lin(x)
        slopes = autograd.jacobian(self.rows, y[0], create_graph=True).sum(0)
        bends = autograd.hessian(lambda a: self.rows(a).square().sum(), x[0], create_graph=True)
        one = autograd.vjp(lambda a, b: (a * b).sin(), (x, y), y, create_graph=True)[1]
        two = autograd.hvp(lambda a: self.lin(a).sin().sum(), x, x)[1]
        return slopes + bends.sum(0) + one[0] * one[1] + two


# --- others ---


@exact()
class CheckpointInACheckpoint(Layers):
    def forward(self, x):
        def outer(y):
            return checkpoint(self.rows, self.lin(y), use_reentrant=False) * y

        return checkpoint(outer, x, use_reentrant=False)


@refused("flex_attention, which runs functions on single numbers")
class FlexAttention(Base):
    def forward(self, x):
        y = self.lin(x)[None, None]
        return flex_attention.flex_attention(y, y, y, lambda score, *_: score * 2)[0, 0]


@refused("create_block_mask, which runs functions on single numbers")
class BlockMask(Base):
    def forward(self, x):
        rows = x.shape[0]
        mask = flex_attention.create_block_mask(
            lambda b, h, q, k: q >= k, None, None, rows, rows, device="cpu"
        )
        return self.lin(x) * mask.sparsity()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
