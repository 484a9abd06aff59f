"""Regions of code with other settings of torch: gradients, autocast, hooks."""

# The traps use the code that the linter would rewrite.
# ruff: noqa: TRY301

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from core.tests.traps.harness import Base, Traps, check
from core.tests.traps.test_identity import Doubles

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


@exact()
class NoGrad(Base):
    def forward(self, x):
        with torch.no_grad():
            y = self.lin(x)
            with torch.enable_grad():
                z = self.lin(y) * 2
        return y + z + self.lin(x)


@exact()
class NoGradDecorated(Base):
    @torch.no_grad()
    def frozen(self, x):
        return self.lin(x)

    def forward(self, x):
        return self.frozen(x) + self.lin(x)


@exact()
class NoGradWhole(Base):
    @torch.no_grad()
    def forward(self, x):
        return self.lin(x)


@exact()
class SetGradFunction(Base):
    def forward(self, x):
        torch.set_grad_enabled(False)
        y = self.lin(x)
        torch.set_grad_enabled(True)
        return y + self.lin(x)


@exact()
class SetGradByMode(Base):
    def forward(self, x):
        with torch.set_grad_enabled(self.training):
            return self.lin(x)


@exact()
class GradAsBefore(Base):
    def forward(self, x):
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        y = self.lin(x)
        torch.set_grad_enabled(before)
        return y + self.lin(x)


@assumes()
class SetGradNested(Base):
    def forward(self, x):
        with torch.no_grad():
            torch.set_grad_enabled(True)
            y = self.lin(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.training):
            z = self.lin(x)
        return y + z + self.lin(x)


@exact()
class NoGradOnOneWay(Base):
    def forward(self, x):
        if x.sum() > 0:
            with torch.no_grad():
                y = self.lin(x)
        else:
            y = self.lin(x) * 2
        return y + self.lin(x)


@exact()
class NoGradByNumbers(Base):
    def forward(self, x):
        with torch.no_grad() if x.sum() > 0 else torch.enable_grad():
            y = self.lin(x)
            if x.max() > 1:
                with torch.no_grad():
                    y = y + self.lin(x)
        return y + self.lin(x)


@refused("does not end|another condition", placed=False)
class GradLeaks(Base):
    """A submodule ends with gradients switched off."""

    def __init__(self):
        super().__init__()
        self.off = TurnsOff()

    def forward(self, x):
        before = torch.is_grad_enabled()
        y = self.off(self.lin(x))
        y = y + self.lin(x)
        torch.set_grad_enabled(before)
        return y


class TurnsOff(nn.Module):
    def forward(self, x):
        torch.set_grad_enabled(False)
        return x * 2


@exact()
class NoGradInSubmodules(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = NoGrad()

    def forward(self, x):
        with torch.no_grad():
            y = self.inner(x)
        return self.inner(x) + y


@exact()
class NoGradWithReturn(Base):
    def forward(self, x):
        for i in range(3):
            with torch.no_grad():
                if i == 1:
                    break
        try:
            with torch.no_grad():
                raise ValueError
        except ValueError:
            pass
        return self.lin(x)


@exact()
class BreaksInsideRegion(Base):
    def forward(self, x):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            for _ in range(x.shape[0]):
                x = self.lin(x)
        return x


@exact()
class Autocast(Base):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.lin(x)
            with torch.autocast("cpu", enabled=False):
                z = self.lin(y.float())
        return y, z, self.lin(x)


@exact()
class AutocastDecorated(Base):
    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, x):
        return self.lin(x) @ x.t()


@exact()
class AutocastByDtype(Base):
    def forward(self, x):
        y = self.lin(x)
        with torch.autocast(device_type=x.device.type, enabled=False):
            return y * 2 + self.lin(x)


@refused("inference")
class Inference(Base):
    def forward(self, x):
        with torch.inference_mode():
            return self.lin(x)


@refused("inference")
class InferenceDecorated(Base):
    @torch.inference_mode()
    def forward(self, x):
        return self.lin(x)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


@exact()
class OwnGradient(Base):
    def forward(self, x):
        return Straight.apply(self.lin(x))


_straight = Straight.apply


@exact()
class OwnGradientAliased(Base):
    def forward(self, x):
        return _straight(self.lin(x))


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad * 5


_scaled = Scaled.apply


@exact()
class OwnGradientNewStyle(Base):
    def forward(self, x):
        return _scaled(self.lin(x))


@exact()
class Checkpointed(Base):
    def forward(self, x):
        y = checkpoint(self.lin, x, use_reentrant=False)
        return checkpoint(lambda a, b: (a * b).relu(), y, x, use_reentrant=False)


@exact()
class CheckpointedReentrant(Base):
    def forward(self, x):
        y = self.lin(x)
        return checkpoint(lambda a: self.lin(a).relu(), y, use_reentrant=True)


