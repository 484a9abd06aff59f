"""onnxruntime computes from our files what the original does, and the same models come back."""

from __future__ import annotations

import base64
import warnings
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

import layergraph as lg
from layergraph.errors import ArgumentError, FileError
from layergraph.hook_types.declining import listening
from layergraph.ir import Node
from layergraph.testing import bitwise_equal
from layergraph_backends import LoweringError, Step
from layergraph_onnx.table import Table
from layergraph_onnx.target import Onnx


def saved(model: nn.Module, path: Path, *args: Any, **options: Any) -> lg.Ir:
    """Capture a model on arguments, and write it."""
    ir = lg.to_ir(model.eval(), args)
    lg.save(ir, path, model.state_dict(), **{"args": args, **options})
    onnx.checker.check_model(str(path), full_check=True)
    return ir


def by_runtime(path: Path, *args: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    feeds = {name: each.numpy() for name, each in zip(names, args, strict=True)}
    return [torch.from_numpy(each) for each in session.run(None, feeds)]


def check_same(model: nn.Module, path: Path, *args: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Compare onnxruntime with the original, on these arguments."""
    with torch.no_grad():
        expected = model(*args)
    listed = tree_leaves(expected)
    for one, other in zip(listed, by_runtime(path, *args), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance, equal_nan=True)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normal = self.norm(x)
        x = x + self.attention(normal, normal, normal)[0]
        return x + F.gelu(self.fc(x))


class Blocks(nn.Module):
    def __init__(self, count: int = 12) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block() for _ in range(count)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_equal_blocks_are_one_function(tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", Blocks()
    saved(model, path, torch.randn(2, 5, 8))
    check_same(model, path, torch.randn(2, 5, 8))
    file = onnx.load(str(path))
    assert [each.name for each in file.functions].count("blocks") == 1
    assert [each.op_type for each in file.graph.node].count("blocks") == 12
    assert {each.name for each in file.graph.initializer} == set(model.state_dict())


def test_blocks_that_differ_in_a_setting_are_two_functions(tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", Blocks(3)
    model.blocks[1].norm.eps = 0.5
    saved(model, path, torch.randn(2, 5, 8))
    check_same(model, path, torch.randn(2, 5, 8))
    called = [each.op_type for each in onnx.load(str(path)).graph.node]
    assert called[0] == called[2] != called[1]


def test_tied_weights_in_one_of_two_blocks_make_two_functions(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            if tied:
                self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).relu())

    path, model = tmp_path / "m.onnx", nn.Sequential(Pair(False), Pair(True))
    saved(model, path, torch.randn(2, 4))
    check_same(model, path, torch.randn(2, 4))


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(4, 3), (2, 4)),
    "linear of rank 3": (nn.Linear(4, 3, bias=False), (2, 5, 4)),
    "conv1d": (nn.Conv1d(4, 6, 3, 2, 1, groups=2), (2, 4, 9)),
    "conv2d same": (nn.Conv2d(3, 4, (3, 2), padding="same"), (2, 3, 8, 8)),
    "conv2d reflect": (nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="reflect"), (2, 3, 8, 8)),
    "conv2d circular": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 8, 8)),
    "conv3d": (nn.Conv3d(2, 3, 2, dilation=2), (1, 2, 5, 5, 5)),
    "conv without batch": (nn.Conv2d(3, 4, 3), (3, 8, 8)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), (2, 3, 5, 5)),
    "batchnorm": (nn.BatchNorm2d(3), (2, 3, 4, 4)),
    "batchnorm without weights": (nn.BatchNorm1d(3, affine=False), (2, 3)),
    "layernorm": (nn.LayerNorm([3, 4], eps=0.1), (2, 3, 4)),
    "layernorm without weights": (nn.LayerNorm(4, elementwise_affine=False), (2, 4)),
    "groupnorm": (nn.GroupNorm(2, 6), (2, 6, 4, 4)),
    "instancenorm": (nn.InstanceNorm2d(3, affine=True), (2, 3, 4, 4)),
    "rmsnorm": (nn.RMSNorm(4), (2, 3, 4)),
    "maxpool": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 3, 8, 8)),
    "avgpool": (nn.AvgPool2d(3, 2, 1), (2, 3, 8, 8)),
    "avgpool without padding": (nn.AvgPool1d(3, 2, 1, count_include_pad=False), (2, 3, 8)),
    "adaptive pool to 1": (nn.AdaptiveAvgPool2d(1), (2, 3, 7, 5)),
    "adaptive pool": (nn.AdaptiveAvgPool2d((3, 2)), (2, 3, 7, 5)),
    "lstm": (nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), (2, 5, 4)),
    "gru": (nn.GRU(4, 3, 2), (5, 2, 4)),
    "rnn": (nn.RNN(4, 3, nonlinearity="relu", bias=False), (5, 2, 4)),
    "attention": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "prelu": (nn.PReLU(3), (2, 3, 4)),
    "glu": (nn.GLU(1), (2, 4)),
    "softplus": (nn.Softplus(), (2, 4)),
    "pad": (nn.ConstantPad2d((1, 2, 0, 3), 0.5), (2, 3, 4, 4)),
    "reflection": (nn.ReflectionPad2d((1, 2, 0, 3)), (2, 3, 4, 4)),
    "upsample": (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 4, 4)),
    "pixelshuffle": (nn.PixelShuffle(2), (1, 8, 3, 3)),
    "unflatten": (nn.Unflatten(1, (2, 2)), (3, 4)),
    "dropout": (nn.Dropout(0.5), (2, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    model = nn.Sequential(layer)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)
    path = tmp_path / "m.onnx"
    saved(model, path, torch.randn(shape))
    check_same(model, path, torch.randn(shape))


def _masked(x: torch.Tensor) -> torch.Tensor:
    found = x.clone()
    found[:, 0] = 1.0
    return found.masked_fill(found > 1, -1.0)


def _parts(x: torch.Tensor) -> torch.Tensor:
    whole = x.new_empty(3, 4)
    whole[:, :2].copy_(x[:, 2:])
    whole.T[2:].mul_(0).add_(x[0, 0])
    return whole


FUNCTIONS: dict[str, Any] = {
    "arithmetic": lambda x: (x * 2 - 1) / 3 + x**2 - 2 / (x + 5),
    "integers": lambda x: torch.cat([x.long() // 2, x.long() % 3, -x.long() // 2], 0),
    "promotion": lambda x: x.long() * 0.5 + (x > 0) * 2,
    "comparisons": lambda x: (x > 0) & ~(x == 1) | (x <= -1),
    "names of numpy": lambda x: torch.cat([x, x.mean(axis=1, keepdims=True)], axis=1),
    "parts in place": _parts,
    "indices": lambda x: x[:, 1:, None] + x[0, -1] + x[..., ::2, None][:, :1],
    "a tensor of indices": lambda x: x[torch.tensor([1, 0, 1])],
    "two tensors of indices": lambda x: x[torch.tensor([1, 0]), torch.tensor([2, 0])],
    "in place": _masked,
    "reductions": lambda x: x.mean(-1, keepdim=True) + x.sum() + x.amax(0) + x.std(),
    "extremes": lambda x: torch.max(x, 1).values + x.argmin(1) + x.min(),
    "chunks": lambda x: torch.stack(x.chunk(2, -1)).flatten(1) + torch.cat(x.split(2, -1), 0).sum(),
    "shapes": lambda x: x.T.reshape(2, -1).unsqueeze(0).expand(3, -1, -1).permute(2, 0, 1),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "baddbmm": lambda x: x[None].baddbmm(batch1=(x @ x.T)[None], batch2=x[None], beta=0.5, alpha=2),
    "triangle": lambda x: (x @ x.T).triu(1),
    "attention": lambda x: F.scaled_dot_product_attention(
        x[None], x[None], x[None], is_causal=True
    ),
    "rolled": lambda x: torch.roll(x, (1, -1), (0, 1)).flip(1),
    "long tail": lambda x: torch.special.erfc(x) + F.celu(x, 0.5) + torch.diff(x, dim=0).sum(),
}


def test_a_handler_overlooks_no_argument() -> None:
    def overlook(call: Any) -> Any:
        return call.x

    table = Table()
    table.functions("addcmul")(overlook)
    row = next(each for each in table.rows if "torch.addcmul" in each.functions)
    node = Node("y", "function", "torch.addcmul", (), {"value": 2.0, "dtype": None})
    step = Step(("y",), "root", node, None, None, (1,), {"value": 2.0, "dtype": None})
    with listening() as heard:
        assert row.function(step, Onnx(20)) is None
    assert heard == ["it takes the argument 'value'"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function(name: str, tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = FUNCTIONS[name](x)
            return found

    model, path = Model(), tmp_path / "m.onnx"
    saved(model, path, torch.randn(3, 4))
    check_same(model, path, 3 * torch.randn(3, 4))


def test_sizes_with_names_vary(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, length, _ = x.shape
            heads = self.fc(x).view(batch, length, 2, 4).transpose(1, 2)
            positions = torch.arange(length, device=x.device)
            return heads.reshape(batch, length * 8) + positions.sum() + x.new_zeros(batch, 1)

    model, path = Model().eval(), tmp_path / "m.onnx"
    ir = lg.to_ir(model, (torch.randn(3, 5, 8),))
    lg.save(ir, path, model.state_dict(), args=(("batch", "length", 8),))
    onnx.checker.check_model(str(path), full_check=True)
    for shape in ((3, 5, 8), (7, 2, 8)):
        check_same(model, path, torch.randn(shape))
    sizes = onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in sizes] == ["batch", "length", 8]


def test_a_decision_goes_both_ways(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return x * 2
            return x - 1

    model, path = Model(), tmp_path / "m.onnx"
    saved(model, path, torch.ones(3))
    for given in (torch.ones(3), -torch.ones(3)):
        check_same(model, path, given)


def test_a_guard_that_the_file_does_not_check_is_warned_of_and_listed(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * [2, 3, 5][int(x.sum().item())]

    model, path = Model(), tmp_path / "m.onnx"
    ir = lg.to_ir(model, (torch.zeros(3),))
    with pytest.warns(UserWarning, match="the original checks, and the file does not"):
        lg.save(ir, path, {}, args=(torch.zeros(3),))
    metadata = {each.key: each.value for each in onnx.load(str(path)).metadata_props}
    assert "test_onnx.py" in metadata["layergraph.guards"]


class OneWay(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        given = None if x.sum() > 0 else mask
        return F.scaled_dot_product_attention(x, x, x, attn_mask=given)


def test_a_mask_on_one_way_only(tmp_path: Path) -> None:
    model, path = OneWay(), tmp_path / "m.onnx"
    some = torch.ones(4, 4, dtype=torch.bool).tril()
    saved(model, path, torch.randn(2, 4, 8), some)
    x = torch.rand(2, 4, 8)
    for given in (x, -x):
        check_same(model, path, given, some)


def test_ways_of_different_shapes_are_not_broadcast(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:1] if x.sum() > 0 else x

    model, path = Model(), tmp_path / "m.onnx"
    saved(model, path, torch.ones(3))
    for given in (torch.ones(3), -torch.ones(3)):
        check_same(model, path, given)


# --- there and back ---


@pytest.mark.parametrize("external", [False, True])
def test_it_comes_back_bit_for_bit(tmp_path: Path, external: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
            self.unused = nn.Linear(2, 2)
            self.head = nn.Linear(16, 16, bias=False)
            self.tail = nn.Linear(16, 16, bias=False)
            self.tail.weight = self.head.weight
            self.register_buffer("one", torch.ones(()), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.norm(self.conv(x))).mean((2, 3))
            found: torch.Tensor = self.tail(self.head(x) + self.one)
            return found

    model, path = Model(), tmp_path / "m.onnx"
    ir = saved(model, path, torch.randn(2, 3, 8, 8), external_data=external)
    assert (tmp_path / "m.onnx.data").exists() == external
    check_same(model, path, torch.randn(2, 3, 8, 8))
    assert lg.load(path) == ir
    back = lg.load_model(path)
    assert list(back.state_dict()) == list(model.state_dict())
    assert bitwise_equal(dict(back.state_dict()), dict(model.state_dict()))
    assert isinstance(back.conv, nn.Conv2d)
    assert back.tail.weight is back.head.weight
    for mode in (True, False):
        x = torch.randn(3, 3, 8, 8)
        assert bitwise_equal(back.train(mode)(x), model.train(mode)(x))


def test_a_file_may_not_read_another_folder(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = nn.Sequential(nn.Linear(64, 64))
    saved(model, path, torch.randn(2, 64), external_data=True)
    (tmp_path / "secret").write_bytes(bytes(64 * 64 * 4))
    for name in ("../secret", "/etc/passwd", str(tmp_path / "secret"), "..", ""):
        file = onnx.load(str(path), load_external_data=False)
        for each in file.graph.initializer:
            for entry in each.external_data:
                if entry.key == "location":
                    entry.value = name
        other = tmp_path / "inside" / "other.onnx"
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(file.SerializeToString())
        with pytest.raises(FileError, match="no name of a file"):
            lg.load_model(other)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = nn.Sequential(nn.Linear(4, 4))
    saved(model, path, torch.randn(2, 4))
    whole = path.read_bytes()
    for broken in (b"", b"hello", whole[:-40], base64.b64encode(whole)):
        path.write_bytes(broken)
        with pytest.raises(FileError, match=r"m\.onnx"):
            lg.load_model(path)
    file = onnx.ModelProto.FromString(whole)
    file.graph.initializer[0].dims[0] = 1 << 40
    path.write_bytes(file.SerializeToString())
    with pytest.raises(FileError, match="its shape needs"):
        lg.load_model(path)


# --- refusals ---


def test_what_onnx_lacks_is_listed_and_nothing_is_written(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvalsh(x) + torch.linalg.svdvals(x)

    path = tmp_path / "m.onnx"
    ir = lg.to_ir(Model(), (torch.eye(3),))
    with pytest.raises(LoweringError, match=r"eigvalsh(.|\n)*svdvals"):
        lg.save(ir, path, {}, args=(torch.eye(3),))
    assert not list(tmp_path.iterdir())


class Turned(nn.Module):
    """Multiplies complex numbers, for which ONNX has pairs of numbers at best."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.view_as_complex(x) * torch.polar(x[..., 0], x[..., 1]))


class Spread(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.view_as_complex(x).unsqueeze(0))


def test_complex_numbers_become_pairs_or_are_refused(tmp_path: Path) -> None:
    x = torch.rand(3, 2)
    saved(Turned(), tmp_path / "m.onnx", x)
    check_same(Turned(), tmp_path / "m.onnx", torch.rand(3, 2))
    ir, path = lg.to_ir(Spread(), (x,)), tmp_path / "other.onnx"
    with pytest.raises(LoweringError, match="computes with complex numbers"):
        lg.save(ir, path, {}, args=(x,))
    assert not path.exists()


def test_it_says_what_it_needs(tmp_path: Path) -> None:
    model, path = nn.Sequential(nn.Linear(2, 3)), tmp_path / "m.onnx"
    ir = lg.to_ir(model)
    with pytest.raises(ArgumentError, match="give args"):
        lg.save(ir, path, model.state_dict())
    with pytest.raises(FileError, match="state dict"):
        lg.save(ir, path, args=((1, 2),))
    with pytest.raises(ArgumentError, match="from 18 to"):
        lg.save(ir, path, model.state_dict(), args=((1, 2),), opset=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_the_opset_is_stated(tmp_path: Path, opset: int) -> None:
    model, path = nn.Sequential(nn.Linear(4, 4), nn.GELU()), tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved(model, path, torch.randn(2, 4), opset=opset)
    file = onnx.load(str(path))
    assert {each.domain: each.version for each in file.opset_import}[""] == opset
    check_same(model, path, torch.randn(2, 4))


class Recurrent(nn.Module):
    """A loop over a size, with a value that is carried and one that is collected."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state, found = torch.zeros(3), []
        for step in range(x.size(0)):
            state = torch.tanh(self.cell(x[step]) + state)
            found.append(state)
        return torch.stack(found), state


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x, dim=1).real + torch.eye(4)


class Biased(nn.Module):
    """Changes a tensor in place, and then chooses between two that come from it."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = x / 2
        scores += 1
        return scores.softmax(-1) if mask.all() else (scores + mask).softmax(-1)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 8))

    def forward(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.grouped_mm(x, self.weight, offs=ends)


def test_a_loop_of_known_turns_is_written_turn_by_turn(tmp_path: Path) -> None:
    model = Recurrent()
    ir = saved(model, tmp_path / "m.onnx", torch.randn(5, 3))
    assert any("/" in name for name in ir), "the loop was not captured as one"
    check_same(model, tmp_path / "m.onnx", torch.randn(5, 3))


def test_the_operators_are_those_of_the_version(tmp_path: Path) -> None:
    model = Spectrum()
    saved(model, tmp_path / "m.onnx", torch.randn(2, 4, 4))
    check_same(model, tmp_path / "m.onnx", torch.randn(2, 4, 4))


@pytest.mark.parametrize("kept", [True, False])
def test_a_condition_shares_no_memory_with_what_it_chooses(tmp_path: Path, kept: bool) -> None:
    model = Biased()
    saved(model, tmp_path / "m.onnx", torch.randn(2, 4), torch.ones(2, 4))
    mask = torch.ones(2, 4) if kept else torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 1]])
    check_same(model, tmp_path / "m.onnx", torch.randn(2, 4), mask)


def test_each_group_of_rows_meets_its_own_matrix(tmp_path: Path) -> None:
    model = Experts()
    ends = torch.tensor([1, 1, 6], dtype=torch.int32)
    saved(model, tmp_path / "m.onnx", torch.randn(6, 4), ends)
    check_same(
        model,
        tmp_path / "m.onnx",
        torch.randn(6, 4),
        ends.flip(0).cumsum(0).clamp(max=6).to(torch.int32),
    )
