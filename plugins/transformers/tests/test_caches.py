"""Decoders of transformers with their caches: one IR for the prompt and for each further token."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import DynamicCache, StaticCache

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph_transformers.caches import flatten_cache, unflatten_cache

COMMON = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SHARED = {**COMMON, "num_key_value_heads": 1}
DECODERS: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "Llama": SHARED,
    "Qwen2": SHARED,
    "Qwen3": {**SHARED, "head_dim": 8},
    "Gemma": {**SHARED, "head_dim": 8},
    "Gemma2": {**SHARED, "head_dim": 8, "sliding_window": 6},
    "OPT": {
        "vocab_size": 64,
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
        "max_position_embeddings": 64,
    },
    "GPTNeoX": COMMON,
    "Falcon": {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "Phi": COMMON,
    "Mistral": {**SHARED, "sliding_window": 6},
}
# The model branches if the prompt or the cache fills the window.
PROMPTS = {"Mistral": (4, 5, 9), "Gemma2": (4, 5, 9)}
TEXT = torch.randint(1, 64, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _without_gradients():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@functools.cache
def decoder(name: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**DECODERS[name])
    config.pad_token_id = 0
    kinds = [f"{name}ForCausalLM", f"{name}LMHeadModel"]
    cls = next(getattr(transformers, kind) for kind in kinds if hasattr(transformers, kind))
    return cls(config).eval()


@functools.cache
def captured(name: str) -> lg.Ir:
    model = decoder(name)
    prompts = [TEXT[:, :length] for length in PROMPTS.get(name, (5,))]
    examples: list[Any] = []
    for prompt in prompts:
        with torch.no_grad():
            cache = model(prompt, use_cache=True).cache
        examples.append(((prompt,), {"use_cache": True}))
        examples.append(((TEXT[:, :1],), {"past_key_values": cache, "use_cache": True}))
    return lg.to_ir(model, examples=examples)


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    assert len(one.layers) == len(other.layers)
    for mine, theirs in zip(one.layers, other.layers, strict=True):
        assert type(mine) is type(theirs)
        assert vars(mine).keys() == vars(theirs).keys()
        for name, value in vars(mine).items():
            there = vars(theirs)[name]
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, there)
            else:
                assert (type(value), value) == (type(there), there)


def steps(model: Any, again: nn.Module, batch: int, length: int, *, count: int = 5) -> None:
    """Compare a prompt, and tokens one by one."""
    tokens = torch.randint(1, 64, (batch, length), generator=torch.Generator().manual_seed(length))
    expected, got = model(tokens, use_cache=True), again(tokens, use_cache=True)
    for _ in range(count):
        assert torch.equal(expected.logits, got["logits"])
        assert_same(expected.cache, got["cache"])
        tokens, given = expected.logits[:, -1:].argmax(-1), got["cache"]
        more = {"past_key_values": expected.cache, "use_cache": True}
        expected = model(tokens, **more)
        got = again(tokens, past_key_values=given, use_cache=True)
        assert got["cache"] is given


@pytest.mark.parametrize("name", DECODERS)
def test_prompt_and_tokens_are_the_same_bits(name: str) -> None:
    model = decoder(name)
    again = lg.to_torch(captured(name), model.state_dict())
    for batch in (1, 3):
        for length in (2, 5, 9):
            steps(model, again, batch, length)


def test_through_a_file(tmp_path: Path) -> None:
    model = decoder("Llama")
    lg.save(captured("Llama"), tmp_path / "llama.safetensors", model.state_dict())
    steps(model, lg.load_model(tmp_path / "llama.safetensors"), 3, 7)


def test_a_prompt_of_one_token_is_an_example_of_its_own() -> None:
    model = decoder("Llama")
    again = lg.to_torch(captured("Llama"), model.state_dict())
    with pytest.raises(AssumptionError, match="q_length > 1"):
        again(TEXT[:, :1], use_cache=True)
    cache = model(TEXT[:, :5], use_cache=True).cache
    calls: list[Any] = [((TEXT[:, :n],), {"use_cache": True}) for n in (1, 5)]
    calls.append(((TEXT[:, :1],), {"past_key_values": cache, "use_cache": True}))
    again = lg.to_torch(lg.to_ir(model, examples=calls), model.state_dict())
    for length in (1, 5, 9):
        steps(model, again, 1, length)
        steps(model, again, 3, length)


def test_a_cache_alone() -> None:
    model = decoder("Qwen2")
    given = model(TEXT, use_cache=True).cache
    before = flatten_cache(copy.deepcopy(given))
    ir = lg.to_ir(model, (TEXT[:, :1],), {"cache": given, "use_cache": True})
    assert_same(given, unflatten_cache({**before, "layers": flatten_cache(given)["layers"]}))
    again = lg.to_torch(ir, model.state_dict())
    mine, theirs = (model(TEXT[:, :4], use_cache=True).cache for _ in range(2))
    for token in range(4):
        expected = model(TEXT[:, token : token + 1], cache=mine, use_cache=True)
        got = again(TEXT[:, token : token + 1], cache=theirs, use_cache=True)
        assert torch.equal(expected.logits, got["logits"])
    assert got["cache"] is theirs
    assert_same(mine, theirs)


class Legacy(nn.Module):
    """A model whose cache is a tuple of tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = decoder("Llama")

    def forward(self, ids: torch.Tensor, past: Any = None) -> Any:
        cache = DynamicCache(past) if past is not None else None
        out = self.inner(ids, cache=cache, use_cache=True)
        return out.logits, tuple((each.keys, each.values) for each in out.cache.layers)


