"""Rows of layers: which modules a row handles, and which ones it declines."""

from __future__ import annotations

import copy
import warnings
from typing import Any, overload

import pytest
import torch
from torch import nn
from typing_extensions import deprecated

from layergraph import Implementation
from layergraph.errors import BuildError
from layergraph.layers import Layer, signature_of
from layergraph.testing import bitwise_equal


class Pair(nn.Module):
    """Has layers inside, one of them under two names, and a tensor of each kind."""

    def __init__(self, size: int, scale: float = 0.0, bounds: Any = (), share: bool = True) -> None:
        super().__init__()
        self.size, self.scale, self.bounds, self.share = size, scale, bounds, share
        self.one = nn.Sequential(nn.Linear(size, size), nn.Dropout(0.5))
        self.other = self.one[0] if share else nn.Linear(size, size)
        self.nothing = None
        self.register_module("no_layer", None)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("step", torch.zeros(size), persistent=False)

    def forward(self, x):
        return self.other(self.one(x)) * self.scale

    def helper(self, x):
        return x


class Incomparable:
    def __eq__(self, other):
        raise ValueError("it has no truth")

    __hash__ = None


ROW = Layer(Pair)


def put(path, value):
    def change(module):
        *way, name = path.split(".")
        setattr(module.get_submodule(".".join(way)), name, value)

    return change


def prune(module):
    del module.one[0].bias


def reorder(module):
    weight = module.one[0].weight
    del module.one[0].weight
    module.one[0].weight = weight


