"""Keyword-only parameters: those of the rebuilt model are keyword-only, too."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.ir.graph import KEYWORD_ONLY
from layergraph.testing import bitwise_equal


class Masked(nn.Module):
    def forward(self, x, y=None, *, mask, scale=2.0):
        x = x * scale + mask
        return x if y is None else x + y


class Around(nn.Module):
    """Calls a module with keyword arguments, and accepts any itself."""

    def __init__(self):
        super().__init__()
        self.masked, self.lin = Masked(), nn.Linear(4, 4)

    def forward(self, x, *, mask, **more):
        x = self.lin(self.masked(x, mask=mask)) * more["factor"]
        return nn.functional.dropout(x, 0.5) if self.training else x


X = torch.rand(3, 4)
CASES = {
    "inputs": (Masked, {"mask": X}, (X,), "(x, y=None, *, mask=None, scale=2.0)"),
    "symbols": (Masked, {"mask": X}, None, "(x, y=None, *, mask, scale=2.0)"),
    "any": (Around, {"mask": X, "factor": X}, (X,), "(x, *, mask, factor)"),
}


def _signature(model):
    return str(inspect.signature(model.forward))


@pytest.mark.parametrize("name", CASES)
def test_they_stay_so(name, tmp_path):
    make, kwargs, args, signature = CASES[name]
    model = make().eval()
    ir = lg.to_ir(model) if args is None else lg.to_ir(model, args, kwargs)
    path = tmp_path / "model.json"
    lg.save(ir, path)
    assert '"version": 1' in path.read_text()
    assert lg.load(path) == ir
    rebuilt = lg.to_torch(lg.load(path), model.state_dict())
    for each in (rebuilt, copy.deepcopy(rebuilt), pickle.loads(pickle.dumps(rebuilt))):
        for training in (True, False):
            assert _signature(each.train(training)) == signature
        x = torch.rand(3, 4)
        assert bitwise_equal(each(x, **kwargs), model(x, **kwargs))
        with pytest.raises(TypeError, match="positional"):
            each(x, X, *kwargs.values())
    own: dict = {}
    exec(lg.to_source(ir), own)
    assert _signature(own["Net"]()) == signature
    compiled = torch.compile(rebuilt, backend="eager", fullgraph=True)
    assert bitwise_equal(compiled(X, **kwargs), model(X, **kwargs))


def test_a_graph_gives_arguments_by_position():
    model = Around().eval()
    ir = lg.to_ir(model, (X,), {"mask": X, "factor": X})
    for name in ir:
        marked = {each.name for each in ir[name].nodes.values() if KEYWORD_ONLY in each.data}
        assert marked == ({"mask", "factor"} if name == "root" else set())
    # A user's annotation inside does not change a call.
    for node in ir["masked"].nodes.values():
        node.data[KEYWORD_ONLY] = True
    rebuilt = lg.to_torch(ir, model.state_dict())
    kwargs = {"mask": X, "factor": X}
    assert bitwise_equal(rebuilt(X, **kwargs), model(X, **kwargs))


def test_without_the_annotation_they_have_a_position():
    ir = lg.to_ir(Masked(), (X,), {"mask": X})
    for node in ir["root"].nodes.values():
        node.data.pop(KEYWORD_ONLY, None)
    assert _signature(lg.to_torch(ir)) == "(x, y=None, mask=None, scale=2.0)"
    ir["root"].nodes["scale"].data[KEYWORD_ONLY] = 1  # not True
    assert _signature(lg.to_torch(ir)) == "(x, y=None, mask=None, scale=2.0)"


def test_blocks_that_differ_in_it_share_no_code():
    ir = lg.to_ir(Masked(), (X,), {"mask": X})
    rebuilt = lg.to_torch(ir)
    del ir["root"].nodes["scale"].data[KEYWORD_ONLY]
    assert _signature(lg.to_torch(ir)) == "(x, y=None, scale=2.0, *, mask=None)"
    assert _signature(rebuilt) == "(x, y=None, *, mask=None, scale=2.0)"
