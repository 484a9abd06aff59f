"""Results with fields: what their classes say of the fields beside them, and new ones of them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch

import layergraph as lg
from core.tests.conditional import X as X_REF
from core.tests.conditional import given, ir_of, returns
from core.tests.traps.harness import Base
from layergraph.errors import BuildError
from layergraph.ir import Record
from layergraph.literals import OUTPUT_CLASS
from layergraph.testing import bitwise_equal

X = torch.arange(8.0).reshape(2, 4) / 8


class Result(OrderedDict):  # type: ignore[type-arg]
    """As the outputs of transformers: a dict of the fields that are not None."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if value is not None:
                self[each.name] = value

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(
            each.to_tuple() if isinstance(each, Result) else each for each in self.values()
        )


@dataclass
class Part(Result):
    last: torch.Tensor | None = None
    pooled: torch.Tensor | None = None


@dataclass
class Whole(Result):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    part: Part | None = None

    @property
    def scores(self) -> torch.Tensor | None:
        if self.loss is not None:
            self.asked = True
        return self.logits

    @property
    def best(self) -> torch.Tensor:
        return self.logits.argmax(-1)

    @property
    def either(self) -> torch.Tensor | None:
        return self.loss or self.logits

    @property
    def chosen(self) -> torch.Tensor | None:
        return self.logits if self.loss is None else self.loss


@dataclass
class Turned:
    one: torch.Tensor
    other: torch.Tensor

    def to_tuple(self) -> tuple[Any, ...]:
        return self.other, self.one


class GivesWhole(Base):
    def forward(self, x: torch.Tensor) -> Whole:
        return Whole(logits=self.lin(x), part=Part(last=x + 1, pooled=x * 2))


class GivesTurned(Base):
    def forward(self, x: torch.Tensor) -> Turned:
        return Turned(self.lin(x), x)


class Nests(Base):
    """The object stays inside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = GivesWhole()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.inner(x)
        return self.lin(result.part.last) + result.logits


class Decides(Base):
    def forward(self, x: torch.Tensor) -> Whole:
        if x.sum() > 0:
            return Whole(logits=self.lin(x), part=Part(x, x))
        return Whole(loss=x.sum(), logits=self.lin(x))


@dataclass
class Pair(Result):
    left: Any = None
    right: Any = None


class DecidesWhatIsNested(Base):
    """The ways have the same fields, and to_tuple() opens another one on each."""

    def forward(self, x: torch.Tensor) -> Pair:
        part = Part(self.lin(x), x)
        return Pair(part, x) if x.sum() > 0 else Pair(x, part)


def _ways(model, tmp_path, *args):
    ir = lg.to_ir(model, *args)
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    rebuilt = lg.to_torch(ir, model.state_dict())
    yield rebuilt
    yield lg.load_model(path)
    yield torch.export.export(rebuilt, (X,), strict=False).module()


@pytest.mark.parametrize("args", [((X,),), ()], ids=["by running", "on symbols"])
def test_what_the_class_says_comes_back(args, tmp_path):
    model = GivesWhole()
    expected = model(-X)
    for way in _ways(model, tmp_path, *args):
        result = way(-X)
        assert list(result) == list(expected)
        assert bitwise_equal(result.to_tuple(), expected.to_tuple())
        assert result.scores is result["scores"] is result.logits
        for name in ("best", "either", "chosen"):
            with pytest.raises(AttributeError, match=f"no field '{name}'; what its class computes"):
                getattr(result, name)
        result.scores = None
        assert result.logits is None
        assert list(result) == ["part"]


@pytest.mark.parametrize("args", [((X,),), ()], ids=["by running", "on symbols"])
def test_a_to_tuple_that_gives_something_else_is_refused(args, tmp_path):
    for way in _ways(GivesTurned(), tmp_path, *args):
        with pytest.raises(TypeError, match="the class 'Turned' of the original computes its own"):
            way(X).to_tuple()


def test_new_outputs_of_the_same_class(tmp_path):
    for way in _ways(GivesWhole(), tmp_path, (X,)):
        result = way(X)
        items = dict(result.items())
        # As accelerate and others make them.
        for new in (type(result)(items), type(result)(**items), type(result)(items.items())):
            assert new.loss is None
            assert new.scores is result.logits
            assert bitwise_equal(new.to_tuple(), result.to_tuple())
        loaded = pickle.loads(pickle.dumps(result))
        assert type(loaded) is type(result)
        assert loaded.loss is None
        assert result.copy().scores is result.logits


def test_objects_inside_a_model_on_symbols():
    model = Nests()
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert bitwise_equal(rebuilt(-X), model(-X))


@pytest.mark.parametrize("cls", [Decides, DecidesWhatIsNested])
def test_each_way_has_its_fields(cls, tmp_path):
    model = cls()
    ir = lg.to_ir(model, (X,))
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    for way in (lg.to_torch(ir, model.state_dict()), lg.load_model(path)):
        for x in (X, -X):
            result, expected = way(x), model(x)
            assert list(result) == list(expected)
            assert bitwise_equal(result.to_tuple(), expected.to_tuple())
            assert all(
                getattr(result, each.name) is None
                for each in fields(expected)
                if each.name not in expected
            )


@pytest.mark.parametrize(
    ("name", "value"),
    [(".other", "absent"), (".a b", "left"), (".__init__", "left"), (".to_tuple", ("absent",)),
     (".to_tuple", 3), ("__len__", None), ("a b", None)],
)  # fmt: skip
def test_records_that_are_no_outputs(name, value):
    record = Record(f"{OUTPUT_CLASS}Some", {"left": X_REF, name: value})
    ir = ir_of(*given("x"), returns(record))
    with pytest.raises(BuildError, match="is no output"):
        lg.to_torch(ir)


class Private:
    """As an object whose properties give what its constructor keeps."""

    def __init__(self, y: torch.Tensor) -> None:
        self._hidden, self._name, self.shown = y, "a", y + 1

    @property
    def value(self) -> torch.Tensor:
        return self._hidden

    @property
    def name(self) -> str:
        return self._name


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self, y: torch.Tensor) -> None:
        self.left, self.right = y, None


class Bare(dict):  # type: ignore[type-arg]
    """A subclass of dict that adds nothing."""


class GivesObjects(Base):
    def forward(self, x):
        y = self.lin(x)
        return Private(y), Slotted(y), Bare(first=y, values=y + 1)


@pytest.mark.parametrize("args", [(X,), None])
def test_objects_with_private_attributes_slots_and_items(args, tmp_path):
    model = GivesObjects()
    ir = lg.to_ir(model, args)
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    built = lg.to_torch(ir, model.state_dict())
    for way in (built, lg.load_model(path), pickle.loads(pickle.dumps(built))):
        y = model.lin(X)
        private, slotted, bare = way(X)
        for each in (private, pickle.loads(pickle.dumps(private))):
            assert torch.equal(each.value, y)
            assert each.value is each._hidden
            assert each._name == each.name == "a"
            assert torch.equal(each.shown, y + 1)
        assert torch.equal(slotted.left, y)
        assert slotted.right is None
        assert [*bare] == ["first", "values"]
        assert torch.equal(bare["values"], y + 1)
        assert type(bare).__mro__[1]._name == "Output"
        with pytest.raises(AttributeError, match="'Private' has no field 'other'"):
            _ = private.other
