"""From PyTorch to IR: index the modules, record their calls, fold the calls into graphs."""

from layergraph.ir import Implementation
from layergraph.torch2ir.converter import Torch2Ir, get_default_converter

__all__ = ["Implementation", "Torch2Ir", "get_default_converter"]
