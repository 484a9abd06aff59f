"""Operations of torch.ops: of torch's own namespaces, of extensions, and those of plugins."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, BuildError, CaptureError
from layergraph.ir2torch import Ir2Torch
from layergraph.plugins import Plugin, chosen_plugins
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir

X = torch.randn(3, 4)


@torch.library.custom_op("layergraph_tests::shifted", mutates_args=())
def shifted(x: torch.Tensor, by: float) -> torch.Tensor:
    return x + by


@torch.library.custom_op("layergraph_tests::bump", mutates_args=("x",))
def bump(x: torch.Tensor) -> None:
    x.add_(1)


_library = torch.library.Library("layergraph_tests", "FRAGMENT")
_library.define("composed(Tensor x) -> Tensor")
_library.impl("composed", lambda x: torch.sin(x) * 2, "CompositeImplicitAutograd")


class Model(nn.Module):
    def __init__(self, called):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self._called = (called,)

    def forward(self, x):
        return self._called[0](self.linear(x))


def _plugins(*names):
    class Names:
        @staticmethod
        @lg.hookimpl
        def functions():
            return list(names)

    return (Plugin("acme", "1", "acme", Names), *chosen_plugins(None, ()))


CALLS = {
    "the function": lambda x: shifted(x, 0.5),
    "the packet": lambda x: torch.ops.layergraph_tests.shifted(x, 0.5),
    "the overload": lambda x: torch.ops.layergraph_tests.shifted.default(x, by=0.5),
}
NAMES = [
    f"{__name__}.shifted",
    "torch.ops.layergraph_tests.shifted",
    "torch.ops.layergraph_tests.shifted.default",
]


@pytest.mark.parametrize("inputs", [None, (X,)], ids=["traced", "run"])
@pytest.mark.parametrize("called", CALLS)
@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_names_an_operation_however_it_is_called(name, called, inputs):
    plugins = _plugins(name)
    model = Model(CALLS[called])
    ir = Torch2Ir(plugins).convert(model, inputs)
    assert name in str(ir)
    again = Ir2Torch(plugins).convert(ir, model.state_dict())
    for each in (again, copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
        assert bitwise_equal(each(X), model(X))


def test_a_named_operation_that_is_not_registered_is_told_by_its_name():
    graph = lg.ir.graph_from_nodes(
        [
            lg.Node("x", "input", "x"),
            lg.Node("y", "function", "torch.ops.acme.gone", args=(lg.Ref("x"),)),
            lg.Node("output", "output", "output", args=(lg.Ref("y"),)),
        ]
    )
    ir = lg.Ir([lg.Implementation("module", name="root", nodes=graph.nodes, edges=graph.edges)])
    with pytest.raises(BuildError, match=r"torch\.ops\.acme\.gone.*not registered"):
        Ir2Torch(_plugins("torch.ops.acme.gone")).convert(ir)


@pytest.mark.parametrize("inputs", [None, (X,)], ids=["traced", "run"])
@pytest.mark.parametrize("called", CALLS)
def test_in_memory_an_operation_needs_no_plugin(called, inputs):
    model = Model(CALLS[called])
    assert lg.preflight(model, inputs).ok
    ir = lg.to_ir(model, inputs)
    assert "torch.ops.layergraph_tests.shifted" in str(ir)
    for each in (ir, ir.copy(), lg.Ir.from_dict(ir.to_dict()), ir.flatten()):
        again = lg.to_torch(each, model.state_dict())
        for rebuilt in (again, copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
            assert bitwise_equal(rebuilt(X), model(X))


@pytest.mark.parametrize("plugins", [None, _plugins(f"{__name__}.bump")], ids=["no", "a plugin"])
@pytest.mark.parametrize("inputs", [None, (X,)], ids=["traced", "run"])
def test_an_operation_that_changes_its_arguments_is_refused(plugins, inputs):
    with pytest.raises(CaptureError, match=r"layergraph_tests\.bump.*changes its arguments"):
        Torch2Ir(plugins).convert(Model(lambda x: bump(x) or x), inputs)


def test_an_operation_that_consists_of_torchs_is_recorded_as_these():
    model = Model(torch.ops.layergraph_tests.composed)
    again = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert bitwise_equal(again(X), model(X))


OWN = {
    "aten": torch.ops.aten.relu,
    "prims": lambda x: torch.ops.prims.sum(x, (0,)),
    "an overload of prims": lambda x: torch.ops.prims.mul.default(x, x),
}


@pytest.mark.parametrize("inputs", [None, (X,)], ids=["traced", "run"])
@pytest.mark.parametrize("called", OWN)
def test_operations_of_torch_come_back(called, inputs):
    model = Model(OWN[called])
    again = lg.to_torch(lg.to_ir(model, inputs), model.state_dict())
    assert bitwise_equal(again(X), model(X))


@pytest.mark.parametrize("inputs", [None, (X,)], ids=["traced", "run"])
def test_operations_of_quantization_in_floats_come_back(inputs):
    pytest.importorskip("torch.ao.quantization.fx._decomposed")
    ops = torch.ops.quantized_decomposed

    def called(x):
        small = ops.quantize_per_tensor(x, 0.1, 3, -128, 127, torch.int8)
        return ops.dequantize_per_tensor(small, 0.1, 3, -128, 127, torch.int8)

    model = Model(called)
    again = lg.to_torch(lg.to_ir(model, inputs), model.state_dict())
    assert bitwise_equal(again(X), model(X))


SIZES = {
    "size": lambda x: x * torch.ops.aten.size(x, 0),
    "an overload of size": lambda x: x * torch.ops.aten.size.int(x, 0),
    "sym_size": lambda x: x * torch.ops.aten.sym_size.int(x, 0),
    "numel": lambda x: x / torch.ops.aten.numel(x),
    "sym_numel": lambda x: x / torch.ops.aten.sym_numel.default(x),
    "all sizes": lambda x: x.view(torch.ops.aten.size(x) + [1]),  # noqa: RUF005
    "stride": lambda x: x * torch.ops.aten.stride(x)[0],
}


@pytest.mark.parametrize("called", SIZES)
def test_sizes_that_operations_give_are_those_of_the_input(called):
    model = Model(SIZES[called])
    again = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    for x in (X, torch.randn(5, 4)):
        assert bitwise_equal(again(x), model(x))


@pytest.mark.parametrize("called", ["size", "sym_size", "an overload of size"])
def test_sizes_that_operations_give_are_traced(called):
    model = Model(SIZES[called])
    again = lg.to_torch(lg.to_ir(model), model.state_dict())
    for x in (X, torch.randn(5, 4)):
        assert bitwise_equal(again(x), model(x))


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x * torch.ops.aten.item(x.sum()),
        lambda x: x if torch.ops.aten.item(x.sum()) > 0 else x * 2,
    ],
    ids=["scales", "decides"],
)
def test_numbers_that_operations_read_are_those_of_methods(compute):
    model = Model(compute)
    again = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    for x in (X, X + 9, X - 9):
        assert bitwise_equal(again(x), model(x))
    with pytest.raises(CaptureError, match="read out of a tensor"):
        lg.to_ir(model, (X,), values="refuse")


def measured(x: torch.Tensor) -> tuple[torch.Tensor, float]:
    return x * 2, float(x.max())


def test_a_number_among_tensors_is_held_to_what_it_was():
    class Measures(nn.Module):
        def forward(self, x):
            doubled, most = measured(x)
            return doubled * most

    plugins = _plugins(f"{__name__}.measured")
    again = Ir2Torch(plugins).convert(Torch2Ir(plugins).convert(Measures(), (X,)))
    assert bitwise_equal(again(X), Measures()(X))
    with pytest.raises(AssumptionError):
        again(X + 1)
