"""The models of pictures and videos in transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from zoo.entry import Entry, Inputs, Sizes
from zoo.inputs import pictures
from zoo.tiny import Settings, entry, small_picture

_PATCHES = Sizes(length=32, other_length=48)
_PYRAMID = Sizes(length=64, other_length=96)

_Families = dict[str, tuple[str, Settings]]

_PLAIN: _Families = {
    "Beit": (
        "Model ForImageClassification",
        small_picture(use_relative_position_bias=True, layer_scale_init_value=0.1),
    ),
    "Data2VecVision": ("Model", small_picture()),
    "DeiT": ("Model ForImageClassification", small_picture()),
    "Dinov2": ("Model ForImageClassification", small_picture()),
    "Dinov2WithRegisters": ("Model", small_picture(num_register_tokens=2)),
    "DINOv3ViT": ("Model", small_picture(num_register_tokens=2)),
    "IJepa": ("Model", small_picture()),
    "ViT": ("Model ForImageClassification", small_picture()),
    "ViTMSN": ("Model", small_picture()),
    "Yolos": (
        "Model ForObjectDetection",
        small_picture(image_size=[32, 32], num_detection_tokens=4),
    ),
}

# Batch normalization in evaluation mode does not mend weights that are too small to matter.
_LARGE_WEIGHTS = {"initializer_range": 0.3}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
_WINDOWS = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
_RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "layer_type": "basic",
    "out_features": ["stage4"],
    **_STAGES,
}

_STAGED: _Families = {
    "Bit": ("Model", _STAGES | {"embedding_size": 8, "num_groups": 4}),
    "ConvNext": ("Model ForImageClassification", _STAGES),
    "ConvNextV2": ("Model", _STAGES),
    "DPT": (
        "ForDepthEstimation",
        small_picture(
            image_size=64,
            num_hidden_layers=4,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=16,
        ),
    ),
    "Detr": (
        "Model ForObjectDetection",
        {
            "backbone_config": _RESNET,
            "d_model": 32,
            "num_queries": 5,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
        },
    ),
    "EfficientNet": (
        "Model",
        _LARGE_WEIGHTS | {"width_coefficient": 0.25, "depth_coefficient": 0.4, "hidden_dim": 320},
    ),
    "FocalNet": (
        "Model",
        {"image_size": 64, "embed_dim": 8, "hidden_sizes": [8, 16, 32, 32], "depths": [1, 1, 2, 1]},
    ),
    "GLPN": (
        "ForDepthEstimation",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 40, 32], "decoder_hidden_size": 16},
    ),
    "Levit": (
        "Model",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 48],
            "num_attention_heads": [2, 2, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    "MobileNetV1": ("Model", _LARGE_WEIGHTS | {"depth_multiplier": 0.25}),
    "MobileNetV2": ("Model", _LARGE_WEIGHTS | {"depth_multiplier": 0.25}),
    "MobileViT": (
        "Model ForImageClassification ForSemanticSegmentation",
        {
            **_LARGE_WEIGHTS,
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48],
            "aspp_out_channels": 16,
        },
    ),
    "MobileViTV2": ("Model", _LARGE_WEIGHTS | {"image_size": 64, "width_multiplier": 0.25}),
    "PoolFormer": ("Model", _STAGES),
    "Pvt": ("Model", _STAGES | {"image_size": 64, "num_attention_heads": [1, 2, 2, 4]}),
    "PvtV2": ("Model", _STAGES | {"image_size": 64, "num_attention_heads": [1, 2, 2, 4]}),
    "RegNet": ("Model", _STAGES | {"embedding_size": 8, "groups_width": 4}),
    "ResNet": ("Model ForImageClassification", _STAGES | {"embedding_size": 8}),
    "Segformer": (
        "Model ForSemanticSegmentation",
        _STAGES | {"num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 16},
    ),
    "SwiftFormer": ("Model", {"depths": [1, 1, 2, 1], "embed_dims": [8, 16, 24, 32]}),
    "Swin": ("Model ForImageClassification", _WINDOWS),
    "Swin2SR": (
        "Model ForImageSuperResolution",
        _WINDOWS | {"image_size": 32, "patch_size": 1},
    ),
    "Swinv2": ("Model", _WINDOWS),
    "VitDet": ("Model", small_picture(window_size=2, window_block_indices=[0])),
}

_VIDEO: _Families = {
    "Timesformer": ("Model", small_picture(num_frames=4)),
    "VideoMAE": ("Model", small_picture(num_frames=4)),
    "Vivit": ("Model", small_picture(num_frames=4, tubelet_size=[2, 8, 8])),
}


def picture_entries() -> list[Entry]:
    """An entry for each class named above."""
    return [
        *_entries(_PLAIN, _pictures, _PATCHES),
        *_entries(_STAGED, _pictures, _PYRAMID),
        *_entries(_VIDEO, _videos, _PATCHES),
    ]


def _entries(
    families: _Families, make_inputs: Callable[[int, int], Inputs], sizes: Sizes
) -> Iterator[Entry]:
    for beginning, (ends, settings) in families.items():
        for end in ends.split():
            yield entry(beginning + end, "pictures", make_inputs, sizes, settings)


def _pictures(batch: int, length: int) -> Inputs:
    return (), {"pixel_values": pictures(batch, length)}


def _videos(batch: int, length: int) -> Inputs:
    return (), {"pixel_values": torch.randn(batch, 4, 3, length, length)}
