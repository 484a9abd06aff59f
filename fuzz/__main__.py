"""Give damaged files to layergraph, guided by the lines of its code that they reach.

The first byte of an input says what the rest is: see ``WAYS``. Whatever is not an error of
``layergraph.errors``, or takes too long or too much memory, is a finding.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import torch

with atheris.instrument_imports(include=["layergraph"]):
    import layergraph as lg
    from layergraph.errors import LayergraphError
    from layergraph.files import build, load, save  # noqa: F401 # they are loaded late otherwise
    from layergraph.files.container import new_header
    from layergraph.files.document import to_document

FOLDER = Path(tempfile.mkdtemp())
LIMITS = lg.Limits(text_bytes=1 << 20, modules=1000, tensors=1000, tensor_numbers=1 << 16)
MEMORY = 1 << 28
"""How much more memory one input may take than any before it, in bytes."""

WEIGHTS = {"lin.weight": (2, 2), "lin.bias": (2,), "scale": (2,), ".value.0": (2,)}
INTERESTING: list[Any] = [
    *(None, True, 0, -1, 2**63, 10**15, 0.5, 1e308, "", "root", "x", ".", "a.b", "self", [], {}),
    *({"ref": "x"}, {"ref": "output"}, {"symbol": "torch.load"}, {"tuple": []}, {"ellipsis": None}),
    *({"dict": [[1, 2]]}, {"record": ["A", [["b", 1]]]}, {"slice": [None, None, None]}),
    *("module", "function", "state", "torch.Tensor.view", "torch.ops.aten.add", "linear", "lstm"),
]


def container(data: bytes) -> None:
    """The bytes are a ``.safetensors`` file."""
    path = FOLDER / "m.safetensors"
    path.write_bytes(data)
    _load(path)


def document(data: bytes) -> None:
    """The bytes are the document in a file whose weights are in order."""
    metadata = {"layergraph": data.decode("utf-8", "surrogateescape")}
    header, order = new_header(
        [(name, "float32", shape) for name, shape in WEIGHTS.items()], metadata
    )
    numbers = sum(torch.Size(WEIGHTS[name]).numel() for name in order)
    container(header + bytes(4 * numbers))


def text(data: bytes) -> None:
    """The bytes are a ``.json`` file."""
    path = FOLDER / "m.json"
    path.write_bytes(data)
    _load(path)


def index(data: bytes) -> None:
    """The bytes are the index of files."""
    path = FOLDER / "m.safetensors.index.json"
    path.write_bytes(data)
    _load(path)


WAYS: list[Callable[[bytes], None]] = [container, document, text, index]


def _load(path: Path) -> None:
    with contextlib.suppress(LayergraphError):
        ir = lg.load(path, limits=LIMITS)
        again = FOLDER / "again.json"
        lg.save(ir, again)
        if to_document(lg.load(again), {}) != to_document(ir, {}):
            raise AssertionError("what was loaded is not what was saved")
        lg.load_model(path, limits=LIMITS)


def one(data: bytes) -> None:
    """Try one input."""
    if not data:
        return
    before = _peak()
    WAYS[data[0] % len(WAYS)](data[1:])
    # libFuzzer looks at the memory now and then, and would blame another input.
    if _peak() - before > MEMORY:
        raise AssertionError(f"it took {_peak() - before} bytes of memory")


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change an input: half of the documents as what they say, all else as bytes."""
    chance = random.Random(seed)  # noqa: S311 # it decides nothing but what is tried
    if data[:1] in (b"\1", b"\2", b"\3") and chance.random() < 0.7:
        with contextlib.suppress(ValueError, RecursionError):
            form = json.loads(data[1:])
            for _ in range(chance.choice([1, 1, 2, 4])):
                form = _changed(form, chance)
            return (data[:1] + json.dumps(form).encode())[:max_size]
    return bytes(atheris.Mutate(data, max_size))


def _changed(form: Any, chance: random.Random) -> Any:
    places = [
        (holder, key)
        for holder in _holders(form)
        for key in (holder if isinstance(holder, dict) else range(len(holder)))
    ]
    if not places:
        return _interesting(chance)
    holder, key = chance.choice(places)
    other, other_key = chance.choice(places)
    how = chance.randrange(5)
    if how == 0:
        del holder[key]
    elif how == 1:
        holder[key] = _interesting(chance)
    elif how == 2:
        holder[key] = json.loads(json.dumps(other[other_key]))
    elif how == 3 and isinstance(holder, list):
        holder.insert(key, json.loads(json.dumps(holder[key])))
    elif isinstance(holder, dict):
        name = chance.choice(["inputs", "args", "kwargs", "data", "edges", "tied", "value", "more"])
        holder[name] = holder.pop(key) if how == 4 else _interesting(chance)
    return form


def _interesting(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(INTERESTING))


def _holders(form: Any) -> list[Any]:
    found, stack = [], [form]
    while stack:
        each = stack.pop()
        if isinstance(each, dict | list):
            found.append(each)
            stack.extend(each.values() if isinstance(each, dict) else each)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    atheris.Setup(sys.argv, one, custom_mutator=mutate)
    atheris.Fuzz()