CHANGES = {
    "an argument that makes another": put("share", False),
    "an attribute": put("nothing", 1),
    "an attribute that is gone": lambda m: delattr(m, "nothing"),
    "an argument that is gone": lambda m: delattr(m, "scale"),
    "an attribute inside": put("one.0.in_features", 4),
    "an attribute inside that is gone": lambda m: delattr(m.one[1], "inplace"),
    "a tensor for an attribute": put("nothing", torch.ones(2)),
    "an attribute that cannot be compared": put("nothing", Incomparable()),
    "a method": put("helper", lambda x: x),
    "a method inside": put("one.0.zero_grad", lambda: ""),
    "a forward": put("forward", lambda x: x),
    "a forward inside": put("one.1.forward", lambda x: x),
    "compiled inside": put("one.0._compiled_call_impl", lambda x: x),
    "a class inside": put("one.1", nn.AlphaDropout(0.5)),
    "a class of the same attributes": put("one.0.__class__", nn.Bilinear),
    "another mode inside": lambda m: m.one[1].eval(),
    "a hook inside": lambda m: m.one[0].register_forward_hook(lambda *_: None),
    "a hook before": lambda m: m.register_forward_pre_hook(lambda *_: None),
    "a hook on gradients inside": lambda m: m.one[0].register_full_backward_hook(lambda *_: None),
    "a hook on the state dict inside": lambda m: m.one[0].register_state_dict_post_hook(
        lambda *_: None
    ),
    "a layer more": lambda m: m.one.append(nn.ReLU()),
    "a layer fewer": lambda m: m.one.pop(1),
    "a layer under another name": lambda m: m.add_module("third", m.one),
    "another under the name": put("other", nn.Linear(3, 3)),
    "a layer for none": put("no_layer", nn.ReLU()),
    "a layer for none that is gone": lambda m: delattr(m, "no_layer"),
    "none for a layer": put("other", None),
    "no tensor": put("one.0.bias", None),
    "a tensor that is gone": prune,
    "a tensor more": lambda m: m.one[1].register_buffer("extra", torch.ones(1)),
    "tensors in another order": reorder,
    "another shape": put("mean", torch.ones(4)),
    "another kind of numbers": put("mean", torch.ones(3, dtype=torch.int64)),
    "another persistence": lambda m: m.register_buffer("step", torch.ones(3)),
    "a parameter as a buffer": lambda m: m._buffers.update(mean=nn.Parameter(torch.ones(3))),
    "what hides a tensor": lambda m: vars(m.one[0]).update(bias=None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_layer_is_not_taken(change):
    module = Pair(3)
    assert ROW.to_ir(module) is not None
    change(module)
    assert ROW.to_ir(module) is None


UNCHANGED = {
    "copied": copy.deepcopy,
    "evaluating": nn.Module.eval,
    "trained": lambda m: m.requires_grad_(False).double(),
    "with a note": lambda m: put("note", 1)(m) or put("one.0.note", 1)(m) or m,
    "hooked once": lambda m: (
        m.one[0].register_full_backward_hook(lambda *_: None).remove()
        or m.register_forward_hook(lambda *_: None).remove()
        or m
    ),
    "with hooks on loading": lambda m: (
        m.one.register_load_state_dict_pre_hook(lambda *_: None)
        and m.register_load_state_dict_post_hook(lambda *_: None)
        and m
    ),
    "tied": lambda m: put("mean", m.step)(m) or m,
}


@pytest.mark.parametrize("change", UNCHANGED.values(), ids=UNCHANGED.keys())
def test_what_changes_no_attribute_is_taken(change):
    assert ROW.to_ir(change(Pair(3))) == ROW.to_ir(Pair(3))


def test_layers_are_shared_as_in_a_new_one():
    module = Pair(3, share=False)
    assert ROW.to_ir(module).data == {"size": 3, "share": False}
    module.other = module.one[0]
    assert ROW.to_ir(module) is None


class Hooked(nn.Module):
    """Has a hook from the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.handle = self.register_forward_hook(hook)
        del self.handle

    def forward(self, x):
        return x


def hook(*_) -> None:
    pass


def test_a_hook_of_the_constructor_that_is_gone_counts():
    module, row = Hooked(), Layer(Hooked)
    module._forward_hooks.clear()
    assert row.to_ir(module) is None


class Sharing(nn.Module):
    """Has equal layers, two of which are the same object; their names do not show which."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.ReLU(), nn.ReLU()
        self.c = self.a


def test_which_is_shared_counts():
    module, row = Sharing(), Layer(Sharing)
    assert row.to_ir(module) is not None
    module.c = module.b
    assert row.to_ir(module) is None


class Tying(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(2, 2), nn.Linear(2, 2)
        self.other.weight = self.one.weight


def test_what_the_constructor_ties_has_to_be_tied():
    module, row = Tying(), Layer(Tying)
    module.other.bias = module.one.bias
    assert row.to_ir(module) is not None
    module.other.weight = nn.Parameter(torch.ones(2, 2))
    assert row.to_ir(module) is None


def test_values_are_told_apart_as_python_writes_them():
    said = [ROW.to_ir(Pair(3, scale)).data.get("scale") for scale in (0.0, 0, False, -0.0)]
    assert repr(said) == "[None, 0, False, -0.0]"


@pytest.mark.parametrize("bounds", [float("nan"), (float("nan"), 1), [1, (2.0, float("nan"))]])
def test_no_number_is_no_number(bounds):
    module = copy.deepcopy(Pair(3, bounds=bounds))
    module.one[1].p = float("nan")
    assert ROW.to_ir(module) is None
    module.one[1].p = 0.5
    for _ in range(2):
        answer = ROW.to_ir(module)
        assert repr(answer.data["bounds"]) == repr(bounds)


class NotANumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.limit = (float("nan"), [float("nan")])


def test_no_number_that_the_constructor_computes():
    assert Layer(NotANumber).to_ir(NotANumber()) is not None


class Loud(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        warnings.warn("this is slow", stacklevel=1)
        self.weight = nn.Parameter(torch.randn(3))
        self.drawn = nn.Parameter(torch.randn(3, device="cpu"))


def test_to_compare_neither_warns_nor_draws():
    with pytest.warns(UserWarning, match="slow"):
        module = Loud()
    was = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Layer(Loud).to_ir(module) is not None
    assert bitwise_equal(torch.get_rng_state(), was)


def test_what_is_inside_a_changed_layer_may_be_of_any_depth():
    module = Pair(3)
    inner = nn.Module()
    for _ in range(5000):
        around = nn.Module()
        around.inner, inner = inner, around
    module.one.inner = inner
    assert ROW.to_ir(module) is None


# --- what a constructor takes ---


class Overloaded(nn.Module):
    @overload
    def __init__(self, size: int, bias: bool = True) -> None: ...

    @overload
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __init__(self, *args, **kwargs) -> None:
        super().__init__()
        self.size, self.bias = (*args, *kwargs.values(), True)[:2]


@deprecated("old", category=FutureWarning)
class Deprecated(nn.Module):
    def __init__(self, size: int, bias: bool = True) -> None:
        super().__init__()
        self.size, self.bias = size, bias


class Untold(nn.Module):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("cls", [Overloaded, Deprecated])
def test_arguments_are_found(cls):
    assert list(signature_of(cls).parameters) == ["size", "bias"]
    row = Layer(cls)
    answer = row.to_ir(cls(3, False))
    assert answer.data == {"size": 3, "bias": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = row.to_torch(answer)
    assert (type(made), made.size, made.bias) == (cls, 3, False)
    with pytest.raises(BuildError, match="it has size, bias"):
        row.to_torch(Implementation(row.type, {"width": 3}))


def test_who_says_nothing_takes_nothing():
    assert Layer(Untold).to_ir(Untold()).data == {}


def test_a_constructor_that_says_its_arguments_is_believed():
    assert list(signature_of(nn.Linear).parameters)[:2] == ["in_features", "out_features"]
