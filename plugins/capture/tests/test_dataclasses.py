"""Dataclasses as arguments: a graph reads their fields, and sets those that the model changes."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field, fields
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


@dataclass
class Batch:
    tokens: torch.Tensor
    mask: torch.Tensor | None = None
    scale: float = 2.0

    @property
    def size(self) -> int:
        return self.tokens.shape[0]

    def masked(self) -> torch.Tensor:
        return self.tokens if self.mask is None else self.tokens * self.mask


@dataclass(frozen=True, slots=True)
class Nested:
    batch: Batch
    more: list[torch.Tensor] = field(default_factory=list)


class Reads(Base):
    def forward(self, batch: Batch) -> torch.Tensor:
        return self.lin(batch.masked()) * batch.size * batch.scale


class ReadsNested(Reads):
    def forward(self, nested: Nested) -> torch.Tensor:
        return super().forward(nested.batch) + sum(nested.more)


class Changes(Base):
    def forward(self, batch: Batch) -> torch.Tensor:
        batch.tokens = self.lin(batch.tokens)
        batch.mask = None
        return batch.tokens + 1


class ChangesInPlace(Base):
    def forward(self, batch: Batch) -> torch.Tensor:
        batch.tokens.add_(1)
        return self.lin(batch.tokens)


class GivesBack(Changes):
    def forward(self, batch: Batch) -> Batch:
        super().forward(batch)
        return batch


class Makes(Base):
    """It makes the object itself: the graph has no trace of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Reads()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(Batch(self.lin(x), x > 0))


@dataclass
class Computes:
    """It holds more than its fields."""

    tokens: torch.Tensor

    def __post_init__(self) -> None:
        self.double = self.tokens * 2

    @functools.cached_property
    def halved(self) -> torch.Tensor:
        return self.tokens / 2


class ReadsAttributes(Base):
    def forward(self, given: Computes) -> torch.Tensor:
        return self.lin(given.double)


class ReadsCached(Base):
    def forward(self, given: Computes) -> torch.Tensor:
        return self.lin(given.halved) + given.halved


class AddsAttributes(Base):
    def forward(self, given: Computes) -> torch.Tensor:
        given.extra = self.lin(given.tokens)  # type: ignore[attr-defined]
        del given.double
        return given.tokens + 1


CALLS: dict[type[nn.Module], tuple[Any, ...]] = {
    Reads: (Batch(X, X), Batch(Y, Y)),
    ReadsNested: (Nested(Batch(X, X), [X]), Nested(Batch(Y, Y), [Y])),
    Changes: (Batch(X, X), Batch(Y, Y)),
    ChangesInPlace: (Batch(X, X), Batch(Y, Y)),
    GivesBack: (Batch(X, X), Batch(Y, Y)),
    Makes: (X, Y),
    ReadsAttributes: (Computes(X), Computes(Y)),
    ReadsCached: (Computes(X), Computes(Y)),
    AddsAttributes: (Computes(X), Computes(Y)),
}


@pytest.mark.parametrize("cls", CALLS)
def test_a_dataclass_is_an_argument(cls, tmp_path):
    model = cls()
    given, other = CALLS[cls]
    before = copy.deepcopy(given)
    ir = lg.to_ir(model, (given,))
    assert bitwise_equal(given, before)
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    for rebuilt in (lg.to_torch(ir, model.state_dict()), lg.load_model(path)):
        for each in (given, other):
            mine, theirs = copy.deepcopy(each), copy.deepcopy(each)
            expected, found = model(mine), rebuilt(theirs)
            assert (found is theirs) == (expected is mine)
            assert bitwise_equal(found, expected)
            assert bitwise_equal(theirs, mine)
            assert bitwise_equal(getattr(theirs, "__dict__", {}), getattr(mine, "__dict__", {}))


def test_the_form_of_a_dataclass_is_guarded():
    rebuilt = lg.to_torch(lg.to_ir(Reads(), (Batch(X, X),)))

    @dataclass
    class Other:
        tokens: torch.Tensor

    for unlike, reason in (
        (Batch(X), "was a tensor"),
        (Batch(X, X, 3), "was 'float'"),
        (Other(X), "was 'Batch'"),
        (X, "was 'Batch'"),
        ({"tokens": X, "mask": X, "scale": 2.0}, "was 'Batch'"),
    ):
        with pytest.raises(AssumptionError, match=reason):
            rebuilt(unlike)


