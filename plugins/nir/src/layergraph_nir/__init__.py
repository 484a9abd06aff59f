"""Convert models to graphs of NIR, the Neuromorphic Intermediate Representation, and back.

``lg.save(ir, "m.nir", state, args=…)``, ``lg.load("m.nir")`` and ``lg.load_model("m.nir")`` work on
files; :func:`to_nir` and :func:`from_nir` work on graphs in memory. torch and nir are imported on
first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from layergraph.hook_types.formats import Format
from layergraph.hookspecs import hookimpl

if TYPE_CHECKING:
    from layergraph_nir.graph import UnsupportedError
    from layergraph_nir.modules import reset
    from layergraph_nir.reading import from_nir
    from layergraph_nir.writing import to_nir

__all__ = ["UnsupportedError", "from_nir", "reset", "to_nir"]

_HOMES = {
    "UnsupportedError": "graph",
    "from_nir": "reading",
    "reset": "modules",
    "to_nir": "writing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


# The other hooks are in the module `layers`, because this module must work without torch.


@hookimpl
def formats() -> list[Format]:
    """List the format ``.nir``."""
    return [Format(".nir", "NIR, for spiking networks", _write, _read, _build)]


def _write(ir: Any, path: Any, state_dict: Any = None, **options: Any) -> None:
    importlib.import_module(f"{__name__}.files").save(ir, path, state_dict, **options)


def _read(path: Any, **options: Any) -> Any:
    return importlib.import_module(f"{__name__}.files").load(path, **options)


def _build(path: Any, **options: Any) -> Any:
    return importlib.import_module(f"{__name__}.files").load_model(path, **options)
