"""An IR is not bound to the device of its capture. These tests need a GPU."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import layergraph as lg
from layergraph.errors import AssumptionWarning
from layergraph.testing import bitwise_equal
from zoo import all_entries
from zoo.difference import differences

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

NAMES = (
    "torchvision/resnet18",
    "torchvision/vit_b_16",
    "torchvision/deeplabv3_resnet50",
    "transformers/BertModel",
    "transformers/GPT2Model",
    "transformers/LlamaModel",
    "transformers/T5Model",
    "transformers/BartModel",
    "transformers/ViTModel",
    "transformers/SwinModel",
    "transformers/CLIPModel",
    "transformers/MixtralModel",
    "transformers/WhisperModel",
    "transformers/Wav2Vec2Model",
    "transformers/MambaModel",
)
ENTRIES = [each for each in all_entries() if each.name in NAMES]


# If there is a GPU, their code calls torch.histc with ints, for which the CPU has no kernel.
BY_DEVICE = ("transformers/MixtralModel",)


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.name)
def entry(request):
    return request.param


@pytest.fixture(autouse=True)
def deterministic():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _moved(inputs: Any, device: str, dtype: torch.dtype | None = None) -> Any:
    def move(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        floats = dtype is not None and leaf.is_floating_point()
        return leaf.to(device, dtype if floats else leaf.dtype)

    return pytree.tree_map(move, inputs)


def _assert_alike(entry, model: nn.Module, rebuilt: nn.Module, device: str, dtype=None) -> None:
    sizes = entry.sizes
    for batch, seed in ((sizes.batch, 1), (sizes.batch, 2), (sizes.other_batch, 3)):
        args, kwargs = _moved(entry.inputs(batch, sizes.length, seed), device, dtype)
        with torch.no_grad():
            torch.manual_seed(0)
            expected = model(*args, **kwargs)
            torch.manual_seed(0)
            actual = rebuilt(*args, **kwargs)
        assert [str(each) for each in differences(expected, actual) if each.counts] == []


def _given(entry) -> Any:
    return entry.inputs(entry.sizes.batch, entry.sizes.length, 1)


def test_captured_on_the_cpu_it_runs_on_the_gpu(entry):
    model = entry.model()
    ir = lg.to_ir(model, *_given(entry), values="assume")
    rebuilt = lg.to_torch(ir, model.state_dict()).eval()
    _assert_alike(entry, model.cuda(), rebuilt.cuda(), "cuda")


def test_it_is_built_on_the_gpu(entry):
    model = entry.model()
    ir = lg.to_ir(model, *_given(entry), values="assume")
    rebuilt = lg.to_torch(ir, model.state_dict(), device="cuda").eval()
    _assert_alike(entry, model.cuda(), rebuilt, "cuda")


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_file_is_loaded_straight_to_the_gpu(entry, dtype, tmp_path):
    model = entry.model()
    ir = lg.to_ir(model, *_given(entry), values="assume")
    lg.save(ir, tmp_path / "model.safetensors", model.state_dict())
    loaded = lg.load_model(tmp_path / "model.safetensors", device="cuda", dtype=dtype)
    weights = model.to("cuda", dtype or torch.float32).state_dict()
    for key, tensor in loaded.state_dict().items():
        assert tensor.device.type == "cuda"
        assert tensor.dtype is weights[key].dtype
        assert bitwise_equal(tensor, weights[key])
    if dtype is None:
        _assert_alike(entry, model, loaded.eval(), "cuda")


def test_captured_on_the_gpu_it_runs_on_the_cpu(entry):
    model = entry.model().cuda()
    ir = lg.to_ir(model, *_moved(_given(entry), "cuda"), values="assume")
    rebuilt = lg.to_torch(ir, model.state_dict()).eval()
    _assert_alike(entry, model, rebuilt.cuda(), "cuda")
    if entry.name not in BY_DEVICE:
        _assert_alike(entry, model.cpu(), rebuilt.cpu(), "cpu")


def test_captured_in_half_precision_it_runs_on_the_gpu(entry):
    model = entry.model().bfloat16()
    args, kwargs = _moved(_given(entry), "cpu", torch.bfloat16)
    ir = lg.to_ir(model, args, kwargs, values="assume")
    rebuilt = lg.to_torch(ir, model.state_dict()).eval()
    _assert_alike(entry, model.cuda(), rebuilt.cuda(), "cuda", torch.bfloat16)


class Net(nn.Module):
    """Reads the device and the sizes of its input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.lin = nn.Linear(8, 4)
        self.scale = torch.rand(8, 1, 1)

    def forward(self, x):
        x = self.norm(self.conv(x)) * self.scale.to(x.device)
        mask = torch.arange(x.shape[-1], device=x.device) < x.shape[-1] // 2
        x = torch.where(mask, x, torch.zeros((), device=x.device))
        return self.lin(x.mean((2, 3)))


