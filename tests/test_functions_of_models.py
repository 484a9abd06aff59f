"""Files can hold all functions that well-known models call."""

from __future__ import annotations

import pytest
import torch

import layergraph as lg
from layergraph.testing import bitwise_equal


def _vision(name, size=64):
    models = pytest.importorskip("torchvision.models")
    return getattr(models, name)(weights=None).eval(), (torch.randn(1, 3, size, size),), {}


def _text(name, **config):
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    sizes |= {"n_layer": 1, "n_embd": 16, "n_head": 2, "num_layers": 1, "d_model": 16}
    made = getattr(transformers, f"{name}Config")(vocab_size=50, **sizes | config)
    given = {"input_ids": torch.randint(0, 50, (1, 5))}
    return getattr(transformers, f"{name}Model")(made).eval(), None, given


MODELS = {
    "resnet18": lambda: _vision("resnet18"),
    "mobilenet_v3_small": lambda: _vision("mobilenet_v3_small"),
    "shufflenet_v2_x0_5": lambda: _vision("shufflenet_v2_x0_5"),
    "swin_t": lambda: _vision("swin_t"),
    "convnext_tiny": lambda: _vision("convnext_tiny"),
    "Bert": lambda: _text("Bert", intermediate_size=16),
    "Bloom": lambda: _text("Bloom"),
    "GPT2": lambda: _text("GPT2"),
    "DistilBert": lambda: _text("DistilBert", dim=16, hidden_dim=16, n_heads=2),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_saved_and_loaded(tmp_path, name):
    torch.manual_seed(0)
    model, args, kwargs = MODELS[name]()
    ir = lg.to_ir(model, args, kwargs)
    path = tmp_path / "m.json"
    lg.save(ir, path)
    assert lg.load(path) == ir


def test_the_functions_with_own_gradients_are_there():
    pytest.importorskip("transformers")
    from layergraph.functions.names import Targets
    from layergraph_transformers import functions

    names = [name for name in functions() if name.startswith("transformers.")]
    known = Targets(names)
    assert names
    assert all(known.target(name) is not None for name in names)


def test_a_model_with_own_gradients_computes_them_from_a_file(tmp_path):
    model, _, kwargs = _text("Bloom")
    path = tmp_path / "m.safetensors"
    lg.save(lg.to_ir(model, None, kwargs), path, model.state_dict())
    loaded = lg.load_model(path)
    found = []
    for each in (model, loaded):
        each(**kwargs)["last_hidden_state"].pow(2).sum().backward()
        found.append([one.grad for one in each.parameters()])
    assert bitwise_equal(*found)
