"""Lists and tuples of tensors as arguments, with any number of items: the model loops over them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal

COUNTS = (1, 2, 3, 5, 8)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2))
        self.head = nn.Linear(4, 2)


def items(count):
    return ([torch.randn(3, 4) for _ in range(count)],)


def rows(count):
    """Items of different sizes."""
    return ([torch.randn(2 + index % 3, 4) for index in range(count)],)


def rows_twice(count):
    return rows(count) + rows(count)


def rows_and_dicts(count):
    return rows(count) + dicts(count)


def in_a_tuple(count):
    return (tuple(items(count)[0]),)


def two_lists(count):
    return items(count) + items(count)


def dicts(count):
    return ([{"x": torch.randn(3, 4), "scale": torch.randn(4)} for _ in range(count)],)


@dataclass(frozen=True)
class ListCase:
    """A model that takes a list.

    Attributes:
        model: makes it.
        given: makes the arguments with a number of items.
        captured: the number of the example.
        serves: the numbers that the rebuilt model takes; it refuses the others.
    """

    model: Callable[[], nn.Module]
    given: Callable[[int], tuple[Any, ...]] = items
    captured: int = 2
    serves: tuple[int, ...] = COUNTS


CASES: list[Any] = []


def case(*given, **options):
    def add(model):
        for each in given or (items,):
            name = f"{model.__name__}-{each.__name__}"
            CASES.append(pytest.param(ListCase(model, each, **options), id=name))
        return model

    return add


@case(items, in_a_tuple)
@case(captured=1)
class Appends(Base):
    def forward(self, xs):
        out = []
        for x in xs:
            out.append(self.net(x))  # noqa: PERF401 as people write it
        return torch.stack(out)


@case(items, rows)
class ReturnsAList(Base):
    def forward(self, xs):
        return [self.net(x) for x in xs]


@case(items, in_a_tuple)
class ByIndex(Base):
    def forward(self, xs):
        return torch.stack([self.net(xs[i]) * (i + 1) for i in range(len(xs))]) / len(xs)


@case(items, in_a_tuple)
class Numbered(Base):
    def forward(self, xs):
        total = 0
        for i, x in enumerate(xs):
            total = self.net(x) * i + total
        return total


@case(items, in_a_tuple)
class Stacks(Base):
    def forward(self, xs):
        return self.net(torch.stack(xs))


@case(in_a_tuple, captured=3)
class TakesTheLast(Base):
    def forward(self, xs):
        return self.net(xs[-1]) + xs[0]


@case(two_lists)
class Zips(Base):
    def forward(self, xs, ys):
        out = []
        for x, y in zip(xs, ys, strict=True):
            out.append(self.net(x) + y)
        return torch.stack(out)


@case(two_lists)
class ByIndexOfAnother(Base):
    def forward(self, xs, ys=None):
        out = []
        for i, x in enumerate(xs):
            y = ys[i] if ys is not None else 0
            out.append(self.net(x) + y)
        return out


@case(dicts)
class OfDicts(Base):
    def forward(self, xs):
        return torch.stack([self.net(each["x"]) * each["scale"] for each in xs])


@case(items)
class ChangesTheList(Base):
    def forward(self, xs):
        for i in range(len(xs)):
            xs[i] = self.net(xs[i])
        return torch.stack(xs)


@case(rows)
class Splits(Base):
    def forward(self, xs):
        counts = [x.shape[0] for x in xs]
        return self.net(torch.cat(xs)).split(counts)


@case(rows)
class ReturnsDicts(Base):
    def forward(self, xs):
        out = []
        for x in xs:
            y = self.net(x)
            out.append({"y": y, "sum": y.sum(-1), "rows": x.shape[0]})
        return out


@case(rows)
class ReturnsTuples(Base):
    def forward(self, xs):
        return [(self.net(x), x.shape[0], "kept") for x in xs]


@case(rows)
class Pads(Base):
    def forward(self, xs):
        out = xs[0].new_zeros(len(xs), max(x.shape[0] for x in xs), 4)
        for i, x in enumerate(xs):
            out[i, : x.shape[0]] = self.net(x)
        return out


@case(rows)
class PadsByAxis(Base):
    """The largest size of each axis, as detectors compute it."""

    def forward(self, xs):
        shapes = [list(x.shape) for x in xs]
        most = shapes[0]
        for shape in shapes[1:]:
            for axis, size in enumerate(shape):
                most[axis] = max(most[axis], size)
        out = xs[0].new_zeros([len(xs), *most])
        for i in range(len(xs)):
            out[i, : xs[i].shape[0]] = self.net(xs[i])
        return out


@case(two_lists, rows_twice)
class TwoLoopsOfEqualCalls(Base):
    def forward(self, xs, ys):
        return [self.net(x) for x in xs], [self.net(y) for y in ys]


@case(rows, rows_and_dicts)
class SplitsAgain(Base):
    """The calls before the loop are those at the end of its turns."""

    def forward(self, xs, targets=None):
        ys = [self.net(x) for x in xs]
        first, second = self.head(torch.cat(ys)).split(1, 1)
        parts = [self.head(y).split(1, 1) for y in ys]
        scale = 1 if targets is None else sum(each["scale"].sum() for each in targets)
        return first + second, [(one * scale, other) for one, other in parts]


@case(items, captured=3, serves=(1, 2, 3, 5))
class ManyOtherwise(Base):
    def forward(self, xs):
        if len(xs) > 6:
            return self.net(xs[0])
        return torch.stack([self.net(x) for x in xs])


@case(items, serves=(2,))
class CountsForItself(Base):
    def forward(self, xs):
        out, count = [], 0
        for x in xs:
            count += 1  # noqa: SIM113 no symbolic number
            out.append(self.net(x + 1 if count == 5 else x))
        return out


@case(items, serves=(2,))
class TheFirstOnes(Base):
    def forward(self, xs):
        return sum(self.net(x) for x in xs[:2])


@case(items, serves=(2,))
class TakesApart(Base):
    def forward(self, xs):
        one, other = xs
        return self.net(one) + other


def test_items_that_code_reads_one_by_one_need_no_loop():
    ir = lg.to_ir(TakesApart(), items(2))
    assert "loop" not in str(ir)


@pytest.mark.parametrize("case", CASES)
def test_a_list(case, tmp_path):
    torch.manual_seed(0)
    original = case.model()
    ir = lg.to_ir(original, case.given(case.captured))
    lg.save(ir, tmp_path / "m.safetensors", original.state_dict())
    rebuilt = lg.load_model(tmp_path / "m.safetensors")
    for training, count in itertools.product((True, False), COUNTS):
        args = case.given(count)
        try:
            wanted = _run(original.train(training), args)
        except ValueError:
            with pytest.raises((ValueError, AssumptionError)):
                _run(rebuilt.train(training), args)
            continue
        if count in case.serves:
            _assert_same(_run(rebuilt.train(training), args), wanted)
        else:
            with pytest.raises(AssumptionError):
                _run(rebuilt.train(training), args)


def _run(model, args):
    """Return the results, the gradients and the arguments afterwards."""
    given = copy.deepcopy(args)
    inputs = [each.requires_grad_() for each in _tensors(given)]
    torch.manual_seed(1)
    result = model(*given)
    total = sum(each.sum() for each in _tensors(result))
    grads = torch.autograd.grad(total, [*inputs, *model.parameters()], allow_unused=True)
    return result, grads, given


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    inside = value.values() if isinstance(value, dict) else value
    is_container = isinstance(value, dict | list | tuple)
    return [each for one in inside for each in _tensors(one)] if is_container else []


def _assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert bitwise_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        _assert_same([*one.values()], [*other.values()])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            _assert_same(mine, theirs)
    else:
        assert one == other


def test_two_lists_have_the_same_number():
    """A list with one item more gives no result without a word."""
    model = Zips()
    rebuilt = lg.to_torch(lg.to_ir(model, two_lists(2)), model.state_dict())
    with pytest.raises(AssumptionError, match="the number of items of the input 'ys'"):
        rebuilt(items(3)[0], items(2)[0])


def test_a_loop_over_time_is_found_although_the_list_is_taken_apart():
    class Both(Base):
        def forward(self, x, pair):
            one, other = pair
            out = [self.net(x[:, t]) for t in range(x.shape[1])]
            return torch.stack(out, 1) * one + other

    torch.manual_seed(0)
    model = Both().eval()
    pair = [torch.randn(4), torch.randn(4)]
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.randn(2, 6, 4), pair)), model.state_dict()).eval()
    for length in (1, 3, 9):
        x = torch.randn(2, length, 4)
        assert bitwise_equal(rebuilt(x, pair), model(x, pair))


def test_the_transform_of_detectors():
    transform = pytest.importorskip("torchvision.models.detection.transform")

    class Batch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = transform.GeneralizedRCNNTransform(32, 64, [0.5] * 3, [0.2] * 3)

        def forward(self, images):
            batch, _ = self.net(images)
            return batch.tensors, batch.image_sizes

    def pictures(count):
        return [torch.rand(3, 24 + 8 * (n % 3), 32 + 8 * n) for n in range(count)]

    model = Batch().eval()
    rebuilt = lg.to_torch(lg.to_ir(model, (pictures(2),)), {}).eval()
    for count in (1, 2, 3, 5):
        given = pictures(count)
        _assert_same(rebuilt(given), model(given))


def test_items_are_refused_as_before():
    model = ReturnsAList()
    rebuilt = lg.to_torch(lg.to_ir(model, items(2)), model.state_dict())
    for other in ([], [None], [*items(1)[0], 3], items(2)[0][0], tuple(items(2)[0])):
        with pytest.raises(AssumptionError, match=r"'xs'|such sizes"):
            rebuilt(other)
