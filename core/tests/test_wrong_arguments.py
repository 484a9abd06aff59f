"""Public functions that are called with something else than an IR or a state dict."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError, StateError

MODEL = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
FUNCTIONS = {
    "annotate_plan": lambda ir: lg.annotate_plan(ir, {}),
    "edit": lg.edit,
    "extract": lambda ir: lg.extract(ir, "0"),
    "find_matches": lambda ir: lg.find_matches(ir, lambda x: x),
    "fingerprint": lg.fingerprint,
    "rewrite": lambda ir: lg.rewrite(ir, []),
    "run_passes": lambda ir: lg.run_passes(ir, ["fold-batchnorm"]),
    "save": lambda ir: lg.save(ir, "model.safetensors"),
    "shapes": lambda ir: lg.shapes(ir, ((3, 4),)),
    "to_source": lg.to_source,
    "view": lg.view,
}


@pytest.mark.parametrize("given", [None, 3, "model.safetensors", MODEL, [], torch.ones(2)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_something_else_in_the_place_of_the_ir_is_named(name, given):
    with pytest.raises(ArgumentError, match=type(given).__name__):
        FUNCTIONS[name](given)


@pytest.mark.parametrize("given", [3, "x", MODEL, [1], torch.ones(2)])
@pytest.mark.parametrize("function", [lg.edit, lg.extract])
def test_something_else_in_the_place_of_the_state_dict_is_named(function, given):
    with pytest.raises(StateError, match="stands where the state dict belongs"):
        function(lg.to_ir(MODEL), given)
