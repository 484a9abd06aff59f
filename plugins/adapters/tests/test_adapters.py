"""Models with adapters of PEFT: converted, merged, dropped, and saved without their base."""

from __future__ import annotations

import copy
import json

import peft
import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError, FileError, StateError
from layergraph.testing import bitwise_equal


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)).mean((2, 3)))


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return transformers.LlamaForCausalLM(config).eval()


MODELS = {
    "mlp": (Mlp, ["first", "second"], lambda: torch.randn(3, 8)),
    "llama": (llama, ["q_proj", "v_proj"], lambda: torch.randint(0, 64, (2, 9))),
}


def with_adapters(base, targets, form="one", **options):
    config = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=targets, **options)
    model = peft.get_peft_model(base, config)
    if form in ("two", "both"):
        model.add_adapter("other", peft.LoraConfig(r=2, target_modules=targets))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    if form == "both":
        model.base_model.set_adapter(["default", "other"])
    if form == "merged":
        model.merge_adapter()
    if form == "disabled":
        model.base_model.disable_adapter_layers()
    return model.eval()


def outputs(model, x):
    with torch.no_grad():
        found = model(x)
    return found if isinstance(found, torch.Tensor) else found["logits"]


FORMS = ["one", "two", "both", "merged", "disabled"]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("form", FORMS)
def test_adapters_are_layers(form, kind, tmp_path):
    make, targets, draw = MODELS[kind]
    model = with_adapters(make(), targets, form)
    ir = lg.to_ir(model, (draw(),))
    named = [name for name in ir if name.endswith(("lora_A.default", "lora_B.default"))]
    assert len(named) == {"mlp": 4, "llama": 8}[kind]
    assert {ir[name].type for name in named} == {"linear"}
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict())
    for again in (lg.to_torch(ir, model.state_dict()), lg.load_model(path)):
        x = draw()
        assert bitwise_equal(outputs(again, x), outputs(model, x))
        assert list(again.state_dict()) == list(model.state_dict())
        wanted = [each.requires_grad for each in model.parameters()]
        assert [each.requires_grad for each in again.parameters()] == wanted


def test_adapters_train():
    model = with_adapters(Mlp(), ["first", "second"])
    again = lg.to_torch(lg.to_ir(model, (torch.randn(3, 8),)), model.state_dict())
    x = torch.randn(3, 8)
    for each in (model, again):
        torch.manual_seed(0)
        each.train()(x).square().sum().backward()
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert (one.grad is None) is (other.grad is None)
        assert one.grad is None or bitwise_equal(one.grad, other.grad)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("form", ["one", "two", "both"])
def test_merged_as_peft_merges(form, kind):
    make, targets, draw = MODELS[kind]
    model = with_adapters(make(), targets, form)
    ir = lg.to_ir(model, (draw(),))
    merged, state, report = lg.run_passes(ir, ["merge-adapters"], model.state_dict())
    assert "merged into" in str(report)
    assert not [key for key in state if "lora" in key]
    again = lg.to_torch(merged, state)
    x = draw()
    assert bitwise_equal(outputs(again, x), outputs(copy.deepcopy(model).merge_and_unload(), x))
    # Without weights, the pass computes no tensors.
    assert lg.run_passes(ir, ["merge-adapters"])[0] == merged


@pytest.mark.parametrize("form", ["one", "both"])
def test_adapters_of_another_dtype_than_their_base(form):
    """PEFT trains adapters of a base of bfloat16 in float32, and casts what they read."""
    base = Mlp().bfloat16().eval()
    model = with_adapters(copy.deepcopy(base), ["first", "second"], form)
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16, torch.float32}
    x = torch.randn(3, 8).bfloat16()
    ir, unmerged = lg.to_ir(model, (x,)), copy.deepcopy(model)
    expected = {"merge-adapters": unmerged.merge_and_unload(), "drop-adapters": base}
    for name, plain in expected.items():
        ir2, state, report = lg.run_passes(ir, [name], model.state_dict())
        assert not report.refused
        assert not [key for key in state if "lora" in key]
        assert bitwise_equal(outputs(lg.to_torch(ir2, state), x), outputs(plain, x))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("form", ["one", "two", "both", "disabled"])
def test_dropped_is_the_base(form, kind):
    make, targets, draw = MODELS[kind]
    base = make()
    model = with_adapters(copy.deepcopy(base), targets, form)
    ir = lg.to_ir(model, (draw(),))
    dropped, state, _ = lg.run_passes(ir, ["drop-adapters"], model.state_dict())
    assert len(state) == len(base.state_dict())
    x = draw()
    assert bitwise_equal(outputs(lg.to_torch(dropped, state), x), outputs(base, x))


