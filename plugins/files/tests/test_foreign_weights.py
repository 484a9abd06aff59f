"""Weights in files of other programs: ``load_model(path, weights=…, keys=…)``."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError, FileError, StateError
from layergraph.testing import bitwise_equal


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))


@pytest.fixture
def structure(model, tmp_path):
    lg.save(lg.to_ir(model), tmp_path / "structure.json")
    return tmp_path / "structure.json"


@pytest.fixture
def folder(model, tmp_path):
    """Return a folder like those of Hugging Face: shards and an index, without a structure."""
    folder = tmp_path / "weights"
    folder.mkdir()
    tensors = {f"net.{key}": each for key, each in model.state_dict().items()}
    homes = {}
    for number, names in enumerate((list(tensors)[::2], list(tensors)[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file)
        homes |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 1}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _key(name):
    return name.removeprefix("net.")


@pytest.mark.parametrize("place", [".", "model.safetensors.index.json"])
@pytest.mark.parametrize("as_function", [True, False])
def test_shards_with_an_index(model, structure, folder, place, as_function):
    names = {f"net.{key}": key for key in model.state_dict()}
    keys = _key if as_function else names
    again = lg.load_model(structure, weights=folder / place, keys=keys)
    assert list(again.state_dict()) == list(model.state_dict())
    for one, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert bitwise_equal(one, other)
    x = torch.randn(3, 4)
    for training in (True, False):
        assert bitwise_equal(again.train(training)(x), model.train(training)(x))


def test_weights_beside_those_of_the_file_itself(model, tmp_path):
    lg.save(lg.to_ir(model), tmp_path / "model.safetensors", model.state_dict())
    save_file(
        {key: each * 2 for key, each in model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    again = lg.load_model(tmp_path / "model.safetensors", weights=tmp_path / "w.safetensors")
    assert bitwise_equal(again[0].weight.detach(), model[0].weight.detach() * 2)


def test_dtypes_are_those_of_the_structure(model, structure, tmp_path):
    save_file(
        {key: each.double() for key, each in model.state_dict().items() if "num" not in key}
        | {"1.num_batches_tracked": torch.tensor(3)},
        tmp_path / "w.safetensors",
    )
    again = lg.load_model(structure, weights=tmp_path / "w.safetensors")
    assert again[0].weight.dtype is torch.float32
    assert bitwise_equal(again[0].weight, model[0].weight)


def test_refusals(model, structure, folder, tmp_path):
    with pytest.raises(StateError, match=r"structure\.json: .*'0\.weight' is missing"):
        lg.load_model(structure, weights=folder)
    with pytest.raises(StateError, match=r"'0\.bias' is missing"):
        lg.load_model(
            structure, weights=folder, keys=lambda n: None if n == "net.0.bias" else _key(n)
        )
    with pytest.raises(ArgumentError, match=r"maps both 'net.* to 'x'"):
        lg.load_model(structure, weights=folder, keys=lambda _: "x")
    with pytest.raises(ArgumentError, match="to 5; map"):
        lg.load_model(structure, weights=folder, keys=lambda _: 5)
    with pytest.raises(ArgumentError, match="keys is a int"):
        lg.load_model(structure, weights=folder, keys=5)
    with pytest.raises(FileError, match="it holds no weights"):
        lg.load_model(structure, weights=structure)
    with pytest.raises(StateError, match="name a file that has them with weights=…"):
        lg.load_model(structure)
    with pytest.raises(ArgumentError, match="a int stands where the path belongs"):
        lg.load_model(structure, weights=5)