def test_a_cache_of_tuples() -> None:
    model = Legacy()
    past = model(TEXT[:, :5])[1]
    ir = lg.to_ir(model, examples=[((TEXT[:, :5],), {}), ((TEXT[:, :1], past), {})])
    again = lg.to_torch(ir, model.state_dict())
    expected, got = model(TEXT[:, :7]), again(TEXT[:, :7])
    for _ in range(3):
        expected, got = model(TEXT[:, :1], expected[1]), again(TEXT[:, :1], got[1])
        assert torch.equal(expected[0], got[0])
        assert all(map(torch.equal, sum(expected[1], ()), sum(got[1], ())))


# --- generate ---


class Inner(nn.Module):
    """The rebuilt model, with results of the class of the original."""

    def __init__(self, rebuilt: nn.Module, results: type) -> None:
        super().__init__()
        self.rebuilt = rebuilt
        self.results = results

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.results(**self.rebuilt(*args, **kwargs))


def generated(model: Any, length: int, mask: Any = None) -> Any:
    given = {} if mask is None else {"attention_mask": mask}
    tokens = torch.randint(1, 64, (2, length), generator=torch.Generator().manual_seed(length))
    return model.generate(
        tokens,
        do_sample=False,
        max_new_tokens=5,
        output_logits=True,
        return_dict_in_generate=True,
        **given,
    )


def padded(length: int) -> torch.Tensor:
    mask = torch.ones(2, length).long()
    mask[0, :2] = 0
    return mask


@pytest.mark.parametrize("name", ["GPT2", "Llama", "Qwen2", "Gemma2", "GPTNeoX"])
def test_generate(name: str) -> None:
    model = copy.deepcopy(decoder(name))
    place = model.base_model_prefix
    inner = getattr(model, place)
    calls: list[Any] = []
    results: list[type] = []
    with (
        inner.register_forward_pre_hook(
            lambda _, args, kwargs: calls.append(copy.deepcopy((args, kwargs))), with_kwargs=True
        ),
        inner.register_forward_hook(lambda _module, _args, out: results.append(type(out))),
    ):
        for length in PROMPTS.get(name, (5,)):
            for mask in (padded(length), None):
                generated(model, length, mask)
    # Keep the prompt and the first further token of each text.
    calls = [each for n, each in enumerate(calls) if n % 5 < 2]
    rebuilt = lg.to_torch(lg.to_ir(inner, examples=calls), inner.state_dict())
    for length in (5, 8):
        for mask in (padded(length), None):
            setattr(model, place, inner)
            expected = generated(model, length, mask)
            setattr(model, place, Inner(rebuilt, results[0]))
            got = generated(model, length, mask)
            assert torch.equal(expected.sequences, got.sequences)
            assert all(map(torch.equal, expected.logits, got.logits))
            assert_same(expected.cache, got.cache)


# --- parts ---


@pytest.mark.parametrize("name", ["Llama", "Gemma2"])
def test_a_cache_is_what_its_parts_are(name: str) -> None:
    model = decoder(name)
    for cache in (DynamicCache(), DynamicCache(config=model.config), model(TEXT).cache):
        made = unflatten_cache(flatten_cache(cache))
        assert_same(cache, made)
        assert vars(cache).keys() == vars(made).keys()


