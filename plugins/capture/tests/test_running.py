"""What capture by running promises: the call, the outputs, the modes, other sizes, and threads."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import threading
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError, LayergraphError
from layergraph.ir.values import leaves
from layergraph.testing import bitwise_difference, bitwise_equal
from layergraph.torch2ir import Torch2Ir
from layergraph_capture.tracer import EagerTracer

Pair = namedtuple("Pair", ["left", "right"])

X = torch.arange(12.0).reshape(3, 4) / 12


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)


class Layer(Base):
    def forward(self, x):
        return self.lin(x)


def _capture(model, *args, values="refuse", **kwargs):
    """Capture a model, through the dict form, and build it again."""
    ir = lg.to_ir(model, args, kwargs, values=values)
    again = lg.Ir.from_dict(ir.to_dict())
    assert again == ir
    return ir, lg.to_torch(again, model.state_dict())


def _rebuilt(model, *args, values="refuse", **kwargs):
    return _capture(model, *args, values=values, **kwargs)[1]


def _same(one, other):
    assert not bitwise_difference(one, other)


def _called(model, *args, **kwargs):
    torch.manual_seed(0)
    return model(*args, **kwargs)


def _functions(ir):
    nodes = [node for each in ir for node in ir[each].nodes.values()]
    return [node.implementation for node in nodes if node.type == "function"]


# --- the call ---


class Call(Base):
    def forward(self, x, mask=None, *, scale=2.0, flag=True, name="sum"):
        y = self.lin(x) * scale
        if mask is not None:
            y = y * mask
        y = y if flag else -y
        return getattr(y, name)(1)


def test_parameters_keep_their_names_and_order():
    rebuilt = _rebuilt(Call(), X)
    names = list(inspect.signature(rebuilt.forward).parameters)
    assert names == ["x", "mask", "scale", "flag", "name"]


def test_defaults_may_be_left_out_or_given():
    model = Call()
    rebuilt = _rebuilt(model, X)
    expected = model(X)
    _same(rebuilt(X), expected)
    _same(rebuilt(x=X), expected)
    _same(rebuilt(X, None, scale=2.0, flag=True, name="sum"), expected)
    _same(rebuilt(X, mask=None), expected)


@pytest.mark.parametrize(
    ("name", "value"), [("mask", X), ("scale", 3.0), ("flag", False), ("name", "mean")]
)
def test_what_is_fixed_is_refused_by_its_name(name, value):
    rebuilt = _rebuilt(Call(), X)
    with pytest.raises(AssumptionError, match=repr(name)):
        rebuilt(X, **{name: value})


def test_what_was_given_is_fixed_too():
    model = Call()
    rebuilt = _rebuilt(model, X, X, scale=3.0, flag=False, name="mean")
    given = {"scale": 3.0, "flag": False, "name": "mean"}
    for scale in ({}, {"scale": 2.0}, {"scale": 0.5}):
        call = given | scale
        _same(rebuilt(-X, X + 1, **call), model(-X, X + 1, **call))
    _same(rebuilt(X, X, flag=False, name="mean"), model(X, X, flag=False, name="mean"))
    with pytest.raises(AssumptionError, match="'scale'"):
        rebuilt(X, X, **given | {"scale": 3})
    with pytest.raises(AssumptionError, match="'name'"):
        rebuilt(X, X, **given | {"name": "sum"})
    with pytest.raises(AssumptionError, match="'mask'"):
        rebuilt(X, None, **given)
    with pytest.raises(AssumptionError, match="'mask'"):
        rebuilt(X, **given)


def test_an_argument_may_be_given_by_name():
    model = Call()
    rebuilt = _rebuilt(model, mask=X, x=X)
    _same(rebuilt(X, mask=X + 1), model(X, mask=X + 1))
    _same(rebuilt(mask=X + 1, x=-X), model(-X, X + 1))


def test_a_missing_argument_is_a_type_error():
    with pytest.raises(TypeError):
        _rebuilt(Call(), X)()


def test_any_number_of_arguments():
    class Any(Base):
        def forward(self, *xs, **more):
            return self.lin(xs[0]) * xs[1] + more["shift"]

    model = Any()
    rebuilt = _rebuilt(model, X, X, shift=X)
    assert list(inspect.signature(rebuilt.forward).parameters) == ["xs_0", "xs_1", "shift"]
    _same(rebuilt(-X, X + 1, shift=X), model(-X, X + 1, shift=X))
    with pytest.raises(TypeError):
        rebuilt(X, X, X, shift=X)


def test_an_argument_without_default_behind_one_with():
    class Masked(Base):
        def forward(self, x, scale=2.0, *, mask):
            return self.lin(x) * scale * mask

    model = Masked()
    rebuilt = _rebuilt(model, X, mask=X)
    assert list(inspect.signature(rebuilt.forward).parameters) == ["x", "scale", "mask"]
    _same(rebuilt(-X, mask=X + 1), model(-X, mask=X + 1))
    with pytest.raises((TypeError, AssumptionError), match="mask"):
        rebuilt(X)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), float("inf"), -0.0, 2**70, 1j, None, "text", b"bytes", torch.float16,
        torch.device("cpu"), (1, 2), [1, 2], {"a": [1, None]}, slice(1, None, 2), ...,
    ],
    ids=repr,
)  # fmt: skip
def test_fixed_values_of_all_kinds_may_be_given_again(value):
    class Fixed(Base):
        def forward(self, x, value):
            return self.lin(x)

    model = Fixed()
    rebuilt = _rebuilt(model, X, value)
    _same(rebuilt(X, copy.deepcopy(value)), model(X, value))
    with pytest.raises(AssumptionError, match="'value'"):
        rebuilt(X, "another")


@pytest.mark.parametrize(
    ("was", "now"), [(2, 2.0), (1, True), (True, 1), (0.0, -0.0), ((1, 2), (1, 2.0))], ids=repr
)
def test_an_equal_value_that_computes_something_else(was, now):
    """The numbers are equal, but what is computed with them is not."""

    class Scales(nn.Module):
        def forward(self, x, scale):
            scale = scale[1] if isinstance(scale, tuple) else scale
            return (
                torch.atan2(torch.zeros(3), -torch.ones(3) * scale),
                x * scale,
                torch.tensor(scale),
            )

    model = Scales()
    x = torch.arange(3)
    rebuilt = _rebuilt(model, x, was)
    try:
        result = rebuilt(x, now)
    except AssumptionError:
        return
    _same(result, model(x, now))


def test_what_a_graph_cannot_hold_is_no_argument():
    with pytest.raises(CaptureError, match="'mask'"):
        lg.to_ir(Call(), (X, object()))
    with pytest.raises(CaptureError, match="'x'"):
        lg.to_ir(Call(), (torch.eye(4).to_sparse(),))


# --- nested inputs ---


class Nested(Base):
    def forward(self, x, rest):
        y = self.lin(x) * rest["b"][0] + rest["a"]
        return y * rest["b"][1] if rest["flag"] else y, rest["pair"].left


def _nest(factor=1.0):
    pair = Pair(X * 3 * factor, 5)
    return {"a": X * factor, "b": [X + factor, (X * 2)], "pair": pair, "flag": True}


def test_nested_inputs():
    model = Nested()
    rebuilt = _rebuilt(model, X, _nest())
    _same(rebuilt(-X, _nest(2.0)), model(-X, _nest(2.0)))
    other = _nest() | {"pair": Pair(X, 6)}
    _same(rebuilt(-X, other), model(-X, other))
    _same(rebuilt(x=-X, rest=_nest(2.0)), model(-X, _nest(2.0)))


@pytest.mark.parametrize(
    "change",
    [
        {"flag": False},
        {"b": (X, X)},
        {"b": [X]},
        {"b": [X, X, X]},
        {"more": X},
        {"pair": (X, 5)},
        {"pair": Pair(X, 5.0)},
    ],
    ids=lambda change: f"{next(iter(change))}-{type(next(iter(change.values()))).__name__}",
)
def test_other_nested_inputs_are_refused(change):
    model = Nested()
    rebuilt = _rebuilt(model, X, _nest())
    with pytest.raises(AssumptionError, match="'rest'"):
        rebuilt(X, _nest() | change)


def test_a_nested_tensor_has_to_be_one():
    class Biased(Base):
        def forward(self, x, rest):
            if rest["bias"] is None:
                return x * 0
            return F.linear(x, self.lin.weight, rest["bias"])

    rebuilt = _rebuilt(Biased(), X, {"bias": torch.ones(4)})
    with pytest.raises(AssumptionError, match="'rest'"):
        rebuilt(X, {"bias": None})


def test_the_caller_keeps_its_inputs():
    class Changes(Base):
        def forward(self, x, rest):
            x.add_(1)
            rest["new"] = rest.pop("a").mul_(2)
            return self.lin(x) + rest["new"]

    x, rest = X.clone(), {"a": X.clone()}
    model = Changes()
    rebuilt = _rebuilt(model, x, rest)
    assert bitwise_equal(x, X)
    assert rest.keys() == {"a"}
    assert bitwise_equal(rest["a"], X)
    mine, theirs = X.clone(), X.clone()
    _same(rebuilt(mine, {"a": X.clone()}), model(theirs, {"a": X.clone()}))
    assert bitwise_equal(mine, theirs)


# --- outputs ---


@dataclass
class Record:
    left: torch.Tensor
    right: torch.Tensor | None = None


class ModelOutput(OrderedDict):
    """As libraries have it: a dict whose entries are attributes too."""

    def __getattr__(self, name):
        return self[name]


class Holder:
    def __init__(self, left):
        self.left = left
        self.number = 3


class Gives(Base):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        y = self.lin(x)
        return {
            "tensor": lambda: y,
            "list": lambda: [y, x],
            "tuple": lambda: (y,),
            "dict": lambda: {"left": y, 3: [y, (x, None)]},
            "named": lambda: Pair(y, x),
            "deep": lambda: {"a": [Pair(y, (x, 3, "text"))], "b": ()},
            "none": lambda: None,
            "numbers": lambda: (y, 3, 2.5, True, None, "text"),
            "dataclass": lambda: Record(y),
            "output": lambda: ModelOutput(left=y, right=x),
            "object": lambda: Holder(y),
            "inside": lambda: [Record(y, x), (ModelOutput(left=Record(x)),)],
            "twice": lambda: (y, y),
            "input": lambda: (x, x),
        }[self.kind]()


@pytest.mark.parametrize(
    "kind", "tensor list tuple dict named deep none numbers twice input".split()
)
def test_plain_outputs_come_back_as_they_are(kind):
    model = Gives(kind)
    rebuilt = _rebuilt(model, X)
    _same(rebuilt(-X), model(-X))


def test_named_tuples_come_back_by_their_names():
    result = _rebuilt(Gives("named"), X)(X)
    assert type(result).__name__ == "Pair"
    assert result._fields == ("left", "right")


def test_one_tensor_given_twice_is_one():
    for kind in ("twice", "input"):
        one, other = _rebuilt(Gives(kind), X)(X)
        assert one is other
    x = X.clone()
    assert _rebuilt(Gives("input"), X)(x)[0] is x


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("dataclass", lambda y, x: {"left": y}),
        ("output", lambda y, x: {"left": y, "right": x}),
        ("object", lambda y, x: {"left": y, "number": 3}),
        ("inside", lambda y, x: [
            {"left": y, "right": x}, ({"left": {"left": x}},)
        ]),
    ],
)  # fmt: skip
def test_objects_come_back_with_their_fields(kind, expected):
    model = Gives(kind)
    result, original = _rebuilt(model, X)(-X), model(-X)
    _same(_plain(result), expected(model.lin(-X), -X))
    if kind != "inside":
        _same(result.left, original.left)
        assert result[0] is result["left"] is result.left is result.to_tuple()[0]


def _plain(value):
    """Return outputs as dicts, at any depth."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return type(value)(map(_plain, value)) if isinstance(value, list | tuple) else value


