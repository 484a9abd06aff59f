"""Bad paths, and paths that are not regular files: each is refused at once by a FileError."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError, FileError
from layergraph.testing import bitwise_equal
from layergraph_files import paths, staging
from layergraph_files.shards import bytes_of


@pytest.fixture(scope="module")
def model():
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


@pytest.fixture(scope="module")
def ir(model):
    return lg.to_ir(model)


@pytest.fixture
def shards(tmp_path, model, ir):
    """Return the paths of the index and of the two files of a model."""
    folder = tmp_path / "shards"
    folder.mkdir()
    lg.save(ir, folder / "m.safetensors", model.state_dict(), max_shard_size=300)
    return folder / "m.safetensors.index.json", *sorted(folder.glob("*-of-*"))


READS = pytest.mark.parametrize("read", [lg.load, lg.load_model])

# --- names ---

NAMES = {
    "NUL": "a\0b",
    "a half of a pair": "a\ud800b",
    "very long": "a" * 300,
    "long in bytes": "ä" * 200,
    "a long folder": "a" * 300 + "/b",
}


@pytest.mark.parametrize("suffix", [".json", ".safetensors", ".safetensors.index.json", ""])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_file_can_have(tmp_path, ir, name, suffix):
    path = f"{tmp_path}/{NAMES[name]}{suffix}"
    for call in (lg.load, lg.load_model, lambda path: lg.save(ir, path)):
        with pytest.raises(FileError) as caught:
            call(path)
        assert str(caught.value).isprintable()
        assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_names_as_long_as_can_be(tmp_path, model, ir, suffix):
    path = tmp_path / ("a" * (255 - len(suffix)) + suffix)
    lg.save(ir, path)
    lg.save(ir, path)
    assert lg.load(path) == ir
    assert list(tmp_path.iterdir()) == [path]
    if suffix == ".safetensors":
        with pytest.raises(FileError, match="name too long"):
            lg.save(ir, path, model.state_dict(), max_shard_size=300)
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name", ["ü 2024:10.safetensors", "line\nbreak.json", ".hidden.safetensors"]
)
def test_odd_names_are_names(tmp_path, ir, name):
    lg.save(ir, tmp_path / name)
    assert lg.load(tmp_path / name) == ir


@pytest.mark.parametrize("name", ["2024:10.safetensors", "a\\b.safetensors", ".a.safetensors"])
def test_no_shards_are_written_that_no_index_may_name(tmp_path, model, ir, name):
    with pytest.raises(FileError, match="give another name"):
        lg.save(ir, tmp_path / name, model.state_dict(), max_shard_size=300)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_path(ir):
    for call in (lg.load, lg.load_model, lambda path: lg.save(ir, path)):
        with pytest.raises(FileError, match="the path is empty"):
            call("")


# --- called wrongly ---

WRONG = {
    "swapped": (lambda path, ir, model: (path, ir), "str stands where the Ir belongs"),
    "the model": (lambda path, ir, model: (model, path), "Sequential stands where the Ir"),
    "a dict": (lambda path, ir, model: (ir.to_dict(), path), "dict stands where the Ir"),
    "weights as path": (
        lambda path, ir, model: (ir, model.state_dict(), path),
        "str stands where the state dict",
    ),
    "only weights": (lambda path, ir, model: (ir, model.state_dict()), "where the path belongs"),
    "the model as weights": (
        lambda path, ir, model: (ir, path, model),
        "Sequential stands where the state dict",
    ),
    "an open file": (lambda path, ir, model: (ir, 1), "int stands where the path belongs"),
    "bytes": (lambda path, ir, model: (ir, os.fsencode(path)), "bytes stands where the path"),
    "nothing": (lambda path, ir, model: (ir, None), "NoneType stands where the path"),
}


@pytest.mark.parametrize("name", WRONG)
def test_save_called_wrongly(tmp_path, ir, model, name):
    arguments, message = WRONG[name]
    with pytest.raises(ArgumentError, match=rf"{message}.*save\(ir, path, state_dict\)") as caught:
        lg.save(*arguments(str(tmp_path / "m.safetensors"), ir, model))
    assert isinstance(caught.value, TypeError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given", [None, 3, b"m.json", nn.ReLU(), {"a": torch.zeros(1)}, ["m.json"]]
)
def test_load_called_wrongly(given):
    for read in (lg.load, lg.load_model):
        with pytest.raises(ArgumentError, match=rf"the path belongs: {read.__name__}\(path\)"):
            read(given)


def test_sizes_of_shards():
    assert [bytes_of(size) for size in (5, 5.5, "5 kB", "1.5GiB")] == [5, 5, 5000, 3 << 29]
    for size in ("9" * 400, "1e9", True, 0, -3, float("inf"), float("nan"), None, [1]):
        with pytest.raises(FileError, match="is not a file size"):
            bytes_of(size)


# --- what is no file ---


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


KINDS = {
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
}


@READS
@pytest.mark.parametrize("name", ["m.safetensors", "m.json", "m.safetensors.index.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch, read, name, kind):
    KINDS[kind](tmp_path / name)
    monkeypatch.setattr(os, "open", lambda *args: pytest.fail("it was opened"))
    wanted = kind.replace("terminal", "device")
    with pytest.raises(FileError, match=rf"{name}: it is {wanted}, not a file"):
        read(tmp_path / name)


@READS
@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_that_is_no_file(shards, read, kind):
    index, _, last = shards
    last.unlink()
    KINDS[kind](last)
    with pytest.raises(FileError, match=rf"{last.name}: it is a|leads out of the folder"):
        read(index)


def test_what_becomes_a_pipe_while_it_is_opened_does_not_wait(tmp_path, monkeypatch):
    path = tmp_path / "m.json"
    os.mkfifo(path)
    checks = []

    def only_later(mode, expect=paths.expect_regular):
        checks.append(mode)
        if len(checks) > 1:
            expect(mode)

    monkeypatch.setattr(paths, "expect_regular", only_later)
    with pytest.raises(FileError, match="it is a pipe"):
        lg.load(path)


@pytest.mark.parametrize("name", ["m.safetensors", "m.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, _socket])
def test_nothing_but_files_is_written_over(tmp_path, ir, name, make):
    make(tmp_path / name)
    before = (tmp_path / name).lstat()
    with pytest.raises(FileError, match="not a file"):
        lg.save(ir, tmp_path / name)
    assert (tmp_path / name).lstat().st_ino == before.st_ino
    assert len(list(tmp_path.iterdir())) == 1


@READS
def test_files_that_may_not_be_read(shards, monkeypatch, read):
    opening = os.open

    def refuse(path, flags, *args, **kwargs):
        if Path(path).name == denied.name:
            raise PermissionError(13, "Permission denied")
        return opening(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    for denied in shards:
        with pytest.raises(FileError, match=rf"{denied.name}: Permission denied; check"):
            read(shards[0])


def test_folders_that_may_not_be_written(tmp_path, ir, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(staging, "open", refuse, raising=False)
    for name in ("m.json", "m.safetensors"):
        with pytest.raises(FileError, match=rf"{name}: Permission denied; check"):
            lg.save(ir, tmp_path / name)


# --- indexes and links ---

SHARD_NAMES = ["a\0b", "a\ud800", "..", "a/b", "a\\b", "c:a", "/etc/a", ".a", "", "a" * 300]


@READS
@pytest.mark.parametrize("name", SHARD_NAMES)
def test_names_that_no_shard_can_have(shards, read, name):
    index = json.loads(shards[0].read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], f"{name}.safetensors")
    shards[0].write_text(json.dumps(index))
    with pytest.raises(FileError, match=r"is not a valid file name|name too long") as caught:
        read(shards[0])
    assert str(caught.value).isprintable()


@READS
def test_a_link_out_of_the_folder_is_refused(shards, tmp_path, read):
    index, _, last = shards
    for number, target in enumerate((tmp_path / "else.safetensors", tmp_path / "deep" / "else")):
        target.parent.mkdir(exist_ok=True)
        if number:
            last.unlink()
            (tmp_path / "else.safetensors").rename(target)
        else:
            last.rename(target)
        for way in (target, os.path.relpath(target, last.parent)):
            last.unlink(missing_ok=True)
            last.symlink_to(way)
            with pytest.raises(
                FileError, match=rf"{last.name}: it is a link that leads out .*else"
            ):
                read(index)


@READS
def test_a_link_in_the_folder_is_followed(shards, read):
    index, _, last = shards
    (last.parent / "blobs").mkdir()
    last.rename(last.parent / "blobs" / "content")
    last.symlink_to("blobs/content")
    assert read(index)


def test_a_cache_of_links_is_read(shards, tmp_path, model):
    """As that of Hugging Face: folders of links to files that are named by their content."""
    (tmp_path / "blobs").mkdir()
    snapshot = tmp_path / "snapshots" / "1a2b"
    snapshot.mkdir(parents=True)
    for number, path in enumerate(shards):
        shutil.copy(path, tmp_path / "blobs" / f"content{number}")
        (snapshot / path.name).symlink_to(f"../../blobs/content{number}")
    loaded = lg.load_model(snapshot / "m.safetensors").state_dict()
    assert all(bitwise_equal(loaded[key], each) for key, each in model.state_dict().items())
    (tmp_path / "linked").symlink_to(snapshot)
    lg.load_model(tmp_path / "linked" / "m.safetensors")


@READS
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_one_file_is_not_read_as_many(shards, read, link):
    index, first, last = shards
    last.unlink()
    link(first, last)
    with pytest.raises(FileError, match=rf"{last.name}: the index names its file twice"):
        read(index)


# --- headers ---

SHAPES = {
    "of nothing, times more than can be": [0, 10**29],
    "of nothing, times much": [0, 2**40, 2**40],
    "of very long numbers": [10**29] * 1000,
    "of very many very long numbers": [10**29] * 100_000,
}


@READS
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_no_machine_can_hold(tmp_path, read, name):
    header = {"w": {"dtype": "F32", "shape": SHAPES[name], "data_offsets": [0, 0]}}
    head = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    with pytest.raises(FileError, match=r"m\.safetensors, w, shape(\[\d\]|: )"):
        read(tmp_path / "m.safetensors")


@READS
@pytest.mark.parametrize("length", [10, 10_000, 1_000_000])
def test_messages_are_short_however_long_what_they_name_is(tmp_path, read, length):
    text = "\n" * length
    for header in (
        {text: 1},
        {"a": {"dtype": text, "shape": [], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0] * length}},
        {"a": {text: 1}},
        {"__metadata__": {text: 1}},
    ):
        head = json.dumps(header).encode()
        (tmp_path / "m.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
        with pytest.raises(FileError) as caught:
            read(tmp_path / "m.safetensors")
        assert len(str(caught.value)) < 4000
