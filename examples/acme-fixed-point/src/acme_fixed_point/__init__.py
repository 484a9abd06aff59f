"""Fixed-point arithmetic for models: observe, choose widths, rewrite, generate.

This module is the plugin. In it, layergraph finds the decorated layers, the wrappers, the
quantizers, the subcommand and the file format.
"""

from acme_fixed_point.command_line import commands
from acme_fixed_point.header import UnknownUnitError, c_header, formats
from acme_fixed_point.layers import FixedPointLinear, ObservedLinear
from acme_fixed_point.passes import passes
from acme_fixed_point.quantizers import Binarize, RoundToFixedPoint, Ternarize, functions
from acme_fixed_point.rewriting import to_fixed_point
from acme_fixed_point.widths import choose_widths, ir_to_torch, torch_to_ir

layergraph_hooks = 1

__all__ = [
    "Binarize",
    "FixedPointLinear",
    "ObservedLinear",
    "RoundToFixedPoint",
    "Ternarize",
    "UnknownUnitError",
    "c_header",
    "choose_widths",
    "commands",
    "formats",
    "functions",
    "ir_to_torch",
    "passes",
    "to_fixed_point",
    "torch_to_ir",
]