def test_a_field_that_is_none_is_an_attribute():
    result = _rebuilt(Gives("dataclass"), X)(-X)
    assert result.right is None
    assert result["right"] is None
    assert list(result) == ["left"]
    with pytest.raises(AttributeError, match="'Record' has no field 'middle'"):
        result.middle  # noqa: B018
    with pytest.raises(KeyError):
        result["middle"]


@pytest.mark.parametrize("kind", ["dataclass", "output", "object"])
def test_outputs_live_with_the_tools_of_torch(kind, tmp_path):
    model = Gives(kind)
    ir = lg.to_ir(model, (X,))
    rebuilt = lg.to_torch(ir, model.state_dict())
    expected = rebuilt(-X)
    lg.save(ir, tmp_path / "model.safetensors", model.state_dict())
    ways = [
        lg.load_model(tmp_path / "model.safetensors"),
        pickle.loads(pickle.dumps(rebuilt)),
        copy.deepcopy(rebuilt),
        torch.export.export(rebuilt, (X,), strict=False).module(),
        lg.to_torch(lg.to_ir(rebuilt, (X,)), model.state_dict()),
    ]
    for way in ways:
        result = way(-X)
        _same(_plain(result), _plain(expected))
        assert type(result) is type(expected)
        assert repr(result).partition("(")[0] == repr(expected).partition("(")[0]


