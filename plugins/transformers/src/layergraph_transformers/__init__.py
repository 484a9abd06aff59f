"""Example inputs for the models of transformers. This plugin does not import transformers."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from layergraph import hookimpl


@hookimpl(trylast=True)
def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Give texts, images, videos or audio to the models of transformers."""
    library = sys.modules.get("transformers.modeling_utils")
    if library is None or not isinstance(model, library.PreTrainedModel):
        return None
    from .inputs import inputs_of

    kwargs = inputs_of(model)
    return None if kwargs is None else ((), kwargs)
