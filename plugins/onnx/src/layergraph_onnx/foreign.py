"""Files that other programs wrote: an IR of layers for the operators that are layers."""

from __future__ import annotations

import onnx
import torch

from layergraph.ir import Ir
from layergraph_files.parse_errors import ParseError


def from_foreign(
    model: onnx.ModelProto, tensors: dict[str, torch.Tensor]
) -> tuple[Ir, dict[str, torch.Tensor]]:
    """Return the structure of a model that another program wrote, and its state dict."""
    raise ParseError(None, "another program wrote it", "save the model with layergraph")
