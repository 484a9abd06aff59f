"""An index of the models in a folder: its groups, its updates, and damage to it."""

import contextlib
import errno
import io
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import layergraph as lg
from layergraph.errors import FileError
from layergraph_cli.app import run as command
from layergraph_index import index as module
from layergraph_index.index import NAME, Index


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.lin = nn.Linear(4, width)
        self.back = nn.Linear(width, 4)

    def forward(self, x):
        return self.back(self.lin(x).relu())


def save(path, model):
    path.parent.mkdir(exist_ok=True)
    weights = None if path.suffix == ".json" else model.state_dict()
    lg.save(lg.to_ir(model), path, weights)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with three structures in six files, one of which is in a subfolder."""
    here = tmp_path / "models"
    save(here / "one.safetensors", nn.Sequential(Block(5)))
    save(here / "again.safetensors", nn.Sequential(Block(5)))
    save(here / "text.json", nn.Sequential(Block(5)))
    save(here / "wide.json", nn.Sequential(nn.Tanh(), Block(5), Block(7), Block(5)))
    save(here / "other.json", nn.Sequential(Block(6)))
    shutil.copyfile(here / "other.json", here / "copy.json")
    save(here / "below" / "one.json", nn.Sequential(Block(5)))
    return here


def groups(index):
    return [each.paths for each in index.groups()]


ALL = [
    ["again.safetensors", "below/one.json", "one.safetensors", "text.json"],
    ["copy.json", "other.json"],
    ["wide.json"],
]


def test_files_of_one_structure_are_a_group(folder):
    with Index(folder) as index:
        update = index.update()
        assert (update.files, update.read, update.removed) == (7, 7, 0)
        # Files with the same text are parsed once; the two formats have different texts.
        assert update.parsed == 4
        assert groups(index) == ALL
        assert index.errors() == {}


def test_what_is_unchanged_is_not_read_again(folder, monkeypatch):
    with Index(folder) as index:
        index.update()
    read = []
    monkeypatch.setattr(module, "text_digest", read.append)
    with Index(folder) as index:
        update = index.update()
        assert (update.files, update.read, update.parsed) == (7, 0, 0)
        assert groups(index) == ALL
    assert read == []


def test_what_has_changed_is_read_again(folder):
    with Index(folder) as index:
        index.update()
        save(folder / "text.json", nn.Sequential(Block(8)))
        (folder / "copy.json").unlink()
        save(folder / "new.json", nn.Sequential(Block(6)))
        update = index.update()
        assert (update.files, update.read, update.removed) == (7, 2, 1)
        assert groups(index) == [
            ["again.safetensors", "below/one.json", "one.safetensors"],
            ["new.json", "other.json"],
            ["text.json"],
            ["wide.json"],
        ]


def test_structures_that_no_file_has_are_dropped(folder):
    with Index(folder) as index:
        index.update()
        for each in ("wide.json", "other.json", "copy.json"):
            (folder / each).unlink()
        index.update()
        assert groups(index) == ALL[:1]
        rows = index._rows("SELECT DISTINCT structure FROM blocks")
        # The text of two formats.
        assert len(rows) == len(index._rows("SELECT id FROM structures")) == 2


def test_weights_are_not_read(folder, monkeypatch):
    path = folder / "one.safetensors"
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(size - 64)
        file.write(b"\xff" * 64)
    with Index(folder) as index:
        index.update()
        assert "one.safetensors" in groups(index)[0]


def test_models_that_share_a_block(folder):
    ir = lg.load(folder / "one.safetensors")
    with Index(folder) as index:
        index.update()
        found = index.with_block(lg.fingerprint(ir, "0"))
        assert {path: (each.name, each.count) for path, each in found.items()} == {
            **dict.fromkeys(ALL[0], ("0", 1)),
            "wide.json": ("1", 2),
        }


BROKEN = {
    "empty.json": b"",
    "text.json": b"not a model",
    "list.json": b"[" * 100_000,
    "config.json": b'{"hidden_size": 3}',
    "short.safetensors": b"\x08\x00",
    "long.safetensors": (2**62).to_bytes(8, "little") + b"{}",
    "weights.safetensors": (2).to_bytes(8, "little") + b"{}",
    "half.safetensors.index.json": b'{"weight_map": {"a": "../../etc/passwd"}}',
}


def test_a_broken_file_is_an_entry_with_its_error(folder):
    bad = folder / "bad"
    bad.mkdir()
    for name, content in BROKEN.items():
        (bad / name).write_bytes(content)
    shutil.copyfile(bad / "text.json", bad / "same.json")
    (bad / "gone.json").symlink_to(folder / "nothing.json")
    os.mkfifo(bad / "fifo.json")
    (bad / "loop").symlink_to(folder)
    with Index(folder) as index:
        index.update()
        assert groups(index) == ALL
        errors = index.errors()
        assert sorted(errors) == sorted(f"bad/{each}" for each in [*BROKEN, "same.json"])
        # Each file has its own error.
        assert all(error and path in error for path, error in errors.items())
        again = index.update()
        assert again.read == 0


def test_a_fault_of_ours_is_an_entry_too(folder, monkeypatch):
    monkeypatch.setattr("layergraph_index.reading.load", lambda path: 1 / 0)
    with Index(folder) as index:
        index.update()
        assert set(index.errors().values()) == {"ZeroDivisionError: division by zero"}


def test_a_file_that_is_written_meanwhile_is_read_the_next_time(folder, monkeypatch):
    load = lg.load

    def slow(path):
        ir = load(path)
        if path.name == "wide.json":
            save(path, nn.Sequential(Block(9)))
        return ir

    with monkeypatch.context() as patched, Index(folder) as index:
        patched.setattr("layergraph_index.reading.load", slow)
        index.update()
        assert "another program writes it" in index.errors()["wide.json"]
    with Index(folder) as index:
        index.update()
        assert index.errors() == {}
        assert ["wide.json"] in groups(index)


def test_the_file_of_the_index(folder, tmp_path):
    with Index(folder, tmp_path / "index.db") as index:
        index.update()
    assert not (folder / NAME).exists()
    with pytest.raises(FileError, match="is not a folder"):
        Index(folder / "text.json")
    (tmp_path / "index.db").write_bytes(b"something else" * 100)
    with pytest.raises(FileError, match="the index cannot be used"):
        Index(folder, tmp_path / "index.db")
    with sqlite3.connect(tmp_path / "foreign.db") as foreign:
        foreign.execute("CREATE TABLE theirs (a)")
    with pytest.raises(FileError, match="a database of another program"):
        Index(folder, tmp_path / "foreign.db")
    foreign.close()


def test_an_index_of_another_version_is_made_again(folder):
    with Index(folder) as index:
        index.update()
    change(folder / NAME, "PRAGMA user_version = 99")
    with Index(folder) as index:
        assert groups(index) == []
        assert index.update().read == 7
        assert groups(index) == ALL


# --- what strangers and other processes do ---


def change(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as stored, stored:
        for each in statements:
            stored.execute(each)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_place_of_the_index_changes_no_other_file(folder, tmp_path, there):
    other = tmp_path / "other"
    if there:
        other.touch()
    (folder / NAME).symlink_to(other)
    with Index(folder) as index:
        index.update()
    assert other.exists() == there
    assert not there or other.read_bytes() == b""
    with Index(folder) as index:
        assert groups(index) == ALL


def test_a_journal_beside_the_index_deletes_nothing(folder, tmp_path):
    with Index(folder) as index:
        index.update()
    other = tmp_path / "other"
    other.write_text("precious")
    # SQLite deletes a super-journal that names no other journal, if our journal names it.
    magic = bytes.fromhex("d9d505f920a163d7")
    pages = (folder / NAME).stat().st_size // 4096
    start = magic + struct.pack(">5I", 0, 1, pages, 512, 4096)
    name = str(other).encode()
    end = struct.pack(">I", 0x40000000 // 4096 + 1) + name
    end += struct.pack(">II", len(name), sum(name)) + magic
    (folder / f"{NAME}-journal").write_bytes(start.ljust(512, b"\0") + end)
    with Index(folder) as index:
        index.update()
    assert other.exists()


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
HOSTILE = {
    "view": (
        "DROP TABLE files",
        f"CREATE VIEW files AS {ENDLESS} SELECT x AS path, 1 AS time, 1 AS size FROM c",
    ),
    "trigger": ("CREATE TRIGGER t AFTER INSERT ON files BEGIN SELECT abs(-1 << 63); END",),
    "column": ("ALTER TABLE files ADD COLUMN more",),
    "table": ("DROP TABLE blocks",),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_index_with_another_schema_is_made_again(folder, kind):
    with Index(folder) as index:
        index.update()
    change(folder / NAME, *HOSTILE[kind])
    with Index(folder) as index:
        assert index.update().read == 7
        assert groups(index) == ALL


def test_a_damaged_index_is_refused(folder):
    with Index(folder) as index:
        index.update()
    sound = (folder / NAME).read_bytes()
    change(
        folder / NAME, "PRAGMA ignore_check_constraints = ON", "UPDATE blocks SET count = 'many'"
    )
    damaged = [
        (folder / NAME).read_bytes(),
        sound[: len(sound) // 2],
        sound[:5000] + b"\xff" * 9999,
    ]
    for content in damaged:
        (folder / NAME).write_bytes(content)
        with pytest.raises(FileError, match="the index cannot be used"):
            Index(folder)
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME)
    with pytest.raises(FileError, match="it is a pipe"):
        Index(folder)


def test_two_indexes_of_one_folder_at_once(folder):
    with Index(folder) as one, Index(folder) as other:
        for index in (one, other):
            assert index.update().read == 7
            assert groups(index) == ALL
    with Index(folder) as index:
        assert index.update().read == 0
    assert [each.name for each in folder.iterdir() if each.name[0] == "."] == [NAME]


def test_an_index_that_is_up_to_date_is_not_written(folder):
    with Index(folder) as index:
        index.update()
    before = (folder / NAME).stat()
    with Index(folder) as index:
        index.update()
    assert (folder / NAME).stat() == before


def test_what_cannot_be_read_is_an_entry_and_the_rest_is_read(folder, monkeypatch):
    real = Path.iterdir

    def iterdir(path):
        if path.name == "below":
            raise PermissionError(errno.EACCES, "Permission denied")
        if path == folder:
            (folder / "gone.json").unlink(missing_ok=True)
        return real(path)

    (folder / "gone.json").write_text("{}")
    with monkeypatch.context() as patched, Index(folder) as index:
        patched.setattr(Path, "iterdir", iterdir)
        index.update()
        assert list(index.errors()) == ["below"]
        assert groups(index)[-1] == ["wide.json"]
    with Index(folder) as index:
        index.update()
        assert index.errors() == {}
        assert groups(index) == ALL


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text_is_that_of_its_file(folder):
    names = [os.fsdecode(each) for each in (b"\xfd.json", b"\xfe.json")]
    for name in names:
        shutil.copyfile(folder / "wide.json", folder / name)
    with Index(folder) as index:
        index.update()
        assert index.errors() == {}
        assert ["wide.json", *names] in groups(index)
    text = run("index", folder, "--like", folder / "other.json")
    assert "copy.json: the same structure" in text
    run("index", folder, "--like", folder / "one.safetensors")


def test_a_model_beside_shards_is_no_shard(folder):
    model = nn.Sequential(Block(5))
    lg.save(lg.to_ir(model), folder / "one.safetensors", model.state_dict(), max_shard_size=40)
    (folder / "one-00001-of-00002.safetensors").write_bytes(b"one of Hugging Face")
    shutil.copyfile(folder / "again.safetensors", folder / "one-tuned.safetensors")
    with Index(folder) as index:
        index.update()
        assert index.errors() == {}
        assert "one-tuned.safetensors" in groups(index)[0]
        assert "one.safetensors.index.json" in groups(index)[0]
        assert not any("-of-" in each for each in groups(index)[0])


# --- the command line ---


def run(*args):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert command([str(each) for each in args]) == 0
    return output.getvalue()


def test_the_command_groups(folder):
    lines = run("index", folder).splitlines()
    assert lines[0] == "7 files, 7 read, 3 structures, 0 unreadable"
    assert [each.split()[1:] for each in lines if each[0] != " "][1:] == [
        ["4", "files"],
        ["2", "files"],
        ["1", "files"],
    ]
    assert json.loads(run("index", folder, "--json"))["errors"] == {}


def test_the_command_tells_what_differs(folder):
    text = run("index", folder, "--like", folder / "text.json")
    same, _, other = text.partition("wide.json: shares")
    assert same.splitlines() == [f"{each}: the same structure" for each in ALL[0][:3]]
    assert "0 (there 1, 2 times)" in other
    assert "tanh" in other
    assert "other.json" not in text
    found = json.loads(run("index", folder, "--like", folder / "wide.json", "--block", 1, "--json"))
    assert list(found) == ALL[0]
    assert found["text.json"]["shares"] == {"1": ["0", 1]}


def test_the_command_prints_fingerprints(folder):
    ir = lg.load(folder / "wide.json")
    assert run("fingerprint", folder / "wide.json").strip() == lg.fingerprint(ir)
    assert run("fingerprint", folder / "wide.json", "--block", "1").strip() == lg.fingerprint(
        ir, "1"
    )
    listed = dict(
        each.split("  ")[::-1]
        for each in run("fingerprint", folder / "wide.json", "--blocks").splitlines()
    )
    assert listed["1"] == listed["3"] != listed["2"]


def test_names_of_files_and_blocks_do_not_control_the_terminal(folder):
    shutil.copyfile(folder / "wide.json", folder / "a\x1b[31m.json")
    assert "\x1b" not in run("index", folder)


def test_indexing_imports_no_torch(folder):
    code = (
        "import sys; from layergraph_index import Index\n"
        "with Index(sys.argv[1]) as index: index.update()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
