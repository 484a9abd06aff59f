"""Models that trap a tracer, one class a trap: right, or refused by name; never silently wrong."""

from __future__ import annotations

import threading
from collections import OrderedDict, namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError, InvalidIrError
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import get_default_converter

Pair = namedtuple("Pair", ["left", "right"])


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)


class MinusOne(Base):
    def forward(self, x):
        return self.lin(x) - 1


class OneMinus(Base):
    def forward(self, x):
        return 1 - self.lin(x)


class Twice(Base):
    def forward(self, x):
        y = self.lin(x)
        return y + y


class SameLayerTwice(Base):
    def forward(self, x):
        return self.lin(self.lin(x))


class Cat(Base):
    def forward(self, x):
        return torch.cat([x, self.lin(x)], dim=1)


class Slices(Base):
    def forward(self, x):
        y = self.lin(x)
        return y[:, 1:3], y[..., 0], y[None], y[:, ::2]


class InPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        z = y
        y += 1
        y.mul_(2)
        y[:, 0] = 0
        return y * z


class InPlaceOnView(Base):
    def forward(self, x):
        y = self.lin(x).clone()
        part = y[:, :2]
        part.zero_()
        return y


class MutatesInput(nn.Module):
    def forward(self, x):
        x.add_(1)
        return x * 2


class UsesMutator(Base):
    def __init__(self):
        super().__init__()
        self.mutate = MutatesInput()

    def forward(self, x):
        y = self.lin(x).clone()
        self.mutate(y)
        return y


class TwoInputs(Base):
    def forward(self, left, right):
        return self.lin(left) * right


class KeywordInput(Base):
    def forward(self, x, *, scale):
        return self.lin(x) * scale


class Outputs(Base):
    def forward(self, x):
        y = self.lin(x)
        return {"a": y, "b": [y + 1, (y, 3, None)], "c": Pair(y, x)}


class ReturnsInput(nn.Module):
    def forward(self, x):
        return x


class Identities(Base):
    def __init__(self):
        super().__init__()
        self.same = ReturnsInput()
        self.rows = nn.Sequential(nn.Linear(4, 4), ReturnsInput(), nn.ReLU())

    def forward(self, x):
        return self.rows(self.same(self.lin(x)))


class TupleModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, pair, flag, extra=None):
        left, right = pair
        y = self.lin(left)
        if flag:
            y = y + right
        return {"sum": y, "rest": (right, extra)}


class StructuredBorders(Base):
    def __init__(self):
        super().__init__()
        self.inner = TupleModule()

    def forward(self, x):
        one = self.inner((x, x + 1), flag=True, extra=5)
        other = self.inner((one["sum"], x), flag=False)
        return one["sum"], other["sum"], one["rest"][0], one["rest"][1]


class SharedComposite(Base):
    """Calls a module twice in the same way (one implementation), and once in another way."""

    def __init__(self):
        super().__init__()
        self.inner = TupleModule()

    def forward(self, x):
        a = self.inner((x, x + 1), True)["sum"]
        b = self.inner((a, x), True)["sum"]
        return self.inner((b, a), False)["sum"]


class Parameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))
        self.register_buffer("shift", torch.randn(4))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("fixed", torch.randn(4), persistent=False)
        self.plain = torch.randn(4, dtype=torch.float64)
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(4)) for _ in range(2)])

    def forward(self, x):
        self.steps.add_(1)
        y = x * self.scale.exp() + self.shift.abs() + self.fixed.view(1, 4)
        y = y + self.scale.reshape(1, 4).expand(2, 4).narrow(0, 0, 1)
        for weight in self.parameters(recurse=True):
            y = y + weight.sum()
        return y * self.plain, self.steps * 2


