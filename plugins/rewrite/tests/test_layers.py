"""Edits of layers and of borders: what they refuse, and what becomes of keys and ties."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import LayergraphError
from layergraph.ir import Ref
from layergraph_rewrite import VALUE, EditError, function, layer
from plugins.rewrite.tests.models import Of


def block():
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(3, 3, bias=False) for _ in range(3))
        self.two.weight = self.three.weight = self.one.weight

    def forward(self, x):
        return self.one(x) + self.two(x) * 2 + self.three(x) * 3


X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


def edit_of(model):
    return lg.edit(lg.to_ir(model), model.state_dict())


def rebuilt(edit):
    return lg.to_torch(edit.ir, edit.state)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda e: e.set("none", bias=False), "no layer 'none'"),
        (lambda e: e.set("0", tensors={"gain": torch.ones(3)}), "no tensor 'gain'"),
        (lambda e: e.set("0", tensors={"weight": torch.ones(3)}), "has the shape"),
        (lambda e: e.set("0", nothing=1), "nothing"),
        (lambda e: e.set("2", "relu"), "composite"),
        (lambda e: e.rename("0", "1"), "has a child"),
        (lambda e: e.rename("0", "a.b"), "without a dot"),
        (lambda e: e.rename("2", "x", parent="2"), "into itself"),
        (lambda e: e.rename("root", "x"), "no name to change"),
        (lambda e: e.share("0", "1"), "other types, attributes or graphs"),
        (lambda e: e.share("2", "0"), "other types, attributes or graphs"),
        (lambda e: e.share("2", "root"), "inside the other"),
        (lambda e: e.share("root", "2.0"), "inside the other"),
        (lambda e: e.unshare(":input_1"), "calls no layer"),
        (lambda e: e.untie("0", "weight"), "tied to no other"),
        (lambda e: e.annotate("0", {"bits": 4}), "acme.bits"),
        (lambda e: e.open("2", lg.to_ir(block())), "composite already"),
        (lambda e: e.remove("0", by="0"), "goes"),
        (lambda e: e.insert_after("2.0", "0"), "does not contain"),
        (lambda e: e.insert_after("0", layer("linear", in_features=3)), "out_features"),
        (lambda e: e.replace("0", layer("linear", in_features=3)), "out_features"),
        (lambda e: e.insert_after("0", function("torch.add")(layer("relu")(VALUE), Ref("_1"))),
         "does not run before"),
        (lambda e: e.replace("0", function("torch.add")(layer("relu")(VALUE), Ref("no"))),
         "does not run before"),
        (lambda e: e.add_input("input_1"), "taken"),
        (lambda e: e.add_input("y", graph="0"), "no graph"),
        (lambda e: e.remove_input("input_1"), "reads the input"),
        (lambda e: e.remove_input("none"), "no input"),
        (lambda e: e.set_outputs("2.0"), "not in the graph"),
        (lambda e: e.inline("0"), "no graph to inline"),
        (lambda e: e.outline([], "part"), "no nodes"),
        (lambda e: e.outline(["0", "2.0"], "part"), "several graphs"),
        (lambda e: e.outline(["0", ":output"], "part"), "output"),
    ],
)  # fmt: skip
def test_a_refused_edit_changes_nothing(change, error):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), block())
    edit = edit_of(model)
    before = edit.ir
    with pytest.raises(LayergraphError, match=error):
        change(edit)
    assert edit.ir == before
    assert list(edit.state) == list(model.state_dict())


def test_a_rename_keeps_the_place_of_the_keys():
    edit = edit_of(nn.Sequential(nn.Linear(3, 3), block(), nn.Linear(3, 3)))
    edit.rename("1", "body")
    edit.rename("0", "head")
    edit.rename("head", "first")
    edit.insert_after("2", layer("prelu", name="last"))
    assert list(edit.state) == [
        "first.weight", "first.bias", "body.0.weight", "body.0.bias", "2.weight", "2.bias",
        "last.weight",
    ]  # fmt: skip
    edit.rename("2", "tail", parent="body")
    assert [key for key in edit.state if "tail" in key] == ["body.tail.weight", "body.tail.bias"]
    assert list(rebuilt(edit).state_dict()) == list(edit.state)


def test_untie_leaves_the_others_tied():
    for name in ("one", "two"):
        model = Tied()
        edit = edit_of(model)
        edit.untie(name, "weight")
        new = rebuilt(edit)
        others = [each for each in ("one", "two", "three") if each != name]
        left, right = (new.get_submodule(each).weight for each in others)
        assert left is right
        assert new.get_submodule(name).weight is not left
        assert torch.equal(new(X), model(X))


def test_a_tied_tensor_changes_under_all_its_names():
    edit = edit_of(Tied())
    edit.set("two", tensors={"weight": torch.eye(3)})
    new = rebuilt(edit)
    assert new.one.weight is new.three.weight
    assert torch.equal(new(X), X + X * 2 + X * 3)
    with pytest.raises(EditError, match="untie"):
        edit.set("two", out_features=4)


def test_what_was_tied_to_a_layer_that_another_replaces_keeps_its_values():
    model = Tied()
    model.other = nn.Linear(3, 3, bias=False)
    model = Of(
        lambda m, x: m.one(x) + m.two(x) * 2 + m.three(x) * 3 + m.other(x),
        **{name: model.get_submodule(name) for name in ("one", "two", "three", "other")},
    )
    edit = edit_of(model)
    edit.share("one", "other")
    new = rebuilt(edit)
    assert new.one.weight is new.other.weight
    assert new.two.weight is new.three.weight
    wanted = model.other(X) + model.two(X) * 2 + model.three(X) * 3 + model.other(X)
    assert torch.equal(new(X), wanted)


def test_an_opened_leaf_keeps_its_name_calls_and_mode(tmp_path):
    class Open(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3, bias=False)
            self.shift = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return self.fc(x) + self.shift

    model = Of(lambda m, x: m.fc(m.fc(x)), fc=nn.Linear(3, 3)).eval()
    edit = edit_of(model)
    held = edit.tensors("fc")
    edit.open("fc", lg.to_ir(Open()), {"shift": held["bias"], "fc.weight": held["weight"]})
    assert set(edit.state) == {"fc.shift", "fc.fc.weight"}
    new = rebuilt(edit)
    assert not any(each.training for each in new.modules())
    torch.testing.assert_close(new(X), model(X))
    lg.save(edit.ir, tmp_path / "m.safetensors", edit.state)
    assert torch.equal(lg.load_model(tmp_path / "m.safetensors")(X), new(X))


def test_inputs_and_outputs():
    model = nn.Sequential(nn.Linear(3, 3), block())
    edit = edit_of(model)
    edit.add_input("shift")
    edit.insert_after("0", function("operator.add")(VALUE, edit.call(":shift")))
    edit.set_outputs("0", "1")
    one, two = rebuilt(edit)(X, X)
    assert torch.equal(one, model[0](X))
    assert torch.equal(two, model[1](model[0](X) + X))
    edit.add_input("gain", graph="1", value=2.0)
    edit.insert_before("1.0", function("operator.mul")(VALUE, edit.call("1:gain")))
    assert torch.equal(rebuilt(edit)(X, X)[1], model[1]((model[0](X) + X) * 2.0))


def test_outline_and_inline_are_inverse():
    model = Of(
        lambda m, x: (m.b(m.a(x)), m.a(x) + 1)[0] + m.c(x), a=block(), b=nn.Tanh(), c=block()
    )
    edit = edit_of(model)
    wanted = model(X)
    part = edit.outline([":a", ":b"], "part")
    assert [key.partition(".")[0] for key in edit.state][:2] != ["a", "a"]
    assert torch.equal(rebuilt(edit)(X), wanted)
    edit.inline(part)
    assert torch.equal(rebuilt(edit)(X), wanted)