def test_a_cache_keeps_its_layers_and_what_the_caller_noted() -> None:
    one, other = (decoder("Llama")(TEXT[:, :n]).cache for n in (3, 5))
    layers, one._is_user_defined = list(one.layers), True
    assert unflatten_cache(flatten_cache(other), one) is one
    assert_same(one, other)
    assert one._is_user_defined
    assert all(mine is before for mine, before in zip(one.layers, layers, strict=True))


@pytest.mark.parametrize(
    "parts",
    [
        {"class": "os.system"},
        {"class": "Iterable"},
        {"class": "PreTrainedConfig"},
        {"class": None},
        {},
        {"class": "DynamicCache", "update": 1},
        {"class": "DynamicCache", "layers": [{"class": "torch"}]},
        {"class": "DynamicCache", "layer_class_to_replicate": "PreTrainedConfig"},
    ],
)
def test_parts_make_caches_only(parts: dict[str, Any]) -> None:
    with pytest.raises(AssumptionError, match=r"has no cache|is a method"):
        unflatten_cache(parts)


def test_only_caches_get_parts() -> None:
    parts = flatten_cache(DynamicCache())
    with pytest.raises(AssumptionError, match="a Linear gets the parts of a DynamicCache"):
        unflatten_cache(parts, nn.Linear(1, 1))
    with pytest.raises(CaptureError, match="a Linear is not a cache"):
        flatten_cache(nn.Linear(1, 1))


def test_a_cache_with_other_objects_is_refused_by_name() -> None:
    cache = decoder("Llama")(TEXT).cache
    cache.stream = object()
    with pytest.raises(CaptureError, match="a DynamicCache whose 'stream' is a object"):
        lg.to_ir(decoder("Llama"), (TEXT[:, :1],), {"cache": cache})


def test_a_cache_of_another_class_fits_no_example() -> None:
    model = decoder("Llama")
    again = lg.to_torch(captured("Llama"), model.state_dict())
    cache = StaticCache(config=model.config, max_cache_len=16)
    with pytest.raises(AssumptionError, match="past_key_values=not given; past_key_values=a Dyn"):
        again(TEXT, past_key_values=cache, use_cache=True)


def test_a_cache_of_fixed_length() -> None:
    model = decoder("Llama")

    def cache() -> Any:
        return StaticCache(config=model.config, max_cache_len=16)

    filled = cache()
    model(TEXT, cache=filled)
    calls = [((), {"input_ids": TEXT, "cache": each}) for each in (cache(), filled)]
    calls[1][1]["input_ids"] = TEXT[:, :1]
    again = lg.to_torch(lg.to_ir(model, examples=calls), model.state_dict())
    mine, theirs = cache(), cache()
    for tokens in (TEXT[:, :4], TEXT[:, :1], TEXT[:, 1:2]):
        expected, got = model(tokens, cache=mine), again(tokens, cache=theirs)
        assert torch.equal(expected.logits, got["logits"])
        assert_same(mine, theirs)


def test_verify_compares_caches() -> None:
    model = decoder("Llama")
    cache = model(TEXT, use_cache=True).cache
    report = lg.verify(model, (TEXT[:, :1],), {"cache": cache, "use_cache": True})
    assert not [each for each in report.checks if each.status == "failed"]
    assert cache.get_seq_length() == TEXT.shape[1]


def test_an_encoder_and_a_decoder() -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )
    config.decoder_start_token_id = 0
    model = transformers.T5ForConditionalGeneration(config).eval()

    def call(text: torch.Tensor, tokens: torch.Tensor, cache: Any = None) -> dict[str, Any]:
        states = (model.encoder(text)[0],)
        given = {} if cache is None else {"cache": cache}
        return {"encoder_outputs": states, "decoder_input_ids": tokens, "use_cache": True, **given}

    first = call(TEXT, TEXT[:, :3])
    further = call(TEXT, TEXT[:, :1], model(**first).cache)
    ir = lg.to_ir(model, examples=[((), first), ((), further)])
    again = lg.to_torch(ir, model.state_dict())
    text = TEXT[:1, :7]
    expected, got = (each(**call(text, text[:, :4])) for each in (model, again))
    for step in range(3):
        assert torch.equal(expected.logits, got["logits"])
        token = text[:, step : step + 1]
        expected = model(**call(text, token, expected.cache))
        got = again(**call(text, token, got["cache"]))
    assert type(got["cache"]) is type(expected.cache)
