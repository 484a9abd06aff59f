"""Replacing a model by another one: at every moment, a load returns one of the two."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import threading
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import FileError
from layergraph.testing import bitwise_equal
from layergraph_files import reader, staging

ONE, FEW, MANY = None, 440, 400
"""Sizes of shards: all goes to one file, to two, or to four."""

CHANGES = [(ONE, MANY), (MANY, ONE), (MANY, FEW), (FEW, FEW), (ONE, ONE)]
BOTH = pytest.mark.parametrize(("before", "after"), CHANGES)


def _model(number):
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    for weight in model.parameters():
        nn.init.constant_(weight, number)
    return model


IR = lg.to_ir(_model(0.0))


def _save(folder, number, size, name="model.safetensors"):
    lg.save(IR, folder / name, _model(number).state_dict(), max_shard_size=size)


def _number(path):
    weights = lg.load_model(path).state_dict().values()
    (number,) = {number for weight in weights for number in weight.flatten().tolist()}
    return number


def _paths(folder):
    return folder, folder / "model.safetensors", folder / "model.safetensors.index.json"


def _names(folder):
    return sorted(each.name for each in folder.iterdir())


# --- one after the other ---


@BOTH
def test_the_new_model_is_all_that_is_left(tmp_path, before, after):
    (tmp_path / "alone").mkdir()
    (tmp_path / "model.safetensors.txt").touch()
    _save(tmp_path / "alone", 2.0, after)
    _save(tmp_path, 1.0, before)
    _save(tmp_path, 2.0, after)
    assert _names(tmp_path) == sorted(
        [*_names(tmp_path / "alone"), "alone", "model.safetensors.txt"]
    )
    for path in _paths(tmp_path):
        assert _number(path) == 2.0


def test_models_of_other_names_stay(tmp_path):
    _save(tmp_path, 1.0, MANY, "model-2.safetensors")
    _save(tmp_path, 1.0, ONE, "model-00001-of-00002.safetensors")
    kept = _names(tmp_path)
    for size in (MANY, ONE, FEW, ONE):
        _save(tmp_path, 2.0, size)
        assert set(kept) <= set(_names(tmp_path))
    assert _number(tmp_path / "model-2.safetensors") == 1.0


@pytest.mark.parametrize("keep", [shutil.copy, os.rename])
def test_files_that_another_index_names_stay(tmp_path, keep):
    _save(tmp_path, 1.0, FEW)
    keep(tmp_path / "model.safetensors.index.json", tmp_path / "kept.safetensors.index.json")
    for size in (MANY, ONE):
        _save(tmp_path, 2.0, size)
        assert _number(tmp_path) == 2.0
        assert _number(tmp_path / "kept.safetensors") == 1.0
    assert len(_names(tmp_path)) == 1 + 3


def test_two_models_of_one_name_are_refused(tmp_path):
    _save(tmp_path, 1.0, ONE)
    (tmp_path / "model.safetensors").rename(tmp_path / "kept")
    _save(tmp_path, 2.0, MANY)
    (tmp_path / "kept").rename(tmp_path / "model.safetensors")
    for path in _paths(tmp_path):
        with pytest.raises(
            FileError, match=r"two models, model\.safetensors and model\.safe.*index"
        ):
            lg.load_model(path)
    _save(tmp_path, 3.0, ONE)
    assert _names(tmp_path) == ["model.safetensors"]


def test_the_index_of_another_program_is_not_replaced(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for text in ('{"weight_map": {"a": "b.safetensors"}}', "", "{"):
        index.write_text(text)
        for size in (ONE, MANY):
            with pytest.raises(FileError, match="another program"):
                _save(tmp_path, 1.0, size)
        assert _names(tmp_path) == [index.name]
        assert index.read_text() == text


def test_a_text_of_another_structure_is_not_left_unsaid(tmp_path):
    _save(tmp_path, 1.0, ONE)
    lg.save(IR, tmp_path / "model.json")
    assert _number(tmp_path) == 1.0
    lg.save(lg.to_ir(nn.ReLU()), tmp_path / "model.json")
    for read in (lg.load, lg.load_model):
        with pytest.raises(FileError, match=r"model\.safetensors and model\.json, which differ"):
            read(tmp_path)
    (tmp_path / "model.json").write_text('{"of": "another program"}')
    assert _number(tmp_path) == 1.0


# --- saves that are killed ---


@contextmanager
def _stopped_at(count, stop):
    """Stop before call number ``count``, from 0, of the calls that change files."""
    seen = 0

    def watch(frame, event, arg):
        nonlocal seen
        if event == "c_call" and _is_of_disk(arg):
            seen += 1
            if seen > count:
                sys.setprofile(None)
                stop()

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


def _is_of_disk(function):
    if isinstance(getattr(function, "__self__", None), io.BufferedWriter):
        return True
    return function.__module__ in ("posix", "fcntl", "io") and function.__name__ not in (
        "stat",
        "fspath",
    )


def _killed(count, save):
    """Run a save in another process, and return whether it was killed before call ``count``."""
    child = os.fork()
    if not child:
        try:
            with _stopped_at(count, lambda: os._exit(9)):
                save()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(ONE, FEW), (FEW, ONE), (FEW, FEW)])
def test_a_killed_save_leaves_the_old_model_or_the_new_one(tmp_path, monkeypatch, before, after):
    _save(tmp_path, 1.0, before)
    names, found, count = _names(tmp_path), [], 0
    while _killed(count, partial(_save, tmp_path, 2.0, after)):
        numbers = {_number(path) for path in _paths(tmp_path)}
        assert len(numbers) == 1, count
        found.append(numbers.pop())
        # A later save that fails, after it removed the files of the killed one, changes nothing.
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _no_room)
            with pytest.raises(FileError, match="No space left"):
                _save(tmp_path, 3.0, after)
        assert _number(tmp_path) == found[-1]
        _save(tmp_path, 1.0, before)
        assert _names(tmp_path) == names, count
        count += 1
    assert count > 20
    assert found == sorted(found)
    assert set(found) == {1.0, 2.0}


def _no_room(*_arguments):
    raise OSError(28, "No space left on device")


def test_a_killed_save_leaves_no_room_taken(tmp_path):
    _save(tmp_path, 1.0, ONE)
    assert _killed(30, partial(_save, tmp_path, 2.0, MANY))
    assert [each for each in tmp_path.glob(".saving-*") if each.stat().st_size]
    staging_of_another = _names(tmp_path)
    _save(tmp_path, 1.0, ONE, "other.safetensors")
    assert set(staging_of_another) < set(_names(tmp_path))
    _save(tmp_path, 1.0, ONE)
    assert _names(tmp_path) == ["model.safetensors", "other.safetensors"]


class _InterruptError(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(ONE, FEW), (FEW, ONE)])
def test_an_interrupted_save_leaves_the_old_model_or_the_new_one(tmp_path, before, after):
    def interrupt():
        raise _InterruptError

    _save(tmp_path, 1.0, before)
    names, found, count = _names(tmp_path), [], 0
    while True:
        try:
            with _stopped_at(count, interrupt):
                _save(tmp_path, 2.0, after)
        except _InterruptError:
            pass
        else:
            break
        numbers = {_number(path) for path in _paths(tmp_path)}
        assert len(numbers) == 1, count
        found.append(numbers.pop())
        _save(tmp_path, 1.0, before)
        assert _names(tmp_path) == names
        count += 1
    assert set(found) == {1.0, 2.0}


# --- saves and loads at once ---


def test_a_running_save_is_not_disturbed(tmp_path, monkeypatch):
    """Another save of the same name begins and ends at each step of a first one."""
    fsync, steps = os.fsync, []

    def in_between(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and steps[-1:] != ["inner"]:
            steps.append("inner")
            _save(tmp_path, 2.0, ONE)
            steps.append("outer")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", in_between)
        _save(tmp_path, 1.0, MANY)
    assert steps.count("inner") > 4
    assert _number(tmp_path) == 1.0
    assert len(_names(tmp_path)) == 5


def test_saves_of_one_name_take_turns(tmp_path):
    errors = []

    def repeat(number, size):
        try:
            for _ in range(8):
                _save(tmp_path, number, size)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=each) for each in ((1.0, MANY), (2.0, ONE))]
    for each in threads:
        each.start()
    _save(tmp_path, 3.0, FEW)
    while any(each.is_alive() for each in threads):
        assert _number(tmp_path / "model.safetensors") in (1.0, 2.0, 3.0)
    assert not errors
    assert len({_number(path) for path in _paths(tmp_path)}) == 1
    assert len(_names(tmp_path)) in (1, 5)


def test_a_save_waits_for_its_turn_but_not_for_ever(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    monkeypatch.setattr(staging, "_PATIENCE", 0.02)
    with staging.exclusive(path) as locked:
        assert locked
        with pytest.raises(FileError, match="another save has been moving files"):
            _save(tmp_path, 1.0, ONE)
        _save(tmp_path, 1.0, ONE, "other.safetensors")
    _save(tmp_path, 1.0, ONE)
    assert _names(tmp_path) == ["model.safetensors", "other.safetensors"]


@BOTH
def test_a_model_that_is_replaced_meanwhile_is_read_again(tmp_path, monkeypatch, before, after):
    path, seen = tmp_path / "model.safetensors", []

    def replace_first(part, at, read=reader.open_file):
        seen.append(part)
        if len(seen) == at + 1:
            _save(tmp_path, 2.0, after)
        return read(part)

    parts = {ONE: 1, FEW: 2, MANY: 4}[before]
    for at in range(parts + 1):
        _save(tmp_path, 1.0, before)
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(reader, "open_file", partial(replace_first, at=at))
            assert _number(path) == (2.0 if at < parts else 1.0)
        assert len(seen) <= 2 * 4


def test_a_model_that_changes_all_the_time_is_given_up(tmp_path, monkeypatch):
    _save(tmp_path, 1.0, FEW)
    monkeypatch.setattr(reader, "find", lambda path, limits: path / "nothing.safetensors")
    monkeypatch.setattr(reader, "state", lambda path: object())
    with pytest.raises(FileError, match="changes all the time"):
        lg.load(tmp_path)


def test_where_there_are_no_locks_nothing_is_taken_for_abandoned(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "fcntl", None)
    for size in (ONE, MANY, FEW, ONE):
        assert _killed(20, partial(_save, tmp_path, 1.0, size))
        _save(tmp_path, 2.0, size)
        assert _number(tmp_path) == 2.0
    left = [each for each in _names(tmp_path) if each.startswith(".saving-")]
    assert len({each.split("-")[2] for each in left}) == 4
    assert _names(tmp_path) == [*left, "model.safetensors"]


# --- what is replaced ---


@pytest.mark.parametrize("size", [ONE, FEW])
def test_files_have_the_rights_of_those_that_they_replace(tmp_path, monkeypatch, size):
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    fsync, while_written = os.fsync, []

    def seen(descriptor):
        while_written.append(os.fstat(descriptor).st_mode)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    _save(tmp_path, 1.0, size)
    saved = [each for each in tmp_path.iterdir() if each.name != "usual"]
    assert {each.stat().st_mode for each in saved} == {usual}
    for each in saved:
        each.chmod(0o640)
    _save(tmp_path, 1.0, size)
    assert {stat.S_IMODE(each.stat().st_mode) for each in saved} == {0o640}
    assert {stat.S_IMODE(mode) for mode in while_written if stat.S_ISREG(mode)} == {0o600}


@pytest.mark.parametrize("size", [ONE, MANY])
@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_only_files_are_replaced(tmp_path, name, size):
    for make in (os.mkfifo, os.mkdir):
        make(tmp_path / name)
        with pytest.raises(FileError, match=r"it is a (pipe|folder)|no index|another program"):
            _save(tmp_path, 1.0, size)
        assert _names(tmp_path) == [name]
        (os.rmdir if make is os.mkdir else os.unlink)(tmp_path / name)


def test_a_link_is_replaced_and_its_file_stays(tmp_path):
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "model.safetensors").symlink_to("kept")
    _save(tmp_path, 1.0, ONE)
    assert not (tmp_path / "model.safetensors").is_symlink()
    assert (tmp_path / "kept").read_text() == "kept"
    assert bitwise_equal(lg.load_model(tmp_path)[0].bias.detach(), torch.ones(10))


@pytest.mark.parametrize(
    "names", [["model.safetensors"], ["model.safetensors.index.json", "model.safetensors"]]
)
@pytest.mark.parametrize("way", ["nowhere", "{name}"])
def test_links_that_lead_nowhere_are_replaced(tmp_path, names, way):
    for name in names:
        (tmp_path / name).symlink_to(way.format(name=name))
    _save(tmp_path, 1.0, FEW if len(names) > 1 else ONE)
    assert not (tmp_path / names[0]).is_symlink()
    assert _number(tmp_path) == 1.0


@pytest.mark.parametrize("size", [ONE, FEW])
def test_a_save_that_fails_removes_no_link(tmp_path, monkeypatch, size):
    for name in ("model.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).symlink_to("nowhere")
    monkeypatch.setattr(os, "replace", _no_room)
    with pytest.raises(FileError, match="No space left"):
        _save(tmp_path, 1.0, size)
    assert _names(tmp_path) == ["model.safetensors", "model.safetensors.index.json"]


IN_PLACE_OF_A_LOCK = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a link": lambda path: path.symlink_to("elsewhere"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
    "a link to a device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("kind", IN_PLACE_OF_A_LOCK)
def test_only_a_file_is_taken_for_a_lock(tmp_path, kind):
    target = tmp_path / "model.safetensors"
    with staging.staging(target) as stage:
        abandoned = tmp_path / stage.lock
    with staging.exclusive(target):
        (moving,) = tmp_path.glob(".moving-*")
    IN_PLACE_OF_A_LOCK[kind](abandoned)
    for size in (ONE, FEW, ONE):
        _save(tmp_path, 1.0, size)
    assert _names(tmp_path) == [abandoned.name, "model.safetensors"]
    IN_PLACE_OF_A_LOCK[kind](moving)
    with pytest.raises(FileError, match=rf"cannot lock .*{moving.name}: .*; remove it"):
        _save(tmp_path, 2.0, ONE)
    assert _number(target) == 1.0
    assert _names(tmp_path) == [moving.name, abandoned.name, "model.safetensors"]