class StateShape(nn.Module):
    """A model that branches on the shape of a parameter, which is known without inputs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        if self.weight.shape[0] == 4 and self.weight.dim() == 2 and len(self.weight) == 4:
            return x @ self.weight.t()
        return x


class Sizes(Base):
    def forward(self, x):
        n, c = x.shape
        y = self.lin(x).view(n, c // 2, 2).reshape(x.size(0), -1)
        return y + torch.arange(c, dtype=x.dtype, device=x.device) + torch.zeros_like(x)


class Random(Base):
    def forward(self, x):
        noise = torch.randn(4)
        return self.lin(x) + noise + torch.rand_like(x) + torch.zeros(4).uniform_()


class FunctionalDropout(Base):
    def forward(self, x):
        x = F.dropout(self.lin(x), 0.5, self.training)
        return F.dropout(x, p=0.25, training=self.training), F.dropout(x, 0.1, training=True)


class UsesParent(nn.Module):
    """A module that calls a module, and reads a tensor, that are not inside it."""

    def __init__(self, others):
        super().__init__()
        self.others = (others,)

    def forward(self, x):
        return self.others[0].lin(x) + self.others[0].lin.bias


class Foreign(Base):
    def __init__(self):
        super().__init__()
        self.user = nn.Sequential(nn.ReLU(), UsesParent(self))

    def forward(self, x):
        return self.user(x)


class MadeOnTheWay(Base):
    def forward(self, x):
        return nn.Softmax(dim=1)(nn.ReLU()(self.lin(x)))


class CallsInsideOfLeaf(nn.Module):
    """Calls a submodule of a leaf directly."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.first = self.rows[0]

    def forward(self, x):
        return self.rows(x) + self.first(x)


class NamedRoot(nn.Module):
    def __init__(self):
        super().__init__()
        self.root = nn.Linear(4, 4)
        self.output = nn.Linear(4, 4)
        self.input = nn.Sequential(nn.Linear(4, 4))

    def forward(self, input):
        return self.output(self.root(self.input(input)))


class Unspellable(nn.Module):
    """Has names that the rebuilt module uses itself, or that are not Python identifiers."""

    NAMES = (
        "graph",
        "code",
        "meta",
        "evaluation",
        "recompile",
        "_graph",
        "in",
        "class",
        "a b",
        'q"',
    )

    def __init__(self):
        super().__init__()
        for name in self.NAMES:
            self.add_module(name, nn.Sequential(nn.Linear(4, 4), DropsWhileTraining()))
        self.rows = nn.ModuleDict({name: Twice() for name in self.NAMES})
        self.register_parameter("lambda", nn.Parameter(torch.randn(4)))
        self.register_buffer("in_", torch.randn(4))
        self.register_buffer("is", torch.randn(4))

    def forward(self, x):
        for name in self.NAMES:
            x = self.rows[name](self._modules[name](x))
        return x * getattr(self, "lambda") + self.in_ - getattr(self, "is")


class DropsWhileTraining(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, self.training) if self.training else x - 1


class SubclassedLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


class Subclassed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = SubclassedLinear(4, 4)

    def forward(self, x):
        return self.lin(x)


class Pruned(Base):
    """A layer whose attributes no longer describe its weights."""

    def __init__(self):
        super().__init__()
        self.lin.weight = nn.Parameter(self.lin.weight.data[:3].clone())
        self.lin.bias = None

    def forward(self, x):
        return self.lin(x)


class Parametrized(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = parametrizations.weight_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.lin(x)


class Hooked(Base):
    def __init__(self):
        super().__init__()
        self.lin.register_forward_hook(lambda module, args, output: output * 3)
        self.lin.register_forward_pre_hook(lambda module, args: (args[0] + 1,))

    def forward(self, x):
        return self.lin(x)


class OwnForward(Base):
    def __init__(self):
        super().__init__()
        self.lin.forward = lambda x: F.linear(x, self.lin.weight) - 7

    def forward(self, x):
        return self.lin(x)


class UncalledModules(Base):
    def __init__(self):
        super().__init__()
        self.extra = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ModuleList([nn.Linear(3, 3)])})
        self.own = Base()
        self.missing = None

    def forward(self, x):
        return self.lin(x)


