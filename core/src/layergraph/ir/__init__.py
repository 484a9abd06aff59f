"""The intermediate representation: plain data that knows nothing of PyTorch."""

from layergraph.ir.graph import (
    CORE_NODE_TYPES,
    FUNCTION,
    INPUT,
    MODULE,
    OUTPUT,
    STATE,
    Edge,
    Graph,
    Implementation,
    Node,
    TensorSpec,
    returned,
    wired,
)
from layergraph.ir.mapping import ROOT
from layergraph.ir.model import Ir
from layergraph.ir.names import Namer
from layergraph.ir.rules import check, check_attributes, find_problems
from layergraph.ir.values import Record, Ref, Symbol, Value, leaves, map_leaves, refs

__all__ = [
    "CORE_NODE_TYPES",
    "FUNCTION",
    "INPUT",
    "MODULE",
    "OUTPUT",
    "ROOT",
    "STATE",
    "Edge",
    "Graph",
    "Implementation",
    "Ir",
    "Namer",
    "Node",
    "Record",
    "Ref",
    "Symbol",
    "TensorSpec",
    "Value",
    "check",
    "check_attributes",
    "find_problems",
    "leaves",
    "map_leaves",
    "refs",
    "returned",
    "wired",
]
