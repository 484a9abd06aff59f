"""Damaged and malicious files: each is refused with an error that names the place."""

from __future__ import annotations

import copy
import json
import re
import struct

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, FileError, InvalidIrError, LayergraphError, StateError
from layergraph.testing import bitwise_equal
from layergraph_files.text import compact


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(2, 3)
        self.lstm = nn.LSTM(3, 4)
        self.register_buffer("hidden", torch.arange(3.0), persistent=False)

    def forward(self, x):
        return self.lstm(torch.add(self.lin(x)[:, 0], self.hidden, alpha=2))[0]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Model()


@pytest.fixture
def parts(tmp_path, model):
    """Return the header and the data of a file."""
    path = tmp_path / "model.safetensors"
    lg.save(lg.to_ir(model), path, model.state_dict())
    raw = path.read_bytes()
    path.unlink()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


@pytest.fixture
def document(parts):
    return json.loads(parts[0]["__metadata__"]["layergraph"])


def _write(path, header, data=b""):
    head = header if isinstance(header, bytes) else compact(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    return path


def _refused(path, message, kind=FileError, **options):
    for read in (lg.load, lg.load_model):
        with pytest.raises(kind, match=message) as caught:
            read(path, **options)
        assert str(path) in str(caught.value)


# --- the container ---

CONTAINERS = {
    "empty": (b"", "0 bytes"),
    "seven bytes": (b"\2\0\0\0\0\0\0", "7 bytes"),
    "only a length": (struct.pack("<Q", 9), "9 bytes, but 0 are left"),
    "a huge length": (b"\xff" * 8 + b"{}", "bytes, but 2 are left"),
    "random bytes": (bytes(range(256)) * 9, "are left"),
    "no JSON": (struct.pack("<Q", 4) + b"ab\nc", "line 1, column 1"),
    "no UTF-8": (struct.pack("<Q", 2) + b"\xff}", "byte 0 is not UTF-8"),
    "an array": (struct.pack("<Q", 2) + b"[]", "an array where an object belongs"),
    "no structure": (struct.pack("<Q", 2) + b"{}", "without the model's structure"),
    "deep": (struct.pack("<Q", 10**6) + b"[" * 10**6, "nested too deeply"),
    "a key twice": (struct.pack("<Q", 17) + b'{"a":{},  "a":{}}', "'a' appears twice"),
    "a long number": (struct.pack("<Q", 5008) + b'{"a":' + b"9" * 5000 + b"  }", "too large"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_container(tmp_path, name):
    content, message = CONTAINERS[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    _refused(path, message)


HEADERS = {
    "unknown field": (lambda h: h["lin.bias"].update(more=1), "'lin.bias', more: there is no such"),
    "missing field": (lambda h: h["lin.bias"].pop("dtype"), "'lin.bias': the field 'dtype' is"),
    "unknown dtype": (lambda h: h["lin.bias"].update(dtype="F31"), "'F31' is unknown"),
    "no dtype": (lambda h: h["lin.bias"].update(dtype=5), "an integer where a string belongs"),
    "negative size": (lambda h: h["lin.bias"].update(shape=[-3]), "-3 is negative"),
    "broken size": (lambda h: h["lin.bias"].update(shape=[3.0]), "a number where an integer"),
    "true as a size": (lambda h: h["lin.bias"].update(shape=[True] * 3), "a boolean where"),
    "large size": (lambda h: h["lin.bias"].update(shape=[2**62, 2**62]), "its shape needs"),
    "other shape": (lambda h: h["lin.bias"].update(shape=[4]), "its shape needs 16 bytes"),
    "no shape": (lambda h: h["lin.bias"].update(shape=None), "null where an array belongs"),
    "one offset": (lambda h: h["lin.bias"]["data_offsets"].pop(), "is not a range"),
    "swapped offsets": (lambda h: h["lin.bias"]["data_offsets"].reverse(), "is not a range"),
    "overlap": (
        lambda h: h["lin.bias"].update(data_offsets=h[".value.0"]["data_offsets"]),
        "overlaps the one before it|leaves a gap",
    ),
    "gap": (lambda h: h.pop("lin.bias"), "leaves a gap before it|followed by something"),
    "metadata of numbers": (lambda h: h["__metadata__"].update(a=1), "__metadata__, a: an integer"),
    "metadata of another kind": (lambda h: h.update(__metadata__=[]), "an array where an object"),
    "tensor of another kind": (lambda h: h.update({"lin.bias": 3}), "'lin.bias': an integer where"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_header(tmp_path, parts, name):
    header, data = parts
    damage, message = HEADERS[name]
    damage(header)
    _refused(_write(tmp_path / "m.safetensors", header, data), message)


@pytest.mark.parametrize("cut", [1, 8, 100])
def test_truncated(tmp_path, parts, cut):
    header, data = parts
    _refused(_write(tmp_path / "m.safetensors", header, data[:-cut]), "it is truncated")
    _refused(_write(tmp_path / "m.safetensors", header, data + b"x"), "followed by something else")


def test_every_prefix_is_refused(tmp_path, parts):
    path = _write(tmp_path / "m.safetensors", *parts)
    raw = path.read_bytes()
    for length in range(0, len(raw), 97):
        path.write_bytes(raw[:length])
        with pytest.raises(FileError):
            lg.load(path)


def test_long_headers_are_not_read(tmp_path, parts):
    path = _write(tmp_path / "m.safetensors", *parts)
    _refused(path, "more than 50", limits=lg.Limits(text_bytes=50))
    path = tmp_path / "m.json"
    lg.save(lg.to_ir(nn.ReLU()), path)
    _refused(path, "more than 50", limits=lg.Limits(text_bytes=50))


# --- the structure ---


def _root(document):
    return document["implementations"][0]


def _node(document, name="add"):
    return next(each for each in _root(document)["nodes"] if each["name"] == name)


NODE = r"implementations\[0\] 'root', nodes\[\d\] 'add'"
STRUCTURES = {
    "no format": (lambda d: d.pop("format"), "not a layergraph model"),
    "another format": (lambda d: d.update(format="onnx"), "not a layergraph model"),
    "no version": (lambda d: d.pop("version"), "version: null where an integer belongs"),
    "version 0": (lambda d: d.update(version=0), "there is no version 0"),
    "version true": (lambda d: d.update(version=True), "version: a boolean where"),
    "a newer version": (lambda d: d.update(version=99), "version 99; .*update"),
    "no root": (lambda d: d.pop("root"), "the field 'root' is missing"),
    "unknown field": (lambda d: d.update(more=1), "more: there is no such field"),
    "implementations by name": (lambda d: d.update(implementations={}), "an object where an array"),
    "implementation without type": (lambda d: _root(d).pop("type"), r"'root': the field 'type'"),
    "unknown field of an implementation": (
        lambda d: _root(d).update(mode=1),
        "'root', mode: there",
    ),
    "implementation twice": (
        lambda d: d["implementations"].append(d["implementations"][1]),
        "the name 'lin' appears twice",
    ),
    "child twice": (
        lambda d: _root(d)["children"].append(["lin", "lin"]),
        "the child 'lin' appears twice",
    ),
    "child of three": (lambda d: _root(d)["children"][0].append(""), "there are 3 items"),
    "training in words": (lambda d: _root(d).update(training="yes"), "training: a string where"),
    "node twice": (
        lambda d: _root(d)["nodes"].append(_node(d)),
        r"nodes\[\d\] 'add': the name 'add' appears twice",
    ),
    "unknown field of a node": (lambda d: _node(d).update(code="x"), f"{NODE}, code: there is no"),
    "arguments by name": (lambda d: _node(d).update(args={}), f"{NODE}, args: an object where"),
    "arguments and inputs": (lambda d: _node(d).update(inputs=["x"]), f"{NODE}, inputs: there are"),
    "value with two keys": (
        lambda d: _node(d)["args"].append({"ref": "lin", "tuple": []}),
        rf"{NODE}, args\[2\]: the object is not a value",
    ),
    "value of unknown kind": (
        lambda d: _node(d)["args"].append({"pickle": "gASVAA=="}),
        rf"{NODE}, args\[2\]: the object is not a value",
    ),
    "reference to a number": (lambda d: _node(d)["args"].append({"ref": 1}), r"ref: an integer"),
    "no base64": (lambda d: _node(d)["args"].append({"bytes": "?"}), "bytes: the string is no"),
    "no such float": (lambda d: _node(d)["args"].append({"float": "1e3"}), "'1e3' is not the name"),
    "no hexadecimal": (lambda d: _node(d)["args"].append({"int": "12"}), "'12' is not hexadecimal"),
    "large integer": (lambda d: _node(d)["args"].append(2**60), "is too large for a number"),
    "complex of integers": (
        lambda d: _node(d)["args"].append({"complex": [1, 2]}),
        "1 is not a float",
    ),
    "slice of two": (lambda d: _node(d)["args"].append({"slice": [1, 2]}), "there are 2 items"),
    "dict with a key twice": (
        lambda d: _node(d)["args"].append({"dict": [[1, 1], [1, 2]]}),
        "the key 1 appears twice",
    ),
    "dict with a list as key": (
        lambda d: _node(d)["args"].append({"dict": [[[], 1]]}),
        "a list cannot be a key",
    ),
    "record without fields": (lambda d: _node(d)["args"].append({"record": ["A"]}), "1 items"),
    "tensor of unknown field": (
        lambda d: _root(d)["tensors"][0].update(device="cuda"),
        r"tensors\[0\] 'hidden', device: there is no such field",
    ),
    "tensor of broken shape": (
        lambda d: _root(d)["tensors"][0].update(shape=[1.5]),
        r"shape\[0\]: a number where an integer",
    ),
    "value that is no tensor": (
        lambda d: _root(d)["tensors"][0].update(value={"tensor": "nothing"}),
        "there is no tensor 'nothing'",
    ),
    "value that is a weight": (
        lambda d: _root(d)["tensors"][0].update(value={"tensor": "lin.bias"}),
        "there is no tensor 'lin.bias' for a value",
    ),
    "functions in a list": (lambda d: d.update(functions=[]), "functions: an array where"),
}


def _with(path, parts, document):
    header, data = parts
    header["__metadata__"]["layergraph"] = (
        document if isinstance(document, str) else json.dumps(document)
    )
    return _write(path, header, data)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure(tmp_path, parts, document, name):
    damage, message = STRUCTURES[name]
    damage(document)
    _refused(_with(tmp_path / "m.safetensors", parts, document), message)


INVALID = {
    "dangling reference": (lambda d: _node(d)["args"].append({"ref": "missing"}), "'missing'"),
    "cycle": (lambda d: _node(d).update(args=[{"ref": "add"}]), "cycle"),
    "no such child": (lambda d: _root(d)["children"].append(["a", "b"]), "'b'"),
    "circle of children": (
        lambda d: d["implementations"][1].update(children=[["again", "lin"]]),
        "break the circle",
    ),
    "no output": (lambda d: _root(d)["nodes"].pop(), "no output"),
    "reference in data": (lambda d: _root(d).update(data={"a": {"ref": "x"}}), "a Ref"),
    "keyword as argument": (lambda d: _node(d).update(kwargs={"a b": 1}), "'a b'"),
    "negative shape": (lambda d: _root(d)["tensors"][0].update(shape=[-1]), "not negative"),
    "no root": (lambda d: d.update(root="other"), "no implementation named 'other'"),
}


@pytest.mark.parametrize("name", INVALID)
def test_broken_rules(tmp_path, parts, document, name):
    damage, message = INVALID[name]
    damage(document)
    _refused(_with(tmp_path / "m.safetensors", parts, document), message, InvalidIrError)


TEXTS = {
    "NaN": ('"in_features": 2', '"in_features": NaN', "NaN is not JSON; write"),
    "Infinity": ('"in_features": 2', '"in_features": -Infinity', "-Infinity is not JSON"),
    "infinite": ('"in_features": 2', '"in_features": 1e999', "1e999 is too large"),
    "long": ('"in_features": 2', f'"in_features": {"9" * 9999}', "too large"),
    "a key twice": ('"in_features": 2', '"in_features": 2, "in_features": 3', "appears twice"),
    "no comma": ('"in_features": 2', '"in_features": 2 3', "line 1, column"),
    "deep": ('"in_features": 2', f'"in_features": {"[" * 120}{"]" * 120}', "nested too deeply"),
    "very deep": ('"in_features": 2', f'"in_features": {"[" * 10**6}', "nested too deeply"),
    "deep in another way": (
        '"in_features": 2',
        f'"in_features": {"[" * 90 + chr(123) + chr(34) + "tuple" + chr(34) + ": [" * 40}',
        "line 1|nested too deeply",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(tmp_path, parts, document, name):
    old, new, message = TEXTS[name]
    text = json.dumps(document)
    assert old in text
    text = text.replace(old, new)
    _refused(_with(tmp_path / "m.safetensors", parts, text), message)
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(LayergraphError, match=f"{message}|no base64|a string belongs"):
        lg.load(tmp_path / "m.json")


# --- what the structure says, and the weights ---


def _refused_model(path, message, kind, **options):
    lg.load(path)
    with pytest.raises(kind, match=message) as caught:
        lg.load_model(path, **options)
    assert str(path) in str(caught.value)


def _lin(document):
    return document["implementations"][1]["data"]


BUILDS = {
    "an attribute that the constructor refuses": (
        lambda d: _lin(d).update(in_features="two"),
        BuildError,
        "implementation 'lin'",
    ),
    "an unknown attribute": (lambda d: _lin(d).update(code=1), BuildError, "no attribute 'code'"),
    "an unknown layer": (
        lambda d: (
            d["implementations"][1].update(type="evil"),
            _node(d, "lin").update(type="evil"),
        ),
        BuildError,
        "no handler for type 'evil'",
    ),
    "a Linear of 10**15": (lambda d: _lin(d).update(in_features=10**15), FileError, "Limits"),
    "a Linear of 10**10": (lambda d: _lin(d).update(in_features=10**10), FileError, "Limits"),
    "an LSTM of 10**9 layers": (
        lambda d: d["implementations"][2]["data"].update(num_layers=10**9),
        FileError,
        "tensors, more than 1000",
    ),
    "other features": (
        lambda d: _lin(d).update(in_features=3),
        StateError,
        "'lin.weight' has shape",
    ),
    "a function from elsewhere": (
        lambda d: _node(d).update(implementation="os.system"),
        BuildError,
        "no function is named 'os.system'",
    ),
    "an unnamed dtype": (
        lambda d: _root(d)["tensors"][0].update(dtype="load"),
        BuildError,
        "no dtype 'load'",
    ),
    "an unnamed symbol": (
        lambda d: _node(d).update(kwargs={"alpha": {"symbol": "torch.load"}}),
        BuildError,
        "'torch.load' is no dtype",
    ),
    "a value of another length": (
        lambda d: _root(d)["tensors"][0].update(shape=[10**15]),
        BuildError,
        "its value has 12 bytes",
    ),
    "a buffer without value": (
        lambda d: _root(d)["tensors"].append(
            {"name": "big", "kind": "buffer", "shape": [3], "persistent": False}
        ),
        BuildError,
        "'big' is in no state dict",
    ),
    "a buffer of 10**15": (
        lambda d: _root(d)["tensors"].append({"name": "big", "kind": "buffer", "shape": [10**15]}),
        StateError,
        "'big' is missing",
    ),
}


@pytest.mark.parametrize("name", BUILDS)
def test_build(tmp_path, parts, document, name):
    damage, kind, message = BUILDS[name]
    damage(document)
    path = _with(tmp_path / "m.safetensors", parts, document)
    _refused_model(path, message, kind, limits=lg.Limits(tensors=1000))


HUGE = {
    "linear": ({"in_features": 10**15, "out_features": 1}, "tensor_numbers"),
    "embedding": ({"num_embeddings": 10**12, "embedding_dim": 10}, "tensor_numbers"),
    "conv2d": ({"in_channels": 10**6, "out_channels": 10**6, "kernel_size": 99}, "tensor_numbers"),
    "layernorm": ({"normalized_shape": {"tuple": [10**5] * 3}}, "tensor_numbers"),
    "multiheadattention": ({"embed_dim": 10**8, "num_heads": 1}, "tensor_numbers"),
    "lstm": ({"input_size": 2, "hidden_size": 2, "num_layers": 10**9}, "tensors"),
}


@pytest.mark.parametrize("name", HUGE)
def test_limits_that_no_call_sets(tmp_path, name):
    data, limit = HUGE[name]
    path = _of_implementations(tmp_path, [{"name": "root", "type": name, "data": data}])
    _refused_model(path, rf"Limits\({limit}=", FileError)


LINEAR = {"in_features": 50, "out_features": 20}


@pytest.mark.parametrize(
    ("limit", "needed"), [("tensors", 2 * 20), ("tensor_bytes", 20 * (50 * 20 + 20) * 4)]
)
def test_limits_count_each_of_many_layers_that_are_alike(tmp_path, limit, needed):
    children = [[str(number), str(number)] for number in range(20)]
    listed = [{"name": "root", "type": "sequential", "children": children}]
    listed += [{"name": name, "type": "linear", "data": LINEAR} for name, _ in children]
    path = _of_implementations(tmp_path, listed)
    with pytest.raises(StateError, match=r"'0\.weight' is missing"):
        lg.load_model(path, limits=lg.Limits(**{limit: needed}))
    with pytest.raises(FileError, match=rf"Limits\({limit}="):
        lg.load_model(path, limits=lg.Limits(**{limit: needed - 1}))


def test_many_children_without_a_limit_of_their_own(tmp_path):
    rows = [[str(number), "row"] for number in range(1001)]
    cells = [[str(number), "cell"] for number in range(1001)]
    listed = [
        {"name": "root", "type": "sequential", "children": rows},
        {"name": "row", "type": "sequential", "children": cells},
        {"name": "cell", "type": "relu"},
    ]
    path = _of_implementations(tmp_path, listed)
    _refused_model(path, r"'root' holds more than 210500 .*Limits\(modules=", FileError)


def test_a_long_padding_is_as_long_as_its_file(tmp_path):
    # A file cannot declare a long value without containing it.
    for form in ({"tuple": 10**9}, {"tuple": [0], "times": 10**9}, {"range": 10**9}):
        data = {"padding": form, "value": 0}
        path = _of_implementations(
            tmp_path, [{"name": "root", "type": "constantpad1d", "data": data}]
        )
        with pytest.raises(FileError, match="'root', data, padding"):
            lg.load(path)


def _of_implementations(folder, listed):
    document = {"format": "layergraph", "version": 1, "root": "root", "implementations": listed}
    path = folder / "m.safetensors"
    header = {"__metadata__": {"layergraph": json.dumps(document)}}
    header["weight"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return _write(path, header, bytes(4))


def test_many_paths_to_few_modules(tmp_path):
    levels = [
        {"name": f"m{n}", "type": "module", "children": [["a", f"m{n + 1}"], ["b", f"m{n + 1}"]]}
        for n in range(100)
    ]
    levels += [{"name": "m100", "type": "relu"}]
    document = {"format": "layergraph", "version": 1, "root": "m0", "implementations": levels}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    _refused_model(path, "more than 40100 modules", FileError)


def test_weights_that_do_not_fit(tmp_path, parts):
    header, data = parts
    path = tmp_path / "m.safetensors"
    renamed = {name.replace("lin.bias", "Lin.bias"): each for name, each in header.items()}
    _refused_model(
        _write(path, renamed, data), "'lin.bias' is missing; 'Lin.bias' is not", StateError
    )
    slashes = {name.replace("lin.bias", "../lin/bias"): each for name, each in header.items()}
    _refused_model(_write(path, slashes, data), "'../lin/bias' is not one", StateError)
    turned = copy.deepcopy(header)
    turned["lin.weight"]["shape"].reverse()
    _refused_model(_write(path, turned, data), r"\(2, 3\) where \(3, 2\)", StateError)


def test_functions_name_their_plugin(tmp_path, parts, document):
    _node(document)["implementation"] = "acme.layers.fused"
    document["functions"] = {"acme.layers.fused": "acme-layers"}
    path = _with(tmp_path / "m.safetensors", parts, document)
    _refused_model(path, r"'acme\.layers\.fused'.* acme-layers according to", FileError)


def test_functions_of_plugins_are_noted(tmp_path):
    pytest.importorskip("torchvision")
    from torchvision.models.swin_transformer import SwinTransformerBlock

    model = SwinTransformerBlock(4, 2, [2, 2], [0, 0]).eval()
    x = torch.randn(1, 4, 4, 4)
    path = tmp_path / "m.safetensors"
    lg.save(lg.to_ir(model, (x,)), path, model.state_dict())
    name = "torchvision.models.swin_transformer.shifted_window_attention"
    assert re.search(rf'"functions":{{[^}}]*"{name}[^}}]*"layergraph-torchvision"', _text(path))
    assert bitwise_equal(lg.load_model(path)(x), model(x))


def _text(path):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length])["__metadata__"]["layergraph"]


# --- files that are not there, and indices ---


def test_paths(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"")
    (tmp_path / "dir.safetensors").mkdir()
    with pytest.raises(FileError, match="No such file"):
        lg.load(tmp_path / "nothing.safetensors")
    with pytest.raises(FileError, match="suffix"):
        lg.load(tmp_path / "m.pt")
    with pytest.raises(FileError, match="the folder has none of"):
        lg.load(tmp_path)
    ir = lg.to_ir(nn.ReLU())
    for path in ("m.pt", "none/m.json", "dir.safetensors"):
        with pytest.raises(FileError):
            lg.save(ir, tmp_path / path)
    for size in ("five", 0, -1, "5PB", 1.5j):
        with pytest.raises(FileError, match="is not a file size"):
            lg.save(ir, tmp_path / "m.safetensors", max_shard_size=size)


INDICES = {
    "empty": ("", "line 1"),
    "an array": ("[]", "an array where an object"),
    "no map": ("{}", "weight_map: null where an object"),
    "an empty map": ('{"weight_map": {}}', "there are no tensors"),
    "elsewhere": ('{"weight_map": {"a": "../m.safetensors"}}', "is not a valid file name"),
    "at the root": ('{"weight_map": {"a": "/etc/m.safetensors"}}', "is not a valid file name"),
    "on another drive": ('{"weight_map": {"a": "c:m.safetensors"}}', "is not a valid file name"),
    "another kind": ('{"weight_map": {"a": "m.bin"}}', "is not a valid file name"),
    "a number": ('{"weight_map": {"a": 1}}', "weight_map, a: an integer"),
    "not there": ('{"weight_map": {"a": "nothing.safetensors"}}', "No such file"),
    "other tensors": ('{"weight_map": {"a": "m.safetensors"}}', "weight_map, .*the files say"),
}


@pytest.mark.parametrize("name", INDICES)
def test_index(tmp_path, parts, name):
    text, message = INDICES[name]
    _write(tmp_path / "m.safetensors", *parts)
    path = tmp_path / "n.safetensors.index.json"
    path.write_text(text)
    for read in (lg.load, lg.load_model):
        with pytest.raises(FileError, match=message):
            read(path)
