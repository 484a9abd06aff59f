"""Tensors that are not one dense block: each is refused by its key, in every place of a model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import layergraph as lg
from layergraph.errors import CaptureError, StateError
from layergraph.tensors import memory as tensors
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir

X = torch.randn(3, 4)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Wrapper(torch.Tensor):
    """Has no memory itself, like the tensors of quantization libraries."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"Wrapper({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        unwrapped = torch.utils._pytree.tree_map_only(cls, lambda each: each.inner, args)
        result = func(*unwrapped, **(kwargs or {}))
        return cls(result) if func is torch.ops.aten.detach.default else result


def faked():
    with FakeTensorMode():
        return torch.randn(4, 4)


def nested(layout=torch.strided):
    return torch.nested.nested_tensor([torch.randn(4), torch.randn(3)], layout=layout)


SPECIAL = {
    "coo": (lambda: torch.eye(4).to_sparse(), "sparse", "to_dense"),
    "csr": (lambda: torch.eye(4).to_sparse_csr(), "sparse", "to_dense"),
    "bsr": (lambda: torch.eye(4).to_sparse_bsr((2, 2)), "sparse", "to_dense"),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 0, torch.qint8),
        "quantized",
        "dequantize",
    ),
    "onednn": (lambda: torch.randn(4, 4).to_mkldnn(), "oneDNN", "to_dense"),
    "nested": (nested, "nested", "to_padded_tensor"),
    "jagged": (lambda: nested(torch.jagged), "NestedTensor", "to_padded_tensor"),
    "zeros": (lambda: torch._efficientzerotensor((4, 4)), "zeros", "torch.zeros"),
    "functional": (lambda: torch._to_functional_tensor(torch.ones(4, 4)), "functional", "wraps"),
    "fake": (faked, "FakeTensor", "outside of the FakeTensorMode"),
    "wrapper": (lambda: Wrapper(torch.randn(4, 4)), "Wrapper", "plain torch.Tensor"),
}
EVERY = pytest.mark.parametrize("name", SPECIAL)
# layergraph-sparse handles the other layouts.
REFUSED = pytest.mark.parametrize(
    "name", [name for name in SPECIAL if SPECIAL[name][1] != "sparse"]
)


class Holds(nn.Module):
    def __init__(self, tensor, *, buffer=True):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        if buffer:
            self.register_buffer("held", tensor)
        else:
            self.held = tensor

    def forward(self, x):
        return self.lin(x)


class Reads(Holds):
    def forward(self, x):
        return self.lin(x) + self.held


def dense():
    return Reads(torch.randn(4, 4))


def says(error, name, key):
    kind, remedy = SPECIAL[name][1:]
    text = str(error)
    assert repr(key) in text
    assert kind in text
    assert remedy in text


@REFUSED
@pytest.mark.parametrize("args", [None, (X,)], ids=["symbols", "inputs"])
@pytest.mark.parametrize("inner", [lambda m: m, nn.Sequential], ids=["alone", "inside"])
def test_a_buffer_is_refused_by_its_key(name, args, inner):
    model = inner(Holds(SPECIAL[name][0]()))
    key = "held" if isinstance(model, Holds) else "0.held"
    with pytest.raises(CaptureError) as it:
        lg.to_ir(model, args)
    says(it.value, name, key)
    (found,) = it.value.unsupported
    assert found.path == ("" if isinstance(model, Holds) else "0")
    says(lg.preflight(model, args), name, key)
    says(lg.verify(model, args), name, key)


@REFUSED
def test_a_constant_that_forward_reads_is_refused_by_its_attribute(name):
    model = Reads(SPECIAL[name][0](), buffer=False)
    with pytest.raises(CaptureError) as it:
        lg.to_ir(model, (torch.randn(4, 4),))
    says(it.value, name, "held")


@EVERY
def test_a_constant_that_nothing_reads_does_no_harm(name):
    model = Holds(SPECIAL[name][0](), buffer=False)
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))


@EVERY
def test_a_weight_is_refused_by_its_key(name, tmp_path):
    model = dense()
    ir = lg.to_ir(model, (torch.randn(4, 4),))
    state = model.state_dict() | {"held": SPECIAL[name][0]()}
    with pytest.raises(StateError) as it:
        lg.to_torch(ir, state)
    says(it.value, name, "held")
    with pytest.raises(StateError) as it:
        lg.to_torch(ir, state, device="meta")
    says(it.value, name, "held")
    with pytest.raises(StateError) as it:
        lg.save(ir, tmp_path / "model.safetensors", state)
    says(it.value, name, "held")
    assert not list(tmp_path.iterdir())


