"""A rebuilt model that is cast computes what the original does, or refuses with a reason."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)


SPARSE = {
    "mm": lambda self, x: torch.sparse.mm(x.T.relu().to_sparse(), self.lin(x)),
    "addmm": lambda self, x: torch.sparse.addmm(self.lin(x), (x @ x.T).to_sparse(), x),
    "softmax": lambda self, x: torch.sparse.softmax(self.lin(x).to_sparse(), 1).to_dense(),
    "a view of rows": lambda self, x: (x @ x.T).to_sparse_csr() @ self.lin(x),
}


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_matrices_in_double(name):
    model = type("Model", (Base,), {"forward": SPARSE[name]})()
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
    wanted = copy.deepcopy(model).double()(X.double())
    try:
        got = rebuilt.double()(X.double())
    except AssumptionError as error:
        got = error
    assert bitwise_equal(got, wanted) if isinstance(got, torch.Tensor) else "float32" in str(got)
