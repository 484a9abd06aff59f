"""The execution order of nodes that come and go."""

import itertools
import random

import pytest

from layergraph_rewrite.order import Order


def test_nothing_is_between_a_name_and_itself():
    row = Order("abc")
    assert list(row.between("b", "b")) == []
    assert list(row.between("a", "c")) == ["b"]
    assert list(row.between("a", "b")) == []


def test_labels_grow_along_the_row():
    rng = random.Random(0)
    row, expected = Order(), []
    for number in range(3000):
        name = f"n{number}"
        if expected and rng.random() < 0.2:
            expected.remove(gone := rng.choice(expected))
            row.remove(gone)
        before = rng.choice([*expected, None]) if number % 2 else (expected or [None])[-1]
        row.insert(name, before=before)
        expected.insert(len(expected) if before is None else expected.index(before), name)
    assert list(row) == expected
    labels = [row.label(name) for name in row]
    assert labels == sorted(set(labels))
    assert all(row.is_before(one, other) for one, other in itertools.pairwise(expected))


@pytest.mark.parametrize("place", ["front", "same", "end"])
def test_many_insertions_at_one_place(place):
    row = Order(["first", "last"])
    relabelled = 0
    relabel = row._relabel

    def counted():
        nonlocal relabelled
        relabelled += 1
        relabel()

    row._relabel = counted
    for number in range(20_000):
        row.insert(str(number), before={"front": "first", "same": "last", "end": None}[place])
    assert len(row) == 20_002
    assert relabelled < 20_000 / 400
