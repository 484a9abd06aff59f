"""Opened leaves compute what the leaves of torch compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import layergraph as lg
from layergraph_rewrite import EditError

X = torch.randn(5, 2, 8, generator=torch.Generator().manual_seed(0))
MEMORY = torch.randn(7, 2, 8, generator=torch.Generator().manual_seed(1))
CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
NUMBERS = torch.zeros(5, 5).masked_fill(CAUSAL, float("-inf"))
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
EMPTY = torch.tensor([[True] * 5, [False] * 5])
STATES = torch.randn(2, 1, 2, 6)


class Calls(nn.Module):
    """A model that calls a layer as a function says."""

    def __init__(self, leaf, code):
        super().__init__()
        self.leaf, self.code = leaf, code

    def forward(self, *args):
        return self.code(self.leaf, *args)


def mha(**options):
    return nn.MultiheadAttention(8, 2, **options)


def encoder(**options):
    return nn.TransformerEncoderLayer(8, 2, 16, **{"dropout": 0.0, **options})


def decoder(**options):
    return nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, **options)


def whole(**options):
    return nn.Transformer(8, 2, 1, 2, 16, dropout=0.0, **options)


def thrice(leaf, x, **options):
    return leaf(x, x, x, **options)


# The layer, the call, its tensors, and whether the results are equal to the bit on the CPU.
CASES = {
    "attention": (mha, thrice, (X,), True),
    "batch first": (lambda: mha(batch_first=True, bias=False), thrice, (X,), True),
    "other widths": (
        lambda: mha(kdim=3, vdim=4), lambda m, *x: m(*x),
        (X, torch.randn(6, 2, 3), torch.randn(6, 2, 4)), True,
    ),
    "no weights": (mha, lambda m, x: thrice(m, x, need_weights=False), (X,), False),
    "all weights": (mha, lambda m, x: thrice(m, x, average_attn_weights=False), (X,), True),
    "mask": (mha, lambda m, x, b: thrice(m, x, attn_mask=b), (X, CAUSAL), True),
    "masks": (mha, lambda m, x, b, p: m(x, x, x, p, False, b), (X, NUMBERS, PADDING), False),
    "all masked": (mha, lambda m, x, p: m(x, x, x, p, False), (X, EMPTY), False),
    "encoder": (encoder, lambda m, x: m(x), (X,), False),
    "norm first": (lambda: encoder(norm_first=True, bias=False), lambda m, x: m(x), (X,), False),
    "gelu": (lambda: encoder(activation="gelu", batch_first=True), lambda m, x: m(x), (X,), False),
    "encoder masks": (encoder, lambda m, x, b, p: m(x, b, p), (X, CAUSAL, PADDING), False),
    "decoder": (decoder, lambda m, x, y: m(x, y), (X, MEMORY), False),
    "decoder masks": (
        lambda: decoder(norm_first=True),
        lambda m, x, y, b, p: m(x, y, b, tgt_key_padding_mask=p), (X, MEMORY, CAUSAL, PADDING),
        False,
    ),
    "encoders": (lambda: nn.TransformerEncoder(encoder(), 2), lambda m, x: m(x), (X,), False),
    "encoders, masks": (
        lambda: nn.TransformerEncoder(encoder(norm_first=True), 2, nn.LayerNorm(8, 1e-3)),
        lambda m, x, b, p: m(x, b, p), (X, CAUSAL, PADDING), False,
    ),
    "decoders, masks": (
        lambda: nn.TransformerDecoder(decoder(), 2, nn.LayerNorm(8)),
        lambda m, x, y, b, p: m(x, y, b, tgt_key_padding_mask=p), (X, MEMORY, CAUSAL, PADDING),
        False,
    ),
    "transformer": (whole, lambda m, x, y: m(x, y), (MEMORY, X), False),
    "transformer, masks": (
        whole,
        lambda m, x, y, b, n, p: m(x, y, src_mask=n, src_key_padding_mask=p, tgt_mask=b),
        (X, X.clone(), CAUSAL, NUMBERS, PADDING), False,
    ),
    "lstm": (lambda: nn.LSTM(8, 6), lambda m, x: m(x), (X,), False),
    "lstm states": (lambda: nn.LSTM(8, 6), lambda m, x, h, c: m(x, (h, c)), (X, *STATES), False),
    "gru states": (lambda: nn.GRU(8, 6), lambda m, x, h: m(x, h), (X, STATES[0]), True),
    "projection": (lambda: nn.LSTM(8, 6, proj_size=3, num_layers=2), lambda m, x: m(x), (X,), True),
    "relu": (lambda: nn.RNN(8, 6, nonlinearity="relu"), lambda m, x: m(x), (X,), True),
}  # fmt: skip
for kind in (nn.LSTM, nn.GRU, nn.RNN):
    for options in (
        {"num_layers": 2, "bidirectional": True},
        {"batch_first": True},
        {"bias": False},
    ):
        CASES[f"{kind.__name__} {options}"] = (
            lambda kind=kind, options=options: kind(8, 6, **options),
            lambda m, x: m(x),
            (X,),
            kind is not nn.LSTM,
        )


def opened(model, args, **options):
    ir = lg.annotate_shapes(lg.to_ir(model, args), args)
    return lg.run_passes(ir, [("open-leaves", options)], model.state_dict())


def assert_near(model, other, args, *, to_the_bit):
    with torch.no_grad():
        wanted, got = model(*args), other(*args)
    assert pytree.tree_structure(wanted) == pytree.tree_structure(got)
    for one, two in zip(pytree.tree_leaves(wanted), pytree.tree_leaves(got), strict=True):
        if one is None:
            continue
        tolerance = 0 if to_the_bit else 1e-6
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.filterwarnings("ignore:Support for mismatched", "ignore:LSTM with projections")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_the_same_is_computed(name, training, tmp_path):
    make, code, args, to_the_bit = CASES[name]
    torch.manual_seed(0)
    model = Calls(make(), code).train(training)
    ir, state, report = opened(model, args)
    assert [str(each) for each in report.refused] == []
    assert not any(
        each.type in ("multiheadattention", "lstm", "gru", "rnn") or "transformer" in each.type
        for each in ir.values()
    )
    lg.save(ir, tmp_path / "m.safetensors", state)
    for rebuilt in (lg.to_torch(ir, state), lg.load_model(tmp_path / "m.safetensors")):
        assert rebuilt.training == training
        fresh = [torch.randn_like(each) if each.is_floating_point() else each for each in args]
        fresh = [NUMBERS if each is NUMBERS else new for each, new in zip(args, fresh, strict=True)]
        for given in (args, fresh):
            assert_near(model, rebuilt, given, to_the_bit=to_the_bit)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_cells(kind):
    model = Calls(kind(8, 6, num_layers=2, bidirectional=True), lambda m, x: m(x))
    ir, state, _ = lg.run_passes(
        lg.to_ir(model, (X,)), [("open-leaves", {"cells": True, "length": 5})], model.state_dict()
    )
    assert sum(each.type == f"{kind.__name__.lower()}cell" for each in ir.values()) == 4
    assert "leaf.cell_l1_reverse.weight_hh" in state
    rebuilt = lg.to_torch(ir, state)
    assert_near(model, rebuilt, (X,), to_the_bit=kind is not nn.LSTM)
    assert_near(model, rebuilt, (torch.randn(5, 3, 8),), to_the_bit=kind is not nn.LSTM)
    with pytest.raises(RuntimeError):
        rebuilt(torch.randn(6, 2, 8))  # another length
    with pytest.raises(RuntimeError):
        rebuilt(torch.randn(5, 8))  # no batch


def test_gradients_go_to_the_new_parameters():
    model = Calls(mha(), lambda m, x: m(x, x, x)[0])
    ir, state, _ = opened(model, (X,))
    rebuilt = lg.to_torch(ir, state)
    model(X).sum().backward()
    rebuilt(X).sum().backward()
    rows = model.leaf.in_proj_weight.grad.chunk(3)
    for name, wanted in zip(("q_proj", "k_proj", "v_proj"), rows, strict=True):
        got = rebuilt.leaf.get_submodule(name).weight.grad
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_dtype_frozen_parameters_and_keys_follow():
    model = nn.Sequential(encoder().double().requires_grad_(False), nn.Linear(8, 8))
    x = X.double().transpose(0, 1)
    ir, state, _ = lg.run_passes(lg.to_ir(model[:1], (x,)), ["open-leaves"], model[:1].state_dict())
    rebuilt = lg.to_torch(ir, state)
    assert {each.dtype for each in rebuilt.state_dict().values()} == {torch.float64}
    assert not any(each.requires_grad for each in rebuilt.parameters())
    kept = [key for key in model[:1].state_dict() if "in_proj" not in key]
    assert [key for key in state if key in kept] == kept
    assert set(state) - set(kept) == {
        f"0.self_attn.{name}_proj.{part}" for name in "qkv" for part in ("weight", "bias")
    }
    read = []
    watched = dict(model[:1].state_dict())

    class Watched(dict):
        def __getitem__(self, key):
            read.append(key)
            return super().__getitem__(key)

    _, state, _ = lg.run_passes(lg.to_ir(model[:1], (x,)), ["open-leaves"], Watched(watched))
    assert read == []
    assert state["0.linear1.weight"] is not None
    assert read == ["0.linear1.weight"]


@pytest.mark.parametrize(
    ("model", "args", "options", "reason"),
    [
        (Calls(mha(add_zero_attn=True), thrice), (X,), {}, "keys of its own"),
        (Calls(nn.LSTM(8, 6), lambda m, x: m(x)), (X,), {}, "length is unknown"),
        (Calls(nn.LSTM(8, 6, proj_size=2), lambda m, x: m(x)), (X,), {"length": 5, "cells": True},
         "no cell"),
        (Calls(mha(), CASES["mask"][1]), (X, CAUSAL), {}, "kind of the mask"),
        (Calls(mha(), lambda m, x, b: thrice(m, x, attn_mask=b, is_causal=True)), (X, CAUSAL),
         {"masks": "bool"}, "is_causal"),
        (Calls(nn.GRU(8, 8), lambda m, x: m(*m(x))), (X,), {"length": 5}, "other arguments"),
    ],
)  # fmt: skip
def test_a_leaf_stays_with_the_reason(model, args, options, reason):
    ir = lg.to_ir(model, args)
    new, _, report = lg.run_passes(ir, [("open-leaves", options)], model.state_dict())
    assert new == ir
    assert reason in report.refused[0].text


def test_options_say_what_to_open():
    model = nn.Sequential(encoder(), nn.GRU(8, 8))
    ir = lg.to_ir(model)
    new, _, _ = lg.run_passes(ir, [("open-leaves", {"types": "transformer*, lstm"})])
    assert new["0"].type == "module"
    assert new["1"].type == "gru"
    new, _, _ = lg.run_passes(ir, [("open-leaves", {"types": ["gru"], "length": 2})])
    assert (new["0"].type, new["1"].type) == ("transformerencoderlayer", "module")
    with pytest.raises(EditError, match="masks"):
        lg.run_passes(ir, [("open-leaves", {"masks": "yes"})])


def test_a_tied_leaf_stays():
    model = nn.Sequential(nn.GRU(8, 8), nn.GRU(8, 8))
    model[1].weight_ih_l0 = model[0].weight_ih_l0
    ir = lg.to_ir(Calls(model[0], lambda m, x: m(x)), (X,))
    assert lg.run_passes(ir, [("open-leaves", {"length": 5})])[2].applied
    both = nn.ModuleList(model)
    ir = lg.to_ir(Calls(both, lambda m, x: m[1](m[0](x)[0])), (X,))
    _, _, report = lg.run_passes(ir, [("open-leaves", {"length": 5})])
    assert all(each.text.endswith("would have others") for each in report.refused)
    assert len(report.refused) == 2


def test_nested_tensors_stay():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    reason = (
        "with a padding mask, it gives 0 where the mask is; make it with enable_nested_tensor=False"
    )
    for nested in (True, False):
        stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        model = Calls(stack, lambda m, x, p: m(x, src_key_padding_mask=p))
        args = X.transpose(0, 1).contiguous(), padding
        _, _, report = opened(model.eval(), args)
        assert [each.text for each in report.refused] == ([reason] if nested else [])


def test_the_model_itself_stays_with_a_reason():
    ir = lg.to_ir(mha(), (X, X, X))
    _, _, report = lg.run_passes(ir, ["open-leaves"], mha().state_dict())
    assert "put it into another module" in report.refused[0].text
