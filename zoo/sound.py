"""The models of sound in transformers."""

from __future__ import annotations

from collections.abc import Callable

import torch

from zoo.entry import Entry, Inputs, Sizes
from zoo.inputs import tokens
from zoo.tiny import Settings, entry, small_text

_WAVE = Sizes(length=1600, other_length=2100)
_SPECTRUM = Sizes(length=32, other_length=48)
_MELS = 16

_LISTENER = small_text(
    conv_dim=[16, 16, 16],
    conv_kernel=[10, 3, 3],
    conv_stride=[5, 2, 2],
    num_feat_extract_layers=3,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2,
)
_TWO_STACKS = small_text(
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=48,
    decoder_ffn_dim=48,
    decoder_start_token_id=2,
)
_SPEAKER = _LISTENER | _TWO_STACKS | {"num_mel_bins": _MELS, "speech_decoder_prenet_units": 16}


def sound_entries() -> list[Entry]:
    """An entry for each class named here."""
    return [
        *_entries("Hubert", "Model ForCTC", _wave, _WAVE, _LISTENER),
        *_entries("SEW", "Model", _wave, _WAVE, _LISTENER | {"squeeze_factor": 2}),
        *_entries("SEWD", "Model", _wave, _WAVE, _LISTENER | {"squeeze_factor": 2}),
        *_entries("UniSpeech", "Model", _wave, _WAVE, _LISTENER),
        *_entries("UniSpeechSat", "Model", _wave, _WAVE, _LISTENER),
        *_entries("Wav2Vec2", "Model ForCTC ForSequenceClassification", _wave, _WAVE, _LISTENER),
        *_entries("Wav2Vec2Conformer", "Model", _wave, _WAVE, _LISTENER),
        *_entries("WavLM", "Model", _wave, _WAVE, _LISTENER),
        *_entries("SpeechT5", "ForSpeechToText", _wave_and_tokens, _WAVE, _SPEAKER),
        *_entries(
            "Moonshine",
            "Model ForConditionalGeneration",
            _wave_and_tokens,
            _WAVE,
            small_text(
                encoder_num_hidden_layers=2,
                decoder_num_hidden_layers=2,
                encoder_num_attention_heads=4,
                decoder_num_attention_heads=4,
            ),
        ),
        *_entries(
            "Speech2Text",
            "ForConditionalGeneration",
            _frames_and_tokens,
            _SPECTRUM,
            _TWO_STACKS | {"input_feat_per_channel": _MELS, "conv_channels": 32},
        ),
        *_entries(
            "AST",
            "Model",
            _frames,
            _SPECTRUM,
            small_text(patch_size=8, max_length=32, num_mel_bins=_MELS),
        ),
        *_entries(
            "Whisper",
            "Model ForConditionalGeneration ForAudioClassification",
            _spectrum_and_tokens,
            _SPECTRUM,
            _TWO_STACKS
            | {"num_mel_bins": _MELS, "max_source_positions": 16, "max_target_positions": 32},
        ),
    ]


def _entries(
    beginning: str,
    ends: str,
    make_inputs: Callable[[int, int], Inputs],
    sizes: Sizes,
    settings: Settings,
) -> list[Entry]:
    return [
        entry(
            beginning + end,
            "sound",
            _spectrum if end == "ForAudioClassification" else make_inputs,
            sizes,
            settings,
        )
        for end in ends.split()
    ]


def _wave(batch: int, length: int) -> Inputs:
    return (), {"input_values": torch.randn(batch, length)}


def _wave_and_tokens(batch: int, length: int) -> Inputs:
    return (), {
        "input_values": torch.randn(batch, length),
        "decoder_input_ids": tokens(batch, 6),
    }


def _frames(batch: int, length: int) -> Inputs:
    return (), {"input_values": torch.randn(batch, length, _MELS)}


def _frames_and_tokens(batch: int, length: int) -> Inputs:
    return (), {
        "input_features": torch.randn(batch, length, _MELS),
        "decoder_input_ids": tokens(batch, 6),
    }


def _spectrum(batch: int, length: int) -> Inputs:
    return (), {"input_features": torch.randn(batch, _MELS, length)}


def _spectrum_and_tokens(batch: int, length: int) -> Inputs:
    _, features = _spectrum(batch, length)
    return (), {**features, "decoder_input_ids": tokens(batch, 6)}
