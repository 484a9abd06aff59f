"""Numbers that come from sizes are like those of Python, here and in the rebuilt model."""

from __future__ import annotations

import copy
import enum
import itertools
import math
import pickle
from numbers import Integral, Real

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal
from layergraph_capture.symbolic.symbolic_int import SymbolicNumber, plain, symbolic

ALWAYS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Level(enum.IntEnum):
    TWO = 2


SCOPE = {"math": math, "torch": torch, "two": Level.TWO}
SIZES = ("a", "b", "c", "d")


class SizeListener:
    """Writes down what was assumed, and whether it is so."""

    is_over = False
    born = []  # noqa: RUF012

    def __init__(self):
        self.assumed = []

    def is_recording(self):
        return True

    def assume(self, origin, result):
        self.assumed.append((origin, result))

    def decide(self, origin, result):
        self.assume(origin, result)
        return result


def _sizes(values, listener):
    return {
        name: symbolic(value, ("torch.Tensor.size", name), listener)
        for name, value in zip(SIZES, values, strict=True)
    }


def _outcome(source, scope):
    """What an expression gives, or the kind of error."""
    try:
        return plain(eval(source, {**SCOPE, **scope}))
    except (ArithmeticError, TypeError, ValueError) as error:
        return type(error)


def _kind(value):
    """Of numpy's numbers only the kind counts: computing with sizes gives Python's."""
    if isinstance(value, bool | np.bool_):
        return "bool"
    return next((each for each in (Integral, Real) if isinstance(value, each)), type(value))


def _same(one, other):
    if isinstance(one, tuple | list):
        pairs = zip(one, other, strict=True)
        return type(one) is type(other) and all(_same(*pair) for pair in pairs)
    if isinstance(one, type):
        return one is other
    nan = one != one and other != other
    return _kind(one) == _kind(other) and (nan or one == other)


LITERALS = "0 1 2 3 7 -1 -3 0.5 -0.25 2.0 1e3 True False".split()
LEAVES = st.one_of(
    st.sampled_from(SIZES), st.sampled_from(SIZES), st.sampled_from([*LITERALS, "two"])
)
BINARY = "+ - * / // %".split()
COMPARISONS = "< <= > >= == !=".split()
UNARY = ["-{}", "+{}", "abs({})", "round({})", "round({}, 1)", "round({}, -1)", "~{}", "not {}"]
UNARY += ["bool({})", "int({})", "float({})", "math.ceil({})", "math.floor({})", "math.trunc({})"]
UNARY += ["math.exp({} % 7)", "math.isqrt({})", "math.sqrt({})", "math.log({})", "math.log2({})"]
UNARY += [
    "math.log10({})",
    "math.sin({})",
    "math.prod([2, {}])",
    "sum([{}, 1])",
    "divmod({}, 4)[0]",
]
TWO = ["min({}, {})", "max({}, {})", "divmod({}, {})[1]", "math.gcd({}, {})", "({} and {})"]
TWO += ["({} or {})", "math.log({}, {})", "math.hypot({}, {})", "sorted([{}, {}])[0]"]
TWO += [f"({{}} {each} {{}})" for each in "& | ^".split()]


def _expressions(inside):
    return st.one_of(
        st.tuples(inside, st.sampled_from(BINARY), inside).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(inside, st.sampled_from(BINARY), inside).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(inside, st.sampled_from(COMPARISONS), inside).map(
            "({0[0]} {0[1]} {0[2]})".format
        ),
        # Towers of powers would not fit into memory.
        st.tuples(inside, st.sampled_from(["2", "0.5", "-1", "a", "two"])).map(
            "({0[0]} ** {0[1]})".format
        ),
        st.tuples(st.sampled_from(["2", "0.5", "3.0", "two"]), st.sampled_from(SIZES)).map(
            "({0[0]} ** {0[1]})".format
        ),
        st.tuples(inside, st.sampled_from(["<< 2", ">> 1", "<< a", ">> b"])).map(
            "({0[0]} {0[1]})".format
        ),
        st.builds(str.format, st.sampled_from(UNARY), inside).map("({})".format),
        st.builds(str.format, st.sampled_from(TWO), inside, inside),
        st.tuples(inside, inside, inside).map("({0[0]} if {0[1]} else {0[2]})".format),
    )


