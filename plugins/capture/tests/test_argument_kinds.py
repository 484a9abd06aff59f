"""Arguments besides tensors and plain values: enumerations, functions, attributes, one twice."""

from __future__ import annotations

import copy
import enum
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal

X = torch.arange(8.0).reshape(2, 4) / 8
Y = torch.arange(20.0).reshape(5, 4) / 20 - 0.3


class Mode(enum.Enum):
    ADD = 1
    MULTIPLY = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Name(enum.StrEnum):
    ADD = "add"


class Part(enum.Flag):
    LEFT = 1
    RIGHT = 2


@dataclass
class Options:
    x: torch.Tensor
    mode: Any = Mode.ADD
    act: Any = torch.relu


@dataclass(frozen=True)
class Plain:
    scale: int = 2


class Batch(dict):  # type: ignore[type-arg]
    """A dict that has attributes as well."""


class Rows(list):  # type: ignore[type-arg]
    pass


def batch(x: torch.Tensor, **attributes: Any) -> Batch:
    made = Batch(x=x)
    vars(made).update(attributes)
    return made


def rows(x: torch.Tensor, scale: Any) -> Rows:
    made = Rows([x])
    made.scale = scale  # type: ignore[attr-defined]
    return made


class IsMember(Base):
    def forward(self, x, mode):
        is_one = mode in (Mode.ADD, Part.LEFT) or mode is Level.LOW or mode is Name.ADD
        return self.lin(x) if is_one else x


class HasDefault(Base):
    def forward(self, x, mode=Mode.ADD, plain=Plain(), act=torch.tanh):
        return act(self.lin(x)) * plain.scale if mode is Mode.ADD else x


class Applies(Base):
    def forward(self, x, act):
        return act(self.lin(x)) if callable(act) and act is not math.sqrt else x


class Reads(Base):
    def forward(self, options):
        y = options.act(self.lin(options.x))
        return y if options.mode is Mode.ADD else y * options.x


class Changes(Reads):
    def forward(self, options):
        options.x = super().forward(options)
        return options.x + 1


class ReadsAttribute(Base):
    def forward(self, given):
        return self.lin(given["x"] if isinstance(given, dict) else given[0]) * given.scale


SERVED: dict[str, tuple[type[nn.Module], tuple[Any, ...], tuple[Any, ...]]] = {
    "enum": (IsMember, (X, Mode.ADD), (Y, Mode.ADD)),
    "int": (IsMember, (X, Level.LOW), (Y, Level.LOW)),
    "string": (IsMember, (X, Name.ADD), (Y, Name.ADD)),
    "flag": (IsMember, (X, Part.LEFT | Part.RIGHT), (Y, Part.LEFT | Part.RIGHT)),
    "in a list": (IsMember, ([X, Mode.ADD][0], Mode.ADD), (Y, Mode.ADD)),
    "default": (HasDefault, (X,), (Y, Mode.ADD, Plain(2), torch.tanh)),
    "function": (Applies, (X, torch.relu), (Y, torch.relu)),
    "functional": (Applies, (X, nn.functional.gelu), (Y, nn.functional.gelu)),
    "class": (Applies, (X, torch.sigmoid), (Y, torch.sigmoid)),
    "fields": (Reads, (Options(X),), (Options(Y),)),
    "changed fields": (Changes, (Options(X, Mode.MULTIPLY),), (Options(Y, Mode.MULTIPLY),)),
    "attribute": (ReadsAttribute, (batch(X, scale=2),), (batch(Y, scale=3),)),
    "tensor in an attribute": (ReadsAttribute, (batch(X, scale=X),), (batch(Y, scale=Y),)),
    "attribute of a list": (ReadsAttribute, (rows(X, X),), (rows(Y, Y),)),
    "number in an attribute of a list": (ReadsAttribute, (rows(X, 2),), (rows(Y, 3),)),
}


@pytest.mark.parametrize("name", SERVED)
def test_they_are_arguments(name, tmp_path):
    cls, given, other = SERVED[name]
    model = cls()
    before = copy.deepcopy(given)
    ir = lg.to_ir(model, given)
    assert bitwise_equal(given, before)
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    for rebuilt in (lg.to_torch(ir, model.state_dict()), lg.load_model(path)):
        for each in (given, other):
            mine, theirs = copy.deepcopy(each), copy.deepcopy(each)
            assert bitwise_equal(rebuilt(*theirs), model(*mine))
            for one, two in zip(mine, theirs, strict=True):
                assert bitwise_equal(getattr(two, "__dict__", {}), getattr(one, "__dict__", {}))


