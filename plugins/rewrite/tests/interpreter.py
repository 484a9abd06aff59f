"""An interpreter of IRs, and edits as list operations: what an edit has to compute."""

from __future__ import annotations

import functools
import operator

import torch

import layergraph as lg
from layergraph.ir import FUNCTION, INPUT, OUTPUT, STATE, Ref, map_leaves, returned


class Interpreter:
    """Computes what an IR says, node by node, from lists of nodes that tests change as they like.

    It knows nothing of the code that edits or builds, but for the leaves: these are built.

    Args:
        ir: the IR.
        state: its state dict.

    Attributes:
        graphs: the nodes of each composite, by its name; two lists if the modes differ.
        leaves: the modules of the leaves, by name.
    """

    def __init__(self, ir, state):
        model = lg.to_torch(ir, state)
        self._root = ir.root
        self._model = model
        self._paths = {name: "" if name == ir.root else name for name in ir}
        copied = ir.copy()
        self.graphs = {
            name: [list(graph.nodes.values()) for graph in each.graphs]
            for name, each in copied.items()
            if each.nodes
        }
        self.leaves = {
            name: model.get_submodule(name)
            for name in ir
            if name != ir.root and name not in self.graphs
        }
        self._kinds = {name: each.type for name, each in ir.items()}

    def with_node(self, owner, name):
        """Return each graph of a composite that has a node, and the place of the node in it."""
        return [
            (graph, index)
            for graph in self.graphs[owner]
            for index, node in enumerate(graph)
            if node.name == name
        ]

    def substitute(self, graph, name, value, *, only=lambda _: True):
        """Let nodes read another value instead of that of a node."""

        def leaf(each):
            return value if type(each) is Ref and each.node == name else each

        for node in graph:
            if only(node):
                node.args, node.kwargs = map_leaves(leaf, node.args), map_leaves(leaf, node.kwargs)
                if node.when is not None and node.when[0].node == name:
                    node.when = (value, node.when[1])

    def run(self, *inputs, training):
        """Return what the model returns."""
        self._model.train(training)
        return self._run(self._root, inputs, {}, training=training)

    def buffers(self):
        """Return the buffers of the leaves, by key."""
        return {
            f"{path}.{name}": buffer
            for path, leaf in self.leaves.items()
            for name, buffer in leaf.named_buffers()
        }

    def _run(self, name, args, kwargs, *, training):
        graphs, values = self.graphs[name], {}
        given = list(args)

        def of(value):
            return map_leaves(lambda each: values[each.node] if type(each) is Ref else each, value)

        for node in graphs[0 if training else -1]:
            if node.when is not None and bool(values[node.when[0].node]) is not node.when[1]:
                values[node.name] = None
                continue
            if node.type == INPUT:
                known = [kwargs[k] for k in (node.implementation, node.name) if k in kwargs]
                values[node.name] = (
                    given.pop(0) if given else known[0] if known else node.kwargs["default"]
                )
            elif node.type == OUTPUT:
                return of(returned(node.args))
            elif node.type == STATE:
                path, _, last = node.implementation.rpartition(".")
                values[node.name] = getattr(self._model.get_submodule(path), last)
            elif node.type == FUNCTION:
                function = _function(node.implementation)
                values[node.name] = function(*of(node.args), **of(node.kwargs))
            elif node.implementation in self.graphs:
                values[node.name] = self._run(
                    node.implementation, of(node.args), of(node.kwargs), training=training
                )
            else:
                leaf = self.leaves[node.implementation].train(training)
                values[node.name] = leaf(*of(node.args), **of(node.kwargs))
        raise AssertionError("a graph has no output")


def _function(name):
    home, *rest = name.split(".")
    return functools.reduce(getattr, rest, {"torch": torch, "operator": operator}[home])
