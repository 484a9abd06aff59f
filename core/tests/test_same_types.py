"""Results of a rebuilt model have the original's types, and unpack into as many parts."""

from __future__ import annotations

import copy
import enum
import pickle
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, BuildError, CaptureError
from layergraph.ir import Record
from layergraph.testing import bitwise_equal

X = torch.randn(4, 4)
Pair = namedtuple("Pair", "one other")


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _types(value):
    if isinstance(value, dict):
        return type(value), {key: _types(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        # Classes of named tuples are known by their names.
        kind = type(value).__name__ if hasattr(value, "_fields") else type(value)
        return kind, [_types(each) for each in value]
    return type(value)


RETURNED = {
    "values and indices": lambda x: x.sort(),
    "three parts": lambda x: torch.linalg.svd(x, full_matrices=False),
    "of a function of its own": torch.frexp,
    "in a dict": lambda x: {"median": x.median(0), "rest": [x.aminmax()]},
    "in a named tuple": lambda x: Pair(x.topk(1), x),
    "made by hand": lambda x: torch.return_types.max((x, x.argmax(1))),
    "with a part beside": lambda x: (x.mode(1).values, x.mode(1)),
    "the same twice": lambda x: [x.cummax(0)] * 2,
    "a shape": lambda x: x.shape,
    "a part of a shape": lambda x: {"size": x.size()[1:], "first": x.shape[0]},
    "a fixed shape": lambda _: torch.Size([2, 3]),
    "many tensors": lambda x: x.unbind(),
}


@pytest.mark.parametrize("with_inputs", [True, False])
@pytest.mark.parametrize("name", RETURNED)
def test_the_type_that_comes_out(name, with_inputs, tmp_path):
    model = Function(RETURNED[name])
    ir = lg.to_ir(model, (X,) if with_inputs else None)
    rebuilt = lg.to_torch(ir)
    lg.save(ir, tmp_path / "model.safetensors", {})
    lg.save(ir, tmp_path / "model.json")
    assert lg.load(tmp_path / "model.json") == ir
    wanted = _types(model(X))
    for each in (
        rebuilt,
        copy.deepcopy(rebuilt),
        pickle.loads(pickle.dumps(rebuilt)),
        lg.to_torch(ir.flatten()),
        lg.load_model(tmp_path / "model.safetensors"),
    ):
        assert _types(each(X)) == wanted
    assert lg.verify(model, (X,)).ok


def test_a_shape_that_a_function_is_given_stays_a_plain_tuple():
    ir = lg.to_ir(Function(lambda x: x.flatten().view(x.shape)), (X,))
    assert "torch.Size" not in str(ir)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("torch.return_types.sort", ("values",)),
        ("torch.return_types.sort", ("indices", "values")),
        ("torch.return_types.all_return_types", ("a",)),
        ("torch.return_types.no", ("a",)),
        ("os.system", ("command",)),
    ],
)
def test_a_record_names_no_other_class(name, fields):
    form = lg.to_ir(Function(lambda x: (x, x.sort())), (X,)).to_dict()
    form["root"]["nodes"]["output"]["args"] = [Record(name, dict.fromkeys(fields, lg.Ref("x")))]
    form["root"]["edges"] = {
        pair: edge
        for pair, edge in form["root"]["edges"].items()
        if pair[1] != "output" or pair[0] == "x"
    }
    form["root"]["edges"].setdefault(("x", "output"), {"src": "x", "sink": "output"})
    with pytest.raises(BuildError, match=name.replace(".", r"\.")):
        lg.to_torch(form)


def _first_of_two(x):
    (one, other), last = x.unbind(0)
    return one + other + last


def _two_of_unbind(x):
    one, other = x.unbind(0)
    return one - other


def _three_rows(x):
    one, two, three = x
    return one + two * three


def _sizes(x):
    rows, columns = x.shape
    return x.reshape(columns, rows)


@pytest.mark.parametrize(
    ("function", "fits", "others"),
    [
        (_two_of_unbind, (2, 3), [(3, 3), (1, 3)]),
        (_first_of_two, (2, 2, 3), [(3, 2, 3), (2, 3, 3)]),
        (_three_rows, (3, 2), [(4, 2), (2, 2)]),
        (_sizes, (2, 3), [(2, 3, 1), (6,)]),
    ],
)
@pytest.mark.parametrize("with_inputs", [True, False])
def test_a_value_is_taken_apart_into_as_many_names(function, fits, others, with_inputs):
    model, x = Function(function), torch.randn(fits)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,) if with_inputs else None))
    assert bitwise_equal(rebuilt(x), model(x))
    for shape in others:
        with pytest.raises(ValueError, match="values to unpack"):
            model(torch.randn(shape))
        with pytest.raises(AssumptionError):
            rebuilt(torch.randn(shape))


def _starred(x):
    first, *_ = x.unbind(0)
    return first


@pytest.mark.parametrize(
    "function",
    [
        _starred,
        lambda x: sum(x.chunk(2)),
        lambda x: [a + b for a, b in zip(x.unbind(0), x.unbind(1), strict=True)],
        lambda x: torch.stack([each * 2 for each in x.split(1)]),
        lambda x: torch.maximum(*x.unbind(0)),
        lambda x: tuple(x.unbind(0)),
    ],
)
def test_how_many_parts_there_are_is_not_guessed(function):
    with pytest.raises(CaptureError, match="whose length is unknown without inputs"):
        lg.to_ir(Function(function))


def test_a_rebuilt_model_is_traced_with_its_guards():
    model = Unpacks()
    again = lg.to_torch(lg.to_ir(lg.to_torch(lg.to_ir(model))))
    x = torch.randn(2, 4)
    assert bitwise_equal(again(x), model(x))
    with pytest.raises(AssumptionError, match="2 parts"):
        again(torch.randn(3, 4))


class Unpacks(nn.Module):
    def forward(self, x):
        first, second = x.unbind(0)
        return first - second


class Mode(str, enum.Enum):  # noqa: UP042 StrEnum prints its text
    NEAREST = "nearest"


class Kind(enum.Enum):
    FIRST = 1


def test_a_member_of_an_enumeration_of_strings_is_its_text():
    def enlarge(x):
        return F.interpolate(x[None, None], scale_factor=2, mode=Mode.NEAREST)

    for args in [(X,)], []:
        again = lg.to_torch(lg.to_ir(Function(enlarge), *args))
        y = torch.randn(5, 4)
        assert bitwise_equal(again(y), enlarge(y))


@pytest.mark.parametrize("args", [[(X,)], []])
def test_a_result_is_no_member_of_an_enumeration_of_strings(args):
    """A caller may ask for its name, or whether it is a member."""
    with pytest.raises(CaptureError, match="Mode"):
        lg.to_ir(Function(lambda x: (x * 2, Mode.NEAREST)), *args)


def test_a_member_of_another_enumeration_is_refused():
    with pytest.raises(CaptureError, match="Kind"):
        lg.to_ir(Function(lambda x: (x * 2, Kind.FIRST)), (X,))