@pytest.mark.needs("compiled_named_tuples")
@pytest.mark.parametrize("kind", ["dataclass", "output", "object"])
def test_outputs_are_made_in_a_compiled_graph(kind):
    rebuilt = _rebuilt(Gives(kind), X)
    result = torch.compile(rebuilt, fullgraph=True, backend="eager")(-X)
    _same(_plain(result), _plain(rebuilt(-X)))
    assert result.to_tuple()[0] is result.left


def test_a_field_may_be_set_later():
    class Wraps(Base):
        def __init__(self):
            super().__init__()
            self.inner = _rebuilt(Gives("dataclass"), X)

        def forward(self, x):
            result = self.inner(x)
            result.right = result.left.mean()
            return result

    model = Wraps()
    result, expected = _rebuilt(model, X)(-X), model(-X)
    _same((result.left, result.right), (expected.left, expected.right))


def test_results_that_say_what_their_items_are():
    @dataclass
    class Pairs:
        left: torch.Tensor
        right: torch.Tensor

        def __iter__(self):
            return iter((self.left, self.right))

    class Returns(Base):
        def __init__(self, make):
            super().__init__()
            self.make = make

        def forward(self, x):
            return self.make(self.lin(x), x)

    with pytest.raises(CaptureError, match="Pairs, whose class defines __iter__"):
        lg.to_ir(Returns(Pairs), (X,))
    model = Returns(lambda left, right: UserDict(left=left, right=right))
    result = _rebuilt(model, X)(-X)
    _same(dict(result), dict(model(-X)))


