"""Models that torchao quantizes: captures, files, and refusals of parts that do not fit."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerGroup,
    quantize_,
)
from torchao.quantization.qat import QATConfig

import layergraph as lg
from layergraph.errors import BuildError, CaptureError, FileError, StateError
from layergraph.ir2torch import get_default_converter
from layergraph.testing import bitwise_equal
from layergraph_torchao.values import restored, said

PROTOTYPE = pytest.importorskip("torchao.prototype.quantization.int4.inference_workflow")

CONFIGS = {
    "int8": Int8WeightOnlyConfig,
    "int8, dynamic activation": Int8DynamicActivationInt8WeightConfig,
    "int4": lambda: IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
    "int4, packed": lambda: PROTOTYPE.PrototypeInt4WeightOnlyConfig(group_size=32),
    "int4, dynamic activation": lambda: Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=PerGroup(32)
    ),
    "int2": lambda: IntxWeightOnlyConfig(weight_dtype=torch.int2),
    "float8": Float8WeightOnlyConfig,
}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)).eval()


class Small(nn.Module):
    """A convolution and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.hidden, self.head = nn.Linear(128, 64), nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.norm(self.conv(x)))).flatten(1)
        return self.head(torch.relu(self.hidden(x)))


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
    "mlp": (mlp, lambda: torch.randn(5, 64)),
    "convolution": (lambda: Small().eval(), lambda: torch.randn(2, 3, 16, 16)),
    "llama": (llama, lambda: torch.randint(0, 64, (2, 9))),
}


def outputs(model: nn.Module, *args: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = model(*args)
    return found if isinstance(found, torch.Tensor) else found["logits"]


@pytest.fixture
def quantized():
    model = mlp()
    quantize_(model, Int8WeightOnlyConfig())
    return model


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", CONFIGS)
def test_quantized_weights_come_back(name, kind, tmp_path):
    make, draw = MODELS[kind]
    model = make()
    quantize_(model, CONFIGS[name]())
    ir = lg.to_ir(model, (draw(),))
    kinds = [
        each.packed.kind for one in ir.values() for each in one.tensors.values() if each.packed
    ]
    assert len(kinds) == {"mlp": 2, "convolution": 2, "llama": 15}[kind]
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict())
    assert lg.load(path) == ir == lg.Ir.from_dict(ir.to_dict())
    for again in (lg.to_torch(ir, model.state_dict()), lg.load_model(path)):
        x = draw()
        assert bitwise_equal(outputs(again, x), outputs(model, x))
        assert list(again.state_dict()) == list(model.state_dict())
        for key, tensor in model.state_dict().items():
            assert type(again.state_dict()[key]) is type(tensor)


def test_layers_are_linear_and_say_their_quantization():
    model = mlp()
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    ir = lg.to_ir(model)
    assert [ir[name].type for name in "012"] == ["linear", "relu", "linear"]
    packed = ir["0"].tensors["weight"].packed
    assert packed.kind == "torchao.Int8Tensor"
    assert packed.parts["qdata"] == lg.ir.TensorSpec(shape=(128, 64), dtype="int8")
    assert packed.data["block_size"] == [1, 64]
    assert packed.data["act_quant_kwargs"]["class"] == "QuantizeTensorToInt8Kwargs"


def test_weights_of_bfloat16(tmp_path):
    model = mlp().bfloat16()
    quantize_(model, CONFIGS["int4, packed"]())
    lg.save(lg.to_ir(model), tmp_path / "m.safetensors", model.state_dict())
    again = lg.load_model(tmp_path / "m.safetensors")
    x = torch.randn(5, 64, dtype=torch.bfloat16)
    assert bitwise_equal(again(x), model(x))


def test_a_rebuilt_model_loads_and_quantizes():
    model = mlp()
    quantize_(model, Int8WeightOnlyConfig())
    x = torch.randn(5, 64)
    ir = lg.to_ir(model)
    empty = lg.to_torch(ir)
    empty.load_state_dict(model.state_dict())
    assert bitwise_equal(empty(x), model(x))
    meta = lg.to_torch(ir, device="meta")
    meta.load_state_dict(model.state_dict(), assign=True)
    assert bitwise_equal(meta(x), model(x))
    # torchao can quantize a rebuilt float model.
    plain = mlp()
    again = lg.to_torch(lg.to_ir(plain), plain.state_dict())
    for each in (plain, again):
        quantize_(each, Int8WeightOnlyConfig())
    assert bitwise_equal(again(x), plain(x))


