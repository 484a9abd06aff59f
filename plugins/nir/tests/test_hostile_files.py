"""A file of NIR from a stranger leads to no other file, loads no code, and takes bounded memory."""

from __future__ import annotations

import contextlib
import os

import h5py
import nir
import numpy as np
import pytest

import layergraph as lg
from layergraph.errors import FileError


def graph():
    nodes = {
        "input": nir.Input(np.array([3])),
        "a": nir.Affine(weight=np.ones((2, 3), np.float32), bias=np.ones(2, np.float32)),
        "output": nir.Output(np.array([2])),
    }
    return nir.NIRGraph(nodes, [("input", "a"), ("a", "output")])


@pytest.fixture
def path(tmp_path):
    nir.write(tmp_path / "it.nir", graph())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones((2, 3), np.float32)
    (tmp_path / "raw").write_bytes(bytes(24))
    return tmp_path / "it.nir"


WEIGHT = "node/nodes/a/weight"


def soft_link(file, _):
    del file[WEIGHT]
    file[WEIGHT] = h5py.SoftLink("/node/nodes/a/bias")


def external_link(file, folder):
    del file[WEIGHT]
    file[WEIGHT] = h5py.ExternalLink(str(folder / "other.h5"), "secret")


def external_numbers(file, folder):
    del file[WEIGHT]
    where = [(str(folder / "raw"), 0, 24)]
    file.create_dataset(WEIGHT, (2, 3), np.float32, external=where)


def virtual_numbers(file, folder):
    del file[WEIGHT]
    layout = h5py.VirtualLayout((2, 3), np.float32)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (2, 3))
    file.create_virtual_dataset(WEIGHT, layout)


def unknown_filter(file, _):
    del file[WEIGHT]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((2, 3))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((2, 3))
    h5py.h5d.create(file["node/nodes/a"].id, b"weight", h5py.h5t.NATIVE_FLOAT, space, plan)


def many_numbers(file, _):
    del file[WEIGHT]
    file.create_dataset(WEIGHT, (10**6, 10**6), np.float32, chunks=(1000, 1000))


def large_chunk(file, _):
    del file[WEIGHT]
    file.create_dataset(WEIGHT, (2, 3), np.float32, chunks=(2, 10**8), maxshape=(None, None))


def cycle(file, _):
    file["node/nodes/a/metadata"] = file["node"]


def twice(file, _):
    file["node/nodes/b"] = file["node/nodes/a"]


def named_type(file, _):
    file["node/metadata"] = np.dtype("float32")


def references(file, _):
    del file[WEIGHT]
    file.create_dataset(WEIGHT, data=np.array([file.ref] * 6, h5py.ref_dtype).reshape(2, 3))


def records(file, _):
    del file[WEIGHT]
    file.create_dataset(WEIGHT, data=np.zeros((2, 3), [("a", "f4")]))


def text_for_numbers(file, _):
    del file[WEIGHT]
    file[WEIGHT] = "weight"


def deep(file, _):
    group = file.create_group("node/metadata")
    for _ in range(200):
        group = group.create_group("g")


def long_text(file, _):
    del file["node/edges"]
    file.create_dataset("node/edges", data=[["a" * 5000, "b"]], dtype=h5py.string_dtype())


def no_pairs(file, _):
    del file["node/edges"]
    file.create_dataset("node/edges", data=["a", "b"], dtype=h5py.string_dtype())


def other_type(file, _):
    del file["node/nodes/a/type"]
    file["node/nodes/a/type"] = "NIRNode"


def other_field(file, _):
    file["node/nodes/a/type_check"] = 1


def no_weight(file, _):
    del file[WEIGHT]


def no_node(file, _):
    del file["node"]


# By part of the message, the changes to a file.
CHANGES = {
    "weight: it is a link": [soft_link, external_link],
    "weight: its numbers are in another file": [external_numbers, virtual_numbers],
    "weight: its compression needs a plugin": [unknown_filter],
    "weight: the arrays have more than": [many_numbers, large_chunk],
    "the file has it in two places": [cycle, twice],
    "metadata: it is neither a group nor an array": [named_type],
    "weight: it holds .* and neither numbers nor text": [references, records],
    "nested too deeply": [deep],
    "text is too long": [long_text],
    "edges are not pairs": [no_pairs],
    "no node of the type 'NIRNode'": [other_type],
    "a Affine has no 'type_check'": [other_field],
    "do not make a valid Affine": [no_weight, text_for_numbers],
    "no group 'node'": [no_node],
}
CASES = [(change, reason) for reason, each in CHANGES.items() for change in each]


@pytest.mark.parametrize(
    ("change", "reason"), CASES, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_hostile_file_is_refused(change, reason, path):
    with h5py.File(path, "a") as file:
        change(file, path.parent)
    for read in (lg.load, lg.load_model):
        with pytest.raises(FileError, match=reason):
            read(path)


def test_a_file_as_it_is_written_is_read(path):
    assert lg.load_model(path).a.out_features == 2
    with pytest.raises(FileError, match="more than 10 bytes"):
        lg.load(path, max_bytes=10)


def test_a_graph_that_is_wrong_names_the_file(path):
    with h5py.File(path, "a") as file:
        del file["node/edges"]
        file.create_dataset("node/edges", data=[["input", "c"]], dtype=h5py.string_dtype())
    with pytest.raises(FileError, match=r"it\.nir.*names no node 'c'"):
        lg.load(path)


def test_damaged_bytes_raise_errors_of_ours(path):
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 4):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(FileError):
            lg.load(path)
    for length in (0, 8, 100, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(FileError):
            lg.load(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.nir")
    with pytest.raises(FileError, match="pipe"):
        lg.load(tmp_path / "pipe.nir")
    with pytest.raises(FileError):
        lg.load(tmp_path / "missing.nir")


def test_a_save_that_fails_leaves_the_old_file(path):
    from torch import nn

    before = path.read_bytes()
    with pytest.raises(lg.errors.LayergraphError):
        lg.save(lg.to_ir(nn.ReLU()), path, {}, args=[(1, 3)])
    assert path.read_bytes() == before
