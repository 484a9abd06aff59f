"""Functions outside torch: autograd.Function, operators of torch.library, scripted functions."""

from __future__ import annotations

import functools
import typing  # torch 2.6 does not know the names of collections.abc

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


class Sign(torch.autograd.Function):
    """A surrogate gradient, which differs from the gradient of forward."""

    @staticmethod
    def forward(ctx, x, slope=25.0):
        ctx.save_for_backward(x)
        ctx.slope = slope
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + ctx.slope * x.abs()) ** 2, None


@exact()
class Surrogate(Base):
    def forward(self, x):
        return Sign.apply(self.lin(x), 3.0) * x


@exact()
class SurrogateWithDefaults(Base):
    def forward(self, x):
        return Sign.apply(self.lin(x))


def fast_sigmoid(slope=25.0):
    """Return a surrogate gradient as snntorch does, as a function."""

    def inner(x):
        return Sign.apply(x, slope)

    return inner


@exact()
class SurrogateOfClosure(Base):
    def __init__(self):
        super().__init__()
        self.spike = fast_sigmoid(2.0)
        self.other = fast_sigmoid(7.0)

    def forward(self, x):
        return self.spike(self.lin(x)) + self.other(x)


@exact()
class SurrogateAsLambda(Base):
    def __init__(self):
        super().__init__()
        self.spike = lambda x: Sign.apply(x, 2.0)

    def forward(self, x):
        return self.spike(self.lin(x))


@exact()
class ApplyAsAttribute(Base):
    def __init__(self):
        super().__init__()
        self.spike = Sign.apply

    def forward(self, x):
        return self.spike(self.lin(x), 2.0)


@exact()
class ApplyAsClassAttribute(Base):
    spike = Sign.apply

    def forward(self, x):
        return self.spike(self.lin(x))


@exact()
class ApplyInDict(Base):
    def __init__(self):
        super().__init__()
        self.spikes = {"sign": Sign.apply}

    def forward(self, x):
        return self.spikes["sign"](self.lin(x))


def _kept():
    apply = Sign.apply
    return lambda x: apply(x, 2.0)


@exact()
class ApplyInClosure(Base):
    def __init__(self):
        super().__init__()
        self.spike = _kept()

    def forward(self, x):
        return self.spike(self.lin(x))


@exact()
class ApplyInList(Base):
    def __init__(self):
        super().__init__()
        self.spikes = [Sign.apply]

    def forward(self, x):
        return self.spikes[0](self.lin(x))


@refused("reference that capture does not see")
class ApplyInTuple(Base):
    def __init__(self):
        super().__init__()
        self.spikes = (Sign.apply,)

    def forward(self, x):
        return self.spikes[0](self.lin(x))


@refused("reference that capture does not see")
class ApplyAsDefault(Base):
    def forward(self, x, spike=Sign.apply):
        return spike(self.lin(x))


class Holder:
    def __init__(self):
        self.spike = Sign.apply


@exact()
class ApplyInObject(Base):
    def __init__(self):
        super().__init__()
        self.holder = Holder()

    def forward(self, x):
        return self.holder.spike(self.lin(x))