def test_what_else_layergraph_does(quantized, tmp_path):
    x = torch.randn(5, 64)
    ir = lg.to_ir(quantized, (x,))
    report = str(lg.verify(quantized, (x,)))
    assert "failed" not in report
    assert "tensors                  passed" in report
    assert lg.preflight(quantized, (x,)).ok
    assert "float32[5, 128]" in str(lg.shapes(ir, (x,)))
    # Weights of int8, their scales and zero points, and biases.
    assert lg.cost(ir, (x,)).bytes == 2 * 64 * 128 + (4 + 1 + 4) * (64 + 128)
    edit = lg.edit(ir, quantized.state_dict())
    edit.remove("_1")
    again = lg.to_torch(edit.ir, edit.state)
    assert bitwise_equal(again(x), quantized[2](quantized[0](x)))
    again = copy.deepcopy(lg.to_torch(ir, quantized.state_dict()))
    assert bitwise_equal(pickle.loads(pickle.dumps(again))(x), quantized(x))
    assert lg.to_ir(again, (x,)) == ir
    with pytest.raises(BuildError, match=r"'weight': it is a torchao.Int8Tensor, which a module"):
        lg.to_source(ir)
    onnx = pytest.importorskip("layergraph_onnx")
    assert onnx
    with pytest.raises(BuildError, match=r"'weight': it is a torchao.Int8Tensor, which onnx"):
        lg.save(ir, tmp_path / "m.onnx", quantized.state_dict(), args=(x,))


# --- quantization-aware training ---


def _prepared() -> nn.Module:
    model = mlp().train()
    quantize_(model, QATConfig(CONFIGS["int4, dynamic activation"](), step="prepare"))
    return model


def test_training_goes_on(tmp_path):
    model = _prepared()
    model(torch.randn(3, 64))  # the quantizers store the scales of a call
    ir = lg.to_ir(model)
    assert ir["0"].type == "fakequantizedlinear"
    config = ir["0"].data["weight_config"]
    assert config["fields"]["granularity"] == {"class": "PerGroup", "fields": {"group_size": 32}}
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for again in (lg.to_torch(ir, model.state_dict()), lg.load_model(tmp_path / "m.safetensors")):
        assert list(again.state_dict()) == list(model.state_dict())
        x = torch.randn(7, 64)
        for each in (model, again):
            each.zero_grad()
            each(x).square().sum().backward()
        assert bitwise_equal(again[0].weight.grad, model[0].weight.grad)
        # torchao converts the rebuilt model as it converts the original.
        converted = _prepared()
        converted.load_state_dict(model.state_dict())
        for each in (again, converted):
            quantize_(each, QATConfig(CONFIGS["int4, dynamic activation"](), step="convert"))
            each.eval()
        assert bitwise_equal(outputs(again, x), outputs(converted, x))


def test_a_quantizer_that_is_off_is_traced():
    model = _prepared()
    model[0].weight_fake_quantizer.enabled = False
    x = torch.randn(3, 64)
    ir = lg.to_ir(model, (x,))
    assert ir["0"].type == "module"
    assert bitwise_equal(lg.to_torch(ir, model.state_dict())(x), model(x))


# --- refusals ---


def test_without_the_plugin(quantized, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    lg.save(lg.to_ir(quantized), path, quantized.state_dict())
    assert json.loads(lg_document(path))["tensor_kinds"] == {
        "torchao.Int8Tensor": "layergraph-torchao"
    }
    converter = get_default_converter(disable=["layergraph-torchao"])
    monkeypatch.setattr("layergraph_files.build.default_ir2torch", lambda: converter)
    with pytest.raises(FileError, match="layergraph-torchao according to the file: install it"):
        lg.load_model(path)
    from layergraph.torch2ir import get_default_converter as of_models

    with pytest.raises(CaptureError, match=r"'0.weight' is a Int8Tensor"):
        of_models(disable=["layergraph-torchao"]).convert(quantized)


def lg_document(path):
    size = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]["layergraph"]


