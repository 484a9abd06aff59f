"""Models that the tests look at."""

from __future__ import annotations

import torch
from torch import nn

import layergraph as lg
from layergraph.ir import Graph, Implementation, Ir, Node, Ref, graph_from_nodes

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)>',
    "]]>--><b>&lt;&amp;",
    "javascript:alert(4)",
    "${alert(5)}`",
    "\u202eevil\u2066",
]


class Block(nn.Module):
    def __init__(self, size=4):
        super().__init__()
        self.up = nn.Linear(size, 2 * size)
        self.down = nn.Linear(2 * size, size)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    """Twelve equal blocks, a dropout that only training has in its graph, and a shared layer."""

    def __init__(self, blocks=12):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.blocks = nn.Sequential(*(Block() for _ in range(blocks)))
        self.last = nn.Linear(4, 4)

    def forward(self, x):
        x = self.blocks(self.first(x))
        if self.training:
            x = nn.functional.dropout(x, 0.5)
        return self.last(self.last(x))


class Asking(nn.Module):
    """A model with a guard and with bodies."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        if x.shape[0] > 1:
            x = x * 2

        def both(y):
            return self.layer(y).cos()

        return torch.cond(x.sum() > 0, both, torch.sin, (x,))


def net_ir(blocks=12):
    return lg.to_ir(Net(blocks).eval(), (torch.randn(2, 3),))


def hostile_ir():
    """An IR whose names, types, attributes and annotations try to leave their places."""
    leaves, nodes = [], [Node("x", "input", "x")]
    read = "x"
    for number, text in enumerate(HOSTILE):
        name = f"{text} {number}"
        data = {"a": text, f"a.{text}": text, text.replace(".", ""): {text: [text]}}
        leaves.append(Implementation(text, data, name=name))
        nodes.append(Node(name, text, name, (Ref(read),), data={f"acme.{text}": text}))
        read = name
    nodes.append(Node("output", "output", "output", (Ref(read),)))
    graph = graph_from_nodes(nodes)
    for edge in graph.edges.values():
        edge.data["layergraph.shape"] = (HOSTILE[0], HOSTILE[1])
    root = Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)
    return Ir([root, *leaves], "root")


def flat_ir(count):
    """An IR of one graph with many nodes, whose steps do not repeat."""
    nodes = [Node("x", "input", "x")]
    for number in range(count):
        args = Ref(nodes[-1].name), Ref(nodes[max(0, number - number % 7)].name), float(number)
        nodes.append(Node(f"add_{number}", "function", "torch.add", args))
    nodes.append(Node("output", "output", "output", (Ref(nodes[-1].name),)))
    graph: Graph = graph_from_nodes(nodes)
    return Ir([Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)], "root")