def test_a_field_named_like_a_method_may_be_none():
    @dataclass
    class Top:
        left: torch.Tensor
        values: torch.Tensor | None = None

    class Returns(Base):
        def forward(self, x):
            return Top(self.lin(x))

    assert _rebuilt(Returns(), X)(X).values is None


class Changes(Base):
    def forward(self, given):
        given.left = self.lin(given.left)
        return given["left"] + 1


class Strict(OrderedDict):
    """As the outputs of transformers: no key can be deleted."""

    def __getattr__(self, name):
        return self[name]

    def __setattr__(self, name, value):
        self[name] = value

    def __delitem__(self, name):
        raise TypeError("no key can be deleted")


def test_a_dict_of_a_class_of_its_own_is_changed_without_deleting():
    model = Changes()
    rebuilt = _rebuilt(model, Strict(left=X, right=X))
    mine, theirs = Strict(left=-X, right=X), Strict(left=-X, right=X)
    _same(rebuilt(theirs), model(mine))
    _same(dict(theirs), dict(mine))


class NamedLikeMethods(Base):
    @dataclass
    class Top:
        values: torch.Tensor
        keys: torch.Tensor
        items: torch.Tensor

    def forward(self, x):
        return self.Top(self.lin(x), x + 1, x)


def test_fields_with_the_names_of_methods():
    model = NamedLikeMethods()
    result = _rebuilt(model, X)(-X)
    _same((result.values, result.keys), (model(-X).values, model(-X).keys))
    assert result.to_tuple()[1] is result.keys


def test_an_object_that_holds_itself_is_refused():
    class Loop(Base):
        def forward(self, x):
            holder = Holder(self.lin(x))
            holder.own = [holder]
            return holder

    with pytest.raises(CaptureError, match="holds itself"):
        lg.to_ir(Loop(), (X,))


# --- modes ---


class Drops(Base):
    def forward(self, x):
        return F.dropout(self.lin(x), 0.5, self.training) + F.dropout(x, 0.3, training=False)


class StochasticDepth(Base):
    def forward(self, x):
        y = self.lin(x)
        if self.training:
            keep = torch.rand(y.shape[0], 1, device=y.device) < 0.5
            y = y * keep
        return x + y


class Auxiliary(Base):
    def forward(self, x):
        y = self.lin(x)
        return (y, y * 2) if self.training else y


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cls", [Drops, StochasticDepth, Auxiliary])
def test_both_modes_are_in_one_ir(cls, training):
    model = nn.ModuleDict({"inner": cls()})["inner"].train(training)
    rebuilt = _rebuilt(model, X)
    assert rebuilt.training == training
    for mode in (True, False, True):
        model.train(mode)
        rebuilt.train(mode)
        for x in (-X, torch.ones(7, 4)):
            _same(_called(rebuilt, x), _called(model, x))
    model.train(training)


