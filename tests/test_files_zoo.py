"""Models of libraries, through files: the same structure, the same weights, the same outputs."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

import layergraph as lg
from layergraph.testing import bitwise_equal
from zoo import all_entries
from zoo.run import prepare

pytestmark = pytest.mark.slow

NAMES = [
    "torchvision/resnet18",
    "torchvision/swin_t",
    "torchvision/googlenet",
    "transformers/BertModel",
    "transformers/GPT2LMHeadModel",
    "transformers/LlamaForCausalLM",
    "transformers/T5ForConditionalGeneration",
    "transformers/MambaForCausalLM",
]
ENTRIES = {entry.name: entry for entry in all_entries()}


@pytest.mark.parametrize("name", NAMES)
def test_model_comes_back_from_a_file(tmp_path, name):
    prepare()
    entry = ENTRIES[name]
    model = entry.model()
    args, kwargs = entry.inputs(entry.sizes.batch, entry.sizes.length, 1)
    ir = lg.to_ir(model, args, kwargs, values="assume")
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    lg.save(ir, tmp_path / "model.json")
    assert lg.load(path) == lg.load(tmp_path / "model.json") == ir
    wanted = lg.to_torch(ir, model.state_dict())
    loaded = lg.load_model(path)
    size = sum(each.nbytes for each in model.state_dict().values())
    lg.save(ir, path, model.state_dict(), max_shard_size=size // 3)
    for each in (loaded, lg.load_model(path.with_name("model.safetensors.index.json"))):
        state = each.state_dict(keep_vars=True)
        first = {}
        ties = {key: first.setdefault(id(tensor), key) for key, tensor in state.items()}
        for key, tensor in wanted.state_dict(keep_vars=True).items():
            assert bitwise_equal(tensor, state[key]), key
            assert tensor.dtype is state[key].dtype, key
            assert tensor.requires_grad == state[key].requires_grad, key
            assert tensor.stride() == state[key].stride(), key
        again = wanted.state_dict(keep_vars=True)
        first = {}
        assert ties == {key: first.setdefault(id(tensor), key) for key, tensor in again.items()}
        assert list(state) == list(model.state_dict())
        found, rebuilt, original = (_outputs(m, args, kwargs) for m in (each, wanted, model))
        assert len(found) == len(rebuilt) > 0
        assert all(map(bitwise_equal, found, rebuilt))
        # The rebuilt model returns dicts instead of objects of libraries, which may hold more.
        assert bitwise_equal(found[0], original[0])


def _outputs(model, args, kwargs):
    torch.manual_seed(0)
    return [each for each in pytree.tree_leaves(model(*args, **kwargs)) if torch.is_tensor(each)]
