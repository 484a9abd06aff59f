"""Saves and loads make no second copy of the weights, and leave no half-written file."""

from __future__ import annotations

import mmap
import os
import resource
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import layergraph as lg
from layergraph.errors import FileError
from layergraph.testing import bitwise_equal
from layergraph_files import save as saving


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(256, 256)
        self.norm = nn.BatchNorm1d(256)
        self.second = nn.Linear(256, 256, bias=False)
        self.third = nn.Linear(256, 256, bias=False)
        self.third.weight = self.first.weight
        self.register_buffer("hidden", torch.arange(256.0), persistent=False)

    def forward(self, x):
        return self.third(self.second(self.norm(self.first(x)))) + self.hidden


@pytest.fixture
def model():
    return Model().eval()


@pytest.fixture
def ir(model):
    return lg.to_ir(model)


SHARDING = pytest.mark.parametrize("max_shard_size", [None, 100_000])

# --- memory ---


class _Written(TorchDispatchMode):
    """Sums up the bytes that operations write on the CPU.

    Memory that constructors allocate and never write does not count: it has no pages yet.
    """

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {_memory(each) for each in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        made = [] if "empty" in func.name() else _tensors(result)
        for each in made:
            written = func._schema.is_mutable or _memory(each) not in before
            self.bytes += each.nbytes * (written and each.device.type == "cpu")
        return result


def _tensors(value):
    return [each for each in tree_leaves(value) if isinstance(each, torch.Tensor)]


def _memory(tensor):
    return tensor.untyped_storage().data_ptr()


def _weights(model):
    return {_memory(each): each.untyped_storage().nbytes() for each in model.state_dict().values()}


SLACK = 12_000  # the non-persistent buffer, and other tensors of the layers


def test_copies_are_seen():
    numbers = torch.arange(1000.0)
    with _Written() as seen:
        numbers.view(10, 100).detach()
        torch.empty(1000)
    assert seen.bytes == 0
    with _Written() as seen:
        numbers.clone()
        torch.empty(1000).copy_(numbers)
        numbers.to(torch.float64)
    assert seen.bytes == 16_000


@SHARDING
def test_loaded_weights_lie_in_the_file(tmp_path, model, ir, monkeypatch, max_shard_size):
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict(), max_shard_size=max_shard_size)
    spans, mapping = [], mmap.mmap

    def noted(*args, **kwargs):
        mapped = mapping(*args, **kwargs)
        start = torch.frombuffer(mapped, dtype=torch.uint8).data_ptr()
        spans.append(range(start, start + len(mapped)))
        return mapped

    with monkeypatch.context() as patch, _Written() as seen:
        patch.setattr(mmap, "mmap", noted)
        loaded = lg.load_model(tmp_path / "m.safetensors")
    assert len(spans) == len(list(tmp_path.glob("*.safetensors")))
    for key, tensor in loaded.state_dict().items():
        assert any(tensor.data_ptr() in span for span in spans), key
    assert seen.bytes < SLACK < sum(_weights(loaded).values())


def test_each_weight_is_cast_once(tmp_path, model, ir):
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    with _Written() as seen:
        lg.load_model(tmp_path / "m.safetensors", dtype=torch.float64)
    total = sum(_weights(model).values())
    assert seen.bytes < 2 * total + SLACK


@SHARDING
def test_weights_are_written_from_where_they_are(tmp_path, model, ir, max_shard_size):
    state = model.state_dict()
    with _Written() as seen:
        lg.save(ir, tmp_path / "m.safetensors", state, max_shard_size=max_shard_size)
    assert seen.bytes < SLACK < sum(_weights(model).values())


# --- the disk ---