def test_both_modes_say_the_same():
    """In whichever mode it is captured, the graphs are the same."""
    for cls in (Drops, StochasticDepth):
        model = cls()
        one = lg.to_ir(model.train(), (X,)).to_dict()
        other = lg.to_ir(model.eval(), (X,)).to_dict()
        for each in (*one.values(), *other.values()):
            each.pop("training", None)
        assert one == other, cls


def test_stochastic_depth_has_a_graph_for_evaluation():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([StochasticDepth(), StochasticDepth()])

        def forward(self, x):
            return self.blocks[1](self.blocks[0](x))

    model = Outer()
    ir, rebuilt = _capture(model, X)
    assert any(ir[each].evaluation is not None for each in ir)
    # Each block has a mode of its own.
    for modes in ((True, False), (False, True), (False, False), (True, True)):
        for each in (model, rebuilt):
            for block, mode in zip(each.blocks, modes, strict=True):
                block.train(mode)
        _same(_called(rebuilt, -X), _called(model, -X))


def test_one_mode_alone_is_assumed():
    class OnlyEvaluates(Base):
        def forward(self, x):
            if self.training:
                raise NotImplementedError
            return self.lin(x)

    model = OnlyEvaluates().eval()
    rebuilt = _rebuilt(model, X)
    _same(rebuilt(-X), model(-X))
    rebuilt.train()
    with pytest.raises(AssumptionError, match="training"):
        rebuilt(X)


# --- other sizes ---


class Attention(nn.Module):
    def __init__(self, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x, mask=None):
        batch, length, width = x.size()
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (each.view(batch, length, self.heads, -1).transpose(1, 2) for each in (q, k, v))
        weights = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5
        causal = torch.full((length, length), float("-inf"), device=x.device).triu(1)
        weights = weights + causal
        if mask is not None:
            weights = weights.masked_fill(~mask[:, None, None, :], -1e9)
        y = self.drop(weights.softmax(-1)) @ v
        return x + self.out(y.transpose(1, 2).reshape(batch, length, width))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.stem(x), inplace=True)
        y = F.interpolate(F.relu(self.down(x)), size=x.shape[-2:])
        y = F.max_pool2d(y, 2)
        y = F.adaptive_avg_pool2d(y, 1)
        return self.head(torch.flatten(y, 1))


@pytest.mark.parametrize("training", [True, False])
def test_attention_at_other_batches_and_lengths(training):
    model = Attention().train(training)
    rebuilt = _rebuilt(model, torch.randn(2, 5, 8))
    for shape in ((1, 5, 8), (2, 9, 8), (4, 1, 8), (1, 1, 8), (3, 64, 8)):
        x = torch.randn(shape)
        _same(_called(rebuilt, x), _called(model, x))
    x, mask = torch.randn(2, 5, 8), torch.rand(2, 5) < 0.7
    rebuilt = _rebuilt(model, x, mask=mask)
    for batch, length in ((1, 5), (4, 9), (2, 2)):
        x, mask = torch.randn(batch, length, 8), torch.rand(batch, length) < 0.7
        _same(_called(rebuilt, x, mask=mask), _called(model, x, mask=mask))


def test_a_convolutional_net_at_other_sizes():
    model = Net()
    rebuilt = _rebuilt(model, torch.randn(2, 3, 8, 8))
    for training in (True, False):
        model.train(training)
        rebuilt.train(training)
        for shape in ((4, 3, 8, 8), (2, 3, 16, 8), (3, 3, 7, 13)):
            x = torch.randn(shape)
            _same(rebuilt(x), model(x))
            _same(dict(rebuilt.named_buffers()), dict(model.named_buffers()))


def test_capturing_leaves_the_statistics_alone():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    lg.to_ir(model, (torch.randn(2, 3, 8, 8, generator=torch.Generator()),))
    _same(dict(model.state_dict()), dict(before))
    assert bitwise_equal(torch.random.get_rng_state(), state)
    assert all(each.grad is None for each in model.parameters())


# --- numbers out of tensors ---


class Branches(Base):
    def forward(self, x):
        return self.lin(x) if x.sum() > 0 else x


class Scales(nn.Module):
    def forward(self, x):
        return torch.full((2,), x.max().item())


