"""Models go to the IR of elasticai-creator, through its rules and converters, and come back."""

from __future__ import annotations

import json
import sys

import elasticai.creator.nn as creator
import pytest
import torch
from elasticai.creator.nn import fixed_point
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError, FileError, InvalidIrError
from layergraph.testing import bitwise_equal
from layergraph_creator import from_creator, to_creator
from layergraph_creator.exchange import forms_of

# The IR of elasticai-creator 0.67 is written in Python 3.12.
needs_312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="their IR needs Python 3.12")


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.Sigmoid()

    def forward(self, x):
        return x - self.act(self.fc(x))


def quantized():
    return creator.Sequential(
        fixed_point.Linear(4, 3, total_bits=8, frac_bits=4),
        fixed_point.ReLU(total_bits=8),
        fixed_point.Sigmoid(8, 4, num_steps=16, sampling_intervall=(-2, 2)),
    )


MODELS = {
    "layers": lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Sigmoid()),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.Linear(3, 2)),
    "residual": Residual,
    "quantized": quantized,
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3, padding=1), nn.BatchNorm1d(2), nn.MaxPool1d(2)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_as_it_was(name, tmp_path):
    model = MODELS[name]()
    ir, state = lg.to_ir(model), model.state_dict()
    lg.save(ir, tmp_path / "it.creator.json")
    ways = [lg.load(tmp_path / "it.creator.json")]
    if sys.version_info >= (3, 12):
        ways.append(from_creator(*to_creator(ir)))
    for again in ways:
        assert again == ir
        rebuilt = lg.to_torch(again, state)
        for training in (True, False):
            x = torch.randn(5, 4)
            model.train(training)
            rebuilt.train(training)
            assert bitwise_equal(rebuilt(x), model(x))


@needs_312
def test_their_converters_take_it_and_give_it():
    from elasticai.creator.ir2torch import get_default_converter as ir2torch
    from elasticai.creator.torch2ir import get_default_converter as torch2ir

    model = MODELS["layers"]()
    ir, state = lg.to_ir(model), model.state_dict()
    root, registry = to_creator(ir)
    x = torch.randn(5, 4)
    theirs = ir2torch().convert([root, *registry.values()], state)
    assert torch.equal(theirs(x), model(x))
    back = from_creator(root, registry)
    converted = [*torch2ir().convert(model)]
    ours = from_creator(converted[0], converted)
    assert torch.equal(lg.to_torch(ours, state)(x), model(x))
    assert {name: each.type for name, each in ours.items() if name != ours.root} == {
        name: each.type for name, each in back.items() if name != back.root
    }


@needs_312
def test_their_rules_work_on_it():
    from elasticai.creator import ir as creator_ir
    from elasticai.creator.ir_transforms import SequenceReorderer

    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.ReLU(), nn.Linear(4, 2))
    root, registry = to_creator(lg.to_ir(model))
    nodes = [creator_ir.node(name, kind) for name, kind in _CHAIN]
    order = [nodes[0], nodes[2], nodes[1], nodes[3]]
    reorder = SequenceReorderer(
        nodes, order, lambda *, pattern_node, graph_node: pattern_node.type == graph_node.type
    )
    ir = from_creator(reorder.reorder(root), registry)
    assert [node.type for node in ir[ir.root].nodes.values()] == [
        "input", "linear", "relu", "sigmoid", "linear", "output",
    ]  # fmt: skip
    x = torch.randn(5, 4)
    expected = model[3](model[1](model[2](model[0](x))))
    assert torch.equal(lg.to_torch(ir, model.state_dict())(x), expected)


_CHAIN = [("a", "linear"), ("b", "sigmoid"), ("c", "relu"), ("d", "linear")]


def test_what_their_ir_cannot_say_is_listed(tmp_path):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return torch.flatten(x, 1) * self.weight

    ir = lg.to_ir(Flat())
    with pytest.raises(ArgumentError, match=r"(?s)'flatten': the arguments.*'weight': it reads"):
        forms_of(ir)
    with pytest.raises(ArgumentError, match="lacks"):
        lg.save(ir, tmp_path / "it.creator.json")
    with pytest.raises(ArgumentError, match="holds no weights"):
        lg.save(lg.to_ir(nn.Linear(2, 3)), tmp_path / "it.creator.json", {})
    assert not list(tmp_path.iterdir())


def test_values_without_a_form_in_json_are_listed(tmp_path):
    infinite = float("inf")
    model = nn.Sequential(nn.Hardtanh(-infinite, 1.0), nn.Threshold(0.0, infinite))
    with pytest.raises(ArgumentError, match=r"(?s)'0': min_val=-inf.*'1': value=inf"):
        lg.save(lg.to_ir(model), tmp_path / "it.creator.json")
    assert not list(tmp_path.iterdir())


@needs_312
def test_operands_without_an_order_are_refused():
    root, registry = to_creator(lg.to_ir(Residual()))
    assert root.data["nodes"]["sub"]["args"] == ["x", "act"]
    del root.data["nodes"]["sub"]["args"]
    with pytest.raises(ArgumentError, match="node 'sub': it reads act, x"):
        from_creator(root, registry)


@needs_312
def test_both_forms_of_their_serializers_are_read():
    root, registry = to_creator(lg.to_ir(MODELS["layers"]()))
    flat = {name: each.as_dict() for name, each in registry.items()}
    nested = {
        name: {
            "nodes": each["nodes"],
            "edges": each["edges"],
            "attributes": {key: value for key, value in each.items() if key not in _GRAPH},
        }
        for name, each in flat.items()
    }
    expected = from_creator(root, registry)
    assert from_creator(root.as_dict(), flat) == expected
    assert from_creator(json.loads(json.dumps(root.as_dict())), nested) == expected


_GRAPH = ("nodes", "edges")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"root": 1, "registry": {}}',
        '{"root": {"nodes": 1}, "registry": {}}',
        '{"root": {"nodes": {}, "edges": {"a": 1}}, "registry": {}}',
        '{"root": {"attributes": 1}, "registry": {}}',
        '{"root": {"nodes": {"a": {"type": "linear"}}, "edges": {}}, "registry": {}}',
        '{"root": {"tensors": {"a": {"value": "x"}}}, "registry": {}}',
        '{"root": {"nodes": {"o": {"type": "function", "implementation": "os"}}}, "registry": {}}',
        "[" * 10**5,
    ],
)
def test_a_file_that_is_no_ir_is_refused(text, tmp_path):
    (tmp_path / "it.creator.json").write_text(text)
    with pytest.raises((FileError, InvalidIrError)):
        lg.load(tmp_path / "it.creator.json")


def test_an_object_of_another_kind_is_refused():
    with pytest.raises(ArgumentError, match="a int stands where"):
        from_creator(3)
    with pytest.raises(InvalidIrError):
        from_creator({}, {"a": {"type": "linear", "nodes": {"x": {"type": 3}}}})