EXPRESSIONS = st.recursive(LEAVES, _expressions, max_leaves=6)
FOUR = st.tuples(*[st.integers(1, 9)] * 4)


@pytest.mark.slow
@settings(ALWAYS, max_examples=2500)
@given(EXPRESSIONS, FOUR)
def test_they_compute_as_pythons_do(source, values):
    expected = _outcome(source, dict(zip(SIZES, values, strict=True)))
    listener = SizeListener()
    result = _outcome(source, _sizes(values, listener))
    assert _same(expected, result), f"{source} of {values}: {expected!r}, and {result!r}"
    for origin, value in listener.assumed:
        assert any(isinstance(each, SymbolicNumber) for each in origin)
        assert not isinstance(value, SymbolicNumber)


SIGNS = [f"({{}} {each} {{}})" for each in (*BINARY, "**", "<<", ">>", *COMPARISONS)]


@pytest.mark.parametrize("template", [*UNARY, *TWO, *SIGNS])
def test_each_function_computes_as_pythons_does(template):
    """Random expressions are too many to have every function of every kind of number."""
    kinds = ["a", "(b / c)", "(d * -1.5)", "2", "0.5", "True"]
    seconds = kinds if template.count("{}") == 2 else [""]
    for source in [template.format(*pair) for pair in itertools.product(kinds, seconds)]:
        for values in ((3, 5, 2, 7), (4, 4, 1, 1)):
            expected = _outcome(source, dict(zip(SIZES, values, strict=True)))
            result = _outcome(source, _sizes(values, SizeListener()))
            assert _same(expected, result), f"{source} of {values}: {expected!r}, and {result!r}"


NUMPY = [np.int64(8), np.int8(3), np.uint8(200), np.float64(2.5), np.float32(0.1), np.bool_(True)]