@pytest.mark.parametrize("example", [X + 1, -X], ids=["one way", "the other"])
def test_both_ways_of_a_decision_are_captured(example):
    model = Branches()
    assert lg.to_ir(model, (example,)) == lg.to_ir(model, (example,), values="both")
    rebuilt = _rebuilt(model, example, values="both")
    for x in (X + 1, -X, X[:1], -X[:1], torch.full((1, 4), torch.nan)):
        _same(rebuilt(x), model(x))


def test_a_number_that_is_read_out_goes_where_it_is_used():
    model = Scales()
    rebuilt = _rebuilt(model, X, values="both")
    for x in (X, -X, torch.full((1,), torch.nan), torch.tensor([1, 2])):
        _same(rebuilt(x), model(x))


def test_a_number_that_is_read_out_may_be_refused():
    with pytest.raises(CaptureError, match=r"read out of a tensor.* values='both'"):
        lg.to_ir(Branches(), (X,), values="refuse")
    with pytest.raises(CaptureError, match=r"read out of a tensor.* values='both'"):
        lg.to_ir(Scales(), (X,), values="refuse")


def test_a_number_that_is_read_out_may_be_assumed():
    model = Branches()
    rebuilt = _rebuilt(model, X, values="assume")
    _same(rebuilt(X + 1), model(X + 1))
    with pytest.raises(AssumptionError, match=r"if x\.sum"):
        rebuilt(-X)


@pytest.mark.parametrize("now", [torch.tensor([1.0, 2.0]), torch.tensor([True, True])])
def test_an_equal_number_of_another_dtype(now):
    model = Scales()
    was = torch.tensor([1, 2]) if now.dtype is torch.float32 else torch.tensor([1, 1])
    rebuilt = _rebuilt(model, was, values="assume")
    _same(rebuilt(was.clone()), model(was))
    with pytest.raises(AssumptionError):
        rebuilt(was + 1)
    try:
        result = rebuilt(now)
    except AssumptionError:
        return
    _same(result, model(now))


def test_nan_may_be_assumed():
    model = Scales()
    rebuilt = _rebuilt(model, torch.tensor([float("nan")]), values="assume")
    assert rebuilt(torch.tensor([float("nan")])).isnan().all()
    with pytest.raises(AssumptionError):
        rebuilt(torch.ones(1))


def test_values_is_one_of_three():
    with pytest.raises(CaptureError, match="'guess'"):
        lg.to_ir(Branches(), (X,), values="guess")


# --- always the same ---


MODELS = {
    "layers": (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4)), (3, 4)),
    "call": (Call, (3, 4)),
    "drops": (Drops, (3, 4)),
    "depth": (StochasticDepth, (3, 4)),
    "attention": (Attention, (2, 5, 8)),
    "net": (Net, (2, 3, 8, 8)),
}


@pytest.fixture(params=MODELS)
def known(request):
    """A model and an input."""
    torch.manual_seed(0)
    make, shape = MODELS[request.param]
    return make(), torch.randn(shape)


def test_it_is_the_same_twice(known):
    model, x = known
    assert lg.to_ir(model, (x,)) == lg.to_ir(model, (x,))
    assert lg.to_ir(model, (x,)) == lg.to_ir(copy.deepcopy(model), (x + 1,))


def test_gradients_make_no_difference(known):
    model, x = known
    ir = lg.to_ir(model, (x,))
    with torch.no_grad():
        assert lg.to_ir(model, (x,)) == ir
    assert lg.to_ir(model, (x.clone().requires_grad_(),)) == ir


def test_it_computes_the_same_flat(known):
    model, x = known
    ir = lg.to_ir(model, (x,)).flatten()
    if not any(ir[each].evaluation for each in ir):
        assert all(node.type != "module" for node in ir["root"].nodes.values())
    flat = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    for training in (True, False):
        model.train(training)
        flat.train(training)
        _same(_called(flat, -x), _called(model, -x))


def test_a_rebuilt_model_may_be_captured_again(known):
    model, x = known
    once = _rebuilt(model, x)
    twice = _rebuilt(once, x)
    assert list(twice.state_dict()) == list(model.state_dict())
    for training in (True, False):
        for each in (model, twice):
            each.train(training)
        for given in (-x, torch.cat([x, -x])):
            _same(_called(twice, given), _called(model, given))