def test_an_unknown_subclass_is_refused(quantized):
    class Own(type(quantized[0].weight)):
        pass

    weight = quantized[0].weight
    own = Own(weight.qdata, weight.scale, weight.block_size, weight.dtype)
    quantized[0].weight = nn.Parameter(own, requires_grad=False)
    with pytest.raises(CaptureError, match="is a Own of"):
        lg.to_ir(quantized)


def test_other_weights_do_not_fit(quantized):
    ir = lg.to_ir(quantized)
    with pytest.raises(StateError, match=r"a plain tensor where a torchao.Int8Tensor is wanted"):
        lg.to_torch(ir, mlp().state_dict())
    other = mlp()
    quantize_(other, CONFIGS["int4"]())
    with pytest.raises(
        StateError, match=r"a torchao.IntxUnpackedToInt8Tensor where a torchao.Int8"
    ):
        lg.to_torch(ir, other.state_dict())
    with pytest.raises(StateError, match="is a Int8Tensor of"):
        lg.to_torch(lg.to_ir(mlp()), quantized.state_dict())


def _spec(ir):
    return ir["0"].tensors["weight"].packed


def _change(**fields):
    return lambda packed: packed.data.update(fields)


def _part(name, **fields):
    def change(packed):
        packed.parts[name] = lg.ir.TensorSpec(**fields)

    return change


