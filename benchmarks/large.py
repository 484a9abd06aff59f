"""Large models: many small layers, few large layers, and transformers of billions of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Feedforward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))


def many_small() -> nn.Module:
    """1.0 GB in 1536 tensors."""
    return nn.Sequential(*[Feedforward(360) for _ in range(256)])


def few_large() -> nn.Module:
    """1.1 GB in 48 tensors."""
    return nn.Sequential(*[Feedforward(2048) for _ in range(8)])


def few() -> nn.Module:
    """A quarter of ``few_large``, for quick runs."""
    return nn.Sequential(*[Feedforward(2048) for _ in range(2)])


def small() -> nn.Module:
    """A tiny model for warm-up."""
    return nn.Sequential(Feedforward(2))


def llama(layers: int, width: int, inner: int, heads: int, groups: int, words: int) -> nn.Module:
    """A Llama on the meta device, with its buffers on the CPU: they are computed, not loaded."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        vocab_size=words,
        use_cache=False,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def llama_70b() -> nn.Module:
    return llama(80, 8192, 28672, 64, 8, 128_256)


def llama_1b() -> nn.Module:
    """1.3 B parameters with random weights on the CPU, in bfloat16: 2.6 GB."""
    model = llama(24, 2048, 5504, 16, 16, 32_000)
    return _filled(model)


def llama_tenth() -> nn.Module:
    """0.1 B parameters, for quick runs."""
    return _filled(llama(8, 1024, 2752, 16, 16, 4_000))


def _filled(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                weight = torch.empty(parameter.shape, dtype=torch.bfloat16).normal_(std=0.02)
                module._parameters[name] = nn.Parameter(weight)
    return model


def text(device: str = "cpu") -> dict[str, Any]:
    """Return the inputs of a Llama."""
    positions = torch.arange(8, device=device)[None]
    mask = torch.zeros(1, 1, 8, 8, device=device)
    mask = mask if device == "meta" else mask.bfloat16()
    ids = torch.ones(1, 8, dtype=torch.long, device=device)
    return {"input_ids": ids, "position_ids": positions, "attention_mask": mask}


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "many small": (many_small, 360),
    "few large": (few_large, 2048),
    "few": (few, 2048),
}
