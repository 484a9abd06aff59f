"""Tensors of files, and constants, have the alignment of tensors that torch makes."""

from __future__ import annotations

import json
import math
import mmap
import struct

import pytest
import safetensors.torch
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import FileError
from layergraph.testing import bitwise_equal
from layergraph_files.container import CODES, new_header

ALIGNMENT = 64


class Odd(nn.Module):
    """Has tensors whose lengths are multiples of different powers of 2, and constants."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(size, size) for size in (3, 5, 7, 10, 12, 33, 64)])
        self.narrow = nn.Parameter(torch.randn(7).half())
        self.wide = nn.Parameter(torch.randn(3, dtype=torch.complex128))
        self.register_buffer("byte", torch.arange(5, dtype=torch.uint8))
        self.register_buffer("flag", torch.tensor(True))
        self.register_buffer("hidden", torch.randn(9), persistent=False)
        self.constants = [torch.randn(size) for size in (1, 3, 17)]

    def forward(self, x):
        y = x * self.hidden.sum() + self.byte.sum() + self.flag
        for constant in self.constants:
            y = y * constant.sum()
        return [layer(y[..., : layer.in_features]) for layer in self.layers], self.narrow, self.wide


def _tensors(model):
    return dict([*model.named_parameters(), *model.named_buffers()])


def _assert_aligned(model):
    found = _tensors(model)
    assert len(found) > 15
    assert {name: each.data_ptr() % ALIGNMENT for name, each in found.items()} == dict.fromkeys(
        found, 0
    )


def test_torch_itself_does_so():
    _assert_aligned(Odd())
    assert all(torch.empty(size).data_ptr() % ALIGNMENT == 0 for size in range(1, 50))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Odd()


@pytest.mark.parametrize("max_shard_size", [None, 100, 2_000])
def test_all_begin_where_torch_would_let_them_begin(tmp_path, model, max_shard_size):
    ir = lg.to_ir(model)
    for place in ("model.safetensors", "moved.safetensors"):
        path = tmp_path / place
        lg.save(ir, path, model.state_dict(), max_shard_size=max_shard_size)
        loaded = lg.load_model(path)
        _assert_aligned(loaded)
        for key, tensor in model.state_dict().items():
            assert bitwise_equal(loaded.state_dict()[key], tensor), key


def test_constants_of_a_rebuilt_model_do_too(model):
    _assert_aligned(lg.to_torch(lg.to_ir(model), model.state_dict()))


@pytest.mark.parametrize("blanks", range(0, 64, 8))
def test_files_of_others_do_too(tmp_path, model, blanks):
    """Files of other programs, with headers padded to 8 bytes and another order of tensors."""
    path = tmp_path / "m.safetensors"
    lg.save(lg.to_ir(model), path, model.state_dict())
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    head = raw[8 : 8 + length].rstrip()
    head += b" " * (-len(head) % 8 + blanks)
    path.write_bytes(struct.pack("<Q", len(head)) + head + raw[8 + length :])
    _assert_aligned(lg.load_model(path))


def test_what_begins_there_stays_in_the_file(tmp_path, model, monkeypatch):
    spans, mapping = [], mmap.mmap

    def noted(*args, **kwargs):
        mapped = mapping(*args, **kwargs)
        start = torch.frombuffer(mapped, dtype=torch.uint8).data_ptr()
        spans.append(range(start, start + len(mapped)))
        return mapped

    path = tmp_path / "m.safetensors"
    lg.save(lg.to_ir(model), path, model.state_dict())
    monkeypatch.setattr(mmap, "mmap", noted)
    loaded = _tensors(lg.load_model(path))
    inside = {name for name, each in loaded.items() if any(each.data_ptr() in it for it in spans)}
    multiples = {name for name, each in loaded.items() if each.nbytes % ALIGNMENT == 0}
    assert multiples - {"wide"} <= inside
    assert len(inside) > len(multiples)


def test_the_order_of_a_file_has_no_gaps_and_lets_many_begin_there():
    wanted = [
        (f"{code} {size}", dtype, (size,))
        for size in (0, 1, 3, 4, 8, 15, 16, 48, 64, 100)
        for dtype, code in CODES.items()
    ]
    header, names = new_header(wanted, {"format": "pt"})
    assert sorted(names) == sorted(name for name, *_ in wanted)
    said = json.loads(header[8:])
    end = 0
    for name in names:
        start, stop = said[name]["data_offsets"]
        assert start == end
        length = end = stop
        length -= start
        power = math.gcd(length, ALIGNMENT)
        assert (len(header) + start) % power == 0
    assert len(header) % ALIGNMENT == 0


def test_safetensors_reads_it(tmp_path, model):
    path = tmp_path / "m.safetensors"
    lg.save(lg.to_ir(model), path, model.state_dict())
    found = safetensors.torch.load_file(path)
    for key, tensor in model.state_dict().items():
        if key != "wide":
            assert bitwise_equal(found[key], tensor), key


def test_no_tensor_takes_the_name_of_the_metadata():
    from layergraph_files.parse_errors import ParseError

    with pytest.raises(ParseError, match="can have this name"):
        new_header([("__metadata__", "float32", (1,))], {})


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_file_that_becomes_shorter_is_refused(tmp_path, model, monkeypatch, is_mapped):
    path, mapping = tmp_path / "m.safetensors", mmap.mmap

    def shortened(*args, **kwargs):
        mapped = mapping(*args, **kwargs) if is_mapped else None
        path.write_bytes(path.read_bytes()[:-1])
        return mapped or mapping(*args, **kwargs)

    lg.save(lg.to_ir(model), path, model.state_dict())
    monkeypatch.setattr(mmap, "mmap", shortened)
    with pytest.raises(FileError, match=r"m\.safetensors: it became shorter"):
        lg.load_model(path)