@refused("reentrant checkpoint")
class CheckpointedReentrantWithoutGradients(Base):
    """Its input needs no gradients, so that reentrant checkpointing computes none for weights."""

    def forward(self, x):
        return checkpoint(self.lin, x, use_reentrant=True) + self.lin(x)


@exact()
class CheckpointedDropout(Base):
    def forward(self, x):
        y = self.lin(x)
        return checkpoint(lambda a: F.dropout(a, 0.5, self.training), y, use_reentrant=False)


@exact()
class CheckpointSequential(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Dropout(0.5))

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint_sequential

        return checkpoint_sequential(self.rows, 2, x, use_reentrant=False)


@exact()
class GradInside(Base):
    def forward(self, x):
        y = self.lin(x).requires_grad_()
        (grad,) = torch.autograd.grad(y.pow(2).sum(), y, create_graph=True)
        return grad


@exact
class BackwardInside(Base):
    def forward(self, x):
        z = x.detach().requires_grad_()
        (z**2).sum().backward()
        return self.lin(x) + z.grad


@refused("hook")
class TensorHook(Base):
    def forward(self, x):
        y = self.lin(x)
        if y.requires_grad:
            y.register_hook(lambda grad: grad * 2)
        return y


@exact(loud="retain_grad")
class RetainsGrad(Base):
    def forward(self, x):
        y = self.lin(x)
        y.retain_grad()
        return y * 2


@refused("hook", placed=False)
class ParameterHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.weight.register_hook(lambda grad: grad * 2)

    def forward(self, x):
        return self.lin(x)


@refused("hook", placed=False)
class PostAccumulateHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2))

    def forward(self, x):
        return self.lin(x)


@refused("hook")
class BackwardHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.register_full_backward_hook(lambda module, given, taken: (given[0] * 2,))

    def forward(self, x):
        return self.lin(self.lin(x))


@refused("hook")
class BackwardPreHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.register_full_backward_pre_hook(lambda module, taken: (taken[0] * 2,))

    def forward(self, x):
        return self.lin(self.lin(x))


@exact()
class ForwardHooks(Base):
    def __init__(self):
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.lin.register_forward_hook(lambda module, args, out: out * 3)
        self.lin.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        self.rows.register_forward_hook(lambda m, args, kwargs, out: out + 1, with_kwargs=True)
        self.rows.register_forward_pre_hook(lambda module, args: args[0] * 2)
        self.register_forward_hook(lambda module, args, out: {"out": out})

    def forward(self, x):
        return self.rows(self.lin(x))


@exact()
class RootPreHook(Base):
    def __init__(self):
        super().__init__()
        self.register_forward_pre_hook(lambda module, args: (args[0] + 1,))

    def forward(self, x):
        return self.lin(x)


@exact()
class AlwaysCalledHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.register_forward_hook(lambda module, args, out: out * 3, always_call=True)

    def forward(self, x):
        return self.lin(x)


@exact()
class WeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = parametrizations.weight_norm(nn.Linear(4, 4))
        self.b = torch.nn.utils.weight_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.b(self.a(x))


@exact()
class SpectralNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = parametrizations.spectral_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.a(x)


@exact()
class OldSpectralNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.utils.spectral_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.a(x)


@exact()
class Orthogonal(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = parametrizations.orthogonal(nn.Linear(4, 4))

    def forward(self, x):
        return self.a(x)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)


@exact()
class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        parametrize.register_parametrization(self.a, "weight", Symmetric())

    def forward(self, x):
        with parametrize.cached():
            return self.a(self.a(x)) + self.a.weight.sum()


