"""Give damaged files to layergraph, guided by the lines of its code that they reach.

The first byte of an input says what the rest is: see ``WAYS``. A finding is whatever is not an
error of ``layergraph.errors``; takes too much memory; takes more time than is in proportion to the
file; imports, opens, starts or executes what an honest file does not; or leaves torch in another
mode. Small models are called too.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import random
import resource
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import atheris
import torch

with atheris.instrument_imports(include=["layergraph", "layergraph_cli"]):
    import layergraph as lg
    import layergraph_adapters.file  # noqa: F401
    import layergraph_torchao.tensors  # noqa: F401
    from layergraph.errors import LayergraphError
    from layergraph.tensors.memory import numbers_of
    from layergraph_cli import app
    from layergraph_files import build, load, save  # noqa: F401 # they are loaded late otherwise
    from layergraph_files.container import CODES, new_header
    from layergraph_files.document import to_document

from fuzz.generate import changed, grown, holders
from fuzz.watch import Watch

FOLDER = Path(tempfile.mkdtemp())
LIMITS = lg.Limits(text_bytes=1 << 20, modules=1000, tensors=1000, tensor_numbers=1 << 16)
MEMORY = 1 << 28
"""How much more memory one input may take than any before it, in bytes."""

COUNTS = 200, 800
RATIO, SLACK = 9.0, 2.0
"""How much longer four times as much may take, and how many seconds do not count."""

WEIGHTS = {"lin.weight": (2, 2), "lin.bias": (2,), "scale": (2,), ".value.0": (2,)}
LARGEST = 64
"""Models with larger numbers in them are not called: they may ask torch for any time and memory."""

WATCH = Watch(FOLDER)
BASE = FOLDER / "base.safetensors"


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


def growth(data: bytes) -> None:
    """The bytes are a document, of which one item is there many times."""
    with contextlib.suppress(ValueError, RecursionError):
        form = json.loads(data)
        times = []
        for count in COUNTS:
            chance = random.Random(zlib.crc32(data))  # noqa: S311
            path = FOLDER / f"{count}.json"
            path.write_text(json.dumps(grown(form, chance, count)))
            times.append(min(_time(path) for _ in range(2)))
        if times[1] > RATIO * times[0] + SLACK:
            raise AssertionError(f"{COUNTS} times as much take {times} seconds")


def _time(path: Path) -> float:
    start = time.process_time()
    with contextlib.suppress(LayergraphError):
        ir = lg.load(path)
        str(ir)
        with contextlib.suppress(LayergraphError):
            ir.flatten()
        lg.to_torch(ir)
    return time.process_time() - start


def parts(data: bytes) -> None:
    """The bytes are JSON: a document, the tensors of its file, and what the file says of a base."""
    try:
        form = json.loads(data)
        tensors = {str(name): _tensor(*each) for name, each in form["tensors"].items()}
        metadata = {"layergraph": json.dumps(form["document"])}
        if "base" in form:
            metadata["layergraph_base"] = json.dumps(form["base"])
        listed = [(name, str(each.dtype)[6:], tuple(each.shape)) for name, each in tensors.items()]
        header, order = new_header(listed, metadata)
    except (ValueError, LookupError, RecursionError, RuntimeError, TypeError, AttributeError):
        return  # it is no such JSON
    content = header + b"".join(bytes(numbers_of(tensors[name])[0]) for name in order)
    if "base" not in form:
        container(content)
        return
    path = FOLDER / "m.adapters.safetensors"
    path.write_bytes(content)
    with WATCH.on(), contextlib.suppress(LayergraphError):
        lg.load_model(path, base=BASE)
    _command(path)


def _tensor(dtype: str, shape: list[int], numbers: list[float]) -> torch.Tensor:
    made = torch.tensor(numbers, dtype=getattr(torch, dtype)).reshape(shape)
    if dtype not in CODES or made.numel() > LARGEST:
        raise ValueError(dtype)
    return made


WAYS: list[Callable[[bytes], None]] = [container, document, text, index, growth, parts]


SOUND = [
    sound
    for sound in [
        each.read_bytes() for each in sorted((Path(__file__).parent / "corpus").iterdir())
    ]
    if sound[:1] in (b"\1", b"\2", b"\5")
    for _ in range(1 + sound.count(b'"inputs"'))
]
"""Documents that a model is built from, before anything in them is changed: more of those with more
nodes in them."""


def _load(path: Path) -> None:
    with contextlib.suppress(LayergraphError):
        with WATCH.on():
            ir = lg.load(path, limits=LIMITS)
            str(ir), repr(ir)
        again = FOLDER / "again.json"
        lg.save(ir, again)
        if to_document(lg.load(again), {}) != to_document(ir, {}):
            raise AssertionError("what was loaded is not what was saved")
        with WATCH.on():
            with contextlib.suppress(LayergraphError):
                ir.flatten()
            model = lg.load_model(path, limits=LIMITS)
        if _is_small(ir):
            _call(model)
    if path.stat().st_size % 8 == 0:
        _command(path)


def _is_small(ir: lg.Ir) -> bool:
    forms = holders(to_document(ir, {}))
    values = [
        each for form in forms for each in (form.values() if isinstance(form, dict) else form)
    ]
    numbers = [each for each in values if isinstance(each, int | float)]
    return all(abs(each) <= LARGEST for each in numbers) and '"int"' not in str(values)


def _call(model: torch.nn.Module) -> None:
    """Call a model; it may refuse, as torch may, but not do anything else."""
    parameters = inspect.signature(model.forward).parameters.values()
    required = [each for each in parameters if each.default is each.empty]
    inputs = [torch.zeros(2, 2) for _ in required]
    for training in (True, False):
        with WATCH.on(), contextlib.suppress(Exception):
            model.train(training)(*inputs)


def _command(path: Path) -> None:
    for command in (["check"], ["show"], ["show", "--graph"], ["fingerprint"]):
        quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with quiet[0], quiet[1], WATCH.on():
            code = app.run([*command, str(path)])
        if code not in (0, app.NO, app.TROUBLE):
            raise AssertionError(f"{command} ends with {code}")


def one(data: bytes) -> None:
    """Try one input."""
    if not data:
        return
    before = _peak()
    way = WAYS[data[0] % len(WAYS)]
    way(data[1:])
    # libFuzzer looks at the memory now and then, and would blame another input.
    if way is not growth and _peak() - before > MEMORY:
        raise AssertionError(f"it took {_peak() - before} bytes of memory")


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change an input: most documents as what they say, all else as bytes."""
    chance = random.Random(seed)  # noqa: S311 # it decides nothing but what is tried
    # What libFuzzer keeps is mostly refused early, and hides what comes after.
    if chance.random() < 0.4:
        data = chance.choice(SOUND)
    if data[:1] in (b"\1", b"\2", b"\3", b"\4", b"\5") and chance.random() < 0.8:
        with contextlib.suppress(ValueError, RecursionError, TypeError, AttributeError):
            form = json.loads(data[1:])
            for _ in range(chance.choice([1, 1, 2, 4])):
                form = changed(form, chance)
            first = chance.choice(b"\1\1\1\1\1\1\2\2\2\2\2\2\4") if data[:1] != b"\3" else 3
            first = 5 if data[:1] == b"\5" else first
            return (bytes([first]) + json.dumps(form).encode())[:max_size]
    return bytes(atheris.Mutate(data, max_size))


def _warm_up() -> None:
    """Load what is in order once: Python and torch import much when it is first needed."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    path = FOLDER / "first.safetensors"
    lg.save(lg.to_ir(model, (torch.zeros(2, 2),)), path, model.state_dict())
    lg.load_model(path)(torch.zeros(2, 2))
    base = {key: torch.zeros_like(each) for key, each in model.state_dict().items()}
    lg.save(lg.to_ir(model), BASE, base)
    for each in sorted((Path(__file__).parent / "corpus").iterdir()):
        with contextlib.suppress(AssertionError):
            one(each.read_bytes())


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, one, custom_mutator=mutate)
    _warm_up()
    atheris.Fuzz()
