"""What a file says beyond ONNX: the structure, and the tensors that no graph reads."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import onnx_ir
import torch
from safetensors.torch import save as to_safetensors

from layergraph.ir import FUNCTION, Ir
from layergraph.functions import is_own
from layergraph.plugins import function_homes
from layergraph_files.document import to_document
from layergraph_files.text import compact

STRUCTURE = "layergraph.ir"
"""The metadata that holds the structure, in the form of a ``.json`` file."""

UNREAD = "layergraph.tensors"
"""The metadata that holds the tensors of the state dict that no graph reads, as safetensors."""

GUARDS = "layergraph.guards"
"""The metadata that lists what the original checks and the file does not, one in each line."""


def written_metadata(
    ir: Ir, state: Mapping[str, torch.Tensor], model: onnx_ir.Model, guards: tuple[str, ...]
) -> dict[str, str]:
    """Return the metadata of a model.

    Args:
        ir: the structure.
        state: the weights.
        model: the model, with the weights that its graphs read.
        guards: what the original checks, and the model does not.
    """
    return {}