def test_examples_may_differ_in_a_field():
    model = Reads()
    given = [Batch(X), Batch(X, X), Batch(Y, scale=3.0)]
    ir = lg.to_ir(model, examples=[((each,), {}) for each in given])
    rebuilt = lg.to_torch(ir, model.state_dict())
    for each in (*given, Batch(Y), Batch(Y, Y), Batch(X, scale=3.0)):
        assert bitwise_equal(rebuilt(each), model(each))


def test_examples_may_differ_inside_containers():
    class Takes(Base):
        def forward(self, given: dict[str, Any], more: tuple[Any, ...] = (None, None)) -> Any:
            y = self.lin(given["x"])
            y = y if given["mask"] is None else y * given["mask"]
            return y if more[1] is None else y + more[1]

    model = Takes()
    calls = [
        ({"x": X, "mask": None},),
        ({"x": X, "mask": X},),
        ({"x": X, "mask": X}, (None, X)),
        ({"x": X, "mask": None}, (None, X)),
    ]
    ir = lg.to_ir(model, examples=[(each, {}) for each in calls])
    rebuilt = lg.to_torch(ir, model.state_dict())
    for each in calls:
        assert bitwise_equal(rebuilt(*each), model(*each))


def test_a_field_that_a_graph_cannot_hold_is_refused():
    @dataclass
    class Holds:
        tokens: torch.Tensor
        call: Any

    class Calls(Base):
        def forward(self, given: Holds) -> torch.Tensor:
            return given.call(self.lin(given.tokens))

    with pytest.raises(CaptureError, match=r"'given' holds .*, which a graph cannot"):
        lg.to_ir(Calls(), (Holds(X, lambda x: x),))


@pytest.mark.parametrize("given", [Batch(X, X), {"tokens": X}, [X]], ids=["class", "dict", "list"])
def test_an_argument_that_is_there_twice_may_not_be_changed(given):
    class Sets(Base):
        def forward(self, one: Any, other: Any) -> torch.Tensor:
            if isinstance(one, Batch):
                one.tokens = self.lin(one.tokens)
                return other.tokens + 1
            key = next(iter(one)) if isinstance(one, dict) else 0
            one[key] = self.lin(one[key])
            return other[key] + 1

    class Reads2(Base):
        def forward(self, one: Any, other: Any) -> torch.Tensor:
            return self.lin(X)

    with pytest.raises(CaptureError, match="twice among the arguments"):
        lg.to_ir(Sets(), (given, given))
    lg.to_ir(Sets(), (given, copy.deepcopy(given)))
    lg.to_ir(Reads2(), (given, given))


def test_an_argument_that_holds_itself_is_refused():
    batch = Batch(X)
    batch.own = batch  # type: ignore[attr-defined]
    with pytest.raises(CaptureError, match="that holds itself"):
        lg.to_ir(Reads(), (batch,))


def test_the_length_of_a_dataclass_is_free():
    class Sized(Batch):
        def __len__(self) -> int:
            return len(self.tokens)

    model = Reads()
    rebuilt = lg.to_torch(lg.to_ir(model, (Sized(X, X),)), model.state_dict())
    assert bitwise_equal(rebuilt(Sized(Y, Y)), model(Sized(Y, Y)))


def test_a_class_does_not_say_what_its_copy_is():
    class Same(Batch):
        def __copy__(self) -> Any:
            return self

        def __reduce_ex__(self, _: Any) -> Any:
            raise TypeError("no pickle")

    given = Same(X, X)
    model = Changes()
    rebuilt = lg.to_torch(lg.to_ir(model, (given,)), model.state_dict())
    assert given.tokens is X
    assert given.mask is X
    mine, theirs = Same(Y, Y), Same(Y, Y)
    assert bitwise_equal(rebuilt(theirs), model(mine))
    assert theirs.mask is None


def test_a_graph_sets_no_field_of_another_object():
    from layergraph.functions.fields import set_fields

    for into in (X, {}, nn.Linear(1, 1), Batch):
        with pytest.raises(AssumptionError, match="is no instance of a dataclass"):
            set_fields({"data": 1}, into)
    with pytest.raises(AssumptionError, match="a Batch cannot hold '__class__'"):
        set_fields({"__class__": dict}, Batch(X))
    with pytest.raises(AssumptionError, match="a Nested cannot hold 'more_of_it'"):
        set_fields({"more_of_it": 1}, Nested(Batch(X)))
    assert [each.name for each in fields(Batch)] == ["tokens", "mask", "scale"]
