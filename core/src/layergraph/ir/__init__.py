"""The intermediate representation: plain data that knows nothing of PyTorch."""

from layergraph.ir.edges import Edge
from layergraph.ir.from_nodes import graph_from_nodes
from layergraph.ir.graph import (
    BODY,
    CORE_NODE_TYPES,
    FUNCTION,
    INPUT,
    MODULE,
    OUTPUT,
    STATE,
    Graph,
    Implementation,
    Node,
    returned,
)
from layergraph.ir.mapping import ROOT
from layergraph.ir.model import Ir
from layergraph.ir.names import Namer
from layergraph.ir.tensor_spec import Packing, TensorSpec
from layergraph.ir.validate import check, check_attributes, find_problems
from layergraph.ir.values import (
    Body,
    Record,
    Ref,
    Symbol,
    Value,
    bodies,
    leaves,
    map_leaves,
    refs,
)

__all__ = [
    "BODY",
    "CORE_NODE_TYPES",
    "FUNCTION",
    "INPUT",
    "MODULE",
    "OUTPUT",
    "ROOT",
    "STATE",
    "Body",
    "Edge",
    "Graph",
    "Implementation",
    "Ir",
    "Namer",
    "Node",
    "Packing",
    "Record",
    "Ref",
    "Symbol",
    "TensorSpec",
    "Value",
    "bodies",
    "check",
    "check_attributes",
    "find_problems",
    "graph_from_nodes",
    "leaves",
    "map_leaves",
    "refs",
    "returned",
]
