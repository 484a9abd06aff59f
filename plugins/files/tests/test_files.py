"""Models in files: a load returns the saved model, and a failed save leaves no files behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, FileError, InvalidIrError, StateError
from layergraph.ir import Implementation, Ir
from layergraph.testing import bitwise_equal
from layergraph_files import save as saving
from layergraph_files.document import from_document, to_document
from layergraph_files.versions import current

HERE = Path(__file__).parent


class Everything(nn.Module):
    """Has ties, constants, buffers of both kinds, odd dtypes, strides and frozen parameters."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm1d(4)
        self.norm.eval()
        self.scale = nn.Parameter(torch.randn(4), requires_grad=False)
        self.nothing = nn.Parameter(torch.randn(0, 3))
        self.register_buffer("hidden", torch.arange(4.0), persistent=False)
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("wide", torch.randn(3, dtype=torch.complex128))
        self.register_buffer("narrow", torch.randn(5).to(torch.float8_e4m3fn))
        self.constant = torch.linspace(0, 1, 4, dtype=torch.float64)

    def forward(self, x):
        y = self.norm(self.second(self.first(x))) + self.hidden
        picture = x[:1, None, None, :].expand(1, 2, 4, 4)
        extras = self.wide * 2, self.narrow.float(), self.nothing
        return y * self.constant * self.scale + self.steps, self.conv(picture), extras


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Everything()


@pytest.fixture(scope="module")
def ir(model):
    return lg.to_ir(model, (torch.randn(2, 4),))


def _flat(value):
    return [leaf for each in value for leaf in _flat(each)] if type(value) is tuple else [value]


def _bits(tensor):
    return (
        tensor.dtype,
        tuple(tensor.shape),
        bytes(tensor.detach().contiguous().view(-1).view(torch.uint8).tolist()),
    )


def _assert_alike(model, loaded):
    one, other = model.state_dict(keep_vars=True), loaded.state_dict(keep_vars=True)
    assert list(one) == list(other)
    for key, tensor in one.items():
        assert _bits(tensor) == _bits(other[key]), key
        assert tensor.stride() == other[key].stride(), key
        assert tensor.requires_grad == other[key].requires_grad, key
        assert type(tensor) is type(other[key]), key
    ties = [
        [[key for key, each in state.items() if each is tensor] for tensor in state.values()]
        for state in (one, other)
    ]
    assert ties[0] == ties[1]
    modes = [{name: each.training for name, each in m.named_modules()} for m in (model, loaded)]
    assert modes[0] == modes[1]


def _assert_same_outputs(model, loaded, *inputs):
    torch.manual_seed(1)
    wanted = _flat(model(*inputs))
    torch.manual_seed(1)
    for one, other in zip(wanted, _flat(loaded(*inputs)), strict=True):
        assert _bits(one) == _bits(other)


@pytest.mark.parametrize("max_shard_size", [None, 60, "1KB", "5GB"])
def test_model_comes_back(tmp_path, model, ir, max_shard_size):
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict(), max_shard_size=max_shard_size)
    for each in (path, tmp_path):
        assert lg.load(each) == ir
        loaded = lg.load_model(each)
        _assert_alike(model, loaded)
        _assert_same_outputs(model, loaded, torch.randn(3, 4))


def test_text_comes_back(tmp_path, ir):
    path = tmp_path / "model.json"
    lg.save(ir, path)
    assert lg.load(path) == ir
    assert lg.load(tmp_path) == ir
    lines = path.read_text().splitlines()
    assert sum('"type": "function"' in line for line in lines) == sum(
        node.type == "function" for each in ir.values() for node in each.nodes.values()
    )
    before = path.read_bytes()
    lg.save(lg.load(path), path)
    assert path.read_bytes() == before


def test_a_change_of_a_node_changes_its_line(tmp_path, ir):
    texts = []
    for bias in (True, False):
        form = ir.to_dict()
        form["first"]["bias"] = bias
        lg.save(Ir.from_dict(form), tmp_path / "model.json")
        texts.append((tmp_path / "model.json").read_text().splitlines())
    assert sum(one != other for one, other in zip(*texts, strict=True)) == 1


