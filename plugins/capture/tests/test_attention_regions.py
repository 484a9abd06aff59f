"""Regions in which attention may use some kernels only."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import layergraph as lg
from layergraph.control_flow.regions import attention_kernels, select_attention
from layergraph.errors import AssumptionError, CaptureError
from layergraph.ir import Node, Ref, check, graph_from_nodes

X = torch.randn(2, 2, 3, 4)


class Nested(nn.Module):
    def forward(self, x):
        with sdpa_kernel(SDPBackend.MATH):
            x = F.scaled_dot_product_attention(x, x, x)
            with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
                x = x + F.scaled_dot_product_attention(x, x, x)
        return F.scaled_dot_product_attention(x, x, x)


class OneWay(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            with sdpa_kernel(SDPBackend.MATH):
                return F.scaled_dot_product_attention(x, x, x)
        return F.scaled_dot_product_attention(x, x, x)


def _rebuilt(model, *args):
    return lg.to_torch(lg.to_ir(model, args), model.state_dict())


@pytest.fixture(autouse=True)
def _kernels():
    before = attention_kernels()
    yield
    after = attention_kernels()
    select_attention(before)
    assert after == before


@pytest.mark.parametrize("model", [Nested(), OneWay()], ids=["nested", "one way"])
@pytest.mark.parametrize("sign", [1, -1])
def test_it_computes_the_same(model, sign):
    x = sign * X.abs()
    assert torch.equal(_rebuilt(model, X)(x), model(x))


def test_each_call_runs_with_its_kernels(monkeypatch):
    seen = []
    attention = F.scaled_dot_product_attention

    def watched(*args, **kwargs):
        seen.append(attention_kernels())
        return attention(*args, **kwargs)

    rebuilt = _rebuilt(Nested(), X)
    for node in rebuilt.graph.nodes:
        if node.target is attention:
            node.target = watched
    rebuilt.recompile()
    rebuilt(X)
    assert seen == [("math",), ("flash", "math"), attention_kernels()]


def test_kernels_are_put_back_where_a_graph_raises():
    rebuilt = _rebuilt(Nested(), X)
    with pytest.raises(RuntimeError):
        rebuilt(torch.randn(2, 2, 3, 4).to(torch.int32).bool())


def test_an_order_of_kernels_is_refused():
    class Ordered(nn.Module):
        def forward(self, x):
            with sdpa_kernel([SDPBackend.MATH], set_priority=True):
                return F.scaled_dot_product_attention(x, x, x)

    # In torch 2.6, the comparison of the settings finds it.
    with pytest.raises(CaptureError, match=r"set_priority|choice of attention's kernel"):
        lg.to_ir(Ordered(), (X,))


@pytest.mark.parametrize("kernels", ["math", ("maths",), 3, None, ([],)])
def test_what_is_no_kernel_is_refused(kernels):
    with pytest.raises(AssumptionError, match="no kernels of attention"):
        select_attention(kernels)


def test_a_region_that_does_not_end_breaks_a_rule():
    ir = lg.to_ir(nn.ReLU())
    nodes = [
        Node("x", "input", "x"),
        Node("select", "function", "layergraph.select_attention", (("math",),)),
        Node("output", "output", "output", (Ref("x"),)),
    ]
    graph = graph_from_nodes(nodes)
    whole = lg.Ir(
        [ir["root"].changed(type="module", nodes=graph.nodes, edges=graph.edges, children={})]
    )
    with pytest.raises(lg.errors.InvalidIrError, match="does not end"):
        check(whole)
