"""Conditions of nodes in files: version 2 of the format."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import nn

import layergraph as lg
from core.tests.conditional import (
    IF,
    UNLESS,
    X,
    call,
    choose,
    composite,
    decision,
    function,
    given,
    ir_of,
    linear,
    returns,
    two_ways,
)
from layergraph.errors import FileError, LayergraphError
from layergraph.ir import Ir, Node, Ref, check
from layergraph.testing import bitwise_equal
from layergraph_files.document import from_document, to_document
from layergraph_files.versions import current

FILES = Path(__file__).parent / "files"
UP, DOWN = torch.tensor([[1.0, 2.0]]), torch.tensor([[-1.0, -2.0]])
SCHEMA = json.loads(
    (Path(__file__).parents[3] / "docs/reference/file-format.schema.json").read_text()
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_a_model_of_two_ways_comes_back(tmp_path):
    ir = two_ways()
    model = lg.to_torch(ir)
    lg.save(ir, tmp_path / "m.json")
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for name in ("m.json", "m.safetensors"):
        assert lg.load(tmp_path / name) == ir
        assert list(lg.load(tmp_path / name)["root"].edges) == list(ir["root"].edges)
    back = lg.load_model(tmp_path / "m.safetensors")
    for x in (UP, DOWN):
        assert bitwise_equal(back(x), model(x))


def test_the_form():
    document = to_document(two_ways(), {})
    nodes = {each["name"]: each for each in document["implementations"][0]["nodes"]}
    assert document["version"] == 2
    assert nodes["a"] == {
        "name": "a",
        "type": "linear",
        "implementation": "lin",
        "inputs": ["x"],
        "when": ["t", True],
    }
    assert nodes["b"]["when"] == ["t", False]
    assert "edges" not in document["implementations"][0]


ARGUMENTS = {
    "none": (),
    "one": (X,),
    "the condition": (Ref("t"),),
    "one twice": (X, X),
    "several": (X, Ref("t")),
    "a constant": (X, 1),
    "nested": ((X, 1), [Ref("t")]),
}


@pytest.mark.parametrize("kwargs", [{}, {"alpha": X}], ids=["plain", "by name"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_form_of_arguments(name, kwargs):
    nodes = [*given("x"), *decision()]
    made = function("n", "torch.neg", *ARGUMENTS[name], when=UNLESS, **kwargs)
    ir = ir_of(*nodes, made, returns(Ref("n")))
    check(ir)
    document = json.loads(json.dumps(to_document(ir, {})))
    VALIDATOR.validate(document)
    back = from_document(current(document))
    assert back == ir
    assert "edges" not in document["implementations"][0]
    # A reader cannot derive edges in another order.
    root = ir["root"]
    root.edges = dict(reversed(root.edges.items()))
    document = to_document(ir, {})
    VALIDATOR.validate(document)
    assert from_document(current(document)) == ir
    assert "edges" in document["implementations"][0]


def test_inputs_name_each_node_once():
    document = to_document(two_ways(), {})
    for node in document["implementations"][0]["nodes"]:
        if "inputs" in node:
            node["inputs"] *= 2
    nodes = from_document(document)["root"].nodes
    assert nodes["b"].args == (X,)
    assert nodes["o"].args == (Ref("t"), Ref("a"), Ref("b"))


def test_the_second_graph_has_conditions_too():
    one, other = two_ways(), ir_of(*given("x"), returns(X))["root"]
    graph = lg.ir.Graph(nodes=other.nodes, edges=other.edges)
    way = lg.ir.Graph(nodes=one["root"].nodes, edges=one["root"].edges)
    root = one["root"].changed(nodes=graph.nodes, edges=graph.edges, evaluation=way)
    ir = Ir([root, one["lin"]])
    document = to_document(ir, {})
    assert document["version"] == 2
    VALIDATOR.validate(document)
    assert from_document(current(document)) == ir


# --- versions ---


def test_a_file_without_conditions_is_of_version_1(tmp_path):
    path = tmp_path / "m.json"
    lg.save(lg.to_ir(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), path)
    assert json.loads(path.read_text())["version"] == 1
    # Functions that compute a condition do not need version 2 if no node has a condition.
    nodes = [*given("x"), *decision(), choose("o", "t", X, 1), returns(Ref("o"))]
    assert to_document(ir_of(*nodes), {})["version"] == 1


def test_version_2_is_read_for_good():
    ir = lg.load(FILES / "version-2.json")
    assert ir == two_ways()
    assert lg.load(FILES / "version-2.safetensors") == ir
    loaded = lg.load_model(FILES / "version-2.safetensors")
    assert loaded(UP).tolist() == [[5.0, -1.0]]
    assert loaded(DOWN).tolist() == [[0.0, 0.0]]


def _document():
    return json.loads(json.dumps(to_document(two_ways(), {})))


@pytest.mark.parametrize("where", ["graph", "evaluation"])
def test_version_1_has_no_conditions(where, tmp_path):
    document = _document() | {"version": 1}
    entry = document["implementations"][0]
    place = r"implementations\[0\] 'root'"
    if where == "evaluation":
        entry["evaluation"] = {"nodes": entry["nodes"]}
        entry["nodes"] = [each for each in entry["nodes"] if "when" not in each]
        place += ", evaluation"
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    message = rf"{place}, nodes\[\d\] 'a', when: version 1 of the format has no conditions"
    with pytest.raises(FileError, match=message):
        lg.load(path)
    assert not VALIDATOR.is_valid(document)
    VALIDATOR.validate(document | {"version": 2})


@pytest.mark.parametrize("form", [1, "x", [1], ["x"], [None], {"nodes": 1}, [[]]], ids=str)
def test_a_document_of_version_1_may_have_any_form(form, tmp_path):
    path = tmp_path / "m.json"
    for entry in ({"nodes": form}, {"evaluation": form}, {"evaluation": {"nodes": form}}):
        root = {"name": "root", "type": "module"} | entry
        for listed in ([root], form):
            document = {"format": "layergraph", "version": 1, "root": "root"}
            path.write_text(json.dumps(document | {"implementations": listed}))
            with pytest.raises(FileError):
                lg.load(path)


# --- damages ---

DAMAGES = {
    "null": (None, "when: null where an array belongs"),
    "a name": ("t", "when: a string where an array belongs"),
    "an object": ({"ref": "t"}, "when: an object where an array belongs"),
    "nothing": ([], "when: there are 0 items"),
    "one": (["t"], "when: there are 1 items"),
    "three": (["t", True, True], "when: there are 3 items"),
    "a number": ([1, True], r"when\[0\]: an integer where a string belongs"),
    "a reference": ([{"ref": "t"}, True], r"when\[0\]: an object where a string belongs"),
    "a long name": (["t" * 4097, True], r"when\[0\]: the name has 4097 characters"),
    "0": (["t", 0], r"when\[1\]: an integer where a boolean belongs"),
    "no expectation": (["t", None], r"when\[1\]: null where a boolean belongs"),
    "text": (["t", "true"], r"when\[1\]: a string where a boolean belongs"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_conditions(name, tmp_path):
    form, message = DAMAGES[name]
    document = _document()
    VALIDATOR.validate(document)
    document["implementations"][0]["nodes"][4]["when"] = form
    assert not VALIDATOR.is_valid(document)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FileError, match=message):
        lg.load(path)


RULES = {
    "no node": (["u", True], "its condition names 'u', which is no node here"),
    "an output": (["output", True], "it reads 'output', an output"),
    "itself": (["a", True], "a cycle"),
}


@pytest.mark.parametrize("name", RULES)
def test_conditions_that_break_a_rule(name, tmp_path):
    form, message = RULES[name]
    document = _document()
    node = next(each for each in document["implementations"][0]["nodes"] if each["name"] == "a")
    node["when"] = form
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    with pytest.raises(LayergraphError, match=message):
        lg.load(path)


# --- a file from a stranger ---


def test_a_condition_allows_no_other_function(tmp_path):
    path = tmp_path / "m.json"
    for name in ("torch.Tensor.resize_", "torch.ops.aten.add.out", "torch.Tensor.set_"):
        made = function("n", name, X, when=IF)
        document = to_document(ir_of(*given("x"), *decision(), made, returns(X)), {})
        path.write_text(json.dumps(document))
        with pytest.raises(FileError, match=f"a file may not call '{name}'"):
            lg.load(path)
    for name in ("layergraph.conditionally", "os.system", "builtins.getattr", "torch.load"):
        ir = ir_of(*given("x"), *decision(), function("n", name, X, when=IF), returns(X))
        with pytest.raises(LayergraphError, match=f"no function is named '{name}'"):
            lg.to_torch(ir)


def test_no_text_of_a_condition_is_code(tmp_path):
    hostile = "x)\n    import os\n    ("
    nodes = [*given("x"), function(hostile, "layergraph.holds", "assume", X, 1, "here")]
    made = function("n", "torch.neg", X, when=(Ref(hostile), True))
    lg.save(ir_of(*nodes, made, returns(Ref("n"))), tmp_path / "m.safetensors", {})
    assert lg.load_model(tmp_path / "m.safetensors")(UP) is None


def test_many_conditions_on_one_level_are_bounded():
    """Each layer calls the next one twice, so a short file describes millions of nodes."""
    levels = [composite("m20", *given("x", "t"), returns(X))]
    for number in reversed(range(20)):
        inner = f"m{number + 1}"
        nodes = [
            *given("x", "t"),
            call("a", inner, X, Ref("t"), when=IF),
            call("b", inner, Ref("a"), Ref("t"), when=UNLESS),
        ]
        levels.append(composite(f"m{number}", *nodes, returns((Ref("a"), Ref("b")))))
    start = call("r", "m0", X, True)
    ir = ir_of(*given("x"), start, returns(Ref("r")), others=levels)
    check(ir)
    with pytest.raises(LayergraphError, match="nodes and values on one level"):
        ir.flatten()


def test_a_long_chain_of_conditions(tmp_path):
    nodes = [*given("x"), function("n0", "layergraph.holds", "assume", X, 1, "here")]
    for number in range(1, 3000):
        when = Ref(f"n{number - 1}"), False
        nodes.append(
            function(f"n{number}", "layergraph.holds", "assume", X, number, "here", when=when)
        )
    ir = ir_of(*nodes, returns(Ref("n2999")))
    lg.save(ir, tmp_path / "m.safetensors", {})
    model = lg.load_model(tmp_path / "m.safetensors")
    assert model("x") is False
    assert model(7) is None
    assert ir.flatten()["root"].nodes.keys() == ir["root"].nodes.keys()
    assert isinstance(ir["root"].nodes["n1"], Node)


def test_a_layer_of_one_way_takes_its_weights(tmp_path):
    nodes = [*given("x"), *decision(), call("a", "lin", X, when=IF, kind="linear")]
    ir = ir_of(*nodes, returns(Ref("a")), others=[linear()])
    with pytest.raises(LayergraphError, match="lin"):
        lg.save(ir, tmp_path / "m.safetensors", {})
