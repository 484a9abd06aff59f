"""Graphs of PyTorch Geometric and tensordicts, as arguments and results of models.

This plugin imports neither library. It lists the classes of a library that the program has
imported.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable

from layergraph import Structure, hookimpl


@hookimpl
def functions() -> Collection[str]:
    """List the functions that take these objects apart and make them."""
    return [
        f"{__name__}.{home}.{name}"
        for home, names in (
            ("graphs", ("flatten_graph", "unflatten_graph")),
            ("tensordicts", ("flatten_tensordict", "unflatten_tensordict")),
        )
        for name in names
    ]


@hookimpl
def structures() -> Iterable[Structure]:
    """List the classes of the libraries that the program has imported."""
    found = []
    if "torch_geometric.data" in sys.modules:
        from .graphs import classes, flatten_graph, unflatten_graph

        found += [
            Structure(each, flatten_graph, unflatten_graph, has_items=False)
            for each in classes().values()
        ]
    library = sys.modules.get("tensordict")
    if library is not None and hasattr(library, "TensorDict"):
        from .tensordicts import flatten_tensordict, unflatten_tensordict

        row = library.TensorDict, flatten_tensordict, unflatten_tensordict
        found.append(Structure(*row, has_items=False))
    return found
