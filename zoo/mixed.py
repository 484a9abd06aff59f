"""The models in transformers that take a picture and something besides."""

from __future__ import annotations

import torch

from zoo.entry import Entry, Inputs, Sizes
from zoo.inputs import padding, pictures, tokens
from zoo.tiny import END, entry, small_picture, small_text

_IMAGE_TOKEN = 63

_SIDE_BY_SIDE = Sizes(length=8, other_length=11)
_INSIDE = Sizes(length=32, other_length=48)

_OF_TWO_TOWERS = (
    "AltCLIPModel BlipForConditionalGeneration BlipModel CLIPModel ChineseCLIPModel OwlViTModel "
    "SiglipModel"
)
_TWO_TOWERS = {
    "text_config": small_text(projection_dim=16, max_position_embeddings=16),
    "vision_config": small_picture(projection_dim=16),
    "projection_dim": 16,
}
_SPEAKING = {
    "text_config": small_text(model_type="llama"),
    "vision_config": small_picture(model_type="clip_vision_model", projection_dim=16),
}


def mixed_entries() -> list[Entry]:
    """An entry for each class named here."""
    return [
        *(
            entry(name, "pictures and text", _picture_and_text, _SIDE_BY_SIDE, _TWO_TOWERS)
            for name in _OF_TWO_TOWERS.split()
        ),
        entry(
            "CLIPSegForImageSegmentation",
            "pictures and text",
            _picture_and_text,
            _SIDE_BY_SIDE,
            _TWO_TOWERS
            | {"extract_layers": [0, 1], "reduce_dim": 16, "decoder_intermediate_size": 24},
        ),
        entry(
            "GitForCausalLM",
            "pictures and text",
            _picture_and_text,
            _SIDE_BY_SIDE,
            small_text(vision_config=small_picture()),
        ),
        entry(
            "ViltModel",
            "pictures and text",
            _picture_and_text,
            _SIDE_BY_SIDE,
            small_text(image_size=32, patch_size=8, max_image_length=-1),
        ),
        entry(
            "LlavaForConditionalGeneration",
            "pictures and text",
            _picture_inside_text,
            _SIDE_BY_SIDE,
            _SPEAKING | {"image_token_index": _IMAGE_TOKEN, "image_seq_length": 16},
        ),
        entry(
            "SamModel",
            "pictures and points",
            _picture_and_points,
            _INSIDE,
            {
                "vision_config": small_picture(
                    output_channels=16, num_pos_feats=8, global_attn_indexes=[1], window_size=2
                ),
                "prompt_encoder_config": {"hidden_size": 16, "image_size": 32, "patch_size": 8},
                "mask_decoder_config": {
                    "hidden_size": 16,
                    "mlp_dim": 24,
                    "num_attention_heads": 2,
                    "iou_head_hidden_dim": 16,
                },
            },
        ),
    ]


def _picture_and_text(batch: int, length: int) -> Inputs:
    mask = padding(batch, length)
    ids = tokens(batch, length)
    ids[:, -1] = END
    return (), {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "pixel_values": pictures(batch, 32),
    }


def _picture_inside_text(batch: int, length: int) -> Inputs:
    ids = tokens(batch, length + 16).clamp(max=_IMAGE_TOKEN - 1)
    ids[:, 2:18] = _IMAGE_TOKEN
    return (), {"input_ids": ids, "pixel_values": pictures(batch, 32)}


def _picture_and_points(batch: int, length: int) -> Inputs:
    return (), {
        "pixel_values": pictures(batch, length),
        "input_points": torch.rand(batch, 1, 2, 2) * length,
        "input_labels": torch.ones(batch, 1, 2, dtype=torch.long),
    }
