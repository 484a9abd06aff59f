"""The hook ``tensor_kinds``: packed tensors of a third party's class."""

from __future__ import annotations

import types
from typing import Any, Self

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import TensorKind, hookimpl
from layergraph.errors import (
    BuildError,
    CaptureError,
    InvalidIrError,
    LayergraphError,
    PluginError,
    StateError,
)
from layergraph.ir import Packing, TensorSpec
from layergraph.ir2torch import Ir2Torch
from layergraph.ir2torch.paths import find
from layergraph.plugins import Plugin, installed_plugins
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir


class Scaled(torch.Tensor):
    """Integers and a scale, as a third-party library stores a weight."""

    @staticmethod
    def __new__(cls, whole: torch.Tensor, scale: torch.Tensor, note: str = "") -> Self:
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls, whole.shape, dtype=scale.dtype, device=whole.device
        )
        made.whole, made.scale, made.note = whole, scale, note
        return made

    def __tensor_flatten__(self):
        return ["whole", "scale"], {"note": self.note}

    def dequantize(self) -> torch.Tensor:
        return self.whole.to(self.scale.dtype) * self.scale

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is nn.functional.linear:
            x, weight, *bias = args
            return func(x, weight.dequantize(), *bias)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        if func in (aten.detach.default, aten.clone.default, aten._to_copy.default):
            kept = {key: each for key, each in (kwargs or {}).items() if key == "device"}
            whole, scale = (func(each, **kept) for each in (args[0].whole, args[0].scale))
            return cls(whole, scale, args[0].note)
        if func is aten.copy_.default:
            args[0].whole.copy_(args[1].whole)
            args[0].scale.copy_(args[1].scale)
            return args[0]
        raise NotImplementedError(f"{func} of Scaled")


def scaled_parts(tensor: torch.Tensor) -> Any:
    if type(tensor) is not Scaled:
        return None
    return {"whole": tensor.whole, "scale": tensor.scale}, {"note": tensor.note}


def scaled_of_parts(parts: Any, values: Any) -> torch.Tensor:
    if parts.keys() != {"whole", "scale"} or parts["whole"].dtype is not torch.int8:
        raise ValueError("a Scaled has whole numbers of int8, and a scale")
    return Scaled(parts["whole"], parts["scale"], values["note"])


def plugin(rows: Any = None, name: str = "acme-scaled") -> Plugin:
    row = TensorKind("acme.Scaled", scaled_parts, scaled_of_parts)
    holder = types.SimpleNamespace(tensor_kinds=hookimpl(rows or (lambda: [row])))
    return Plugin(name, "1.0", "scaled", holder)


PLUGINS = (*installed_plugins(), plugin())


def scaled(rows: int, columns: int, note: str = "acme") -> Scaled:
    whole = torch.randint(-9, 9, (rows, columns), dtype=torch.int8)
    return Scaled(whole, torch.rand(rows, 1), note)


def quantized(tie: bool = False) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    for layer in (model[0], model[2]):
        layer.weight = nn.Parameter(scaled(4, 4), requires_grad=False)
    if tie:
        model[2].weight = model[0].weight
    return model


def to_ir(model: nn.Module, *args: Any, plugins: Any = PLUGINS) -> lg.Ir:
    return Torch2Ir(plugins=plugins).convert(model, *args)


def built(ir: lg.Ir, state: Any = None, **options: Any) -> nn.Module:
    return Ir2Torch(plugins=PLUGINS).convert(ir, state, **options)


