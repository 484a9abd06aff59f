"""The comparison that all tests use: it sees each bit, and ignores everything else."""

from __future__ import annotations

import struct
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from layergraph.testing import bitwise_difference, bitwise_equal

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool]
COMPLEX = [torch.complex32, torch.complex64, torch.complex128]


class Sub(torch.Tensor):
    pass


class Silent(torch.Tensor):
    """A tensor for which every function of torch returns True."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return True


Pair = namedtuple("Pair", "left right")
Other = namedtuple("Other", "left right")
Renamed = namedtuple("Pair", "left rite")


@dataclass
class Held:
    x: object


def nan(bits):
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32)


def sparse(layout, value=1.0):
    dense = torch.tensor([[0.0, value], [2.0, 0.0]])
    blocks = {"blocksize": (1, 1)} if layout in (torch.sparse_bsr, torch.sparse_bsc) else {}
    return dense.to_sparse(layout=layout, **blocks)


LAYOUTS = [
    torch.sparse_coo,
    torch.sparse_csr,
    torch.sparse_csc,
    torch.sparse_bsr,
    torch.sparse_bsc,
]


def quantized(number=1.0, scale=0.5, zero=0, dtype=torch.qint8):
    return torch.quantize_per_tensor(torch.tensor([number, 2.0]), scale, zero, dtype)


def next_to(number):
    """Return the float that differs in the last bit."""
    (bits,) = struct.unpack("q", struct.pack("d", number))
    return struct.unpack("d", struct.pack("q", bits ^ 1))[0]


T = torch.tensor

DIFFERENT = {
    **{f"zeros of {each}": (T([0.0]).to(each), T([-0.0]).to(each)) for each in FLOATS},
    **{f"last bit of {each}": (T([0, 1]).to(each), T([0, 0]).to(each)) for each in INTEGERS},
    **{
        f"imaginary zeros of {each}": (
            torch.view_as_complex(T([[1.0, 0.0]])).to(each),
            torch.view_as_complex(T([[1.0, -0.0]])).to(each),
        )
        for each in COMPLEX
    },
    "inf and the largest float": (T([torch.inf]), T([torch.finfo(torch.float32).max])),
    "inf and -inf": (T([torch.inf]), T([-torch.inf])),
    "nan and inf": (T([torch.nan]), T([torch.inf])),
    "nan and 0": (T([torch.nan]), T([0.0])),
    "payloads of nan": (nan([0x7FC00000]), nan([0x7FC00001])),
    "signs of nan": (nan([0x7FC00000]), nan([-0x400000])),
    "the last number of many": (torch.zeros(5001), T([0.0] * 5000 + [-0.0])),
    "dtypes": (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
    "dtypes of a size": (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
    "shapes": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "shapes of nothing": (torch.zeros(0, 3), torch.zeros(0, 2)),
    "a number and a list of it": (T(1.0), T([1.0])),
    "strides": (torch.zeros(2, 3), torch.zeros(3, 2).t()),
    "devices": (torch.zeros(2), torch.zeros(2, device="meta")),
    "shapes on meta": (torch.zeros(2, device="meta"), torch.zeros(3, device="meta")),
    "conjugated": (T([1 + 1j]), T([1 + 1j]).conj()),
    "negated": (T([1 + 1j]).imag, T([1 + 1j]).conj().imag),
    "subclasses": (torch.zeros(2), torch.zeros(2).as_subclass(Sub)),
    "a parameter": (torch.zeros(2), nn.Parameter(torch.zeros(2))),
    "a subclass that lies": tuple(T([each]).as_subclass(Silent) for each in (1.0, 2.0)),
    "layouts": (torch.zeros(2), torch.zeros(2).to_sparse()),
    **{f"values of {each}": (sparse(each), sparse(each, 3.0)) for each in LAYOUTS},
    "indices of sparse": (sparse(torch.sparse_coo), sparse(torch.sparse_coo).t()),
    "quantized values": (quantized(), quantized(3.0)),
    "quantized scales": (quantized(), quantized(2.0, 1.0)),
    "quantized zeros": (quantized(), quantized(1.5, 0.5, -1)),
    "quantized dtypes": (quantized(), quantized(dtype=torch.qint32)),
    "no tensor": (torch.zeros(2), None),
    "a tensor and a number": (T(1.0), 1.0),
    "ints and floats": (1, 1.0),
    "ints and bools": (1, True),
    "zeros of Python": (0.0, -0.0),
    "zeros of complex numbers": (complex(0, 0.0), complex(0, -0.0)),
    "floats of Python": (0.1, next_to(0.1)),
    "nan of Python": (float("nan"), -float("nan")),
    "texts": ("a", "b"),
    "lists and tuples": ([1], (1,)),
    "lengths": ([1], [1, 2]),
    "lengths of None": ([], [None]),
    "items": ([1, [2.0, T([0.0])]], [1, [2.0, T([-0.0])]]),
    "keys": ({"a": 1}, {"b": 1}),
    "a key more": ({"a": None}, {"a": None, "b": None}),
    "orders of keys": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "classes of keys": ({1: 0}, {True: 0}),
    "classes of dicts": ({"a": 1}, OrderedDict(a=1)),
    "values of dicts": ({"a": T([0.0])}, {"a": T([-0.0])}),
    "named tuples": (Pair(1, 2), Other(1, 2)),
    "fields": (Pair(1, 2), Renamed(1, 2)),
    "values of fields": (Pair(1, T([0.0])), Pair(1, T([-0.0]))),
    "a named tuple and a tuple": (Pair(1, 2), (1, 2)),
    "sizes": (torch.Size([1, 2]), (1, 2)),
    "slices": (slice(1), slice(True)),
    "dataclasses": (Held([0.0]), Held([-0.0])),
    "arrays": (np.array([0.0]), np.array([-0.0])),
    "shapes of arrays": (np.zeros((2, 3)), np.zeros((3, 2))),
    "sets": ({1}, {2}),
    "objects": (object(), object()),
}

SAME = {
    **{f"{each}": (T([0, 1, 1]).to(each), T([0, 1, 1]).to(each)) for each in FLOATS + INTEGERS},
    "inf": (T([torch.inf, -torch.inf]), T([torch.inf, -torch.inf])),
    "nan of the same bits": (nan([0x7FC00001]), nan([0x7FC00001])),
    "-0.0": (T([-0.0]), T([-0.0])),
    "nothing": (torch.zeros(0, 3), torch.ones(0, 3)),
    "a number": (T(1.5), T(1.5)),
    "a transposed tensor": (T([[1.0, 2.0]]).t(), T([[1.0, 2.0]]).t()),
    "an expanded tensor": (T([1.0]).expand(3), T([1.0]).expand(3)),
    "where it starts": (torch.arange(5.0)[1:], torch.arange(1.0, 5.0)),
    "many at an odd place": (torch.zeros(5001)[1:], torch.zeros(5000)),
    "conjugated": (T([1 + 1j]).conj(), T([1 - 1j])),
    "gradients": (torch.zeros(2), torch.zeros(2, requires_grad=True)),
    "on meta": (torch.zeros(2, device="meta"), torch.zeros(2, device="meta")),
    "subclasses": tuple(torch.zeros(2).as_subclass(Silent) for _ in range(2)),
    **{f"{each}": (sparse(each), sparse(each)) for each in LAYOUTS},
    "sparse, in another order": (
        torch.sparse_coo_tensor(T([[1, 0, 1]]), T([1.0, 2.0, 3.0]), (2,)),
        torch.sparse_coo_tensor(T([[0, 1]]), T([2.0, 4.0]), (2,)),
    ),
    "quantized": (quantized(), quantized()),
    "nan of Python": (float("nan"), float("nan")),
    "nested": tuple(
        {"a": [Pair(T([torch.nan]), None), (1, "x")], "b": Held(np.array([-0.0]))} for _ in range(2)
    ),
    "named tuples of one name": (Pair(1, 2), namedtuple("Pair", "left right")(1, 2)),
    "a class": (nn.Linear, nn.Linear),
    "a dtype": (torch.float32, torch.float32),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_seen(name):
    one, other = DIFFERENT[name]
    for pair in ((one, other), (other, one), ([one], [other]), ({"x": one}, {"x": other})):
        assert bitwise_difference(*pair)
        assert not bitwise_equal(*pair)


@pytest.mark.parametrize("name", SAME)
def test_the_same_is_the_same(name):
    for one, other in (SAME[name], SAME[name][::-1]):
        assert not bitwise_difference(one, other)
        assert bitwise_equal(one, other)
        assert bitwise_equal(one, one)


def test_strides_may_be_left_out():
    one, other = torch.zeros(2, 3), torch.zeros(3, 2).t()
    assert bitwise_equal([one], [other], strides=False)
    assert not bitwise_equal([one], [-other], strides=False)


def test_it_is_told_where_the_difference_is_and_which():
    one = {"a": [Pair(1, T([0.0, 1.0, torch.nan]))]}
    other = {"a": [Pair(1, T([-0.0, 1.0, 2.0]))]}
    assert bitwise_difference(one, other, name="out") == (
        "out['a'][0].right: 2 of 3 numbers differ"
    )
    assert bitwise_difference([1], [2.0]) == "value[0]: <class 'int'> became <class 'float'>"


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, 2).to_mkldnn(),
        torch.quantize_per_channel(torch.ones(2, 2), T([1.0, 1.0]), T([0, 0]), 0, torch.qint8),
    ],
    ids=["of oneDNN", "quantized by channel"],
)
def test_bits_that_cannot_be_read_are_an_error(tensor):
    with pytest.raises(TypeError, match="cannot compare the bits"):
        bitwise_equal(tensor, tensor.clone())


def test_neither_value_is_changed():
    one = torch.ones(2, requires_grad=True)
    held = one * 2
    version = one._version
    assert bitwise_equal(held, held.clone())
    assert one.grad is None
    assert one._version == version
    assert held.requires_grad