def test_other_readers_find_the_weights(tmp_path, model, ir):
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    found = safetensors.torch.load_file(path)
    values = {name for name in found if name.startswith(".value.")}
    assert len(values) == 2
    for key, tensor in model.state_dict().items():
        if key not in ("wide", "second.weight"):
            assert _bits(found[key]) == _bits(tensor), key
    assert found.keys() - values == model.state_dict().keys() - {"second.weight"}
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["layergraph"])["format"] == "layergraph"


def test_shards_are_those_of_others(tmp_path, model, ir):
    lg.save(ir, tmp_path / "model.safetensors", model.state_dict(), max_shard_size=200)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    names = sorted(set(index["weight_map"].values()))
    count = len(names)
    assert count > 2
    end = f"{count:05}-{index['metadata']['layergraph_save'][:12]}.safetensors"
    assert names == [f"model-{n + 1:05}-of-{end}" for n in range(count)]
    total = 0
    for name in names:
        tensors = safetensors.torch.load_file(tmp_path / name)
        assert {index["weight_map"][key] for key in tensors} == {name}
        total += sum(each.nbytes for each in tensors.values())
    assert index["metadata"]["total_size"] == total
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        [*names, "model.safetensors.index.json"]
    )


def test_tensors_lie_where_they_can_be_computed_with(tmp_path):
    model = nn.ModuleList([nn.Linear(3, 5), nn.Linear(16, 64).half(), nn.Linear(7, 3).double()])
    ir = lg.to_ir(_Calling(model))
    lg.save(ir, tmp_path / "m.safetensors", _Calling(model).state_dict())
    for key, tensor in lg.load_model(tmp_path / "m.safetensors").state_dict().items():
        assert tensor.data_ptr() % tensor.itemsize == 0
        if tensor.nbytes % 64 == 0:
            assert tensor.data_ptr() % 64 == 0, key