@SHARDING
def test_files_are_on_the_disk_before_they_take_their_places(
    tmp_path, model, ir, monkeypatch, max_shard_size
):
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict(), max_shard_size=max_shard_size)
    sizes = {each.stat().st_ino: each.stat().st_size for each in tmp_path.iterdir()}
    before = sorted(sizes.values())
    fsync, replace = os.fsync, os.replace
    synced, replaced, folders = {}, [], []

    def noted_fsync(descriptor):
        fsync(descriptor)
        stat = os.fstat(descriptor)
        if stat.st_ino == tmp_path.stat().st_ino:
            folders.append((len(replaced), len(list(tmp_path.glob("*-of-*")))))
        else:
            assert not replaced
            synced[stat.st_ino] = stat.st_size

    def noted_replace(source, target):
        assert Path(source).stat().st_ino in synced
        replaced.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    lg.save(ir, path, model.state_dict(), max_shard_size=max_shard_size)
    assert sorted(synced.values()) == before
    assert sorted(replaced) == sorted(each.name for each in tmp_path.iterdir())
    if max_shard_size is None:
        assert folders == []
        return
    # The index is written last, and old shards are removed after it.
    shards = len(replaced) - 1
    assert shards > 2
    assert replaced[-1].endswith(".index.json")
    assert folders == [(shards, shards)]
    replaced.clear()
    lg.save(ir, path, _changed(model.state_dict()), max_shard_size=max_shard_size)
    assert folders[1:] == [(shards, 2 * shards), (shards + 1, 2 * shards)]
    assert len(list(tmp_path.glob("*-of-*"))) == shards


@contextmanager
def _failing(owner, name, at, monkeypatch):
    """Let a function fail at its call number ``at``, from 0."""
    function, calls = getattr(owner, name), []

    def fail(*args, **kwargs):
        calls.append(args)
        if len(calls) == at + 1:
            raise OSError(28, "No space left on device")
        return function(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        yield


@contextmanager
def _no_file_longer_than(size, monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def _changed(state):
    return {key: each + 1 if each.is_floating_point() else each for key, each in state.items()}


def _content(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir()}


# The places where a save may fail before the first file is in place; byte 30 is in a header.
FAILURES = [
    *((_failing, saving.Item, "give", at) for at in (0, 1, 4, 7)),
    *((_failing, os, "fsync", at) for at in (0,)),
    *((_failing, os, "replace", at) for at in (0,)),
    *((_no_file_longer_than, size) for size in (0, 30, 3_000, 50_000, 250_000)),
]


def _called(failure):
    return "-".join(getattr(each, "__name__", str(each)) for each in failure[-2:])


@SHARDING
@pytest.mark.parametrize("failure", FAILURES, ids=_called)
def test_a_save_that_fails_leaves_the_old_files(
    tmp_path, model, ir, monkeypatch, max_shard_size, failure
):
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict(), max_shard_size=max_shard_size)
    before = _content(tmp_path)
    fails, *where = failure
    with fails(*where, monkeypatch), pytest.raises(FileError, match=r"No space left|too large"):
        lg.save(ir, path, _changed(model.state_dict()), max_shard_size=max_shard_size)
    assert _content(tmp_path) == before


def test_several_files_that_take_their_places_in_part_leave_the_old_model(
    tmp_path, model, ir, monkeypatch
):
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict(), max_shard_size=100_000)
    before = _content(tmp_path)
    assert len(before) > 3
    for at in range(len(before)):
        with (
            _failing(os, "replace", at, monkeypatch),
            pytest.raises(FileError, match="No space left"),
        ):
            lg.save(ir, path, _changed(model.state_dict()), max_shard_size=100_000)
        assert _content(tmp_path) == before


def test_a_process_that_ends_between_two_files_leaves_the_old_model(tmp_path, model, ir):
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict(), max_shard_size=100_000)
    before = _content(tmp_path)
    # After a crash, there are new files and the old index.
    other = tmp_path / "other"
    other.mkdir()
    lg.save(ir, other / path.name, _changed(model.state_dict()), max_shard_size=100_000)
    for each in other.glob("*-of-*"):
        each.rename(tmp_path / each.name)
    shutil.rmtree(other)
    assert before.items() < _content(tmp_path).items()
    loaded = lg.load_model(path).state_dict()
    assert all(bitwise_equal(loaded[key], tensor) for key, tensor in model.state_dict().items())


def test_files_of_an_earlier_save_are_removed_and_no_others(tmp_path, model, ir):
    path = tmp_path / "m.safetensors"
    lg.save(ir, path, model.state_dict(), max_shard_size=100_000)
    before = set(_content(tmp_path))
    (tmp_path / "m-00001-of-00002.safetensors").write_bytes(b"of another program")
    lg.save(ir, path, _changed(model.state_dict()), max_shard_size=200_000)
    kept = before & set(_content(tmp_path))
    assert kept == {"m.safetensors.index.json"}
    assert (tmp_path / "m-00001-of-00002.safetensors").exists()
    lg.load_model(path)