REFUSED: dict[str, tuple[type[nn.Module], tuple[Any, ...], tuple[Any, ...]]] = {
    "another member": (IsMember, (X, Mode.ADD), (X, Mode.MULTIPLY)),
    "its value": (IsMember, (X, Mode.ADD), (X, 1)),
    "an int": (IsMember, (X, Level.LOW), (X, 1)),
    "a string": (IsMember, (X, Name.ADD), (X, "add")),
    "a member of another class": (IsMember, (X, Level.LOW), (X, Mode.ADD)),
    "a default": (HasDefault, (X,), (X, Mode.MULTIPLY)),
    "a default object": (HasDefault, (X,), (X, Mode.ADD, Plain(3))),
    "a default function": (HasDefault, (X,), (X, Mode.ADD, Plain(), torch.relu)),
    "another function": (Applies, (X, torch.relu), (X, torch.tanh)),
    "a lambda": (Applies, (X, torch.relu), (X, lambda x: x)),
    "a field": (Reads, (Options(X),), (Options(X, Mode.MULTIPLY),)),
    "a function in a field": (Reads, (Options(X),), (Options(X, act=torch.tanh),)),
    "an attribute": (ReadsAttribute, (batch(X, scale=2),), (batch(X, scale=2.0),)),
    "no attribute": (ReadsAttribute, (batch(X, scale=2),), (batch(X),)),
    "more attributes": (ReadsAttribute, (batch(X, scale=2),), (batch(X, scale=2, more=1),)),
    "an attribute of a list": (ReadsAttribute, (rows(X, 2),), (rows(X, 2.0),)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused(name):
    cls, given, other = REFUSED[name]
    model = cls()
    rebuilt = lg.to_torch(lg.to_ir(model, given), model.state_dict())
    with pytest.raises(AssumptionError):
        rebuilt(*other)


def test_examples_with_each_member():
    model = IsMember()
    examples = [((X, Mode.ADD), {}), ((X, Mode.MULTIPLY), {}), ((X, Level.LOW), {})]
    rebuilt = lg.to_torch(lg.to_ir(model, examples=examples), model.state_dict())
    for (_, mode), _ in examples:
        assert bitwise_equal(rebuilt(Y, mode), model(Y, mode))
    with pytest.raises(AssumptionError, match=r"mode=Mode.ADD; mode=Mode.MULTIPLY; mode=Level.LOW"):
        rebuilt(Y, Level.HIGH)


class SetsAttribute(Base):
    def forward(self, given):
        given.scale = 3
        return self.lin(given["x"])


UNFIT: dict[str, tuple[type[nn.Module], tuple[Any, ...], str]] = {
    "a lambda": (Applies, (X, lambda x: x), "'act' holds <function"),
    "an array": (Applies, (X, X.numpy()), "holds a numpy.ndarray.*torch.from_numpy"),
    "sets an attribute": (SetsAttribute, (batch(X, scale=2),), "sets an attribute of the Batch"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_a_graph_cannot_take(name):
    cls, given, message = UNFIT[name]
    with pytest.raises(CaptureError, match=message):
        lg.to_ir(cls(), given)


@pytest.mark.parametrize("given", [[1], [X]])
def test_a_list_that_holds_itself(given):
    given = [*given]
    given.append(given)
    with pytest.raises(CaptureError, match="an argument contains itself"):
        lg.to_ir(Applies(), (X, given))


# --- one object twice ---


class Copies(Base):
    """Python's library compares, and the model does not."""

    def forward(self, x, y):
        options = copy.deepcopy({"scale": [1.5, {"more": 2.0}]})
        return self.lin(x) * options["scale"][0] + y


def test_comparisons_of_other_code_do_not_count():
    model = Copies()
    rebuilt = lg.to_torch(lg.to_ir(model, (X, X)), model.state_dict())
    assert bitwise_equal(rebuilt(Y, Y), model(Y, Y))
    assert bitwise_equal(rebuilt(X, -X), model(X, -X))


class Asks(Base):
    def forward(self, x, y):
        return self.lin(x) if y is x else self.lin(x) + y


class AsksForDicts(Base):
    def forward(self, one, other):
        return self.lin(one["x"]) if one is other else self.lin(one["x"]) + other["x"]


class ChangesOne(Base):
    def forward(self, one, other):
        one["x"] = self.lin(one["x"])
        return one["x"] + other["x"]


class ChangesObject(Base):
    def forward(self, one, other):
        one.x = self.lin(one.x)
        return one.x + other.x


class AddsInPlace(Base):
    """The graph does to tensors what the model does: it matters to nothing else."""

    def forward(self, x, y):
        x.add_(1)
        return self.lin(y) + x


def _dicts():
    return {"x": X.clone()}, {"x": Y[:2].clone()}


DISTINCT = {
    Asks: lambda: (X.clone(), Y[:2].clone()),
    AsksForDicts: _dicts,
    ChangesOne: _dicts,
    ChangesObject: lambda: (Options(X.clone()), Options(Y[:2].clone())),
}


@pytest.mark.parametrize("cls", DISTINCT)
def test_one_object_twice_is_refused(cls, tmp_path):
    model, make = cls(), DISTINCT[cls]
    ir = lg.to_ir(model, make())
    lg.save(ir, tmp_path / "model.safetensors", model.state_dict())
    rebuilt = lg.load_model(tmp_path / "model.safetensors")
    assert bitwise_equal(rebuilt(*make()), model(*make()))
    one = make()[0]
    with pytest.raises(AssumptionError, match="one object is twice among the arguments"):
        rebuilt(one, one)
    with pytest.raises(CaptureError, match="one object is twice among the arguments"):
        lg.to_ir(model, (one, one))


@pytest.mark.parametrize("is_twice", [True, False])
def test_a_tensor_that_is_changed_may_be_given_twice(is_twice):
    model = AddsInPlace()
    given = (X.clone(),) * 2 if is_twice else (X.clone(), Y[:2].clone())
    rebuilt = lg.to_torch(lg.to_ir(model, given), model.state_dict())
    for again in (True, False):
        mine, theirs = [(x, x if again else Y[:2].clone()) for x in (X.clone(), X.clone())]
        assert bitwise_equal(rebuilt(*theirs), model(*mine))
        assert bitwise_equal(theirs, mine)
