"""Sparse tensors in models: registered, kept without registration, and through files."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LAYOUTS = {
    "coo": lambda dense: dense.to_sparse(),
    "csr": lambda dense: dense.to_sparse_csr(),
    "csc": lambda dense: dense.to_sparse_csc(),
    "bsr": lambda dense: dense.to_sparse_bsr((2, 2)),
}


class Graph(nn.Module):
    """A graph network of one layer.

    Args:
        links: the sparse matrix.
        held: how the model keeps it.
    """

    def __init__(self, links: torch.Tensor, held: str) -> None:
        super().__init__()
        if held == "attribute":
            self.links = links
        else:
            self.register_buffer("links", links, persistent=held == "buffer")
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(self.links @ x))


@pytest.mark.parametrize("held", ["buffer", "buffer without a key", "attribute"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sparse_tensor_comes_back(layout, held, tmp_path):
    torch.manual_seed(0)
    model = Graph(LAYOUTS[layout](torch.randn(4, 4) * torch.eye(4)), held)
    ir = lg.to_ir(model, (torch.randn(4, 3),))
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict())
    assert lg.load(path) == ir == lg.Ir.from_dict(ir.to_dict())
    meta = lg.to_torch(ir, device="meta")
    meta.load_state_dict(model.state_dict(), assign=True)
    for again in (lg.to_torch(ir, model.state_dict()), lg.load_model(path), meta):
        assert list(again.state_dict()) == list(model.state_dict())
        x = torch.randn(4, 3)
        for mode in (True, False):
            assert bitwise_equal(again.train(mode)(x), model.train(mode)(x))
        found = [each for each in again.buffers() if each.layout is model.links.layout]
        assert len(found) == 1
    if layout == "coo":  # torch cannot copy other layouts
        assert "failed" not in str(lg.verify(model, (torch.randn(4, 3),)))


def test_duplicates_of_an_index_stay(tmp_path):
    links = torch.sparse_coo_tensor([[0, 0], [1, 1]], [0.1, 0.2], (4, 4))
    assert not links.is_coalesced()
    model = Graph(links, "buffer")
    lg.save(lg.to_ir(model, (torch.randn(4, 3),)), tmp_path / "m.safetensors", model.state_dict())
    again = lg.load_model(tmp_path / "m.safetensors")
    assert not again.links.is_coalesced()
    assert torch.equal(again.links._values(), links._values())


def test_a_weight_that_is_sparse(tmp_path):
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(model.weight.detach().to_sparse_csr(), requires_grad=False)
    ir = lg.to_ir(model)
    assert ir["root"].type == "linear"
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    again = lg.load_model(tmp_path / "m.safetensors")
    assert again.weight.layout is torch.sparse_csr
    x = torch.randn(2, 4)
    assert bitwise_equal(again(x), model(x))


def test_a_capture_undoes_changes_in_place():
    class Changes(Graph):
        def forward(self, x):
            self.links._values().add_(1)
            return super().forward(x)

    model = Changes(torch.eye(4).to_sparse(), "buffer")
    x = torch.randn(4, 3)
    ir = lg.to_ir(model, (x,))
    assert torch.equal(model.links.to_dense(), torch.eye(4))
    again = lg.to_torch(ir, model.state_dict())
    for _ in range(2):
        assert bitwise_equal(again(x), model(x))


def _coo(h, e, n):
    return torch.sparse.mm(torch.sparse_coo_tensor(e, h[e[0], 0], (n, n)), h)


def _counted(h, e, n):
    rows = e[0].sort().values
    return torch._convert_indices_from_coo_to_csr(rows, n)


def _csr(h, e, n):
    links = torch.sparse_csr_tensor(torch.arange(n + 1), torch.arange(n), h[:, 0], (n, n))
    return links @ h


def _turned(h, e, n):
    links = torch.sparse_coo_tensor(e, torch.ones(e.shape[1]), torch.Size([n, n])).coalesce()
    return links.t().to_sparse_csr() @ h


class Links(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.lin, self.way = nn.Linear(3, 4), way

    def forward(self, x, e):
        return self.way(self.lin(x), e, x.shape[0])


def _graph(nodes, edges):
    return torch.randn(nodes, 3), torch.randint(0, nodes, (2, edges))


@pytest.mark.parametrize("way", [_coo, _counted, _csr, _turned])
def test_forward_makes_sparse_tensors_of_any_size(way, tmp_path):
    model = Links(way)
    ir = lg.to_ir(model, _graph(6, 9))
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for again in (lg.to_torch(ir, model.state_dict()), lg.load_model(tmp_path / "m.safetensors")):
        for sizes in ((6, 9), (8, 15), (3, 2)):
            given = _graph(*sizes)
            made, expected = again(*given), model(*given)
            assert bitwise_equal(made, expected)
            if expected.requires_grad:
                grads = [
                    torch.autograd.grad(each.sum(), m.parameters(), allow_unused=True)
                    for each, m in ((made, again), (expected, model))
                ]
                assert bitwise_equal(*grads)


class Squared(nn.Module):
    """Merges double links only if there are any; torch's kernel for the square trusts that."""

    def forward(self, x, e):
        n = x.shape[0]
        order = (e[0] * n + e[1]).argsort(stable=True)
        rows, columns = e[0][order], e[1][order]
        if not bool(((rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])).all()):
            merged = torch.unique(rows * n + columns)
            rows, columns = merged // n, merged % n
        starts = torch._convert_indices_from_coo_to_csr(rows, n)
        links = torch.sparse_csr_tensor(starts, columns, x.new_ones(rows.shape[0]), (n, n))
        return (links @ links).to_dense() @ x


def test_a_way_whose_indices_do_not_fit_the_numbers_crashes_no_kernel():
    model, double = Squared(), torch.tensor([[0, 0, 1, 2, 0], [1, 1, 2, 0, 1]])
    single, x = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.randn(3, 4)
    again = lg.to_torch(lg.to_ir(model, (x, single)))
    for links in (single, double):
        assert bitwise_equal(again(x, links), model(x, links))
    again = lg.to_torch(lg.to_ir(model, (x, double)))
    assert bitwise_equal(again(x, double), model(x, double))
    with pytest.raises(lg.errors.AssumptionError, match="sorted"):
        again(x, single)
