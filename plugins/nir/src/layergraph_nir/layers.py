"""The hooks ``layers`` and ``lowerings``."""

from __future__ import annotations

import importlib

from layergraph.hook_types.lowerings import Lowering
from layergraph.hookspecs import hookimpl
from layergraph.layers import Layer
from layergraph_nir.modules import PRIMITIVES, Feedback


@hookimpl
def layers() -> list[Layer]:
    """List the modules for the primitives of NIR that torch lacks."""
    rows = [Layer(cls, type=kind, always=["shape"]) for kind, cls in PRIMITIVES.items()]
    return [*rows, Layer(Feedback, type="nir_feedback")]


@hookimpl
def lowerings() -> list[Lowering]:
    """List the handlers of the target ``nir``."""
    homes = ("snntorch_neurons", "torch_layers")
    return [row for home in homes for row in importlib.import_module(f"layergraph_nir.{home}").ROWS]
