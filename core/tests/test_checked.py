"""Operations whose kernels do not check their arguments: graphs check the arguments first."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

from layergraph.functions.checked import (
    coo_to_csr,
    packed_sequence,
    pad_packed_sequence,
    sparse,
    weight_norm,
)
from layergraph.functions.names import Functions
from layergraph.ir import Node, Ref
from layergraph.testing import bitwise_equal
from layergraph_files.allowed import may_call

SIZES = {
    "negative": [3, -(10**9), 7],
    "rising": [1, 2, 2],
    "zero at the end": [3, 2, 0],
    "too many": [3, 3],
    "none": [],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_sizes_of_batches_that_are_none_are_refused(sizes):
    data, sizes = torch.ones(5, 3), torch.tensor(sizes, dtype=torch.int64)
    with pytest.raises(ValueError, match="batch sizes"):
        pad_packed_sequence(data, sizes, False, 0.0, -1)
    with pytest.raises(ValueError, match="batch sizes"):
        packed_sequence(data, sizes)


def test_sizes_of_another_dtype_or_shape_are_refused():
    for sizes in (torch.tensor([3.0, 2.0]), torch.tensor([[3, 2]])):
        with pytest.raises(ValueError, match="give int64"):
            packed_sequence(torch.ones(5, 3), sizes)


def test_sound_sequences_are_what_torch_makes_of_them():
    data, sizes = torch.randn(5, 3), torch.tensor([3, 2])
    assert type(packed_sequence(data, sizes)) is PackedSequence
    for one, other in zip(
        pad_packed_sequence(data, sizes, True, 0.5, 4),
        torch._pad_packed_sequence(data, sizes, True, 0.5, 4),
        strict=True,
    ):
        assert bitwise_equal(one, other)


@pytest.mark.parametrize(("dim", "shape"), [(0, (4, 1, 1)), (1, (1, 3, 1)), (2, (1, 1, 2))])
def test_weights_by_their_lengths(dim, shape):
    v, g = torch.randn(4, 3, 2), torch.rand(shape)
    for axis in (dim, dim - 3) if dim != 2 else (dim,):
        assert bitwise_equal(weight_norm(v, g, axis), torch._weight_norm(v, g, axis))
    for wrong in (torch.rand(1, 1, 1), torch.rand(2), g.to(torch.int8)):
        with pytest.raises(ValueError, match="have no norms"):
            weight_norm(v, wrong, dim)


def test_rows_of_sorted_indices():
    for given in ([0, 0, 2], [1], []):
        rows = torch.tensor(given, dtype=torch.int64)
        assert bitwise_equal(coo_to_csr(rows, 3), torch._convert_indices_from_coo_to_csr(rows, 3))
    for wrong in ([-1, 0], [0, 3], [5]):
        with pytest.raises(ValueError, match="give indices of 3 rows"):
            coo_to_csr(torch.tensor(wrong), 3)


def test_indices_of_sparse_tensors_are_checked():
    coo, csr = sparse(torch.sparse_coo_tensor), sparse(torch.sparse_csr_tensor)
    ones, links = torch.ones(2), torch.tensor([[1, 0], [0, 1]])
    assert torch.equal(coo(links, ones, (2, 2)).to_dense(), torch.eye(2).flip(0))
    with pytest.raises(RuntimeError, match="size is inconsistent with indices"):
        coo(links + 7, ones, (2, 2))
    with pytest.raises(RuntimeError, match="sorted"):
        csr(torch.tensor([0, 2, 2]), torch.tensor([1, 1]), ones, (2, 2))


@pytest.mark.parametrize(
    "name",
    [
        "_convert_indices_from_coo_to_csr",
        "_pad_packed_sequence",
        "_weight_norm",
        "sparse_coo_tensor",
    ],
)
def test_graphs_run_what_checks_under_the_name_of_torch(name):
    functions = Functions([])
    target = functions.target(f"torch.{name}").target
    assert target.__module__ == "layergraph.functions.checked"
    assert functions.name_of(getattr(torch, name)) == functions.name_of(target) == f"torch.{name}"
    assert may_call(Node("y", "function", f"torch.{name}"))
    assert not may_call(Node("y", "function", f"torch.ops.aten.{name}"))


@pytest.mark.parametrize("name", ["torch.gru", "torch.lstm", "torch.ops.aten.rnn_tanh.data"])
def test_files_call_recurrent_layers_for_padded_sequences_alone(name):
    x, hx, weights = Ref("x"), Ref("h"), [Ref("w")]
    padded = (x, hx, weights, True, 1, 0.0, False, False, False)
    assert may_call(Node("y", "function", name, args=padded))
    assert not may_call(Node("y", "function", name, args=(x, Ref("sizes"), hx, weights, True)))
    assert not may_call(Node("y", "function", name, kwargs={"data": x}))