@pytest.mark.parametrize("constant", NUMPY, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("sign", [*BINARY, "**", *COMPARISONS])
def test_they_compute_with_numpys_as_pythons_do(sign, constant):
    """A number of numpy may become one of Python, but it is the same number."""
    for source in (f"a {sign} k", f"k {sign} a"):
        for size in (1, 3, 90):
            with np.errstate(all="raise"):
                try:
                    expected = eval(source, {"a": size, "k": constant})
                    exact = eval(source, {"a": size, "k": constant.item()})
                except (ArithmeticError, ValueError):
                    continue
            if exact > 2**63 or not math.isclose(expected, exact, rel_tol=1e-6):
                continue  # it was too large for numpy
            scope = {"a": symbolic(size, ("size",), SizeListener()), "k": constant}
            result = plain(eval(source, scope))
            assert _kind(expected) == _kind(result), source
            assert math.isclose(expected, result, rel_tol=1e-6), f"{source}, {size}"


def test_what_passes_for_an_int_or_a_float():
    listener = SizeListener()
    size = symbolic(6, ("size",), listener)
    half = size / 4
    assert isinstance(size, int)
    assert not isinstance(size, float)
    assert isinstance(half, float)
    assert not isinstance(half, int)
    assert isinstance(size // 4, int)
    assert isinstance(round(half), int)
    assert isinstance(round(half, 1), float)
    assert isinstance(math.floor(half), int)
    assert isinstance(size, Integral)
    assert isinstance(half, Real)
    assert (size.real, size.imag, size.numerator, size.denominator) == (6, 0, 6, 1)
    assert type(plain(size)) is int
    assert type(plain(half)) is float
    assert plain("x") == "x"


def test_what_keeps_the_origin_assumes_nothing():
    listener = SizeListener()
    size = symbolic(6, ("size",), listener)
    kept = [size + 1, 2 - size, size * 0.5, 7 // size, -size, abs(size), size**2, 2**size]
    kept += [round(size / 4), round(size / 4, 1), math.floor(size / 4), math.ceil(size / 4)]
    kept += [*divmod(size, 4), *divmod(20, size), size << 1, size % 4, sum([size, size])]
    assert all(isinstance(each, SymbolicNumber) for each in kept)
    assert listener.assumed == []


def _keyed(number):
    # The text alone is for messages, until code reads it.
    return {str(number): 1}


@pytest.mark.parametrize(
    "loses",
    [
        int, float, complex, _keyed, repr, hash, range, bool, math.sin, bin, pickle.dumps,
        copy.copy, "{:03}".format, "%d".__mod__, list("abcdefgh").__getitem__, "x".__mul__,
        np.zeros, lambda n: n == 6, lambda n: n < 9, lambda n: n in (1, 2), lambda n: n * [1],
        lambda n: {6: 1}[n], lambda n: "abcdefghi"[:n], lambda n: n.bit_length(),
        lambda n: (n / 2).is_integer(), lambda n: (n / 2).as_integer_ratio(),
        lambda n: int(n / 4), lambda n: min(n, 9), lambda n: sorted([n, 3]), lambda n: pow(n, 2, 5),
    ],
)  # fmt: skip
def test_what_loses_the_origin_is_assumed(loses):
    listener = SizeListener()
    loses(symbolic(6, ("size",), listener))
    assert listener.assumed


def test_every_number_of_a_power_is_assumed():
    listener = SizeListener()
    one, other = (symbolic(value, (name,), listener) for value, name in ((6, "one"), (5, "other")))
    assert pow(one, other, 7) == 6
    assert pow(one, 2, other) == 1
    assert [each.origin for origin, _ in listener.assumed for each in origin].count(("other",)) == 2


def test_a_complex_number_of_a_size_is_assumed_or_traced():
    listener = SizeListener()
    size = symbolic(6, ("size",), listener)
    result = abs((-size) ** 0.5)
    assert isinstance(result, SymbolicNumber) or listener.assumed


# --- in a model ---


def _model(source):
    """A model that returns what an expression gives of its input's sizes."""
    scope = dict(SCOPE)
    code = f"""
def forward(self, x):
    a, b, c, d = x.shape
    value = {source}
    return torch.full((2,), value), torch.full((1,), value, dtype=torch.float64)
"""
    exec(compile(code, "<expression>", "exec"), scope)
    return type("Expression", (nn.Module,), {"forward": scope["forward"]})()


def _given(values):
    # Of an expanded tensor only the sizes are large.
    return torch.zeros(1, 1, 1, 1).expand(values)


def _of_model(model, values):
    try:
        return model(_given(values))
    except AssumptionError as error:
        return error
    except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:
        return type(error)


def _check_in_a_model(source, values, others):
    model = _model(source)
    if isinstance(_of_model(model, values), type):
        return  # it is no model for these sizes
    ir = lg.to_ir(model, (_given(values),))
    rebuilt = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    for sizes in (values, *others):
        expected, result = _of_model(model, sizes), _of_model(rebuilt, sizes)
        if isinstance(result, AssumptionError):
            assert sizes != values, f"{source} of {values}: {result}"
        elif isinstance(expected, type):
            assert isinstance(result, type), f"{source} of {values}, then {sizes}: {result}"
        else:
            for one, other in zip(expected, result, strict=True):
                assert one.dtype is other.dtype, f"{source} of {values}, then {sizes}"
                what = f"{source} of {values}, then {sizes}: {one}, and {other}"
                assert bitwise_equal(one, other), what


@pytest.mark.slow
@settings(ALWAYS, max_examples=500)
@given(EXPRESSIONS, FOUR, st.lists(FOUR, min_size=3, max_size=3))
def test_a_rebuilt_model_computes_the_same_of_other_sizes(source, values, others):
    _check_in_a_model(source, values, others)


@pytest.mark.parametrize(
    "source",
    [
        "pow(a, b, 7)",
        "pow(a, 3, c)",
        "abs((-a) ** 0.5)",
        "((-a) ** 0.5).imag",
        "round(2.71828, a)",
        "round(1234.5678, a - b)",
        "[5, 6, 7, 8, 9, 10, 11, 12, 13, 14][a]",
        "len(range(a))",
        "sum(1 for _ in range(a))",
        "int(str(a) + '5')",
        "float(f'{a}.5')",
        "divmod(a * 2.5, b)[0] + divmod(17, c)[1]",
        "max(x.shape)",
        "math.prod(x.shape)",
        "sum(x.shape[1:])",
        "x.shape.numel()",
        "len(x)",
        "x.numel() // len(x)",
        "sum(i * s for i, s in enumerate(x.shape))",
        "(a, b) < (b, a)",
        "x.shape[:2] == x.shape[2:]",
        "{1: 2.0}.get(a, b)",
        "a.__add__(b)",
        "a.__rsub__(3)",
        "(a / 2).is_integer()",
        "(a / b).as_integer_ratio()[0]",
        "a.bit_length()",
        "a.real + a.imag + a.numerator",
        "True + (a > b)",
        "-True * a",
        "int.__add__(int(a), 1)",
        "math.comb(a, 2)",
        "math.dist([a], [b])",
        "sorted(x.shape)[1]",
        "(lambda n: n * 2)(a)",
        "[*map(float, x.shape)][0]",
    ],
)
def test_a_rebuilt_model_computes_the_same(source):
    others = [(1, 2, 3, 4), (2, 2, 2, 2), (5, 4, 3, 2), (7, 8, 7, 8), (3, 5, 2, 9), (3, 6, 2, 9)]
    for values in ((3, 5, 2, 7), (2, 2, 5, 3)):
        _check_in_a_model(source, values, others)


class SlicesUnseen(nn.Module):
    """Code in C reads a size and slices by it: no mode of torch shows where the number is from."""

    def forward(self, x):
        with torch._C.DisableTorchFunction():
            return x[: x.size(0) // 2]


def test_a_size_that_an_operation_is_given_unseen_is_guarded():
    model, x = SlicesUnseen(), torch.randn(4, 3)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)))
    assert torch.equal(rebuilt(x), model(x))
    with pytest.raises(AssumptionError, match="test_sizes"):
        rebuilt(torch.randn(8, 3))


class Squeezes(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.function = forward

    def forward(self, x):
        return self.function(x)


def _by_rank(y):
    return y.unsqueeze(0) * 2 if y.dim() == 1 else y


BY_RANK_OF_SQUEEZED = {
    "all": lambda x: _by_rank(x.squeeze()),
    "one": lambda x: _by_rank(torch.squeeze(x, 0)),
    "later": lambda x: _by_rank(x.squeeze().exp() + 1),
    "in place": lambda x: _by_rank(x.clone().squeeze_()),
    "sizes": lambda x: x.squeeze().unsqueeze(-1).expand(*x.squeeze().shape, 2),
    "number": lambda x: x.sum() * x.squeeze().ndim,
}


@pytest.mark.parametrize("name", BY_RANK_OF_SQUEEZED)
@pytest.mark.parametrize("given", [3, 1])
def test_a_rank_that_follows_from_sizes_is_guarded(name, given):
    model = Squeezes(BY_RANK_OF_SQUEEZED[name])
    again = lg.to_torch(lg.to_ir(model, (torch.randn(given, 4),)))
    for size in (1, 2, 3):
        x = torch.randn(size, 4)
        if (size == 1) == (given == 1):
            assert bitwise_equal(again(x), model(x))
        else:
            with pytest.raises(AssumptionError, match=r"test_sizes\.py"):
                again(x)