def test_running_and_tracing_are_one_for_plain_models():
    class Plain(Base):
        def forward(self, x):
            return torch.add(torch.relu(self.lin(x)), 1)

    model = nn.Sequential(Plain(), nn.ReLU())
    assert lg.to_ir(model, (X,)) == lg.to_ir(model)


def test_a_leaf_model_needs_no_run():
    model = nn.Linear(4, 4)
    assert lg.to_ir(model, (X,)) == lg.to_ir(model)
    assert lg.to_ir(model, (X,))["root"].type == "linear"
    _same(_rebuilt(model, X)(X), model(X))


# --- devices ---


def test_a_device_is_where_the_input_is():
    class Positions(Base):
        def forward(self, x):
            n = x.shape[1]
            return self.lin(x) + torch.arange(n, device=x.device) + torch.zeros(n, device=x.device)

    ir, rebuilt = _capture(Positions(), X)
    assert "torch.Tensor.device" in _functions(ir)
    nodes = [node for each in ir for node in ir[each].nodes.values()]
    assert "cpu" not in [leaf for node in nodes for leaf in leaves(node.args, node.kwargs)]
    assert rebuilt.to("meta")(X.to("meta")).device.type == "meta"


# --- torch is left as it was ---


def _torch_as_seen():
    return (
        nn.Module.__call__,
        nn.Module._call_impl,
        vars(nn.Module).get("training", "nothing"),
        inspect.getattr_static(torch.autograd.Function, "apply"),
        torch.autocast.__enter__,
        torch.autocast.__exit__,
        torch.manual_seed,
        torch.from_numpy,
        torch.is_grad_enabled,
        threading.Thread.start,
        globals().get("len", "nothing"),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.overrides._get_current_function_mode_stack(),
        torch.utils._python_dispatch._get_current_dispatch_mode_stack(),
    )


class Raises(Base):
    def forward(self, x, error=ZeroDivisionError):
        self.own = 1
        with torch.no_grad(), torch.autocast("cpu"):
            raise self.error


@pytest.mark.parametrize("error", [ZeroDivisionError, CaptureError("of theirs"), KeyboardInterrupt])
def test_torch_is_left_as_it_was_when_a_model_fails(error):
    model = Raises()
    model.error = error
    before = _torch_as_seen()
    members = dict(vars(model))
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else CaptureError):
        lg.to_ir(model, (X,))
    assert _torch_as_seen() == before
    assert vars(model) == members
    # The next one finds nothing of it.
    assert lg.to_ir(Layer(), (X,)) == lg.to_ir(Layer())


# --- threads ---


def _in_threads(calls):
    """What each call gives, all made at once."""
    results: dict[int, object] = {}
    start = threading.Barrier(len(calls))

    def run(index):
        start.wait(10)
        try:
            results[index] = calls[index]()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == len(calls)
    return [results[index] for index in range(len(calls))]


def test_captures_in_several_threads():
    torch.manual_seed(0)
    models = [make() for make, _ in MODELS.values()]
    inputs = [torch.randn(shape) for _, shape in MODELS.values()]
    expected = [lg.to_ir(model, (x,)) for model, x in zip(models, inputs, strict=True)]
    before = _torch_as_seen()
    for _ in range(3):
        calls = [
            lambda model=model, x=x: lg.to_ir(model, (x,))
            for model, x in zip(models, inputs, strict=True)
        ]
        assert _in_threads(calls) == expected
    assert _torch_as_seen() == before


@pytest.mark.parametrize("cls", [Drops, StochasticDepth])
def test_one_model_in_several_threads(cls):
    model = nn.Sequential(*[cls() for _ in range(6)])
    expected = lg.to_ir(model, (X,))
    for _ in range(3):
        found = _in_threads([lambda: lg.to_ir(model, (X,))] * 6)
        assert all(isinstance(each, LayergraphError) or each == expected for each in found)
        assert not [each for each in found if isinstance(each, BaseException)]
    assert all(each.training for each in model.modules())


