"""layergraph turns PyTorch models into an intermediate representation, and back into modules.

``import layergraph`` does not import torch: names that need it are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from layergraph.elsewhere import imported, is_installed
from layergraph.ir import Edge, Implementation, Ir, Node, Ref, Symbol

if TYPE_CHECKING:
    __version__: str
    from layergraph.api import to_ir, to_torch
    from layergraph.hook_types.declining import decline
    from layergraph.hook_types.factories import Factory
    from layergraph.hook_types.formats import Format
    from layergraph.hook_types.lowerings import Lowering
    from layergraph.hook_types.passes import Pass
    from layergraph.hook_types.structures import Structure
    from layergraph.hook_types.wrapping import Unwrapped
    from layergraph.hookspecs import hookimpl
    from layergraph.inputs import example_inputs
    from layergraph.layers import layer
    from layergraph.tensors.kinds import TensorKind
    from layergraph_distributed.plans import annotate_plan
    from layergraph_files.api import load, load_model, save
    from layergraph_files.limits import Limits
    from layergraph_index.fingerprint import fingerprint
    from layergraph_rewrite.edit import edit
    from layergraph_rewrite.extract import extract
    from layergraph_rewrite.passes import run_passes
    from layergraph_rewrite.rules import Rule, find_matches, rewrite, rule
    from layergraph_shapes import annotate_shapes, cost, shapes
    from layergraph_source.writer import to_source
    from layergraph_tools.difference import diff
    from layergraph_tools.explain import explain
    from layergraph_tools.preflight import preflight
    from layergraph_tools.verification import verify
    from layergraph_view.api import view

__all__ = [
    "Edge",
    "Factory",
    "Format",
    "Implementation",
    "Ir",
    "Limits",
    "Lowering",
    "Node",
    "Pass",
    "Ref",
    "Rule",
    "Structure",
    "Symbol",
    "TensorKind",
    "Unwrapped",
    "annotate_plan",
    "annotate_shapes",
    "cost",
    "decline",
    "diff",
    "edit",
    "example_inputs",
    "explain",
    "extract",
    "find_matches",
    "fingerprint",
    "hookimpl",
    "layer",
    "load",
    "load_model",
    "preflight",
    "rewrite",
    "rule",
    "run_passes",
    "save",
    "shapes",
    "to_ir",
    "to_source",
    "to_torch",
    "verify",
    "view",
]

# The module of each name that is imported on first use. Some belong to other distributions.
_HOMES = {
    "Factory": "layergraph.hook_types.factories",
    "Format": "layergraph.hook_types.formats",
    "Limits": "layergraph_files.limits",
    "Lowering": "layergraph.hook_types.lowerings",
    "Pass": "layergraph.hook_types.passes",
    "Rule": "layergraph_rewrite.rules",
    "Structure": "layergraph.hook_types.structures",
    "TensorKind": "layergraph.tensors.kinds",
    "Unwrapped": "layergraph.hook_types.wrapping",
    "annotate_plan": "layergraph_distributed",
    "annotate_shapes": "layergraph_shapes",
    "cost": "layergraph_shapes",
    "decline": "layergraph.hook_types.declining",
    "diff": "layergraph_tools.difference",
    "edit": "layergraph_rewrite.edit",
    "example_inputs": "layergraph.inputs",
    "explain": "layergraph_tools.explain",
    "extract": "layergraph_rewrite.extract",
    "find_matches": "layergraph_rewrite.rules",
    "fingerprint": "layergraph_index.fingerprint",
    "hookimpl": "layergraph.hookspecs",
    "layer": "layergraph.layers",
    "load": "layergraph_files.api",
    "load_model": "layergraph_files.api",
    "preflight": "layergraph_tools.preflight",
    "rewrite": "layergraph_rewrite.rules",
    "rule": "layergraph_rewrite.rules",
    "run_passes": "layergraph_rewrite.passes",
    "save": "layergraph_files.api",
    "shapes": "layergraph_shapes",
    "to_ir": "layergraph.api",
    "to_source": "layergraph_source",
    "to_torch": "layergraph.api",
    "verify": "layergraph_tools.verification",
    "view": "layergraph_view.api",
}

# ``import *`` and ``dir`` leave out the names of distributions that are not installed.
for _name, _home in _HOMES.items():
    if not is_installed(_home):
        __all__.remove(_name)  # noqa: PYI056 type checkers see all names


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib_metadata").version("layergraph-core")
    if name not in _HOMES:
        raise AttributeError(f"module 'layergraph' has no attribute {name!r}")
    return imported(_HOMES[name], name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