@pytest.mark.parametrize("is_run", [False, True])
@pytest.mark.parametrize("tie", [False, True])
def test_a_weight_of_a_kind_comes_back(is_run, tie):
    model = quantized(tie)
    x = torch.randn(3, 4)
    ir = to_ir(model, *[(x,)] * is_run)
    assert ir["0"].type == "linear"
    again = built(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    assert list(again.state_dict()) == list(model.state_dict())
    assert type(again[0].weight) is Scaled
    assert again[0].weight.note == "acme"
    assert isinstance(again[0].weight, nn.Parameter)
    assert not again[0].weight.requires_grad
    assert (again[0].weight is again[2].weight) is tie
    assert bitwise_equal(again(x), model(x))
    # The weights are copies.
    assert again[0].weight.whole.data_ptr() != model[0].weight.whole.data_ptr()


def test_the_description():
    spec = to_ir(quantized())["0"].tensors["weight"]
    parts = {"whole": TensorSpec(shape=(4, 4), dtype="int8"), "scale": TensorSpec(shape=(4, 1))}
    assert spec == TensorSpec(
        requires_grad=False, packed=Packing("acme.Scaled", parts, {"note": "acme"})
    )
    copied = spec.copy()
    copied.packed.parts["scale"].shape = (1,)
    copied.packed.data["note"] = "other"
    assert spec.packed.parts["scale"].shape == (4, 1)
    assert spec.packed.data == {"note": "acme"}


class Held(nn.Module):
    """A model with a constant, a buffer that does not persist, and a traced parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(scaled(4, 4), requires_grad=False)
        self.register_buffer("kept", scaled(4, 4), persistent=False)
        self.constant = scaled(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in (self.weight, self.kept, self.constant):
            x = nn.functional.linear(x, weight, None)
        return x


def test_values_travel_with_the_ir():
    model = Held()
    x = torch.randn(3, 4)
    ir = to_ir(model, (x,))
    again = built(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    assert bitwise_equal(again(x), model(x))
    assert list(again.state_dict()) == ["weight"]
    meta = built(ir, device="meta")
    assert meta.weight.is_meta
    meta.load_state_dict(model.state_dict(), assign=True)
    assert bitwise_equal(meta(x), model(x))


def test_a_capture_leaves_the_parts_as_they_were():
    class Stepping(Held):
        def forward(self, x):
            self.kept.scale.add_(1)
            return super().forward(x)

    model = Stepping()
    before = model.kept.scale.clone()
    # A part is an attribute of the subclass, and no graph records its read.
    with pytest.raises(LayergraphError):
        to_ir(model, (torch.randn(3, 4),))
    assert torch.equal(model.kept.scale, before)


def test_without_state_the_weights_are_zero():
    model = quantized()
    again = built(to_ir(model))
    assert torch.equal(again[0].weight.whole, torch.zeros(4, 4, dtype=torch.int8))
    again.load_state_dict(model.state_dict())
    x = torch.randn(3, 4)
    assert bitwise_equal(again(x), model(x))


# --- a parameter of a library, which keeps the state of its quantization beside its numbers ---


class Packed4(nn.Parameter):
    """Packs a weight as libraries do: numbers in bytes, and an object beside these."""

    state: Any = None


def packed4(numbers: torch.Tensor, absmax: torch.Tensor, block: int) -> Packed4:
    made = Packed4(numbers, requires_grad=False)
    made.state = types.SimpleNamespace(absmax=absmax, block=block)
    return made


def packed4_parts(tensor: Any) -> Any:
    if type(tensor) is not Packed4:
        return None
    return {"numbers": tensor.data, "absmax": tensor.state.absmax}, {"block": tensor.state.block}


class Layer4(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        numbers = torch.randint(0, 255, (4, 4), dtype=torch.uint8)
        self.weight = packed4(numbers, torch.rand(4), 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.float())


def test_a_parameter_of_a_library():
    model = nn.Sequential(Layer4())
    x = torch.randn(2, 4)
    with pytest.raises(CaptureError, match=r"'0\.weight' is a Packed4 of .*cannot describe"):
        to_ir(model, (x,), plugins=installed_plugins())
    row = TensorKind(
        "acme.Packed4",
        packed4_parts,
        lambda parts, values: packed4(parts["numbers"], parts["absmax"], values["block"]),
    )
    plugins = (*installed_plugins(), plugin(lambda: [row]))
    ir = to_ir(model, (x,), plugins=plugins)
    # An ordinary state dict holds only the numbers.
    again = Ir2Torch(plugins=plugins).convert(ir, model.state_dict(keep_vars=True))
    with pytest.raises(StateError, match=r"a plain tensor where a acme.Packed4 is wanted"):
        Ir2Torch(plugins=plugins).convert(ir, model.state_dict())
    meta = Ir2Torch(plugins=plugins).meta_model(ir)
    state = {f"0.weight.{name}": each for name, each in packed4_parts(model[0].weight)[0].items()}
    for each in (again, meta.fill(state, torch.device("cpu"))):
        weight = find(each, "0.weight")
        assert type(weight) is Packed4
        assert weight.state.block == 4
        assert torch.equal(weight.state.absmax, model[0].weight.state.absmax)
        assert bitwise_equal(each(x), model(x))


# --- refusals ---


def test_without_a_plugin_it_is_refused():
    model = quantized()
    with pytest.raises(CaptureError, match=r"'0.weight' is a Scaled .*not a block of numbers"):
        to_ir(model, plugins=installed_plugins())
    ir = to_ir(model)
    with pytest.raises(BuildError, match=r"lists the kind of tensors 'acme.Scaled'"):
        Ir2Torch(plugins=installed_plugins()).convert(ir, {})


def _state(**changes: Any) -> Any:
    return {**quantized().state_dict(), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.weight": torch.ones(4, 4)}, "'0.weight' is a plain tensor where a acme.Scaled is"),
        ({"0.weight": scaled(4, 4, "b")}, "'0.weight' is a acme.Scaled with {'note': 'b'} where"),
        ({"0.weight": scaled(3, 4)}, r"'0.weight.whole' has shape \(3, 4\) where \(4, 4\)"),
        ({"0.bias": scaled(4, 4)}, "'0.bias' is a Scaled of"),
        ({"0.weight.more": torch.ones(1)}, "'0.weight.more' is not one of the model"),
    ],
    ids=["plain", "other values", "other shape", "packed", "unknown part"],
)
def test_a_state_that_does_not_fit(changes, message):
    ir = to_ir(quantized())
    with pytest.raises(StateError, match=message):
        built(ir, _state(**changes))
    state = quantized().state_dict()
    del state["2.weight"]
    with pytest.raises(StateError, match=r"'2.weight.whole' is missing"):
        built(ir, state)


def test_numbers_are_not_on_meta():
    ir, meta = to_ir(quantized()), quantized()
    meta[0].weight = nn.Parameter(meta[0].weight.to("meta"), requires_grad=False)
    with pytest.raises(StateError, match="meta device"):
        built(ir, meta.state_dict())


def test_parts_that_are_shared():
    model = quantized()
    shared = Scaled(model[0].weight.whole, model[2].weight.scale, "acme")
    model[2].weight = nn.Parameter(shared, requires_grad=False)
    with pytest.raises(CaptureError, match=r"shares memory with '0\.weight'"):
        to_ir(model)


BROKEN = {
    "a dot": lambda packed: packed.parts.update({"a.b": TensorSpec(shape=(1,))}),
    "no name": lambda packed: packed.parts.update({"": TensorSpec(shape=(1,))}),
    "no shape": lambda packed: packed.parts.update(scale=TensorSpec()),
    "a kind of its own": lambda packed: packed.parts.update(scale=TensorSpec("buffer", (4, 1))),
    "a tie": lambda packed: packed.parts.update(scale=TensorSpec(shape=(4, 1), tied="0.bias")),
    "no plain value": lambda packed: packed.data.update(note=object()),
    "no dict": lambda packed: setattr(packed, "parts", []),
    "no text": lambda packed: setattr(packed, "kind", 1),
    "a negative size": lambda packed: packed.parts.update(scale=TensorSpec(shape=(-1,))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_ir_that_breaks_a_rule(name):
    ir = to_ir(quantized())
    BROKEN[name](ir["0"].tensors["weight"].packed)
    with pytest.raises(InvalidIrError, match="tensor 'weight'"):
        built(ir)


WRONG = {
    "unknown part": lambda packed: packed.parts.update(more=TensorSpec(shape=(1,))),
    "missing part": lambda packed: packed.parts.pop("scale"),
    "wrong dtype": lambda packed: packed.parts.update(whole=TensorSpec(shape=(4, 4))),
    "wrong shape": lambda packed: packed.parts.update(whole=TensorSpec(shape=(5, 4), dtype="int8")),
    "missing value": lambda packed: packed.data.pop("note"),
    "extra value": lambda packed: packed.data.update(more=1),
}


@pytest.mark.parametrize("name", WRONG)
def test_parts_of_another_tensor(name):
    ir = to_ir(quantized())
    WRONG[name](ir["0"].tensors["weight"].packed)
    with pytest.raises(BuildError, match="implementation '0', tensor 'weight'"):
        built(ir)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda: 3, "must return rows"),
        (lambda: [TensorKind("Scaled", scaled_parts, scaled_of_parts)], "the name of the library"),
        (lambda: [TensorKind("a.b", None, scaled_of_parts)], "give a function"),
        (lambda: [TensorKind("a.b", scaled_parts, scaled_of_parts)] * 2, "two kinds of tensors"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: [TensorKind("a.b", lambda _: 1 / 0, scaled_of_parts)], "'a.b' cannot take apart"),
        (lambda: [TensorKind("a.b", lambda t: ({"a.c": t}, {}), scaled_of_parts)], "the part"),
        (
            lambda: [TensorKind("a.b", lambda _: ({}, {"x": object()}), scaled_of_parts)],
            "plain values",
        ),
    ],
)
def test_a_plugin_that_breaks_its_contract(rows, message):
    with pytest.raises(PluginError, match=message):
        to_ir(quantized(), plugins=(*installed_plugins(), plugin(rows)))


def _flatten_all_but(*lost: str) -> Any:
    def flatten(tensor):
        if type(tensor) is not Scaled:
            return None
        parts, values = scaled_parts(tensor)
        return (
            {key: each for key, each in parts.items() if key not in lost},
            {key: each for key, each in values.items() if key not in lost},
        )

    return flatten


LIES = {
    "a value is lost": (
        _flatten_all_but("note"),
        lambda parts, _: Scaled(parts["whole"], parts["scale"]),
        r"its __tensor_flatten__\(\) returns",
    ),
    "a part is lost": (
        _flatten_all_but("scale"),
        lambda parts, values: Scaled(parts["whole"], torch.ones(4, 1), values["note"]),
        "its scale has other numbers",
    ),
    "a part is changed": (
        scaled_parts,
        lambda parts, values: Scaled(parts["whole"], parts["scale"] * 2, values["note"]),
        "its part 'scale' has other numbers",
    ),
    "another class": (
        lambda tensor: ({"whole": tensor.whole}, {}) if isinstance(tensor, Scaled) else None,
        lambda parts, _: type("Other", (Scaled,), {})(parts["whole"], torch.ones(4, 1)),
        "it is a Other",
    ),
    "another dtype": (
        _flatten_all_but("scale"),
        lambda parts, values: Scaled(parts["whole"], torch.ones(4, 1).double(), values["note"]),
        "its dtype is torch.float64",
    ),
    "no tensor": (scaled_parts, lambda *_: 3, "makes another tensor"),
}


@pytest.mark.parametrize("lie", LIES)
def test_parts_that_do_not_give_the_tensor_back(lie):
    flatten, unflatten, message = LIES[lie]
    lying = plugin(lambda: [TensorKind("acme.Scaled", flatten, unflatten)])
    with pytest.raises(PluginError, match=f"does not give back a Scaled .*{message}"):
        to_ir(quantized(), plugins=(*installed_plugins(), lying))
    # The expansion of a state dict raises the same error.
    converter = Ir2Torch(plugins=(*installed_plugins(), lying))
    with pytest.raises(PluginError, match=message):
        converter.hooks.tensor_kinds.expanded({"weight": scaled(4, 4)})
