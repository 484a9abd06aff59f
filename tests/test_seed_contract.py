"""Compatibility with the seed project: its snippets and its dict form, quoted unchanged."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import Ir
from layergraph.errors import BuildError
from layergraph.ir import check
from layergraph.ir2torch import get_default_converter as get_ir2torch
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Implementation, get_default_converter

SEED_IR = {
    "root": {
        "name": "root",
        "type": "module",
        "nodes": {
            "input_1": {"name": "input_1", "type": "input", "implementation": "input"},
            "_0": {"name": "_0", "type": "custom_linear", "implementation": "0"},
            "output": {"name": "output", "type": "output", "implementation": "output"},
        },
        "edges": {
            ("input_1", "_0"): {"src": "input_1", "sink": "_0"},
            ("_0", "output"): {"src": "_0", "sink": "output"},
        },
    },
    "0": {
        "name": "0",
        "type": "custom_linear",
        "in_features": 1,
        "out_features": 2,
        "bias": True,
        "edges": {},
        "nodes": {},
    },
}

DESIGN_IR = {
    "root": {
        "name": "root",
        "type": "module",
        "nodes": {
            "input_1": {"name": "input_1", "type": "input", "implementation": "input"},
            "_0": {"name": "_0", "type": "linear", "implementation": "0"},
            "output": {"name": "output", "type": "output", "implementation": "output"},
        },
        "edges": {
            ("input_1", "_0"): {"src": "input_1", "sink": "_0"},
            ("_0", "output"): {"src": "_0", "sink": "output"},
        },
    },
    "0": {
        "name": "0",
        "type": "linear",
        "in_features": 1,
        "out_features": 2,
        "bias": True,
        "nodes": {},
        "edges": {},
    },
}


def custom_linear_handler(impl: Implementation) -> nn.Module:
    made = nn.Linear(
        in_features=impl.data["in_features"],
        out_features=impl.data["out_features"],
        bias=impl.data["bias"],
    )
    made.by = "custom_linear_handler"
    return made


def computes_as_its_linear(model: nn.Module) -> bool:
    linear = model.get_submodule("0")
    given = torch.randn(5, 1)
    expected = nn.functional.linear(given, linear.weight, linear.bias)
    return bitwise_equal(model(given), expected)


# --- the snippets ---


# The seed registers for "linear" an IR of "custom_linear": it must mean one of these.
@pytest.mark.parametrize(("kind", "form"), [("custom_linear", SEED_IR), ("linear", DESIGN_IR)])
def test_the_snippets_of_the_seed(kind: str, form: dict[str, Any]) -> None:
    my_ir2torch = get_ir2torch()

    handler = my_ir2torch.register_override(kind)(custom_linear_handler)

    assert handler is custom_linear_handler
    reconstructed_model = my_ir2torch.convert(form)
    assert reconstructed_model.get_submodule("0").by == "custom_linear_handler"
    assert list(reconstructed_model.state_dict()) == ["0.weight", "0.bias"]
    assert computes_as_its_linear(reconstructed_model)


def test_the_seed_taken_literally_is_told_what_is_missing() -> None:
    my_ir2torch = get_ir2torch()
    my_ir2torch.register_override("linear", custom_linear_handler)
    with pytest.raises(BuildError, match="'custom_linear'"):
        my_ir2torch.convert(SEED_IR)


def test_the_snippet_as_it_is_written() -> None:
    """The snippet with the decorator; only the name of the package and the type are changed."""
    my_ir2torch = get_ir2torch()

    @my_ir2torch.register_override("custom_linear")
    def custom_linear_handler(impl: Implementation) -> nn.Module:
        return nn.Linear(
            in_features=impl.data["in_features"],
            out_features=impl.data["out_features"],
            bias=impl.data["bias"],
        )

    assert computes_as_its_linear(my_ir2torch.convert(SEED_IR))


def test_a_round_trip_through_handlers_of_the_user() -> None:
    """Use the seed's ``register`` with a plain dict of attributes and a new type."""

    class CustomLinear(nn.Linear):
        pass

    torch2ir, ir2torch = get_default_converter(), get_ir2torch()

    @torch2ir.register
    def custom_linear(module: nn.Module) -> dict[str, Any]:
        return {
            "in_features": module.in_features,
            "out_features": module.out_features,
            "bias": module.bias is not None,
        }

    ir2torch.register("custom_linear", custom_linear_handler)
    model = nn.Sequential(CustomLinear(1, 2))
    ir = torch2ir.convert(model)
    assert ir.to_dict()["0"] == SEED_IR["0"]
    rebuilt = ir2torch.convert(ir, model.state_dict())
    given = torch.randn(5, 1)
    assert bitwise_equal(rebuilt(given), model(given))
    assert rebuilt.get_submodule("0").by == "custom_linear_handler"


# --- the dict form ---


def in_order(form: Any) -> Any:
    """Return the form with the order of every dict, which ``==`` ignores."""
    if isinstance(form, dict):
        return [(key, in_order(value)) for key, value in form.items()]
    return form


