"""Files may call functions that torch documents, and no internal operations."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import FileError
from layergraph.functions.names import is_own
from layergraph.functions.table import by_name
from layergraph.ir import Node
from layergraph.testing import bitwise_equal
from layergraph_files.allowed import may_call

REFUSED = """
torch.Tensor.resize_ torch.Tensor.resize_as_ torch.Tensor.sparse_resize_ torch.Tensor.set_
torch.fbgemm_linear_int8_weight torch.quantized_lstm_cell torch.miopen_rnn
torch.ops.aten.resize_ torch.ops.aten.resize torch.ops.aten._resize_output_ torch.ops.aten.set_
torch.ops.aten.embedding_dense_backward torch.ops.aten.max_pool2d_with_indices_backward
torch.ops.aten._sparse_coo_tensor_with_dims_and_tensors torch.ops.aten._index_put_impl_
torch.ops.aten._unsafe_index torch.ops.aten._foobar torch.ops.aten.add.out
torch.ops.aten.mul.Tensor_out torch.ops.aten.segment_reduce torch.ops.aten.glu_jvp
torch.ops.aten.mkldnn_rnn_layer torch.ops.aten._cudnn_rnn torch.ops.aten.embedding_renorm_
torch.ops.prims.resize torch.ops.aten torch.native_batch_norm
torch.batch_norm_update_stats torch.batch_norm_elemt
torch.ops.aten._fft_c2r torch.ops.aten._fft_r2c torch.ops.aten._native_batch_norm_legit.no_stats
torch.ops.aten._weight_norm_interface
""".split()

ALLOWED = """
torch.relu torch.Tensor.view torch.Tensor.new torch.Tensor.double torch.nn.functional.linear
torch.fft.rfft torch.linalg.norm torch.special.erf torch.Tensor.__and__ torch.Tensor.is_sparse
torch.ops.aten.add torch.ops.aten.add.Tensor torch.ops.aten._softmax.default
torch.ops.aten._to_copy torch.ops.aten.upsample_bilinear2d.vec torch.ops.aten.fft_rfft
torch.ops.quantized_decomposed.quantize_per_tensor math.sqrt operator.add layergraph.assume
torchvision.ops.boxes.nms acme.unsafe_backward
""".split()


def _node(name, **kwargs):
    return Node("y", "function", name, kwargs=kwargs)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    assert not may_call(_node(name))


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name):
    assert may_call(_node(name))


@pytest.mark.parametrize("argument", ["cdata", "unsafe", "check_invariants"])
def test_arguments_that_turn_checks_off(argument):
    assert not may_call(_node("torch.Tensor.new", **{argument: 1}))
    assert may_call(_node("acme.layer", **{argument: 1}))


def test_what_torch_lists_is_allowed_but_for_steps_of_kernels():
    kernels = {"backward", "fbgemm", "miopen", "cudnn", "mkldnn", "quantized", "resize", "qparams"}
    kernels |= {"native", "stats", "elemt", "renorm", "gru", "lstm", "rnn"}
    names = [name for name in by_name() if not may_call(_node(name))]
    assert names
    assert not [name for name in names if kernels.isdisjoint(name.rpartition(".")[2].split("_"))]


def _core_operations():
    """Return the operations that torch.export leaves in a graph."""
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        form = schema.overload_name or "default"
        if namespace != "aten" or "out" in form.split("_") or "backward" in name:
            continue
        packet = getattr(torch.ops.aten, name, None)
        operation = getattr(packet, form, None)
        if torch.Tag.core in getattr(operation, "tags", ()):
            yield f"torch.ops.aten.{name}.{form}"


def test_what_torch_exports_to_is_allowed():
    names = [name for name in _core_operations() if is_own(name)]
    assert len(names) > 100
    # These use the size of one argument to access another one.
    unchecked = {"_fft_r2c", "_fft_c2r", "_fft_c2c", "_native_batch_norm_legit"}
    unchecked |= {"_native_batch_norm_legit_no_training"}
    refused = {name.split(".")[3] for name in names if not may_call(_node(name))}
    assert refused <= unchecked


class Longer(nn.Module):
    def forward(self, x):
        return x.clone().resize_(8)


class Exported(nn.Module):
    def forward(self, x):
        y = torch.ops.aten._softmax.default(x, 1, half_to_float=False)
        return torch.ops.aten.add.Tensor(y, x.new(2, 2).zero_())


def _changed(path, name):
    form = json.loads(path.read_text())
    nodes = form["implementations"][0]["nodes"]
    next(each for each in nodes if each["type"] == "function")["implementation"] = name
    path.write_text(json.dumps(form))


@pytest.mark.parametrize("name", ["torch.Tensor.resize_", "torch.ops.aten._foobar"])
def test_they_are_refused_where_a_file_is_read(tmp_path, name):
    path = tmp_path / "m.json"
    lg.save(lg.to_ir(nn.Sequential(Exported()), (torch.randn(2, 2),)).flatten(), path)
    _changed(path, name)
    for read in (lg.load, lg.load_model):
        with pytest.raises(FileError, match=f"m.json: .*'root', node .*{name}"):
            read(path)


def test_what_no_file_may_call_is_told_as_it_is_saved(tmp_path):
    ir = lg.to_ir(Longer(), (torch.randn(2, 4),))
    x = torch.randn(2, 4)
    assert bitwise_equal(lg.to_torch(ir)(x), Longer()(x))
    with pytest.raises(FileError, match=r"a file may not call 'torch\.Tensor\.resize_'"):
        lg.save(ir, tmp_path / "m.json")
    assert not list(tmp_path.iterdir())


def test_operations_of_exported_models_are_kept_in_files(tmp_path):
    x = torch.randn(2, 2)
    path = tmp_path / "m.json"
    lg.save(lg.to_ir(Exported(), (x,)), path)
    assert bitwise_equal(lg.to_torch(lg.load(path))(x), Exported()(x))


class Grouped(nn.Module):
    """Multiplies groups of rows, as mixtures of experts do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2, 16, 8, dtype=torch.bfloat16))

    def forward(self, x, ends):
        return nn.functional.grouped_mm(x, self.weight, offs=ends)


class Checked(nn.Module):
    """Checks that no element is negative."""

    def forward(self, x, _ends):
        torch._check_tensor_all((x >= 0).all(), lambda: "negative")
        return x + 1


@pytest.mark.parametrize(
    "cls", [pytest.param(Grouped, marks=pytest.mark.needs("grouped_mm")), Checked]
)
def test_a_file_may_call_what_public_functions_consist_of(cls, tmp_path):
    model = cls()
    inputs = torch.rand(8, 16, dtype=torch.bfloat16), torch.tensor([3, 8], dtype=torch.int32)
    path = tmp_path / "model.safetensors"
    lg.save(lg.to_ir(model, inputs, values="assume"), path, model.state_dict())
    assert bitwise_equal(lg.load_model(path)(*inputs), model(*inputs))