class SharedNames(nn.Module):
    """Has modules and tensors under several names, in an unusual order."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Sequential(OrderedDict(x=self.a, y=nn.Linear(4, 4)))
        self.c = self.b
        self.d = nn.Linear(4, 4)
        self.d.weight = self.a.weight
        self.e = self.a

    def forward(self, x):
        return self.d(self.c(self.b(self.e(x))))


class Frozen(Base):
    def __init__(self):
        super().__init__()
        self.lin.weight.requires_grad_(False)
        self.other = nn.Linear(4, 4).double()
        self.bn = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.other(self.bn(self.lin(x)).double())


class NotContiguous(Base):
    def __init__(self):
        super().__init__()
        self.mask = torch.ones(4, 4).tril().t()
        self.flag = torch.tensor([True, False, True, False])

    def forward(self, x):
        return (self.lin(x) @ self.mask).masked_fill(self.flag, float("-inf"))


class NestedModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(Twice(), nn.Sequential(Cat())) for _ in "ab"])
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        for block in self.blocks:
            y = block(x)
        return self.out(y)


class Reductions(Base):
    def forward(self, x):
        y = self.lin(x)
        values, indices = torch.max(y, dim=1)
        top = y.topk(2)
        return values, indices, top.values, y.T, y.softmax(dim=-1), y.mean((0, 1), keepdim=True)


class Symbols(Base):
    def forward(self, x):
        return self.lin(x).to(torch.float64).to(memory_format=torch.contiguous_format), x.to("cpu")


X = (torch.randn(3, 4),)

RIGHT = {
    cls.__name__: (cls, inputs)
    for cls, inputs in [
        *(
            (cls, X)
            for cls in (
                MinusOne, OneMinus, Twice, SameLayerTwice, Cat, Slices, InPlace, InPlaceOnView,
                MutatesInput, UsesMutator, Outputs, Identities, StructuredBorders, SharedComposite,
                Parameters, StateShape, Sizes, Random, FunctionalDropout, Foreign, MadeOnTheWay,
                CallsInsideOfLeaf, NamedRoot, Unspellable, Subclassed, Pruned, Parametrized, Hooked,
                OwnForward, UncalledModules, SharedNames, Frozen, NotContiguous, NestedModules,
                Reductions, Symbols,
            )
        ),
        (TwoInputs, (torch.randn(3, 4), torch.randn(3, 4))),
    ]
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_comes_back_the_same(name, round_trip):
    cls, inputs = RIGHT[name]
    torch.manual_seed(0)
    round_trip(cls(), *inputs)
    torch.manual_seed(0)
    round_trip(cls().eval(), *[torch.randn(5, *x.shape[1:]) for x in inputs])


def test_inputs_keep_their_names():
    model = KeywordInput()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    x, scale = torch.randn(3, 4), torch.randn(4)
    assert bitwise_equal(rebuilt(scale=scale, x=x), model(x, scale=scale))
    named = NamedRoot()
    rebuilt = lg.to_torch(lg.to_ir(named), named.state_dict())
    assert bitwise_equal(rebuilt(input=x), named(input=x))


def test_output_structures_come_back():
    model = Outputs()
    was, now = model(*X), lg.to_torch(lg.to_ir(model), model.state_dict())(*X)
    assert list(now) == ["a", "b", "c"]
    assert type(now["b"]) is list
    assert type(now["b"][1]) is tuple
    assert now["b"][1][1:] == (3, None)
    assert now["c"]._fields == was["c"]._fields
    assert type(now["c"]).__name__ == "Pair"


def test_equal_calls_of_one_module_are_one_implementation():
    ir = lg.to_ir(SharedComposite())
    called = [node.implementation for node in ir["root"].nodes.values() if node.is_call]
    assert called == ["inner", "inner", "inner.lin"]


def test_what_is_almost_a_layer_is_not_that_layer():
    for cls in (Subclassed, Pruned, Parametrized, Hooked, OwnForward):
        assert lg.to_ir(cls())["lin"].type == "module", cls
    assert lg.to_ir(Base().lin)["root"].type == "linear"


def test_defaults_are_kept():
    class Masked(Base):
        def forward(self, x, mask=None, scale=2.0):
            y = self.lin(x) * scale
            return y if mask is None else y * mask

    model = Masked()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert bitwise_equal(rebuilt(*X), model(*X))
    assert bitwise_equal(rebuilt(*X, None, scale=2.0), model(*X))
    with pytest.raises(AssumptionError, match="'mask' was None"):
        rebuilt(*X, mask=X[0])
    with pytest.raises(AssumptionError, match=r"'scale' was 2\.0"):
        rebuilt(*X, scale=3.0)


# --- what is refused ---


class Decides(Base):
    def forward(self, x):
        if x.sum() > 0:
            return self.lin(x)
        return x


class DecidesDeepInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Base(), Decides()])

    def forward(self, x):
        return self.blocks[1](x)


class Loops(Base):
    def forward(self, x):
        return torch.stack([self.lin(row) for row in x])


class Ranges(Base):
    def forward(self, x):
        for _ in range(x.shape[0]):
            x = self.lin(x)
        return x


class Length(Base):
    def forward(self, x):
        return self.lin(x) * len(x)


class IsInstance(Base):
    def forward(self, x):
        return self.lin(x) if isinstance(x, torch.Tensor) else x


class Floats(Base):
    def forward(self, x):
        return self.lin(x) * float(x.shape[1])


class SetsAttribute(Base):
    def forward(self, x):
        y = self.lin(x)
        y.requires_grad = False
        return y


class HasAttribute(Base):
    def forward(self, x):
        return self.lin(x) if hasattr(x, "logits") else x


class KeepsState(Base):
    def __init__(self):
        super().__init__()
        self.last = None

    def forward(self, x):
        y = self.lin(x)
        if self.last is not None:
            y = y + self.last
        self.last = y
        return y


class Counts(Base):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return self.lin(x) * self.calls


class AssignsBuffer(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.mean = self.mean * 0.9 + x.mean(0) * 0.1
        return self.lin(x) - self.mean


class ChangesConstant(Base):
    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(4)

    def forward(self, x):
        self.cache += 1
        return self.lin(x) + self.cache


class ChangesLeaf(Base):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        self.drop.p = 0.1
        return self.drop(self.lin(x))


class AnyNumber(Base):
    def forward(self, *inputs):
        return sum(inputs)


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = torch.jit.script(Base().lin)

    def forward(self, x):
        return self.lin(x)


class NoGrad(Base):
    def forward(self, x):
        with torch.no_grad():
            return self.lin(x)


class Autocast(Base):
    def forward(self, x):
        with torch.autocast("cpu"):
            return self.lin(x)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


class OwnGradient(Base):
    def forward(self, x):
        return Straight.apply(self.lin(x))


class BackwardHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.register_full_backward_hook(lambda module, given, taken: None)

    def forward(self, x):
        return self.lin(x)


class UnregisteredParameter(Base):
    def __init__(self):
        super().__init__()
        self.hidden = [nn.Parameter(torch.ones(4))]

    def forward(self, x):
        return self.lin(x) * self.hidden[0]


class UnregisteredModule(Base):
    def __init__(self):
        super().__init__()
        self.hidden = [nn.Linear(4, 4)]

    def forward(self, x):
        return self.hidden[0](self.lin(x))


class SharesMemory(Base):
    def __init__(self):
        super().__init__()
        self.view = self.lin.weight.detach()

    def forward(self, x):
        return self.lin(x) @ self.view


class SharesMemoryByName(Base):
    def __init__(self):
        super().__init__()
        self.back = nn.Parameter(self.lin.weight.t())

    def forward(self, x):
        return self.lin(x) @ self.back


class OwnStateDict(Base):
    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass

    def forward(self, x):
        return self.lin(x)


class Fails(Base):
    def forward(self, x):
        return self.lin(x) + self.nothing_of_that_name


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.LazyLinear(4)

    def forward(self, x):
        return self.lin(x)


class Meta(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("fixed", torch.zeros(4, device="meta"), persistent=False)

    def forward(self, x):
        return x + self.fixed


REFUSED = {
    Decides: "branches on a value",
    DecidesDeepInside: "'blocks.1'",
    Loops: "loops over a value",
    Ranges: "range",
    Length: "length of a value",
    IsInstance: "asks whether a value is",
    Floats: "float",
    SetsAttribute: "cannot set the attribute 'requires_grad'",
    HasAttribute: "'logits'",
    KeepsState: "assigns self.last",
    Counts: "assigns self.calls",
    AssignsBuffer: "mean",
    ChangesConstant: "register_buffer",
    ChangesLeaf: "assigns self.p|a change of .drop. that lasts",
    AnyNumber: "any number of inputs",
    Scripted: "ScriptModule",
    NoGrad: "region without gradients",
    Autocast: "autocast",
    BackwardHook: "backward hooks",
    UnregisteredParameter: "not registered",
    UnregisteredModule: "not registered",
    SharesMemory: "shares memory with 'lin.weight'",
    SharesMemoryByName: "'lin.weight' shares memory with 'back'",
    OwnStateDict: "get_extra_state",
    Fails: "nothing_of_that_name",
    Lazy: "lazy",
    Meta: "meta device",
}


@pytest.mark.parametrize("cls", REFUSED)
def test_is_refused_by_name(cls):
    model = cls()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    with pytest.raises(CaptureError, match=REFUSED[cls]):
        lg.to_ir(model)
    after = {name: dict(vars(module)) for name, module in model.named_modules()}
    assert {k: v.keys() for k, v in after.items()} == {k: v.keys() for k, v in before.items()}
    assert all(after[k][name] is v for k in before for name, v in before[k].items())


def test_error_names_the_line_and_the_way():
    with pytest.raises(CaptureError) as caught:
        lg.to_ir(DecidesDeepInside())
    message = str(caught.value)
    assert "test_capture.py" in message
    assert "if x.sum() > 0:" in message
    assert "example inputs" in message


# --- torch is left as it was ---


def _torch_as_seen():
    return (
        nn.Module.__call__,
        vars(nn.Module).get("training", "nothing"),
        vars(torch.autograd.Function).get("apply", "nothing"),
        torch.autocast.__enter__,
        globals().get("isinstance", "nothing"),
    )


def test_torch_is_left_as_it_was():
    before = _torch_as_seen()
    lg.to_ir(NestedModules())
    assert _torch_as_seen() == before
    with pytest.raises(CaptureError):
        lg.to_ir(Decides())
    assert _torch_as_seen() == before


def test_other_threads_see_nothing():
    entered, leave = threading.Event(), threading.Event()

    class Waits(Base):
        def forward(self, x):
            entered.set()
            assert leave.wait(10)
            return self.lin(x)

    model, other = Waits(), nn.Sequential(nn.Linear(4, 4), FunctionalDropout(), OwnGradientAlone())
    thread = threading.Thread(target=lg.to_ir, args=(model,))
    thread.start()
    try:
        assert entered.wait(10)
        result = other(*X)
        with torch.autocast("cpu"):
            pass
    finally:
        leave.set()
        thread.join()
    assert isinstance(result, torch.Tensor)


def test_captures_in_several_threads_leave_torch_as_it_was():
    before = _torch_as_seen()
    models = [NestedModules() for _ in range(8)]
    results = {}
    threads = [
        threading.Thread(target=lambda i=i, m=m: results.update({i: lg.to_ir(m)}))
        for i, m in enumerate(models)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(models)
    assert all(ir == results[0] for ir in results.values())
    assert _torch_as_seen() == before


class OwnGradientAlone(nn.Module):
    def forward(self, x):
        return Straight.apply(x[0])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"size": torch.Size([2])}, r"implementation '0': its attribute 'size' holds torch.Size"),
        ({"nodes": {}}, "implementation '0': it has an attribute named 'nodes'"),
        ({"size": {1, 2}}, "implementation '0': its attribute 'size' holds {1, 2}, a set"),
    ],
)
@pytest.mark.parametrize("inputs", [None, (torch.ones(1, 2),)])
def test_what_a_handler_says_is_plain(data, said, inputs):
    converter = get_default_converter()
    converter.register_override(nn.Linear, lambda _: lg.Implementation(type="linear", data=data))
    with pytest.raises(InvalidIrError, match=said):
        converter.convert(nn.Sequential(nn.Linear(2, 2)), inputs)