class Autocast(Net):
    """Has an autocast region for the type of its device."""

    def forward(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return super().forward(x)


@pytest.mark.parametrize("source", ["cpu", "meta", "cuda"])
def test_a_model_that_asks_for_devices(source):
    model = Net().eval()
    weights = model.state_dict()
    x = torch.randn(2, 3, 8, 8)
    if source == "meta":
        with torch.device("meta"):
            captured = Net().eval()
        captured.scale = model.scale
        ir = lg.to_ir(captured, (x.to("meta"),))
    else:
        ir = lg.to_ir(model.to(source), (x.to(source),))
    rebuilt = lg.to_torch(ir, weights).eval()
    for device in ("cuda", "cpu"):
        y = torch.randn(5, 3, 6, 10, device=device)
        assert bitwise_equal(model.to(device)(y), rebuilt.to(device)(y))


@pytest.mark.parametrize("source", ["cpu", "cuda"])
def test_autocast_regions(source):
    model = Autocast().eval().to(source)
    ir = lg.to_ir(model, (torch.randn(2, 3, 8, 8, device=source),))
    rebuilt = lg.to_torch(ir, model.state_dict()).eval()
    for device in ("cuda", "cpu"):
        y = torch.randn(5, 3, 6, 10, device=device)
        expected, actual = model.to(device)(y), rebuilt.to(device)(y)
        assert actual.dtype is expected.dtype is torch.bfloat16
        assert bitwise_equal(expected, actual)


class ByDevice(Net):
    """Branches on the device of its input."""

    def forward(self, x):
        return super().forward(x) * (2 if x.is_cuda or x.device.type == "mps" else 3)


@pytest.mark.parametrize(("source", "target"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_model_that_decides_by_its_device_warns_elsewhere(source, target):
    model = ByDevice().eval().to(source)
    ir = lg.to_ir(model, (torch.randn(2, 3, 8, 8, device=source),))
    rebuilt = lg.to_torch(ir, model.state_dict()).eval().to(source)
    x = torch.randn(2, 3, 8, 8, device=source)
    assert bitwise_equal(model(x), rebuilt(x))
    with pytest.warns(AssumptionWarning, match="test_gpu"):
        rebuilt.to(target)(x.to(target))


def test_capture_keeps_the_order_of_kernels_that_torch_chooses():
    # Use a new process, because the first call of attention chooses the kernel.
    program = """
import torch, layergraph as lg
from torch import nn
heads = lambda x: x.unflatten(-1, (2, -1)).transpose(1, 2)
class Net(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(*[heads(x)] * 3)
x = torch.randn(2, 8, 32, device="cuda")
rebuilt = lg.to_torch(lg.to_ir(Net(), (x,)))
assert torch.equal(rebuilt(x), Net()(x))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_gradients_on_the_gpu():
    model = Net()
    ir = lg.to_ir(model, (torch.randn(2, 3, 8, 8),))
    rebuilt = lg.to_torch(ir, model.state_dict()).cuda()
    model.cuda()
    y = torch.randn(4, 3, 8, 8, device="cuda")
    for each in (model, rebuilt):
        each(y).square().sum().backward()
    for one, other in zip(model.parameters(), rebuilt.parameters(), strict=True):
        assert bitwise_equal(one.grad, other.grad)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "transformers/ViTModel"])
def test_it_compiles_on_the_gpu_as_one_graph(name):
    (entry,) = [each for each in ENTRIES if each.name == name]
    model = entry.model()
    ir = lg.to_ir(model, *_given(entry), values="assume")
    rebuilt = lg.to_torch(ir, model.state_dict()).eval().cuda()
    args, kwargs = _moved(_given(entry), "cuda")
    with torch.no_grad():
        compiled = torch.compile(rebuilt, fullgraph=True)(*args, **kwargs)
        eager = rebuilt(*args, **kwargs)
    for one, other in zip(pytree.tree_leaves(eager), pytree.tree_leaves(compiled), strict=True):
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