class New(torch.autograd.Function):
    """A function in the style of torch.func, with ``setup_context``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, by, add=1):
        return x * by + add

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.by = inputs[:2]
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx, grad):
        x, output = ctx.saved_tensors
        return grad * x.sign() * 5 + output, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return tangent * 3


@exact()
class SetupContext(Base):
    def forward(self, x):
        return New.apply(self.lin(x), 2)


class Pair(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x.relu(), x * y, 7

    @staticmethod
    def backward(ctx, first, second, _):
        x, y = ctx.saved_tensors
        return first * 2 + second * y, second * 3 * x


@exact()
class SeveralOutputs(Base):
    def forward(self, x):
        first, second, count = Pair.apply(self.lin(x), x)
        return first + second * count


@exact()
class OneOfSeveralOutputs(Base):
    def forward(self, x):
        return Pair.apply(self.lin(x), x)[1]


class Sorted(torch.autograd.Function):
    """Has an output without gradient, and does not materialize gradients."""

    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        values, order = x.sort(dim=-1)
        ctx.mark_non_differentiable(order)
        ctx.save_for_backward(order)
        return values, order, x * 2

    @staticmethod
    def backward(ctx, values, order, doubled):
        assert order is None
        found = 0
        if values is not None:
            found = torch.zeros_like(values).scatter(-1, ctx.saved_tensors[0], values)
        return found + (0 if doubled is None else doubled * 11)


@exact()
class NonDifferentiable(Base):
    def forward(self, x):
        values, order, _ = Sorted.apply(self.lin(x))
        return values * 2, order


@exact()
class NotMaterialized(Base):
    def forward(self, x):
        return Sorted.apply(self.lin(x))[2]


class AddOne(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.add_(1)

    @staticmethod
    def backward(ctx, grad):
        return grad * 3


@exact()
class InPlace(Base):
    def forward(self, x):
        y = self.lin(x) * 1
        z = AddOne.apply(y)
        return y + z


@exact()
class InPlaceUnused(Base):
    def forward(self, x):
        y = self.lin(x) * 1
        AddOne.apply(y)
        return y


@exact()
class InPlaceOnView(Base):
    def forward(self, x):
        y = torch.zeros(x.shape[0], 8)
        y[:, 4:] += 1
        AddOne.apply(y.detach()[:, :4])
        return y[:, :4] + self.lin(x)


@exact()
class InPlaceOnBuffer(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        AddOne.apply(self.count)
        return self.lin(x) * self.count


@refused("not registered", placed=False)
class InPlaceOnConstant(Base):
    def __init__(self):
        super().__init__()
        self.count = [torch.zeros(1)]

    def forward(self, x):
        AddOne.apply(self.count[0])
        return self.lin(x)


class Reversed(torch.autograd.Function):
    """Returns its argument."""

    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, grad):
        return -grad


@exact()
class Identity(Base):
    def forward(self, x):
        y = self.lin(x)
        return Reversed.apply(y) + y


@exact()
class IdentityOfInput(Base):
    def forward(self, x):
        y = Reversed.apply(x)
        return y, self.lin(y)


class View(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return x.view(-1)

    @staticmethod
    def backward(ctx, grad):
        return grad.view(ctx.shape) * 2


@exact()
class ViewOfInput(Base):
    def forward(self, x):
        return View.apply(self.lin(x)).view(x.shape[0], -1)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return grad * 2


@exact()
class OnceDifferentiable(Base):
    def forward(self, x):
        return Once.apply(self.lin(x))


class Swish(torch.autograd.Function):
    """The swish of efficientnet_pytorch."""

    @staticmethod
    def forward(ctx, i):
        result = i * torch.sigmoid(i)
        ctx.save_for_backward(i)
        return result

    @staticmethod
    def backward(ctx, grad_output):
        i = ctx.saved_tensors[0]
        sigmoid_i = torch.sigmoid(i)
        return grad_output * (sigmoid_i * (1 + i * (1 - sigmoid_i)))


class MemoryEfficientSwish(nn.Module):
    def forward(self, x):
        return Swish.apply(x)


@exact()
class EfficientSwish(Base):
    def __init__(self):
        super().__init__()
        self._swish = MemoryEfficientSwish()

    def forward(self, x):
        return self._swish(self.lin(self._swish(self.lin(x))))


@exact()
class SizesAsArguments(Base):
    def forward(self, x):
        return New.apply(self.lin(x), x.shape[0])


@exact()
class NumberOfTensorAsArgument(Base):
    def forward(self, x):
        return New.apply(self.lin(x), x.sum().item())


class Shaped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, shape, dtype, names, config):
        ctx.shape = x.shape
        return x.reshape(shape).to(dtype) * config["scale"][0] * len(names)

    @staticmethod
    def backward(ctx, grad):
        return grad.reshape(ctx.shape).float() * 7, None, None, None, None


@exact()
class PlainArguments(Base):
    def forward(self, x):
        options = {"scale": (2, None)}
        return Shaped.apply(self.lin(x), (x.shape[0], -1), torch.float64, ["a", "b"], options)


class WithWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        y = x @ weight.t()
        return y if bias is None else y + bias

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight * 2, grad.t() @ x * 3, None


@exact()
class ParametersAsArguments(Base):
    def forward(self, x):
        return WithWeight.apply(x, self.lin.weight, None) + WithWeight.apply(
            x, self.lin.weight, self.lin.bias
        )


class Stacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, count, *tensors):
        ctx.count = count
        return torch.stack(tensors)

    @staticmethod
    def backward(ctx, grad):
        return None, *(grad * ctx.count).unbind()


@exact()
class AnyNumberOfTensors(Base):
    def forward(self, x):
        return Stacked.apply(3, x, self.lin(x), x * 2)


class Noisy(torch.autograd.Function):
    """Stochastic rounding."""

    @staticmethod
    def forward(ctx, x):
        return (x + torch.rand_like(x)).floor()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.rand_like(grad)


@exact()
class DrawsRandomNumbers(Base):
    def forward(self, x):
        return Noisy.apply(self.lin(x)) + torch.rand(4)


@exact()
class ByMode(Base):
    def forward(self, x):
        y = self.lin(x)
        return Noisy.apply(y) if self.training else Once.apply(y)


@exact()
class ModeAsArgument(Base):
    def forward(self, x):
        return New.apply(self.lin(x), 2 if self.training else 3)


@exact()
class ModeAsFlag(Base):
    def forward(self, x):
        return Sign.apply(self.lin(x), float(self.training))


class ByNumbers(torch.autograd.Function):
    """Branches on a number inside an autograd.Function."""

    @staticmethod
    def forward(ctx, x):
        ctx.sign = 1 if x.sum() > 0 else -1
        return x * 2 if ctx.sign > 0 else x[:, :2].repeat(1, 2)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.sign


@exact()
class DecidesInside(Base):
    def forward(self, x):
        return ByNumbers.apply(self.lin(x))


class Counted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_non_differentiable()
        return x * 2, "large" if x.sum() > 0 else "small"

    @staticmethod
    def backward(ctx, grad, _):
        return grad


@assumes(given=(torch.ones(3, 4),), others=[(-torch.ones(3, 4),)], fickle=True)
class WordAsOutput(nn.Module):
    def forward(self, x):
        y, word = Counted.apply(x)
        return y if word == "large" else y * 2


class Nested(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return Sign.apply(x) + Once.apply(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * 4


@exact()
class FunctionInFunction(Base):
    def forward(self, x):
        return Nested.apply(self.lin(x))


class Backwards(torch.autograd.Function):
    """Computes its gradient with torch.autograd inside backward."""

    @staticmethod
    def forward(ctx, x):
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            result = inner.tanh()
        ctx.save_for_backward(inner, result)
        return result.detach()

    @staticmethod
    def backward(ctx, grad):
        inner, result = ctx.saved_tensors
        with torch.enable_grad():
            return torch.autograd.grad(result, inner, grad)[0] * 2


@exact()
class GradientInside(Base):
    def forward(self, x):
        return Backwards.apply(self.lin(x))


class OfNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy() * 2)

    @staticmethod
    def backward(ctx, grad):
        return torch.from_numpy(grad.numpy() * 2)


@exact()
class NumpyInside(Base):
    def forward(self, x):
        return OfNumpy.apply(self.lin(x))


class Inherited(Sign):
    @staticmethod
    def backward(ctx, grad):
        return grad * 9, None


@exact()
class InheritedFunction(Base):
    def forward(self, x):
        return Inherited.apply(self.lin(x)) + Sign.apply(x)


class OwnApply(torch.autograd.Function):
    @classmethod
    def apply(cls, x):
        return super().apply(x * 2) + 1

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad * 6


@exact()
class OverriddenApply(Base):
    def forward(self, x):
        return OwnApply.apply(self.lin(x))


@exact()
class UnderNoGrad(Base):
    def forward(self, x):
        with torch.no_grad():
            y = Sign.apply(self.lin(x))
        return y * self.lin(x)


@exact()
class UnderAutocast(Base):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return Reversed.apply(self.lin(x)).float()


@exact()
class Partial(Base):
    def forward(self, x):
        return functools.partial(lambda slope, y: Sign.apply(y, slope), 2.0)(self.lin(x))


@exact()
class InLoop(Base):
    def forward(self, x):
        mem = torch.zeros_like(x)
        for _ in range(3):
            mem = mem * 0.9 + self.lin(x)
            spike = Sign.apply(mem - 0.1)
            mem = mem - spike * 0.1
        return mem, spike


# --- classes that a function makes ---


def ternary(threshold):
    class Fn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return (x > threshold).to(x.dtype) - (x < -threshold).to(x.dtype)

        @staticmethod
        def backward(ctx, grad):
            return grad * threshold

    return Fn


Narrow, Wide = ternary(0.1), ternary(0.5)


@exact(pickled=False)
class TwoClassesOfOneName(Base):
    def forward(self, x):
        y = self.lin(x)
        return Narrow.apply(y) + 2 * Wide.apply(y)


SCALE = torch.tensor([2.0, 3.0, 4.0, 5.0])


def scaled(by):
    class Fn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * by

        @staticmethod
        def backward(ctx, grad):
            return grad * by * 2

    return Fn


Scaled = scaled(SCALE)


@exact(pickled=False)
class TensorOfClosure(Base):
    def forward(self, x):
        return Scaled.apply(self.lin(x))


@refused("made in forward")
class MadeInForward(Base):
    def forward(self, x):
        return scaled(x.shape[0]).apply(self.lin(x))


@refused("its code reads 'scale'")
class StateOfClosure(Base):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.function = scaled(self.scale)

    def forward(self, x):
        return self.function.apply(self.lin(x))


def of_model(model):
    class Fn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round() if model.training else x

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    return Fn


@refused("its code reads 'the model'")
class ModelOfClosure(Base):
    def __init__(self):
        super().__init__()
        self.function = (of_model(self),)

    def forward(self, x):
        return self.function[0].apply(self.lin(x))


class Hidden:
    """Holds a tensor where the search does not find it."""

    def __init__(self, value):
        self.value = value


def of_hidden(hidden):
    class Fn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * hidden.value

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    return Fn


@refused("its code reads 'scale'")
class HiddenState(Base):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.function = of_hidden(Hidden(self.scale))

    def forward(self, x):
        return self.function.apply(self.lin(x))


@refused("its code reads a value of forward")
class HiddenValue(Base):
    def __init__(self):
        super().__init__()
        self.hidden = Hidden(None)
        self.function = of_hidden(self.hidden)

    def forward(self, x):
        self.hidden.value = x + 1
        return self.function.apply(self.lin(x))


class Config:
    bits = 4


class Configured(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, config):
        return x * config.bits

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@refused("Config")
class ObjectAsArgument(Base):
    def forward(self, x):
        return Configured.apply(self.lin(x), Config())


class GivesObject(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2, Config()

    @staticmethod
    def backward(ctx, grad, _):
        return grad


@refused("it returns a Config")
class ObjectAsOutput(Base):
    def forward(self, x):
        y, config = GivesObject.apply(self.lin(x))
        return y * config.bits


lin = nn.Linear(4, 4)


class NamesAnAttribute(torch.autograd.Function):
    """Its code contains the name ``lin`` as an attribute, not as the global."""

    @staticmethod
    def forward(ctx, x):
        ctx.lin = 3
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.lin


@exact()
class AttributeNamedAsAGlobal(Base):
    def __init__(self):
        super().__init__()
        self.lin = lin

    def forward(self, x):
        return NamesAnAttribute.apply(self.lin(x))


class Called(torch.autograd.Function):
    @staticmethod
    def forward(ctx, run, x):
        return run(x)

    @staticmethod
    def backward(ctx, grad):
        return None, grad


@exact
class FunctionAsArgument(Base):
    def forward(self, x):
        return Called.apply(lambda y: y * 2, self.lin(x))


@exact
class ModuleAsArgument(Base):
    def forward(self, x):
        return Called.apply(self.lin, x)


# --- torch.library ---


@torch.library.custom_op("layergraph_traps::gain", mutates_args=())
def gain(x: torch.Tensor, by: float, sizes: typing.Sequence[int]) -> torch.Tensor:
    return x.round() * by + len(sizes)


def _gain_backward(ctx, grad):
    return grad * ctx.by * 2, None, None


def _gain_context(ctx, inputs, output):
    ctx.by = inputs[1]


gain.register_autograd(_gain_backward, setup_context=_gain_context)
gain.register_fake(lambda x, by, sizes: torch.empty_like(x))


@exact()
class CustomOp(Base):
    def forward(self, x):
        return gain(self.lin(x), 2.0, [x.shape[0], 3])


@exact()
class CustomOpByPacket(Base):
    def forward(self, x):
        return torch.ops.layergraph_traps.gain(self.lin(x), by=2.0, sizes=[1])


@exact()
class CustomOpByOverload(Base):
    def forward(self, x):
        return torch.ops.layergraph_traps.gain.default(self.lin(x), 0.5, [])


_library = torch.library.Library("layergraph_traps", "FRAGMENT")
_library.define("halves(Tensor x) -> (Tensor, Tensor[])")
_library.impl("halves", lambda x: (x / 2, [x + 1, x + 2]), "CPU")


@exact()
class DefinedAndImplemented(Base):
    def forward(self, x):
        half, (one, two) = torch.ops.layergraph_traps.halves(self.lin(x).detach())
        return half + one * two + self.lin(x)


@torch.library.custom_op("layergraph_traps::jitter", mutates_args=())
def jitter(x: torch.Tensor) -> torch.Tensor:
    return x + torch.rand_like(x)


@exact()
class CustomOpThatDraws(Base):
    def forward(self, x):
        return jitter(self.lin(x).detach()) + torch.rand(4)


@torch.library.custom_op("layergraph_traps::bump", mutates_args=("x",))
def bump(x: torch.Tensor) -> None:
    x.add_(1)


@refused("changes its arguments")
class CustomOpInPlace(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        bump(y)
        return y


# --- scripted functions ---


@torch.jit.script
def scripted(x, by: float):
    return torch.where(x > 0, x * by, x)


@exact()
class Scripted(Base):
    def forward(self, x):
        return scripted(self.lin(x), 2.0)


@torch.jit.script
def scripted_loop(x, count: int):
    for _ in range(count):
        x = x * 2 if count > 1 else x
    return x


@assumes()
class ScriptedLoop(Base):
    def forward(self, x):
        return scripted_loop(self.lin(x), 3)


@torch.jit.ignore
def ignored(x):
    return Sign.apply(x, 2.0)


@exact()
class Ignored(Base):
    def forward(self, x):
        return ignored(self.lin(x))


class SwishWithScript(torch.autograd.Function):
    """The swish of timm, with a scripted forward and backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return scripted(x, 2.0)

    @staticmethod
    def backward(ctx, grad):
        return scripted(ctx.saved_tensors[0], 3.0) * grad


@exact()
class ScriptInFunction(Base):
    def forward(self, x):
        return SwishWithScript.apply(self.lin(x))


@exact()
class UnderCheckpoint(Base):
    def forward(self, x):
        run = lambda y: Sign.apply(self.lin(y), 2.0)
        return torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False)


@exact()
class ParametersByFunctional(Base):
    def forward(self, x):
        return F.linear(x, Sign.apply(self.lin.weight), self.lin.bias)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
