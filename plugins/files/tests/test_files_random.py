"""Files of random models and IRs, also with random damage: a load returns a model or an error."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layergraph as lg
from core.tests.test_properties import ALWAYS, _model, irs
from layergraph.errors import FileError, InvalidIrError, LayergraphError
from layergraph_files.document import from_document, to_document
from layergraph_files.parse_errors import ParseError
from layergraph_files.text import compact, parse
from layergraph_files.versions import current
from plugins.files.tests.test_files_schema import VALIDATOR

LIMITS = lg.Limits(text_bytes=1 << 20, modules=1000, tensors=1000, tensor_numbers=1 << 16)

# --- damage ---

FORMS = st.sampled_from(
    [
        *(None, True, 0, -1, 5, 2**53, 2**63, 10**15, 0.5, 1e308, "", "root", "x", "a.b", "../x"),
        *([], {}, [[]], [["a", "root"]], {"ref": "x"}, {"ref": "output"}, {"tuple": [1, {}]}),
        *({"int": "0xff"}, {"int": "0x" + "f" * 20}, {"float": "nan"}, {"symbol": "torch.load"}),
        *({"dict": [[1, 2]]}, {"record": ["A", [["b", 1]]]}, {"slice": [None, 1, {"ref": "x"}]}),
        *({"bytes": "AAE="}, {"tensor": ".value.0"}, {"ellipsis": None}, {"complex": [0.0, 1.0]}),
        *("module", "function", "state", "input", "linear", "lstm", "torch.Tensor.view", "os"),
    ]
)
KEYS = st.sampled_from(
    "name type data nodes edges inputs args kwargs children tensors training evaluation kind shape "
    "stride dtype value tied persistent requires_grad src sink data_offsets a".split()
)


class _Twice(dict):
    """An object whose text has every key twice."""

    def items(self):
        return [*super().items(), *super().items()]


def _places(form):
    found, stack = [], [form]
    while stack:
        holder = stack.pop()
        keys = holder if isinstance(holder, dict) else range(len(holder))
        found += [(holder, key) for key in keys]
        stack += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
    return found


@st.composite
def damaged(draw, form):
    """A JSON document with one to three of its values dropped, doubled, renamed, or replaced."""
    form = {"": json.loads(json.dumps(form))}
    for _ in range(draw(st.integers(1, 3))):
        places = _places(form[""]) if isinstance(form[""], dict | list) else []
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["drop", "double", "rename", "replace", "swap"]))
        if how == "drop":
            del holder[key]
        elif how == "replace":
            # Copy the form: the next damage may change it, and FORMS is drawn from again.
            holder[key] = json.loads(json.dumps(draw(FORMS)))
        elif how == "swap":
            other, place = draw(st.sampled_from(places))
            one, two = json.dumps(holder[key]), json.dumps(other[place])
            holder[key], other[place] = json.loads(two), json.loads(one)
        elif isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        elif how == "rename":
            holder[draw(KEYS)] = holder.pop(key)
        elif isinstance(holder[key], dict):
            holder[key] = _Twice(holder[key])
    return form[""]


def _packed(header, data):
    head = compact(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def _unpacked(raw):
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


@cache
def _file(seed):
    """Draw the bytes of a file of a random model."""
    model, _ = _model(seed, 1 + seed)
    with tempfile.TemporaryDirectory() as folder:
        lg.save(lg.to_ir(model), Path(folder) / "m.safetensors", model.state_dict())
        return (Path(folder) / "m.safetensors").read_bytes()


@st.composite
def damaged_files(draw):
    """Draw a file of a random model, damaged in its document, its header, or anywhere."""
    raw = _file(draw(st.integers(0, 9)))
    header, data = _unpacked(raw)
    where = draw(st.sampled_from(["document", "document", "header", "bytes"]))
    if where == "document":
        document = json.loads(header["__metadata__"]["layergraph"])
        header["__metadata__"]["layergraph"] = compact(draw(damaged(document)))
        return _packed(header, data)
    if where == "header":
        return _packed(draw(damaged(header)), data)
    place = draw(st.integers(0, len(raw) - 1))
    end = draw(st.sampled_from([place, place + 1, place + 8, len(raw)]))
    return raw[:place] + draw(st.binary(max_size=8)) + raw[end:]


# --- what comes of it ---


@pytest.mark.slow
@settings(ALWAYS, max_examples=800)
@given(damaged_files())
def test_damaged_files_are_models_or_refused(raw):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        path.write_bytes(raw)
        said = str(path)
        try:
            ir = lg.load(path, limits=LIMITS)
            lg.save(ir, Path(folder) / "again.json")
            assert to_document(lg.load(Path(folder) / "again.json"), {}) == to_document(ir, {})
            lg.load_model(path, limits=LIMITS)
        except LayergraphError as error:
            said = str(error)
        assert folder in said
        assert {each.name for each in Path(folder).iterdir()} <= {"m.safetensors", "again.json"}


@pytest.mark.slow
@settings(ALWAYS, max_examples=50)
@given(irs(), st.data())
def test_what_is_written_and_what_is_read_keep_the_schema(ir, data):
    document = to_document(ir, {})
    VALIDATOR.validate(json.loads(compact(document)))
    for _ in range(5):
        text = compact(data.draw(damaged(document))).encode()
        with contextlib.suppress(ParseError, InvalidIrError):
            from_document(current(parse(text)))
            VALIDATOR.validate(json.loads(text))


@pytest.mark.slow
@settings(ALWAYS, max_examples=20)
@given(irs(), st.data())
def test_a_key_twice_is_refused(ir, data):
    box = {"": json.loads(compact(to_document(ir, {})))}
    holders = [(at, key) for at, key in _places(box) if isinstance(at[key], dict) and at[key]]
    holder, key = data.draw(st.sampled_from(holders))
    holder[key] = _Twice(holder[key])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.json"
        path.write_text(compact(box[""]))
        with pytest.raises(FileError, match="appears twice"):
            lg.load(path)
