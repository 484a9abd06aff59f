"""Models of transformers with random weights, small enough to be made in an instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import transformers
from torch import nn

from zoo.entry import Entry, Inputs, Sizes

VOCABULARY = 64
PADDING, BEGINNING, END = range(3)
SPECIAL_TOKENS = 3

# Most configurations know these, by these names or by others that they map them to.
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "pad_token_id": PADDING,
    "bos_token_id": BEGINNING,
    "eos_token_id": END,
}
_PICTURE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}

Settings = Mapping[str, Any]


def entry(
    class_name: str,
    family: str,
    make_inputs: Callable[[int, int], Inputs],
    sizes: Sizes,
    settings: Settings,
) -> Entry:
    """The entry of a class of transformers with a configuration of these settings."""
    return Entry(
        name=f"transformers/{class_name}",
        family=f"transformers {family}",
        make=partial(_make, class_name, settings),
        make_inputs=make_inputs,
        sizes=sizes,
    )


def small_text(**settings: Any) -> dict[str, Any]:
    """The settings of a small model of text, with these besides or, for None, without them."""
    return {name: value for name, value in (_TEXT | settings).items() if value is not None}


def small_picture(**settings: Any) -> dict[str, Any]:
    """The settings of a small transformer of pictures, with these besides or instead."""
    return _PICTURE | settings


def _make(class_name: str, settings: Settings) -> nn.Module:
    model_class = getattr(transformers, class_name)
    model: nn.Module = model_class(model_class.config_class(**settings))
    return model