@pytest.mark.parametrize("form", [DESIGN_IR, SEED_IR], ids=["design", "seed"])
def test_the_dict_form_is_read_and_written_unchanged(form: dict[str, Any]) -> None:
    given = copy.deepcopy(form)
    ir = Ir.from_dict(given)
    check(ir)
    assert ir.to_dict() == form
    assert given == form
    assert Ir.from_dict(ir.to_dict()) == ir


def test_the_dict_form_is_written_in_the_order_of_the_design() -> None:
    assert in_order(Ir.from_dict(DESIGN_IR).to_dict()) == in_order(DESIGN_IR)


def test_what_is_written_is_a_copy() -> None:
    ir = Ir.from_dict(DESIGN_IR)
    written = ir.to_dict()
    written["0"]["in_features"] = 100
    written["root"]["nodes"].clear()
    assert ir.to_dict() == DESIGN_IR


@pytest.mark.parametrize("of", [lambda form: form, Ir.from_dict], ids=["dict", "Ir"])
def test_the_dict_form_is_built_and_run(of: Callable[[Any], Any]) -> None:
    model = lg.to_torch(of(DESIGN_IR))
    linear = model.get_submodule("0")
    assert type(linear) is nn.Linear
    assert (linear.in_features, linear.out_features) == (1, 2)
    assert model.training
    assert linear.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert computes_as_its_linear(model)


def test_the_dict_form_is_what_a_model_becomes() -> None:
    """In the details that the design shows; the names of the nodes of the root included."""
    ir = lg.to_ir(nn.Sequential(nn.Linear(1, 2)))
    expected = copy.deepcopy(DESIGN_IR)
    expected["root"]["type"] = "sequential"
    assert ir.to_dict() == expected


def test_the_dict_form_is_built_with_given_weights() -> None:
    original = nn.Sequential(nn.Linear(1, 2))
    model = lg.to_torch(DESIGN_IR, original.state_dict())
    given = torch.randn(5, 1)
    assert bitwise_equal(model(given), original(given))


# --- one module twice ---

StateDict = OrderedDict[str, torch.Tensor]


@pytest.fixture
def duplicated() -> nn.Sequential:
    lin = nn.Linear(1, 1)
    return nn.Sequential(lin, lin)


def as_it_is(state: StateDict) -> StateDict:
    return state


def as_the_seed_says(state: StateDict) -> StateDict:
    return OrderedDict((key, state[key]) for key in state if not key.startswith("1."))


def without_the_first(state: StateDict) -> StateDict:
    return OrderedDict((key, state[key]) for key in state if not key.startswith("0."))


def by_to_torch(ir: Ir, state: StateDict) -> nn.Module:
    return lg.to_torch(ir, state)


def by_load_state_dict(ir: Ir, state: StateDict) -> nn.Module:
    model = lg.to_torch(ir)
    loaded = model.load_state_dict(state)
    assert (loaded.missing_keys, loaded.unexpected_keys) == ([], [])
    return model


def calls(ir: Ir) -> Iterator[str]:
    return (node.implementation for node in ir[ir.root].nodes.values() if node.is_call)


def test_a_module_used_twice_is_one_implementation_called_twice(
    duplicated: nn.Sequential,
) -> None:
    ir = lg.to_ir(duplicated)
    assert list(ir) == ["root", "0"]
    assert list(calls(ir)) == ["0", "0"]


@pytest.mark.parametrize(
    ("load", "keys"),
    [
        (by_to_torch, as_it_is),
        (by_to_torch, as_the_seed_says),
        (by_to_torch, without_the_first),
        (by_load_state_dict, as_it_is),
        (by_load_state_dict, as_the_seed_says),
    ],
)
@pytest.mark.parametrize("read_back", [False, True], ids=["Ir", "dict"])
def test_the_state_of_a_module_used_twice_loads(
    duplicated: nn.Sequential,
    load: Callable[[Ir, StateDict], nn.Module],
    keys: Callable[[StateDict], StateDict],
    read_back: bool,
) -> None:
    ir = lg.to_ir(duplicated)
    state = duplicated.state_dict()
    kept = keys(state)
    before = list(kept)
    rebuilt = load(Ir.from_dict(ir.to_dict()) if read_back else ir, kept)
    assert list(kept) == before
    assert rebuilt.get_submodule("0") is rebuilt.get_submodule("1")
    assert rebuilt.get_submodule("0") is not duplicated[0]
    assert list(rebuilt.state_dict()) == list(state)
    assert all(bitwise_equal(rebuilt.state_dict()[key], state[key]) for key in state)
    given = torch.randn(5, 1)
    assert bitwise_equal(rebuilt(given), duplicated(given))


def test_a_step_of_training_changes_both_uses_alike(duplicated: nn.Sequential) -> None:
    rebuilt = lg.to_torch(lg.to_ir(duplicated), duplicated.state_dict())
    given = torch.randn(5, 1)
    for model in (duplicated, rebuilt):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(given).square().sum().backward()
        optimizer.step()
    assert len(list(rebuilt.parameters())) == 2
    assert bitwise_equal(rebuilt(given), duplicated(given))