def test_another_thread_computes_meanwhile():
    """What other threads do is neither recorded nor changed."""
    entered, leave = threading.Event(), threading.Event()

    class Waits(Base):
        def forward(self, x):
            y = self.lin(x)
            entered.set()
            assert leave.wait(10)
            return y + len(x)

    model, other = Waits(), Drops()
    expected = _called(other, X)
    found = {}
    thread = threading.Thread(target=lambda: found.update(ir=lg.to_ir(model, (X,))))
    thread.start()
    try:
        assert entered.wait(10)
        result = _called(other, X)
        assert type(X.shape[0]) is int
        assert type(len(X)) is int
    finally:
        leave.set()
        thread.join()
    _same(result, expected)
    leave.set()
    assert found["ir"] == lg.to_ir(model, (X,))


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_a_buffer_of_any_dtype_may_be_there():
    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            for dtype in (torch.complex32, torch.complex128, torch.float8_e4m3fn, torch.uint16):
                self.register_buffer(str(dtype).replace(".", "_"), torch.zeros(2).to(dtype))

            self.register_buffer("turned", torch.ones(2, dtype=torch.complex64).conj())

        def forward(self, x):
            return x + 1

    model = Holds()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.ones(2),)), model.state_dict())
    assert [each.dtype for each in rebuilt.buffers()] == [each.dtype for each in model.buffers()]


def _with_cache():
    @functools.cache
    def steps(count):
        return torch.arange(count)

    return lambda count: steps(count).float()


cached_steps = _with_cache()


def test_what_a_cache_in_a_closure_holds_is_computed():
    class Stepping(nn.Module):
        def forward(self, x):
            return x + cached_steps(4)

    model = Stepping()
    model(X)
    ir, rebuilt = _capture(model, X)
    assert "torch.arange" in [node.implementation for node in ir["root"].nodes.values()]
    assert bitwise_equal(rebuilt(X), model(X))


def _kinds(ir):
    return [node.type for node in ir["root"].nodes.values()]


def test_a_constant_that_a_leaf_is_given_is_asked_nothing():
    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.anchor = torch.ones(4)

        def forward(self, x):
            return self.fc(x) + self.fc(self.anchor)

    kinds = ["input", "linear", "state", "linear", "function", "output"]
    assert _kinds(lg.to_ir(Given(), (X,))) == kinds


class Renormed(nn.Module):
    """Changes its weights when it is called, as its class says."""

    max_norm = 0.1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))

    def forward(self, x):
        return nn.functional.embedding(x, self.weight, max_norm=self.max_norm)


@pytest.mark.parametrize("layer", [nn.Embedding(3, 2, max_norm=0.1), Renormed()])
def test_that_the_weights_of_a_leaf_are_kept_is_not_recorded(layer):
    torch2ir = Torch2Ir()
    torch2ir.register(Renormed, lambda _: {})
    before = layer.weight.detach().clone()
    ir = torch2ir.convert(nn.Sequential(layer), (torch.tensor([0, 1]),))
    assert _kinds(ir) == ["input", ir["0"].type, "output"]
    assert bitwise_equal(layer.weight.detach(), before)


def test_a_leaf_runs_as_it_does_without_capture():
    seen = []

    class Asking(nn.Module):
        def forward(self, x):
            seen.append(torch.overrides.has_torch_function((x,)))
            return x * 2

    torch2ir = Torch2Ir()
    torch2ir.register(Asking, lambda _: {})
    ir = torch2ir.convert(nn.Sequential(Asking(), nn.ReLU()), (X,))
    assert _kinds(ir) == ["input", "asking", "relu", "output"]
    assert seen == [False]


class Counter:
    count = 0


class CountsInNewObject(nn.Module):
    def forward(self, x):
        counter = Counter()
        total = sum(each + counter.count for each in range(2))
        counter.count = total
        return x + total


def test_an_object_of_the_run_that_a_comprehension_reads_is_no_state(monkeypatch):
    runs = []
    run = EagerTracer.run
    monkeypatch.setattr(EagerTracer, "run", lambda self: runs.append(self) or run(self))
    lg.to_ir(CountsInNewObject(), (torch.randn(3),))
    assert len(runs) == 1


class Second(Base):
    def forward(self, given):
        return self.lin(given["left"]) + given.right


def test_a_rebuilt_model_takes_the_output_of_another():
    first, second = Gives("output"), Second()
    given = first(X)
    mine, theirs = _rebuilt(first, X), lg.to_torch(lg.to_ir(second, (given,)), second.state_dict())
    _same(theirs(mine(-X)), second(first(-X)))
    again = lg.to_torch(lg.to_ir(second, (mine(X),)), second.state_dict())
    for each in (mine(-X), first(-X)):
        _same(again(each), second(first(-X)))
    exported = torch.export.export(theirs, (mine(X),), strict=False).module()
    _same(exported(mine(-X)), second(first(-X)))
