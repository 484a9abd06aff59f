"""layergraph turns PyTorch models into an intermediate representation, and back into modules.

``import layergraph.ir`` needs no PyTorch; everything that does is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from layergraph.ir import Edge, Implementation, Ir, Node, Ref, Symbol

if TYPE_CHECKING:
    __version__: str
    from layergraph.convert import to_ir, to_torch
    from layergraph.declining import decline
    from layergraph.difference import diff
    from layergraph.explaining import explain
    from layergraph.files.limits import Limits
    from layergraph.files.load import load, load_model
    from layergraph.files.save import save
    from layergraph.hookspecs import hookimpl
    from layergraph.inputs import example_inputs
    from layergraph.inspection import preflight
    from layergraph.layers import layer
    from layergraph.verification import verify

__all__ = [
    "Edge",
    "Implementation",
    "Ir",
    "Limits",
    "Node",
    "Ref",
    "Symbol",
    "decline",
    "diff",
    "example_inputs",
    "explain",
    "hookimpl",
    "layer",
    "load",
    "load_model",
    "preflight",
    "save",
    "to_ir",
    "to_torch",
    "verify",
]

_HOMES = {
    "Limits": "layergraph.files.limits",
    "decline": "layergraph.declining",
    "diff": "layergraph.difference",
    "example_inputs": "layergraph.inputs",
    "explain": "layergraph.explaining",
    "hookimpl": "layergraph.hookspecs",
    "layer": "layergraph.layers",
    "load": "layergraph.files.load",
    "load_model": "layergraph.files.load",
    "preflight": "layergraph.inspection",
    "save": "layergraph.files.save",
    "to_ir": "layergraph.convert",
    "to_torch": "layergraph.convert",
    "verify": "layergraph.verification",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("layergraph-core")
    if name not in _HOMES:
        raise AttributeError(f"module 'layergraph' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
