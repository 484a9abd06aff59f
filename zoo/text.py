"""The models of text in transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zoo.entry import Entry, Inputs, Sizes
from zoo.inputs import padding, tokens
from zoo.tiny import END, Settings, entry, small_text

_SIZES = Sizes(length=12, other_length=17)

_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
_EXPERTS = {
    **_GROUPED,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}
_LATENT = {
    **_EXPERTS,
    "num_key_value_heads": 4,
    "head_dim": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_STATES = {
    "state_size": 8,
    "num_heads": 8,
    "head_dim": 8,
    "n_groups": 2,
    "chunk_size": 8,
    "expand": 2,
}
_TWO_STACKS = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_start_token_id": 2,
}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}

# The beginning of the names of a family's classes, their ends, and what the usual settings lack.
_Families = dict[str, tuple[str, Settings]]

_BIDIRECTIONAL: _Families = {
    "Albert": ("Model ForMaskedLM", {"embedding_size": 16}),
    "Bert": (
        "Model ForMaskedLM ForSequenceClassification ForQuestionAnswering ForPreTraining",
        {},
    ),
    "BigBird": ("Model", {"block_size": 4, "num_random_blocks": 1}),
    "Camembert": ("Model", {}),
    "Canine": ("Model", {"local_transformer_stride": 4, "num_hash_buckets": 16}),
    "ConvBert": ("Model ForMaskedLM", {"embedding_size": 32}),
    "Data2VecText": ("Model", {}),
    "Deberta": ("Model ForMaskedLM", _RELATIVE),
    "DebertaV2": ("Model ForMaskedLM ForSequenceClassification", _RELATIVE),
    "DistilBert": ("Model ForMaskedLM ForSequenceClassification", {}),
    "Electra": ("Model ForPreTraining", {"embedding_size": 16}),
    "Ernie": ("Model", {}),
    "Esm": ("Model ForMaskedLM", {"mask_token_id": 3, "position_embedding_type": "rotary"}),
    "FNet": ("Model ForMaskedLM", {}),
    "Flaubert": ("Model", {"emb_dim": 32, "n_layers": 2, "n_heads": 4}),
    "Funnel": (
        "Model BaseModel ForMaskedLM",
        {"num_hidden_layers": None, "block_sizes": [1, 1], "d_head": 8, "d_inner": 48},
    ),
    "IBert": ("Model", {}),
    "LayoutLM": ("Model", {}),
    "Longformer": ("Model ForMaskedLM", {"attention_window": 4}),
    "MPNet": ("Model ForMaskedLM", {}),
    "MegatronBert": ("Model", {}),
    "MobileBert": ("Model", {"embedding_size": 16, "intra_bottleneck_size": 16}),
    "ModernBert": ("Model ForMaskedLM", {"local_attention": 8, "cls_token_id": 1}),
    "RemBert": ("Model", {"input_embedding_size": 16, "output_embedding_size": 16}),
    "RoFormer": ("Model ForMaskedLM", {}),
    "Roberta": ("Model ForMaskedLM ForSequenceClassification ForTokenClassification", {}),
    "RobertaPreLayerNorm": ("Model", {}),
    "SqueezeBert": ("Model", {"embedding_size": 32}),
    "XLM": ("Model", {"emb_dim": 32, "n_layers": 2, "n_heads": 4}),
    "XLMRoberta": ("Model", {}),
    "XLNet": (
        "Model LMHeadModel ForSequenceClassification",
        {"max_position_embeddings": None, "d_head": 8, "d_inner": 48},
    ),
    "Yoso": ("Model", {}),
}

_CAUSAL: _Families = {
    "BioGpt": ("ForCausalLM", {}),
    "Bloom": ("Model ForCausalLM", {"n_layer": 2, "n_head": 4}),
    "CTRL": ("LMHeadModel", {"dff": 48}),
    "CodeGen": ("ForCausalLM", {"rotary_dim": 4}),
    "Cohere": ("Model ForCausalLM", _GROUPED),
    "Cohere2": ("ForCausalLM", _GROUPED),
    "DiffLlama": ("ForCausalLM", _GROUPED),
    "Exaone4": ("ForCausalLM", _GROUPED | {"sliding_window": 8}),
    "Falcon": ("Model ForCausalLM", {}),
    "GPT2": ("Model LMHeadModel ForSequenceClassification", {}),
    "GPTBigCode": ("ForCausalLM", {}),
    "GPTJ": ("Model ForCausalLM", {"rotary_dim": 4}),
    "GPTNeo": ("ForCausalLM", {"attention_types": [[["global", "local"], 1]], "window_size": 4}),
    "GPTNeoX": ("Model ForCausalLM", {}),
    "Gemma": ("Model ForCausalLM", _GROUPED),
    "Gemma2": ("Model ForCausalLM", _GROUPED | {"sliding_window": 8}),
    "Gemma3": ("ForCausalLM", _GROUPED | {"sliding_window": 8}),
    "Glm": ("ForCausalLM", _GROUPED),
    "Glm4": ("ForCausalLM", _GROUPED),
    "Granite": ("Model ForCausalLM", _GROUPED),
    "Helium": ("ForCausalLM", _GROUPED),
    "Llama": (
        "Model ForCausalLM ForSequenceClassification ForTokenClassification",
        _GROUPED,
    ),
    "Ministral": ("ForCausalLM", _GROUPED | {"sliding_window": 8}),
    "Mistral": ("Model ForCausalLM", _GROUPED | {"sliding_window": 8}),
    "Mpt": ("ForCausalLM", {}),
    "Nemotron": ("ForCausalLM", _GROUPED),
    "OPT": ("Model ForCausalLM", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Olmo": ("Model ForCausalLM", _GROUPED),
    "Olmo2": ("ForCausalLM", _GROUPED),
    "OpenAIGPT": ("Model LMHeadModel", {}),
    "Persimmon": ("ForCausalLM", {}),
    "Phi": ("Model ForCausalLM", {}),
    "Phi3": ("Model ForCausalLM", {"num_key_value_heads": 2}),
    "Qwen2": ("Model ForCausalLM ForSequenceClassification", _GROUPED),
    "Qwen3": ("Model ForCausalLM", _GROUPED),
    "SmolLM3": ("ForCausalLM", _GROUPED),
    "StableLm": ("Model ForCausalLM", _GROUPED),
    "Starcoder2": ("Model ForCausalLM", _GROUPED),
    "XGLM": ("ForCausalLM", {"ffn_dim": 48, "attention_heads": 4, "num_layers": 2}),
}

_OF_EXPERTS: _Families = {
    "Dbrx": (
        "ForCausalLM",
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 2,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 24, "hidden_size": 32, "moe_num_experts": 4},
        },
    ),
    "DeepseekV2": ("ForCausalLM", _LATENT),
    "DeepseekV3": ("ForCausalLM", _LATENT),
    "GptOss": ("ForCausalLM", _EXPERTS | {"sliding_window": 8}),
    "GraniteMoe": ("ForCausalLM", _EXPERTS),
    "Mixtral": ("Model ForCausalLM", _EXPERTS),
    "Olmoe": ("ForCausalLM", _EXPERTS),
    "Phimoe": ("ForCausalLM", _EXPERTS),
    "Qwen2Moe": ("ForCausalLM", _EXPERTS | {"shared_expert_intermediate_size": 24}),
    "Qwen3Moe": ("ForCausalLM", _EXPERTS),
}

_RECURRENT: _Families = {
    "Bamba": (
        "ForCausalLM",
        {
            "num_key_value_heads": 2,
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_n_groups": 2,
            "mamba_chunk_size": 8,
            "attn_layer_indices": [1],
        },
    ),
    "FalconMamba": ("ForCausalLM", {"state_size": 8}),
    "Jamba": (
        "ForCausalLM",
        _EXPERTS | {"mamba_d_state": 8, "attn_layer_offset": 1, "attn_layer_period": 2},
    ),
    "Lfm2": ("ForCausalLM", {"num_key_value_heads": 2, "full_attn_idxs": [1]}),
    "Mamba": ("Model ForCausalLM", {"state_size": 8}),
    "Mamba2": ("Model ForCausalLM", _STATES),
    "RecurrentGemma": (
        "ForCausalLM",
        {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8},
    ),
    "Rwkv": ("Model ForCausalLM", {"context_length": 64}),
}

_SEQUENCE_TO_SEQUENCE: _Families = {
    "BigBirdPegasus": ("Model", _TWO_STACKS | {"block_size": 4, "num_random_blocks": 1}),
    "Bart": (
        "Model ForConditionalGeneration ForSequenceClassification",
        _TWO_STACKS,
    ),
    "Blenderbot": ("ForConditionalGeneration", _TWO_STACKS),
    "BlenderbotSmall": ("ForConditionalGeneration", _TWO_STACKS),
    "LED": ("Model", _TWO_STACKS | {"attention_window": 4}),
    "LongT5": ("ForConditionalGeneration", _T5 | {"local_radius": 4}),
    "M2M100": ("ForConditionalGeneration", _TWO_STACKS),
    "MBart": ("Model ForConditionalGeneration", _TWO_STACKS),
    "MT5": ("Model ForConditionalGeneration", _T5),
    "Marian": ("Model MTModel", _TWO_STACKS),
    "Mvp": ("Model", _TWO_STACKS),
    "PLBart": ("Model", _TWO_STACKS),
    "Pegasus": ("Model ForConditionalGeneration", _TWO_STACKS),
    "PegasusX": ("Model", _TWO_STACKS | {"num_global_tokens": 4, "block_size": 4}),
    "ProphetNet": (
        "Model",
        {
            "num_hidden_layers": None,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
        },
    ),
    "SwitchTransformers": (
        "ForConditionalGeneration",
        _T5 | {"num_experts": 4, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    ),
    "T5": ("Model ForConditionalGeneration EncoderModel", _T5),
    "UMT5": ("ForConditionalGeneration", _T5),
}


def text_entries() -> list[Entry]:
    """An entry for each class named above."""
    return [
        *_entries("bidirectional", _BIDIRECTIONAL, _masked),
        *_entries("causal", _CAUSAL, _masked),
        *_entries("of experts", _OF_EXPERTS, _masked),
        *_entries("recurrent", _RECURRENT, _plain),
        *_entries("sequence to sequence", _SEQUENCE_TO_SEQUENCE, _two_texts),
    ]


def _entries(
    family: str, families: _Families, make_inputs: Callable[[int, int], Inputs]
) -> Iterator[Entry]:
    for beginning, (ends, settings) in families.items():
        for end in ends.split():
            given = make_inputs
            if end in ("ForCausalLM", "LMHeadModel"):
                given = _plain
            elif end == "EncoderModel":
                given = _masked
            elif end == "ForSequenceClassification" and make_inputs is _two_texts:
                given = _one_text_twice
            yield entry(beginning + end, family, given, _SIZES, small_text(**settings))


def _plain(batch: int, length: int) -> Inputs:
    return (), {"input_ids": tokens(batch, length)}


def _masked(batch: int, length: int) -> Inputs:
    mask = padding(batch, length)
    return (), {"input_ids": tokens(batch, length) * mask, "attention_mask": mask}


def _two_texts(batch: int, length: int) -> Inputs:
    _, first = _masked(batch, length)
    return (), {**first, "decoder_input_ids": tokens(batch, length // 2)}


def _one_text_twice(batch: int, length: int) -> Inputs:
    # The decoder is given what the encoder is; both look for where it ends.
    ids = tokens(batch, length)
    ids[:, -1] = END
    return (), {"input_ids": ids}