HOSTILE = {
    "int8": [
        (_part("scale", shape=(64, 1)), "the scales are of"),
        (_part("scale", shape=(128, 1), dtype="int8"), "the part 'scale' is of torch.int8"),
        (_part("qdata", shape=(128, 64)), "the part 'qdata' is of torch.float32"),
        (_part("zero_point", shape=(1,), dtype="int8"), "the part 'zero_point' is of shape"),
        (_part("act_pre_scale", shape=(7,)), "the part 'act_pre_scale' is of shape"),
        (_part("more", shape=(1,)), "there is no part more"),
        (lambda packed: packed.parts.pop("qdata"), "the part 'qdata' is missing"),
        (_change(block_size=[1, 7]), "do not divide"),
        (_change(block_size=[1]), "does not fit the shape"),
        (_change(block_size=[0, 64]), "does not fit the shape"),
        (_change(dtype="float32"), "no floating dtype"),
        (
            _change(act_quant_kwargs={"class": "os.system", "fields": {}}),
            "not a setting of torchao",
        ),
        (_change(act_quant_kwargs={"class": "PerRow", "fields": {"x": 1}}), "not a setting of"),
        (_change(act_quant_kwargs={"enum": "MappingType", "value": "__class__"}), "not a setting"),
        (_change(more=1), "the values are"),
        (lambda packed: packed.data.pop("dtype"), "the values are"),
    ],
    "int4": [
        (_part("scale", shape=(128, 1)), "the part 'scale' is of shape"),
        (_part("zero_point", shape=(128, 1), dtype="int8"), "the part 'zero_point' is of shape"),
        (_change(target_dtype=lg.Symbol("torch.float32")), "refuses its parts"),
    ],
    "int4, packed": [
        (_part("qdata", shape=(128, 31), dtype="uint8"), "the part 'qdata' is of shape"),
        (_part("scale_and_zero", shape=(1, 128, 2)), "'scale_and_zero' is of shape"),
        (_change(block_size=[1, 16]), "do not divide"),
        (_change(block_size=[1, "x"]), "not a pair of sizes"),
        (_change(shape=(128, -64)), "not a pair of sizes"),
        (_change(act_mapping_type="symmetric"), "dynamic activation"),
    ],
    "float8": [
        (_part("scale", shape=(1, 1)), "the part 'scale' is of shape"),
        (_part("qdata", shape=(128, 64), dtype="int8"), "the part 'qdata' is of torch.int8"),
        (_change(kernel_preference={"enum": "KernelPreference", "value": "x"}), "not a setting"),
    ],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_parts_that_do_not_fit(name):
    model = mlp()
    quantize_(model, CONFIGS[name]())
    form = lg.to_ir(model).to_dict()
    for damage, message in HOSTILE[name]:
        ir = lg.Ir.from_dict(form)
        damage(_spec(ir))
        with pytest.raises(BuildError, match=rf"implementation '0', tensor 'weight'.*{message}"):
            lg.to_torch(ir, device="meta")


def test_settings_are_plain_values():
    from torchao.quantization import MappingType, PerRow

    for setting in (PerRow(), PerGroup(8), MappingType.ASYMMETRIC, None, [1, 2]):
        assert restored(said(setting)) == setting
        assert type(restored(said(setting))) is type(setting)


@pytest.mark.slow
def test_torchao_is_imported_on_first_use():
    code = (
        "import sys, torch, layergraph as lg; m = torch.nn.Linear(2, 2);"
        "lg.to_torch(lg.to_ir(m), m.state_dict()); sys.exit('torchao' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- edits and passes ---


def test_an_edit_replaces_quantized_weights(quantized):
    ir, state, x = lg.to_ir(quantized), quantized.state_dict(), torch.randn(5, 64)
    edit = lg.edit(ir, state)
    edit.set("0", tensors={"weight": quantized[0].weight.dequantize().detach()})
    assert edit.ir["0"].tensors["weight"].packed is None
    again = lg.to_torch(edit.ir, edit.state)
    assert type(again[0].weight) is nn.Parameter
    assert torch.allclose(again(x), quantized(x), atol=1e-5)
    plain = mlp()
    edit = lg.edit(lg.to_ir(plain), plain.state_dict())
    for name in "02":
        edit.set(name, tensors=dict(quantized[int(name)].named_parameters()))
    again = lg.to_torch(edit.ir, edit.state)
    assert bitwise_equal(outputs(again, x), outputs(quantized, x))


def test_tied_weights(tmp_path):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    quantize_(model, Int8WeightOnlyConfig())
    model[2].weight = model[0].weight
    ir, x = lg.to_ir(model), torch.randn(5, 64)
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    again = lg.load_model(tmp_path / "m.safetensors")
    assert again[0].weight is again[2].weight
    assert bitwise_equal(again(x), model(x))
    for layer in "02":
        edit = lg.edit(ir, model.state_dict())
        edit.untie(layer, "weight")
        again = lg.to_torch(edit.ir, edit.state)
        assert again[0].weight is not again[2].weight
        assert bitwise_equal(again(x), model(x))
        edit = lg.edit(ir, model.state_dict())
        edit.set(layer, tensors={"weight": model[0].weight.dequantize().detach()})
        again = lg.to_torch(edit.ir, edit.state)
        assert type(again[0].weight) is nn.Parameter
        assert torch.allclose(outputs(again, x), outputs(model, x), atol=1e-5)
    part, state = lg.extract(ir, model.state_dict(), inputs=["_1"], outputs=["_2"])
    again = lg.to_torch(part, state)
    assert bitwise_equal(outputs(again, x), outputs(model[2], torch.relu(x)))


def test_passes_leave_quantized_weights():
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64)).eval()
    quantize_(model, Int8WeightOnlyConfig())
    model[2] = copy.deepcopy(model[0])
    ir, x = lg.to_ir(model), torch.randn(5, 64)
    names = ["fold-batchnorm", "dead-code", "deduplicate", "canonicalize"]
    edited, state, report = lg.run_passes(ir, names, model.state_dict())
    assert "is quantized, or sparse" in str(report)
    assert "shares the layer '0'" in str(report)
    assert bitwise_equal(outputs(lg.to_torch(edited, state), x), outputs(model, x))


def test_a_plan_places_no_quantized_weights(quantized, tmp_path):
    lg.save(lg.to_ir(quantized), tmp_path / "m.safetensors", quantized.state_dict())
    with pytest.raises(StateError, match=r"is a torchao\..*a plan places plain tensors only"):
        lg.load_model(tmp_path / "m.safetensors", mesh=object(), plan=lambda model, mesh: None)
