"""Example inputs for the models of transformers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal
from zoo import all_entries
from zoo.difference import differences

ENTRIES = {
    each.name.removeprefix("transformers/"): each
    for each in all_entries()
    if each.name.startswith("transformers/")
}
# The shapes of the inputs of each model: all branches of the code for inputs, and all families of
# the zoo.
TEXT = {"input_ids": (2, 8)}
GIVEN = {
    "BertModel": TEXT,
    "GPT2LMHeadModel": TEXT,
    "LlamaForCausalLM": TEXT,
    "MixtralForCausalLM": TEXT,
    "MambaModel": TEXT,
    "T5EncoderModel": TEXT,
    "T5ForConditionalGeneration": {**TEXT, "decoder_input_ids": (2, 8)},
    "BartForSequenceClassification": {**TEXT, "decoder_input_ids": (2, 8)},
    "ViTModel": {"pixel_values": (2, 3, 32, 32)},
    "ResNetModel": {"pixel_values": (2, 3, 64, 64)},
    "YolosModel": {"pixel_values": (2, 3, 32, 32)},
    "VideoMAEModel": {"pixel_values": (2, 4, 3, 32, 32)},
    "Wav2Vec2Model": {"input_values": (2, 400)},
    "MoonshineModel": {"input_values": (2, 6400), "decoder_input_ids": (2, 8)},
    "ASTModel": {"input_values": (2, 32, 16)},
    "WhisperModel": {"input_features": (2, 16, 32), "decoder_input_ids": (2, 8)},
    "Speech2TextForConditionalGeneration": {
        "input_features": (2, 80, 16),
        "decoder_input_ids": (2, 8),
    },
    "CLIPModel": {**TEXT, "pixel_values": (2, 3, 32, 32)},
    "GitForCausalLM": {**TEXT, "pixel_values": (2, 3, 32, 32)},
    "SamModel": {"pixel_values": (2, 3, 32, 32)},
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(model, args, kwargs):
    torch.manual_seed(0)
    with torch.no_grad():
        return model(*args, **kwargs)


@pytest.mark.parametrize("name", GIVEN)
def test_a_model_is_captured_on_them(name):
    model = ENTRIES[name].model()
    args, kwargs = lg.example_inputs(model)
    assert args == ()
    assert {key: tuple(each.shape) for key, each in kwargs.items()} == GIVEN[name]
    expected = run(model, args, kwargs)
    ir = lg.to_ir(model, args, kwargs, values="assume")
    rebuilt = run(lg.to_torch(ir, model.state_dict()), args, kwargs)
    assert not [each for each in differences(expected, rebuilt) if each.counts]


def test_every_family_of_the_zoo_is_among_them():
    families = {each.family for each in ENTRIES.values()}
    assert {ENTRIES[name].family for name in GIVEN} == families


def test_they_are_the_same_each_time_and_draw_nothing():
    model = ENTRIES["ViTModel"].model()
    state = torch.get_rng_state()
    _, one = lg.example_inputs(model)
    _, other = lg.example_inputs(model)
    assert bitwise_equal(one["pixel_values"], other["pixel_values"])
    assert bitwise_equal(torch.get_rng_state(), state)


def test_they_are_where_the_model_is_and_of_its_dtype():
    model = ENTRIES["CLIPModel"].model().to("meta").double()
    _, kwargs = lg.example_inputs(model)
    assert kwargs["pixel_values"].dtype is torch.float64
    assert kwargs["input_ids"].dtype is torch.int64
    assert all(each.is_meta for each in kwargs.values())


def test_tokens_mean_nothing_but_the_last():
    model = ENTRIES["BartForSequenceClassification"].model()
    _, kwargs = lg.example_inputs(model)
    tokens, config = kwargs["input_ids"], model.config
    assert not torch.isin(tokens, torch.tensor([config.pad_token_id, config.bos_token_id])).any()
    assert (tokens == config.eos_token_id).nonzero().tolist() == [[0, 7], [1, 7]]


@pytest.mark.parametrize(
    "make", [ENTRIES["LlavaForConditionalGeneration"].model, lambda: nn.Linear(1, 1)]
)
def test_of_others_none_are_known(make):
    with pytest.raises(CaptureError, match="no plugin knows example inputs"):
        lg.example_inputs(make())


def test_transformers_is_not_imported_for_models_of_others():
    code = (
        "import sys, layergraph as lg; from torch import nn; lg.to_ir(nn.ReLU())\n"
        "try: lg.example_inputs(nn.ReLU())\n"
        "except lg.errors.CaptureError: pass\n"
        "assert 'layergraph_transformers' in sys.modules\n"
        "sys.exit('transformers' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