class _Calling(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return [each(x) for each in self.inner]


def test_weights_of_other_programs_may_lie_anywhere(tmp_path):
    model = nn.Linear(3, 1)
    ir = lg.to_ir(model)
    text = saving.compact(to_document(ir, {}))
    header = {
        "__metadata__": {"layergraph": text},
        "bias": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
        "weight": {"dtype": "F32", "shape": [1, 3], "data_offsets": [2, 14]},
    }
    head = json.dumps(header).encode()
    bias = torch.tensor([0.5], dtype=torch.float16)
    data = bytes(bias.view(torch.uint8).tolist()) + bytes(
        model.weight.detach().flatten().view(torch.uint8).tolist()
    )
    (tmp_path / "m.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    loaded = lg.load_model(tmp_path / "m.safetensors")
    assert _bits(loaded.weight) == _bits(model.weight)
    assert _bits(loaded.bias) == _bits(bias.float())
    assert loaded.weight.data_ptr() % 4 == 0


def test_dtype_is_as_asked(tmp_path, model, ir):
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    loaded = lg.load_model(path, dtype=torch.bfloat16)
    wanted = lg.to_torch(ir, model.state_dict())
    wide = wanted.wide
    wanted = wanted.to(torch.bfloat16)
    wanted.wide = wide  # torch would drop the imaginary part
    for (name, one), (other_name, other) in zip(
        [*wanted.named_parameters(), *wanted.named_buffers()],
        [*loaded.named_parameters(), *loaded.named_buffers()],
        strict=True,
    ):
        assert (name, _bits(one)) == (other_name, _bits(other))
    assert loaded.first.weight is loaded.second.weight
    assert dict(loaded.named_buffers())["_constant_0"].dtype is torch.float64
    with pytest.raises(StateError, match="not a floating-point dtype"):
        lg.load_model(path, dtype=torch.int8)


def test_state_of_another_dtype_is_written_as_the_structure_says(tmp_path):
    model = nn.Linear(2, 2)
    path = tmp_path / "m.safetensors"
    lg.save(lg.to_ir(model), path, {key: each.double() for key, each in model.state_dict().items()})
    assert safetensors.torch.load_file(path)["weight"].dtype is torch.float32
    _assert_alike(model, lg.load_model(path))


def test_device_is_as_asked(tmp_path, model, ir):
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    loaded = lg.load_model(path, device="meta")
    assert {each.device.type for each in loaded.state_dict().values()} == {"meta"}
    with pytest.raises(BuildError, match="nowhere"):
        lg.load_model(path, device="nowhere")


def test_a_loaded_model_is_a_model_like_any_other(tmp_path, model, ir):
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    before = path.read_bytes()
    loaded = lg.load_model(path)
    loaded.load_state_dict(lg.to_torch(ir).state_dict())
    assert loaded.first.weight is loaded.second.weight
    x = torch.randn(3, 4, requires_grad=True)
    sum(each.sum() for each in _flat(loaded(x))[:2]).backward()
    torch.optim.SGD(loaded.parameters(), 0.1).step()
    assert path.read_bytes() == before
    lg.save(ir, path, loaded.state_dict())  # over the file from which it is mapped
    _assert_alike(loaded, lg.load_model(path))


def test_without_weights_there_is_no_model(tmp_path, ir):
    for name in ("m.safetensors", "m.json"):
        lg.save(ir, tmp_path / name)
        assert lg.load(tmp_path / name) == ir
        with pytest.raises(StateError, match="holds no weights"):
            lg.load_model(tmp_path / name)
    with pytest.raises(FileError, match="holds no weights"):
        lg.save(ir, tmp_path / "m.json", {})


def test_models_without_weights_need_none(tmp_path):
    for name in ("m.safetensors", "m.json"):
        lg.save(lg.to_ir(nn.ReLU()), tmp_path / name)
        assert type(lg.load_model(tmp_path / name)) is nn.ReLU


WRONG_STATES = {
    "missing": lambda state: state.pop("first.bias"),
    "superfluous": lambda state: state.update(more=torch.zeros(1)),
    "misshapen": lambda state: state.update({"first.bias": torch.zeros(5)}),
    "complex": lambda state: state.update({"first.bias": torch.zeros(4, dtype=torch.complex64)}),
    "a float for an int": lambda state: state.update(steps=torch.tensor(0.5)),
    "on meta": lambda state: state.update({"first.bias": torch.zeros(4, device="meta")}),
    "sparse": lambda state: state.update({"first.bias": torch.zeros(4).to_sparse()}),
    "no tensor": lambda state: state.update({"first.bias": [0.0] * 4}),
    "torn ties": lambda state: state.update({"second.weight": torch.zeros(4, 4)}),
}


@pytest.mark.parametrize("name", WRONG_STATES)
def test_wrong_weights_are_not_written(tmp_path, model, ir, name):
    state = dict(model.state_dict())
    WRONG_STATES[name](state)
    with pytest.raises(StateError):
        lg.save(ir, tmp_path / "m.safetensors", state)
    assert list(tmp_path.iterdir()) == []


def test_one_name_of_a_tied_tensor_is_enough(tmp_path, model, ir):
    for lacking in ("first.weight", "second.weight"):
        state = {key: each for key, each in model.state_dict().items() if key != lacking}
        lg.save(ir, tmp_path / "m.safetensors", state)
        _assert_alike(model, lg.load_model(tmp_path / "m.safetensors"))


def test_invalid_irs_are_not_written(tmp_path):
    broken = Ir([Implementation("", name="root")])
    for name in ("m.json", "m.safetensors"):
        with pytest.raises(InvalidIrError, match="type is empty"):
            lg.save(broken, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("max_shard_size", [None, 200])
def test_a_model_is_always_the_same_bytes(tmp_path, model, ir, max_shard_size):
    saves = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "model.safetensors"
        again = lg.to_ir(model, (torch.randn(2, 4),))
        lg.save(again, path, model.state_dict(), max_shard_size=max_shard_size)
        saves.append({each.name: each.read_bytes() for each in path.parent.iterdir()})
    assert saves[0] == saves[1]
    lg.save(ir, path, lg.load_model(path).state_dict(), max_shard_size=max_shard_size)
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == saves[0]


@pytest.mark.slow
def test_a_killed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.safetensors"
    lg.save(lg.to_ir(nn.Linear(2, 2)), path, nn.Linear(2, 2).state_dict())
    before = path.read_bytes()
    code = f"""
import os, torch, layergraph as lg
from layergraph_files import save
give = save.Item.give
def die(item, receive):
    give(item, receive); receive.__self__.flush(); os._exit(9)
save.Item.give = die
lg.save(lg.to_ir(torch.nn.Linear(3, 3)), {str(path)!r}, torch.nn.Linear(3, 3).state_dict())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert path.read_bytes() == before


# Saves that differ in the weights alone, or in the structure alone.
OTHER_SAVES = {
    "weights": lambda model: (nn.init.normal_(model[1].weight), None)[1],
    "structure": lambda model: model.train(not model.training),
}


@pytest.mark.parametrize("name", OTHER_SAVES)
def test_shards_of_two_saves_are_not_one_model(tmp_path, name):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    path = tmp_path / "m.safetensors"
    saves = []
    for _ in range(2):
        lg.save(lg.to_ir(model), path, model.state_dict(), max_shard_size=300)
        saves.append({each: each.read_bytes() for each in sorted(tmp_path.iterdir())})
        OTHER_SAVES[name](model)
    # The files of either save, one by one, with the names in both.
    files = list(zip(*saves, strict=True))
    assert len(files) > 2
    for count in range(1, 2 ** len(files) - 1):
        for number, names in enumerate(files):
            chosen = count >> number & 1
            for each in names:
                each.write_bytes(saves[chosen][names[chosen]])
        for read in (lg.load, lg.load_model):
            with pytest.raises(FileError, match="different saves"):
                read(path)


def test_structure_is_read_without_torch_and_weights(tmp_path, model, ir):
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict())
    code = (
        "import sys, layergraph as lg\n"
        f"print(len(lg.load({str(path)!r})))\n"
        "assert 'torch' not in sys.modules and 'layergraph.ir2torch' not in sys.modules"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert int(printed) == len(ir)


def test_first_version_is_read_for_good():
    ir = lg.load(HERE / "files" / "version-1.json")
    assert lg.load(HERE / "files" / "version-1.safetensors") == ir
    loaded = lg.load_model(HERE / "files" / "version-1.safetensors")
    x = torch.tensor([[1.0, -2.0]])
    assert loaded(x).tolist() == [[4.0, 0.0]]


def test_newer_versions_are_refused(tmp_path):
    path = tmp_path / "m.json"
    lg.save(lg.to_ir(nn.ReLU()), path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(FileError, match=r"m\.json, version: .* version 7; .*update"):
        lg.load(path)


def test_older_versions_are_migrated(monkeypatch):
    from layergraph_files import versions

    monkeypatch.setattr(versions, "VERSION", 3)
    steps = {
        1: lambda document: {"root": document["old"], **document},
        2: lambda document: {key: each for key, each in document.items() if key != "old"},
    }
    monkeypatch.setattr(versions, "MIGRATIONS", steps)
    old = {"format": "layergraph", "version": 1, "old": "root"}
    old["implementations"] = [{"name": "root", "type": "relu"}]
    assert from_document(current(old)).root == "root"
    assert current(old)["version"] == 3


class Alike(nn.Module):
    """Has equal layers with submodules, buffers and ties."""

    def __init__(self):
        super().__init__()
        self.first, self.second = [nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2)]
        self.norms = nn.ModuleList([nn.BatchNorm1d(5) for _ in range(3)])
        self.norms[2].weight = self.norms[0].weight

    def forward(self, x):
        x = self.second(self.first(x))
        for norm in self.norms:
            x = norm(x)
        return x


def test_to_save_weights_one_layer_is_made_of_those_made_alike(tmp_path, monkeypatch):
    model, x, made = Alike().eval(), torch.randn(2, 5, 8), []
    ir, state = lg.to_ir(model, (x,)), model.state_dict()
    for cls in (nn.TransformerEncoderLayer, nn.BatchNorm1d):

        def counted(*args, make=cls.__init__, **kwargs):
            made.append(1)
            make(*args, **kwargs)

        monkeypatch.setattr(cls, "__init__", counted)
    path = tmp_path / "alike.safetensors"
    lg.save(ir, path, state)
    # The last norm is tied to another tensor.
    assert len(made) == 3
    back = lg.load_model(path)
    assert bitwise_equal(back(x), model(x))
    assert back.norms[2].weight is back.norms[0].weight
    assert list(back.state_dict()) == list(state)
    for key in ("second.self_attn.in_proj_weight", "norms.1.running_var", "norms.2.bias"):
        with pytest.raises(StateError, match=key):
            lg.save(ir, path, state | {key: torch.zeros(3)})
        with pytest.raises(StateError, match=f"{key}.* is missing"):
            lg.save(ir, path, {name: each for name, each in state.items() if name != key})