REFUSED = {
    "training": (Mlp, {}, torch.randn(3, 8), "its dropout is in training mode"),
    "a convolution": (Convolution, {}, torch.randn(2, 3, 8, 8), "is of type 'conv2d'"),
    "a bias": (Mlp, {"lora_bias": True}, torch.randn(3, 8), "has a bias"),
    "dora": (Mlp, {"use_dora": True}, torch.randn(3, 8), "not multiplied by a number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_merged_stays(name):
    make, options, x, message = REFUSED[name]
    model = with_adapters(make(), ["first", "second"], **options)
    if name == "training":
        model.train()
    ir = lg.to_ir(model, (x,))
    edited, state, report = lg.run_passes(ir, ["merge-adapters"], model.state_dict())
    assert message in str(report)
    again = lg.to_torch(edited, state)
    torch.manual_seed(0)
    one = outputs(model, x)
    torch.manual_seed(0)
    assert torch.allclose(outputs(again, x), one, atol=1e-5)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(10, 8), nn.LayerNorm(8)
        self.first, self.head = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(self.norm(self.embedding(x)))))


LORA = {"r": 4, "target_modules": ["first"]}
# Each model with the layer that a pass leaves in place, and the passes that report it.
OTHERS = {
    "embedding": (peft.LoraConfig(r=4, target_modules=["embedding"]), "embedding", "merge drop"),
    "IA3": (
        peft.IA3Config(target_modules=["first", "head"], feedforward_modules=["head"]),
        "head",
        "merge drop",
    ),
    "orthogonal": (
        peft.OFTConfig(r=4, oft_block_size=0, target_modules=["head"]),
        "head",
        "merge drop",
    ),
    "norm": (peft.LNTuningConfig(target_modules=["norm"]), "norm", "merge drop"),
    "tokens": (
        peft.LoraConfig(**LORA, trainable_token_indices={"embedding": [1, 2]}),
        "embedding.token_adapter",
        "merge drop",
    ),
    "a whole layer": (peft.LoraConfig(**LORA, modules_to_save=["head"]), "head", "drop"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_adapters_of_other_kinds_are_named(name):
    config, layer, passes = OTHERS[name]
    model = peft.get_peft_model(Mixed().eval(), config).eval()
    x = torch.randint(0, 10, (2, 3))
    ir, state = lg.to_ir(model, (x,)), model.state_dict()
    for each in ("merge", "drop"):
        report = lg.run_passes(ir, [f"{each}-adapters"], state)[2]
        refused = {entry.site.graph for entry in report.refused}
        assert refused == ({f"base_model.model.{layer}"} if each in passes else set()) or (
            name == "IA3" and len(refused) == 2
        )


def test_adapters_that_nothing_calls_are_named():
    model, x = with_adapters(Mlp(), ["first", "second"]), torch.randn(3, 8)
    model.merge_adapter()
    ir, state = lg.to_ir(model, (x,)), model.state_dict()
    dropped, weights, report = lg.run_passes(ir, ["drop-adapters"], state)
    assert bitwise_equal(lg.to_torch(dropped, weights)(x), model(x))
    assert [entry.site.node for entry in report.entries] == ["lora_B.default"] * 2
    assert "nothing calls it" in str(report)


def test_a_quantized_base_is_dropped_and_not_merged():
    torchao = pytest.importorskip("torchao.quantization")
    base = Mlp().eval()
    torchao.quantize_(base, torchao.Int8WeightOnlyConfig())
    plain = with_adapters(Mlp(), ["first", "second"])
    for name in ("first", "second"):
        getattr(plain.base_model.model, name).base_layer = getattr(base, name)
    x = torch.randn(3, 8)
    ir = lg.to_ir(plain, (x,))
    state = plain.state_dict()
    assert bitwise_equal(lg.to_torch(ir, state)(x), plain(x))
    _, _, report = lg.run_passes(ir, ["merge-adapters"], state)
    assert "is a torchao.Int8Tensor; merge before quantizing" in str(report)
    dropped, left, _ = lg.run_passes(ir, ["drop-adapters"], state)
    assert bitwise_equal(lg.to_torch(dropped, left)(x), base(x))


# --- files without the base ---


@pytest.fixture
def saved(tmp_path):
    base, x = llama(), torch.randint(0, 64, (2, 9))
    lg.save(lg.to_ir(base, (x,)), tmp_path / "base.safetensors", base.state_dict())
    model = with_adapters(base, ["q_proj", "v_proj"])
    ir = lg.to_ir(model, (x,))
    path = tmp_path / "a.adapters.safetensors"
    lg.save(ir, path, model.state_dict(), base=tmp_path / "base.safetensors")
    return model, ir, path, tmp_path / "base.safetensors"


def test_a_file_of_adapters(saved):
    model, ir, path, base = saved
    assert lg.load(path) == ir
    again = lg.load_model(path, base=base)
    x = torch.randint(0, 64, (3, 7))
    assert bitwise_equal(outputs(again, x), outputs(model, x))
    assert list(again.state_dict()) == list(model.state_dict())
    assert all("lora_" in key for key in tensors_in(path))
    assert len(tensors_in(path)) == 8


def test_what_else_was_trained_is_in_the_file(saved):
    model, ir, path, base = saved
    state = {key: each.clone() for key, each in model.state_dict().items()}
    trained = "base_model.model.model.norm.weight"
    state[trained] += 1
    lg.save(ir, path, state, base=base)
    assert trained in tensors_in(path)
    assert torch.equal(lg.load_model(path, base=base).state_dict()[trained], state[trained])


def test_a_base_in_several_files(saved, tmp_path):
    model, _, path, _ = saved
    base = llama()
    target = tmp_path / "more" / "base.safetensors"
    target.parent.mkdir()
    base.load_state_dict(lg.load_model(tmp_path / "base.safetensors").state_dict())
    ir = lg.load(tmp_path / "base.safetensors")
    lg.save(ir, target, base.state_dict(), max_shard_size=100_000)
    assert not target.exists()
    x = torch.randint(0, 64, (3, 7))
    again = lg.load_model(path, base=target)
    assert bitwise_equal(outputs(again, x), outputs(model, x))


def test_another_base_is_refused(saved, tmp_path):
    _, _, path, base = saved
    other = llama()
    lg.save(lg.load(base), tmp_path / "other.safetensors", other.state_dict())
    with pytest.raises(FileError, match=r"saved for another base than .*other.safetensors"):
        lg.load_model(path, base=tmp_path / "other.safetensors")
    # One weight is enough.
    state = lg.load_model(base).state_dict()
    state["lm_head.weight"][0, 0] += 1
    lg.save(lg.load(base), tmp_path / "other.safetensors", state)
    with pytest.raises(FileError, match="saved for another base"):
        lg.load_model(path, base=tmp_path / "other.safetensors")
    with pytest.raises(ArgumentError, match="base"):
        lg.load_model(path)
    with pytest.raises(FileError, match=r"does not tell of a base"):
        lg.load_model(rename(base, tmp_path / "b.adapters.safetensors"), base=base)
    with pytest.raises(FileError, match=r"missing\.safetensors"):
        lg.load_model(path, base=tmp_path / "missing.safetensors")


def test_without_weights_nothing_is_written(saved, tmp_path):
    _, ir, _, base = saved
    with pytest.raises(StateError, match="pass the state dict"):
        lg.save(ir, tmp_path / "c.adapters.safetensors", base=base)
    with pytest.raises(StateError, match="is missing"):
        lg.save(ir, tmp_path / "c.adapters.safetensors", {}, base=base)
    assert not (tmp_path / "c.adapters.safetensors").exists()


def rename(source, target):
    target.write_bytes(source.read_bytes())
    return target


def header_of(path):
    found = path.read_bytes()
    size = int.from_bytes(found[:8], "little")
    return json.loads(found[8 : 8 + size]), found[8 + size :]


def tensors_in(path):
    return [name for name in header_of(path)[0] if name[0] not in "_."]


DAMAGES = {
    "no JSON": (lambda about: "{", "layergraph_base"),
    "no digest": (lambda about: {"weights": about["weights"]}, "digest"),
    "a field": (lambda about: {**about, "more": 1}, "more"),
    "weights in a list": (lambda about: {**about, "weights": []}, "weights: an array"),
    "a key of numbers": (
        lambda about: {**about, "weights": {**about["weights"], "x": 1}},
        "weights, 'x'|weights.*x",
    ),
    "another key": (
        lambda about: {**about, "weights": dict.fromkeys(about["weights"], "no.weight")},
        "the base has no weight 'no.weight'",
    ),
    "an unknown key": (
        lambda about: {**about, "weights": {**about["weights"], "x": "lm_head.weight"}},
        "'x' is not one of the model",
    ),
    "a weight of two": (
        lambda about: {
            **about,
            "weights": {
                **about["weights"],
                "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": (
                    "lm_head.weight"
                ),
            },
        },
        "is in the file too",
    ),
    "a weight of another shape": (
        lambda about: {**about, "weights": dict.fromkeys(about["weights"], "lm_head.weight")},
        "has shape",
    ),
    "a missing weight": (lambda about: {**about, "weights": {}}, "is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file(saved, name):
    _, _, path, base = saved
    header, data = header_of(path)
    damage, message = DAMAGES[name]
    form = damage(json.loads(header["__metadata__"]["layergraph_base"]))
    text = form if isinstance(form, str) else json.dumps(form)
    header["__metadata__"]["layergraph_base"] = text
    packed = json.dumps(header).encode()
    path.write_bytes(len(packed).to_bytes(8, "little") + packed + data)
    with pytest.raises((FileError, StateError), match=message):
        lg.load_model(path, base=base)