@EVERY
def test_an_input_is_refused_by_its_name(name):
    class Any(nn.Module):
        def forward(self, other):
            return other

    with pytest.raises(CaptureError) as it:
        lg.to_ir(Any(), (SPECIAL[name][0](),))
    says(it.value, name, "other")


def test_a_wrapper_in_what_a_handler_keeps_reaches_its_class():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.packed = [Wrapper(torch.eye(4))]

        def forward(self, x):
            return x @ self.packed[0]

    converter = Torch2Ir()
    converter.register(Keeps, lambda _: {})
    ir = converter.convert(nn.Sequential(Keeps(), nn.ReLU()), (X,))
    assert ir["0"].type == "keeps"


def test_a_wrapper_that_forward_makes_is_refused():
    class Makes(nn.Module):
        def forward(self, x):
            return torch.cat([Wrapper(x), x]).sum() + Wrapper(x).sum()

    with pytest.raises(CaptureError, match=r"\(Makes\), test_special_tensors\.py, line"):
        lg.to_ir(Makes(), (X,))


def test_a_lazy_layer_is_named_and_stays_lazy():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(CaptureError, match=r"'0\.weight' has no shape yet"):
        lg.to_ir(model, (X,))
    assert "LazyLinear" in str(lg.preflight(model, (X,)))
    assert "'0.weight' has no shape yet" in str(lg.verify(model, (X,)))
    assert type(model[0]) is nn.LazyLinear
    model(X)
    assert lg.to_ir(model, (X,))["0"].type == "linear"


def test_a_fake_mode_around_a_real_model_is_left_out():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        ir = lg.to_ir(model, (X,))
        assert type(torch.ones(1)).__name__ == "FakeTensor"
        assert torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is mode
    assert ir == lg.to_ir(model, (X,))


# --- what has memory like any tensor, though its class is another ---


class Tagged(nn.Parameter):
    """A parameter with an attribute, as libraries mark parameters."""


class Strict(torch.Tensor):
    """Raises an error for every function of torch."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("ask nothing of it")


@pytest.mark.parametrize(
    "make",
    [Tagged, lambda value: value.as_subclass(Strict)],
    ids=["parameter", "tensor"],
)
def test_weights_of_a_derived_class_are_copied(make, tmp_path):
    model = dense()
    ir = lg.to_ir(model, (torch.randn(4, 4),))
    state = model.state_dict()
    given = state | {"held": make(state["held"])}
    assert bitwise_equal(lg.to_torch(ir, given).state_dict()["held"], state["held"])
    lg.save(ir, tmp_path / "model.safetensors", given)
    loaded = lg.load_model(tmp_path / "model.safetensors")
    assert bitwise_equal(loaded.state_dict()["held"], state["held"])
    assert type(loaded.held) is torch.Tensor


def test_a_buffer_of_a_derived_class_is_refused_with_its_class():
    with pytest.raises(CaptureError, match=r"'held' is a Tagged of .*a class that an IR cannot"):
        lg.to_ir(Holds(Tagged(torch.ones(4, 4)), buffer=False))


# --- the one place ---

RAW = re.compile(r"\.(untyped_storage|data_ptr|_cdata|is_set_to|storage|_typed_storage)\b\(?")


def test_memory_is_looked_at_in_one_place():
    home = Path(tensors.__file__).parents[1]
    found = {
        file.relative_to(home).as_posix()
        for file in home.rglob("*.py")
        if RAW.search(file.read_text())
    }
    assert found == {"tensors/memory.py"}


@EVERY
def test_what_is_looked_at_says_so(name):
    tensor = SPECIAL[name][0]()
    assert not tensors.is_plain(tensor)
    assert tensors.storage_of(tensor) is None
    assert tensors.extent(tensor) is None
    assert tensors.start_of_storage(tensor) >= 0
    assert not tensors.lie_alike(tensor, torch.ones(4, 4))
    assert not tensors.same_bits(tensor, torch.ones(4, 4))


def test_one_number_is_compared_at_any_stride():
    parts = torch.view_as_real(torch.tensor([1 + 2j]))
    assert tensors.same_bits(parts[:, 1], torch.tensor([2.0]))
    assert not tensors.same_bits(parts[:, 1], torch.tensor([1.0]))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, 3),
        torch.ones(2, 3).T,
        torch.ones(0),
        torch.ones(2, device="meta"),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch._neg_view(torch.ones(2)),
        torch.ones(4, dtype=torch.float8_e4m3fn),
        nn.Parameter(torch.ones(2)),
    ],
)
def test_what_is_plain(tensor):
    assert tensors.is_plain(tensor)
    assert tensors.unsuitable(tensor) is None
    with torch.inference_mode():
        assert tensors.is_plain(tensor.clone())


# --- tensors of several processes ---

_DISTRIBUTED = """
import copy
import pathlib
import torch
import layergraph as lg
from layergraph.errors import LayergraphError
from layergraph.torch2ir import Torch2Ir
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

