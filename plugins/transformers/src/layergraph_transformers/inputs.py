"""Example inputs for a model, from the name of its main input and its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

_BATCH = 2
_LENGTH = 8
_SIDE = 64
_HOPS = 20  # the length of audio, in steps that become one vector each

# Any, because type checkers do not know that all models have these attributes.
_Model = Any
_Inputs = dict[str, torch.Tensor]


def inputs_of(model: _Model) -> _Inputs | None:
    """Return arguments by name for a model of transformers; None if they are unknown."""
    taken = inspect.signature(model.forward).parameters
    # Only the model's processor knows the number of image tokens in a text.
    if any(hasattr(model.config, name) for name in ("image_token_id", "image_token_index")):
        return None
    make = _MAIN.get(model.main_input_name)
    if make is None or model.main_input_name not in taken:
        return None
    inputs = {model.main_input_name: make(model)}
    if "input_ids" in taken and "pixel_values" in taken and _sees(model):
        inputs = {"input_ids": _tokens(model), "pixel_values": _pictures(model)}
    if "decoder_input_ids" in taken:
        # The length of the text, because some models compare the two lengths.
        inputs["decoder_input_ids"] = _tokens(model)
    return inputs


def _sees(model: _Model) -> bool:
    config = model.config
    return hasattr(config, "vision_config") or getattr(config, "image_size", None) is not None


def _tokens(model: _Model) -> torch.Tensor:
    """Return texts of one length, without special tokens except the end token."""
    config = model.config.get_text_config()
    special = {
        value
        for name, value in vars(config).items()
        if name.endswith("token_id") and isinstance(value, int)
    }
    words = [each for each in range(config.vocab_size) if each not in special]
    tokens = torch.tensor(words or [0]).repeat(_BATCH * _LENGTH)[: _BATCH * _LENGTH]
    tokens = tokens.reshape(_BATCH, _LENGTH).to(model.device)
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int):
        tokens[:, -1] = end
    return tokens


def _pictures(model: _Model) -> torch.Tensor:
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "image_size", None) or _SIDE
    if isinstance(size, dict):
        size = [size["height"], size["width"]]
    height, width = (size, size) if isinstance(size, int) else size
    shape = [getattr(config, "num_channels", 3), height, width]
    frames = getattr(config, "num_frames", None)
    return _numbers(model, *([] if frames is None else [frames]), *shape)


def _waves(model: _Model) -> torch.Tensor:
    config = model.config
    if hasattr(config, "num_mel_bins") and hasattr(config, "time_stride"):
        return _numbers(model, config.max_length, config.num_mel_bins)
    ratio = getattr(config, "inputs_to_logits_ratio", 320)
    return _numbers(model, _HOPS * (ratio() if callable(ratio) else ratio))


def _spectra(model: _Model) -> torch.Tensor | None:
    config = model.config
    if hasattr(config, "max_source_positions") and hasattr(config, "num_mel_bins"):
        return _numbers(model, config.num_mel_bins, 2 * config.max_source_positions)
    return _numbers(model, 4 * _HOPS, config.input_feat_per_channel * config.input_channels)


def _numbers(model: _Model, *shape: int) -> torch.Tensor:
    """Return numbers from -1 to 1; neighbours differ."""
    size = torch.Size([_BATCH, *shape])
    numbers = torch.arange(size.numel(), device=model.device) * 0.7
    return numbers.sin().reshape(size).to(model.dtype)


_MAIN: dict[str, Callable[[_Model], Any]] = {
    "input_ids": _tokens,
    "pixel_values": _pictures,
    "input_values": _waves,
    "input_features": _spectra,
}