@exact()
class Pruned(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        prune.l1_unstructured(self.a, "weight", amount=0.5)

    def forward(self, x):
        return self.a(x)


@exact()
class FunctionalCall(Base):
    def forward(self, x):
        state = {name: each * 2 for name, each in self.lin.named_parameters()}
        return torch.func.functional_call(self.lin, state, (x,)) + self.lin(x)


@exact()
class FunctionalCallOfComposite(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Doubles()

    def forward(self, x):
        state = {name: each * 2 for name, each in self.inner.named_parameters()}
        return torch.func.functional_call(self.inner, state, (x,)) + self.inner(x)


@exact()
class Cond(Base):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (self.lin(x),))


@exact()
class Vmap(Base):
    def forward(self, x):
        return torch.vmap(lambda row: row * 2 + row.sum())(self.lin(x))


@exact()
class VmapOfLayer(Base):
    def forward(self, x):
        return torch.vmap(self.lin)(x)


@exact()
class VmapOfModuleCode(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Doubles()

    def forward(self, x):
        return torch.func.vmap(self.inner, randomness="same")(x)


@exact()
class FuncGrad(Base):
    def forward(self, x):
        return torch.func.grad(lambda y: (y**2).sum())(self.lin(x))


@exact()
class FuncJvp(Base):
    def forward(self, x):
        return torch.func.jvp(torch.sin, (self.lin(x),), (x,))[1]


@exact()
class FuncJacrev(Base):
    def forward(self, x):
        return torch.func.jacrev(lambda y: y.sin().sum(0))(self.lin(x))


@torch.jit.script
def _scripted(x):
    return x * 2 + 1


@torch.jit.script
def _scripted_often(x, by: float = 1.0):
    return x.relu() * by


@torch.jit.script
def _scripted_loop(x):
    for i in range(x.size(0)):
        x = x + i
    if x.size(0) > 4:
        x = x * 2
    return x


@torch.jit.script
def _scripted_value(x):
    if bool(x.sum() > 0):
        x = x * 2
    return x


@torch.jit.script
def _scripted_dim(x):
    return x * float(x.size(0))


@exact()
class Scripted(Base):
    def forward(self, x):
        return _scripted(self.lin(x))


@exact()
class ScriptedBefore(Base):
    """A scripted function that has been called so often that it computes its own gradients."""

    def __init__(self):
        super().__init__()
        for _ in range(3):
            _scripted_often(self.lin(torch.randn(3, 4)), 2.0).sum().backward()
        self.zero_grad()

    def forward(self, x):
        return _scripted_often(self.lin(x), by=3.0)


@assumes()
class ScriptedLoop(Base):
    def forward(self, x):
        return _scripted_loop(self.lin(x))


@refused("read out|script|name")
class ScriptedValue(Base):
    def forward(self, x):
        return _scripted_value(self.lin(x))


@assumes()
class ScriptedDim(Base):
    def forward(self, x):
        return _scripted_dim(self.lin(x))


@torch.library.custom_op("adversarial::twice", mutates_args=())
def _twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@exact()
class CustomOp(Base):
    def forward(self, x):
        return _twice(self.lin(x).detach())


@exact()
class CustomOpByName(Base):
    def forward(self, x):
        return torch.ops.adversarial.twice(self.lin(x).detach())


@exact()
class AtenByName(Base):
    def forward(self, x):
        return torch.ops.aten.mul.Tensor(self.lin(x), x) + torch.ops.aten.relu(x)


@exact()
class AtenWithSizes(Base):
    def forward(self, x):
        return (
            torch.ops.aten.view(self.lin(x), [x.shape[0], 2, 2]) + torch.ops.aten.sum(x, [0]).sum()
        )


@torch.compile(backend="eager")
def _compiled(x):
    return x.sin() * x.shape[0]


@exact()
class CompiledFunction(Base):
    def forward(self, x):
        return _compiled(self.lin(x))


@refused("thread|see")
class StartsThread(Base):
    def forward(self, x):
        found = []
        thread = threading.Thread(target=lambda: found.append(self.lin(x) * 2))
        thread.start()
        thread.join()
        return found[0] + x


@refused("thread|see")
class ThreadChangesInPlace(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        thread = threading.Thread(target=lambda: y.add_(1))
        thread.start()
        thread.join()
        return y + x


@exact()
class GetsMode(Base):
    def forward(self, x):
        return self.lin(x) * 2 if self.training else self.lin(x)


@exact()
class AsksGradMode(Base):
    def forward(self, x):
        return self.lin(x) * 2 if torch.is_grad_enabled() else self.lin(x)


@exact((torch.randn(3, 4),), [(torch.randn(3, 4).requires_grad_(),)])
class AsksRequiresGrad(Base):
    def forward(self, x):
        return self.lin(x) * 2 if x.requires_grad else self.lin(x)


@exact()
class AsksRequiresGradOfResult(Base):
    def forward(self, x):
        y = self.lin(x)
        return y * 2 if y.requires_grad else y


@assumes()
class AsksGradFn(Base):
    def forward(self, x):
        y = self.lin(x)
        return y * 2 if y.grad_fn is not None else y


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).requires_grad_(),)])
class AsksIsLeaf(Base):
    def forward(self, x):
        y = x * 2
        return self.lin(x) if y.is_leaf else x


@refused("'grad' of a tensor")
class AsksGrad(Base):
    def forward(self, x):
        return self.lin(x) if self.lin.weight.grad is None else x


@exact()
class AsksVersion(Base):
    def forward(self, x):
        y = self.lin(x)
        return y * (1 + x._version)


@exact()
class AsksAutocast(Base):
    def forward(self, x):
        return self.lin(x) * 2 if torch.is_autocast_enabled("cpu") else self.lin(x)


@exact()
class AsksInferenceMode(Base):
    def forward(self, x):
        return self.lin(x) * 2 if torch.is_inference_mode_enabled() else self.lin(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
