"""Tensors of edits are read when they are asked for, once, from any mapping."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError, StateError
from layergraph_rewrite import layer


class Noting(dict):
    """A state dict that notes what is read of it."""

    def __init__(self, *args):
        super().__init__(*args)
        self.read = []

    def __getitem__(self, key):
        self.read.append(key)
        return super().__getitem__(key)


MODEL = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))


def test_tensors_are_read_late_and_computed_once():
    state, computed = Noting(MODEL.state_dict()), []
    edit = lg.edit(lg.to_ir(MODEL), state)

    def doubled():
        computed.append(1)
        return state["0.weight"] * 2

    edit.rename("2", "head")
    edit.set("0", tensors={"weight": doubled})
    edit.remove("1")
    edit.insert_after("0", layer("prelu", name="act"))
    assert edit.ir is not None
    assert (state.read, computed) == ([], [])
    assert torch.equal(edit.state["head.bias"], MODEL[2].bias)
    assert state.read == ["2.bias"]
    first = edit.state["0.weight"]
    assert edit.state["0.weight"] is first
    assert torch.equal(first, MODEL[0].weight * 2)
    assert computed == [1]
    assert list(edit.state) == ["0.weight", "0.bias", "act.weight", "head.weight", "head.bias"]


def test_an_edit_without_a_state_dict_has_none():
    edit = lg.edit(lg.to_ir(MODEL))
    edit.insert_after("0", layer("prelu"))
    edit.unshare("2")
    assert edit.state is None
    assert isinstance(lg.to_torch(edit.ir), nn.Module)


def test_a_state_dict_from_a_file(tmp_path):
    lg.save(lg.to_ir(MODEL), tmp_path / "a.safetensors", MODEL.state_dict())
    edit = lg.edit(lg.load(tmp_path / "a.safetensors"), lg.load_model(
        tmp_path / "a.safetensors"
    ).state_dict())  # fmt: skip
    edit.rename("0", "first")
    lg.save(edit.ir, tmp_path / "b.safetensors", edit.state)
    x = torch.randn(2, 2)
    assert torch.equal(lg.load_model(tmp_path / "b.safetensors")(x), MODEL(x))


@pytest.mark.parametrize("state", [{"none.weight": torch.ones(1)}, 3])
def test_other_state_dicts_are_refused(state):
    with pytest.raises(StateError):
        lg.edit(lg.to_ir(MODEL), state)


def test_a_state_dict_that_loses_a_tensor_is_named():
    state = dict(MODEL.state_dict())
    edit = lg.edit(lg.to_ir(MODEL), state)
    state.clear()
    with pytest.raises(StateError, match=r"0\.weight"):
        edit.state["0.weight"]
    with pytest.raises(KeyError):
        edit.state["none"]


def halved(weight):
    return weight / 2


class Scaled:
    def __call__(self, weight, by=2):
        return weight * by


@pytest.mark.parametrize(
    ("change", "factor"),
    [(halved, 0.5), (Scaled(), 2), (torch.neg, -1), (torch.Tensor.neg, -1), (lambda w: w * 3, 3)],
)
def test_a_function_with_an_argument_gets_the_tensor_that_the_layer_has(change, factor):
    state = Noting(MODEL.state_dict())
    edit = lg.edit(lg.to_ir(MODEL), state)
    for _ in range(2):
        edit.set("0", tensors={"weight": change})
    assert state.read == []
    weights = edit.state
    assert torch.equal(weights["0.weight"], state["0.weight"] * factor * factor)
    assert weights["0.weight"] is weights["0.weight"]
    assert torch.equal(weights["2.weight"], state["2.weight"])


def test_a_function_without_an_argument_may_have_defaults():
    edit = lg.edit(lg.to_ir(MODEL), MODEL.state_dict())
    edit.set("0", tensors={"bias": lambda *_, value=1.0, **__: torch.full((3,), value)})
    assert edit.state["0.bias"].tolist() == [1, 1, 1]


def test_a_new_layer_has_no_tensor_to_change():
    edit = lg.edit(lg.to_ir(MODEL), MODEL.state_dict())
    with pytest.raises(ArgumentError, match="'prelu' had no 'weight' from which"):
        edit.insert_after("0", layer("prelu", tensors={"weight": halved}))
