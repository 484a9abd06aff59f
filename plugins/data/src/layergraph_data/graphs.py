"""Take the graphs of PyTorch Geometric apart, and make them of parts.

The graph of a model calls these functions, so a file may pass them any parts. They make and change
only objects of the classes below, and never call an object that the parts name.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

from layergraph.errors import AssumptionError

_HOME = "torch_geometric.data"
# Numbers that differ from call to call.
_COUNTS = frozenset({"num_nodes", "_num_graphs"})
# Attributes with which a batch describes the graphs inside it.
_OF_BATCHES = ("_num_graphs", "_slice_dict", "_inc_dict")


def classes() -> dict[str, Any]:
    """Return the classes of graphs and batches by name.

    Raises:
        AssumptionError: the program has not imported the library.
    """
    library: Any = sys.modules.get(_HOME)
    if library is None:
        raise AssumptionError("the program has not imported torch_geometric.data; import it")
    plain = (library.Data, library.HeteroData)
    batches = [type(library.Batch(_base_cls=each)) for each in plain]
    return {each.__name__: each for each in (*plain, *batches)}


def flatten_graph(graph: Any) -> dict[str, Any]:
    """Return the parts of a graph or a batch: the name of its class, and the items of its stores.

    The parts do not contain texts, such as names of nodes.

    Args:
        graph: the graph.

    Raises:
        AssumptionError: the object is not a graph.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from layergraph_data.graphs import flatten_graph
        >>> flatten_graph(Data(x=torch.ones(1)))
        {'class': 'Data', 'stores': {'': {'x': tensor([1.])}}, 'batch': {}}
    """
    cls = classes().get(type(graph).__name__)
    if type(graph) is not cls:
        raise AssumptionError(
            f"a {type(graph).__name__} is not a graph of torch_geometric; pass one"
        )
    stores = {key: _parts(store._mapping) for key, store in _stores(graph).items()}
    held = {name: getattr(graph, name) for name in _OF_BATCHES if name in _held(graph)}
    return {"class": cls.__name__, "stores": stores, "batch": _parts(held)}


def unflatten_graph(parts: dict[str, Any], into: Any = None) -> Any:
    """Return a graph made of parts.

    Args:
        parts: the result of :func:`flatten_graph`, with each count in a tuple.
        into: a graph to change; None to make a new one.

    Raises:
        AssumptionError: the parts do not describe a graph, or ``into`` is of another class.
    """
    cls = classes().get(parts["class"])
    if cls is None or not (into is None or type(into) is cls):
        raise AssumptionError(f"the parts of a {parts['class']} do not fit a {type(into).__name__}")
    if into is None:
        into = cls() if cls in (sys.modules[_HOME].Data, sys.modules[_HOME].HeteroData) else None
        into = sys.modules[_HOME].Batch(_base_cls=_base(cls)) if into is None else into
    known = _stores(into)
    for key in known.keys() - parts["stores"].keys():
        _drop(into, key)
    for key, held in parts["stores"].items():
        store = known[key] if key in known else _new(into, key)
        _set(store._mapping, held)
    for name, value in parts["batch"].items():
        if name not in _OF_BATCHES:
            raise AssumptionError(f"a {cls.__name__} has no part {name!r}")
        _first(into).__dict__[name] = _value(name, value)
    return into


def _base(cls: Any) -> Any:
    return next(each for each in cls.__mro__ if each.__name__ in ("Data", "HeteroData"))


def _is_hetero(graph: Any) -> bool:
    return "_node_store_dict" in vars(graph)


def _first(graph: Any) -> Any:
    return vars(graph)["_global_store" if _is_hetero(graph) else "_store"]


def _stores(graph: Any) -> dict[Any, Any]:
    if not _is_hetero(graph):
        return {"": _first(graph)}
    held = vars(graph)
    return {"": _first(graph), **held["_node_store_dict"], **held["_edge_store_dict"]}


def _new(graph: Any, key: Any) -> Any:
    if not _is_hetero(graph):
        raise AssumptionError(f"a {type(graph).__name__} has no part {key!r}")
    return graph[key]


def _drop(graph: Any, key: Any) -> None:
    home = "_edge_store_dict" if isinstance(key, tuple) else "_node_store_dict"
    vars(graph)[home].pop(key, None)


def _held(graph: Any) -> Mapping[str, Any]:
    held: Mapping[str, Any] = _first(graph).__dict__
    return held


def _is_text(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_text, value))
    return isinstance(value, str)


def _parts(held: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: _part(name, value) for name, value in held.items() if not _is_text(value)}


def _part(name: Any, value: Any) -> Any:
    if name in _COUNTS and value is not None and not isinstance(value, torch.Tensor):
        return torch.Size([value])
    return dict(value) if name in _OF_BATCHES and isinstance(value, Mapping) else value


def _value(name: Any, part: Any) -> Any:
    return part[0] if name in _COUNTS and isinstance(part, tuple) else part


def _set(held: dict[Any, Any], parts: Mapping[Any, Any]) -> None:
    gone = [name for name, value in held.items() if name not in parts and not _is_text(value)]
    for name in gone:
        del held[name]
    held.update({name: _value(name, part) for name, part in parts.items()})
