"""From IR to PyTorch: build the modules, children first, and load their state."""

from layergraph.ir import Implementation
from layergraph.ir2torch.converter import Ir2Torch, get_default_converter

__all__ = ["Implementation", "Ir2Torch", "get_default_converter"]