X = torch.randn(3, 4)
store = torch.distributed.HashStore()
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
ir = lg.to_ir(plain, (X,))


def refused(make, *said):
    try:
        text = str(make())
    except LayergraphError as error:
        text = str(error)
    assert all(each in text for each in said), text


split = parallelize_module(copy.deepcopy(plain), mesh, {"0": ColwiseParallel()})
sharded = fully_shard(copy.deepcopy(plain), mesh=mesh)
for model in (split, sharded):
    # layergraph-wrappers takes them apart, as its tests show; without it, all ask in vain.
    bare = Torch2Ir(disable=["layergraph-wrappers"])
    refused(lambda: bare.convert(model, (X,)), "'0.weight'", "DTensor", "full_tensor()")
    refused(lambda: lg.to_torch(ir, model.state_dict()), "'0.weight'", "DTensor", "full_tensor()")
    lg.save(ir, "m.safetensors", model.state_dict())
    assert torch.equal(lg.load_model("m.safetensors")(X), plain(X))
    pathlib.Path("m.safetensors").unlink()
data_parallel = nn.parallel.DistributedDataParallel(plain)
refused(lambda: bare.convert(data_parallel, (X,)), ".module")


class Makes(nn.Module):
    def forward(self, x):
        return DTensor.from_local(x, mesh, [Replicate()]).sum()


refused(lambda: lg.to_ir(Makes(), (X,)), "Makes")
full = {key: each.full_tensor() for key, each in sharded.state_dict().items()}
assert torch.equal(lg.to_torch(ir, full)(X), plain(X))
torch.distributed.destroy_process_group()
print("ok")
"""


@pytest.mark.slow
def test_tensors_of_several_processes(tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _DISTRIBUTED],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.stdout.endswith("ok\n"), result.stderr[-2000:]
    assert not list(tmp_path.iterdir())


def test_a_list_of_them_that_nothing_reads_does_no_harm():
    for make, *_ in SPECIAL.values():
        model = Holds([make()], buffer=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lg.to_ir(model, (X,))


def _freed(*shape):
    tensor = torch.randn(*shape)
    tensor.untyped_storage().resize_(0)
    return tensor


def test_tensors_whose_memory_was_freed():
    # A kernel that reads one of them kills the process.
    class Adds(nn.Module):
        def __init__(self, *, is_buffer):
            super().__init__()
            if is_buffer:
                self.register_buffer("scale", _freed(4))
            else:
                self.scale = _freed(4)

        def forward(self, x):
            return x + 1 if x.dim() < 3 else x + self.scale

    model = Adds(is_buffer=True)
    with pytest.raises(CaptureError, match=r"'scale' has 0 bytes"):
        lg.to_ir(model, (X,))
    assert "'scale' has 0 bytes" in str(lg.preflight(model, (X,)))
    report = lg.verify(model, (X,))
    assert not report.ok
    assert "0 bytes" in str(report)
    assert "0 bytes" in str(lg.verify(nn.ReLU(), (_freed(3, 4),)))
    ir = lg.to_ir(nn.Linear(4, 4))
    with pytest.raises(StateError, match=r"'bias' has 0 bytes"):
        lg.to_torch(ir, nn.Linear(4, 4).state_dict() | {"bias": _freed(4)})
    lg.to_ir(Adds(is_buffer=False), (X,))


def test_a_model_cannot_hide_that_it_reads_freed_memory():
    class Hides(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = _freed(4)

        def forward(self, x):
            try:
                return x + self.scale
            except Exception:
                return x

    with pytest.raises(CaptureError, match=r"its code catches an error of torch\.Tensor\.add"):
        lg.to_ir(Hides(), (X,))


def test_verify_says_that_parameters_are_not_made_yet():
    assert "has no shape yet" in str(lg.verify(nn.Sequential(nn.LazyLinear(3)), (X,)))
    model = nn.Sequential(nn.ReLU())
    model.register_buffer("later", nn.UninitializedBuffer())
    assert "'later' has no shape yet" in str(lg.verify(model, (X,)))


@pytest.mark.skipif(not hasattr(torch, "uint4"), reason="this torch has no such dtype")
def test_a_dtype_that_torch_cannot_copy_is_refused_by_name():
    model = nn.Linear(2, 2)
    model.register_buffer("table", torch.zeros(4, dtype=torch.uint8).view(torch.uint4))
    with pytest.raises(CaptureError, match=r"'table' is of torch.uint4, .*as torch.uint8"):
        lg.to_ir(model, (torch.ones(1, 2),))
