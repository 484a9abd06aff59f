"""Graphs of PyTorch Geometric as arguments and results of models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal

pytest.importorskip("torch_geometric")
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.nn import (
    GCNConv,
    HeteroConv,
    SAGEConv,
    TopKPooling,
    global_add_pool,
    global_mean_pool,
)


def graph(nodes: int, cls: Any = Data, **more: Any) -> Any:
    drawn = torch.Generator().manual_seed(nodes)
    edges = torch.randint(nodes, (2, 3 * nodes), generator=drawn)
    return cls(x=torch.randn(nodes, 4, generator=drawn), edge_index=edges, **more)


def batch(*sizes: int) -> Any:
    return Batch.from_data_list([graph(size, name=f"of {size}") for size in sizes])


def hetero(users: int, items: int) -> Any:
    made = HeteroData()
    made["user"].x, made["item"].x = torch.randn(users, 4), torch.randn(items, 4)
    for one, other in (("user", "item"), ("item", "user")):
        counts = {"user": users, "item": items}
        ends = [torch.randint(counts[each], (9,)) for each in (one, other)]
        made[one, "to", other].edge_index = torch.stack(ends)
    return made


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(4, 4)


class OfNodes(Base):
    def forward(self, data):
        return self.conv(data.x, data.edge_index).relu() / data.num_nodes


class OfGraphs(Base):
    def forward(self, data):
        return global_mean_pool(self.conv(data.x, data.edge_index), data.batch)


class Counts(Base):
    def forward(self, data):
        x = self.conv(data.x, data.edge_index)
        return global_add_pool(x, data.batch, size=data.num_graphs) * data.num_graphs


class Pools(Base):
    def __init__(self):
        super().__init__()
        self.pool = TopKPooling(4, 0.5)

    def forward(self, data):
        x, _, _, of_graph, _, _ = self.pool(data.x, data.edge_index, None, data.batch)
        return global_mean_pool(x, of_graph)


class Changes(Base):
    def forward(self, data):
        data.x = self.conv(data.x, data.edge_index)
        data.more = data.x + 1
        return data


class Makes(Base):
    def forward(self, data):
        return Data(x=self.conv(data.x, data.edge_index), edge_index=data.edge_index)


class OfTypes(nn.Module):
    def __init__(self):
        super().__init__()
        pairs = (("user", "to", "item"), ("item", "to", "user"))
        self.conv = HeteroConv({pair: SAGEConv((4, 4), 2) for pair in pairs})

    def forward(self, data):
        return self.conv(data.x_dict, data.edge_index_dict)


CALLS: dict[str, tuple[type[nn.Module], Any, Any]] = {
    "one": (OfNodes, graph(5), graph(8)),
    "number of nodes": (OfNodes, graph(5, num_nodes=5), graph(8, num_nodes=8)),
    "a name": (OfNodes, graph(5, name="five"), graph(8, name="eight")),
    "batch": (OfGraphs, batch(5, 3), batch(4, 8, 2)),
    "number of graphs": (Counts, batch(5, 3), batch(4, 8, 2)),
    "pooling": (Pools, batch(5, 3), batch(4, 8, 2)),
    "changes": (Changes, graph(5), graph(8, name="eight")),
    "makes": (Makes, graph(5), graph(8)),
    "types": (OfTypes, hetero(5, 4), hetero(3, 7)),
}


def _parts(value):
    return value.to_dict() if hasattr(value, "to_dict") else value


@pytest.mark.parametrize("name", CALLS)
def test_graphs_are_arguments(name, tmp_path):
    cls, given, other = CALLS[name]
    model = cls()
    before = copy.deepcopy(given)
    ir = lg.to_ir(model, (given,))
    assert bitwise_equal(_parts(given), _parts(before))
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    for training in (True, False):
        model.train(training)
        for rebuilt in (lg.to_torch(ir, model.state_dict()), lg.load_model(path)):
            rebuilt.train(training)
            for each in (given, other):
                mine, theirs = copy.deepcopy(each), copy.deepcopy(each)
                expected, found = model(mine), rebuilt(theirs)
                assert type(found) is type(expected)
                assert (found is theirs) == (expected is mine)
                assert bitwise_equal(_parts(found), _parts(expected))
                assert bitwise_equal(_parts(theirs), _parts(mine))


def test_gradients_of_a_batch():
    model = OfGraphs()
    rebuilt = lg.to_torch(lg.to_ir(model, (batch(5, 3),)), model.state_dict())
    for each in (model, rebuilt):
        each(batch(4, 8, 2)).square().sum().backward()
    pairs = zip(model.parameters(), rebuilt.parameters(), strict=True)
    assert all(bitwise_equal(one.grad, other.grad) for one, other in pairs)


class Own(Data):
    pass


@pytest.mark.parametrize(
    "other", [graph(5, y=torch.ones(1)), batch(5), {"x": 1}, Data(edge_index=torch.zeros(2, 0))]
)
def test_other_parts_are_refused(other):
    model = OfNodes()
    rebuilt = lg.to_torch(lg.to_ir(model, (graph(5),)), model.state_dict())
    with pytest.raises(AssumptionError):
        rebuilt(other)


class ReadsName(Base):
    def forward(self, data):
        return self.conv(data.x, data.edge_index) if data.name == "five" else data.x


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (OfNodes, graph(5, Own), "holds .*Own"),
        (ReadsName, graph(5, name="five"), "has no attribute 'name'"),
        (OfNodes, graph(5, tokenizer=object()), "object"),
    ],
)
def test_what_is_refused(model, given, message):
    with pytest.raises(CaptureError, match=message):
        lg.to_ir(model(), (given,))
