"""A rebuilt model leaves the modes of torch as it finds them, whatever its graph does."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.control_flow import regions
from layergraph.errors import AssumptionError

X = torch.randn(3, 4)


def _modes():
    return (
        torch.is_grad_enabled(),
        torch.is_autocast_cache_enabled(),
        torch.autocast_increment_nesting() - (torch.autocast_decrement_nesting() + 1),
        [
            (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in ("cpu", "cuda", "xpu")
        ],
    )


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        return self.lin(x)


def _gradients(graph, value=False):
    return graph.call_function(regions.set_grad_enabled, (value,))


def _autocast(graph, device="cpu", dtype=torch.bfloat16, enabled=True, cache=False):
    return graph.call_function(regions.enter_autocast, (device, dtype, enabled, cache))


def _end(graph, region):
    graph.call_function(regions.exit_autocast, (region,))


def _twice(graph):
    region = _autocast(graph)
    _end(graph, region)
    _end(graph, region)


def _crossed(graph):
    one, other = _autocast(graph), _autocast(graph, dtype=torch.float16)
    _end(graph, one)
    _end(graph, other)


UNBALANCED = {
    "gradients off": _gradients,
    "gradients off, and on within": lambda graph: (_gradients(graph), _gradients(graph, True)),
    "autocast": _autocast,
    "autocast of another device": lambda graph: _autocast(graph, "cuda", torch.float16),
    "autocast, twice": lambda graph: (_autocast(graph), _autocast(graph)),
    "autocast that is off": lambda graph: _autocast(graph, enabled=False),
    "autocast that ends twice": _twice,
    "regions that cross": _crossed,
    "all of it": lambda graph: (_gradients(graph), _autocast(graph), _gradients(graph)),
}
ENDS = {"at its end": None, "by an error": ZeroDivisionError, "by Ctrl-C": KeyboardInterrupt}


def _raise(x, error):
    if error is not None:
        raise error
    return x


def _edited(model, begin, error):
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    output = rebuilt.graph.output_node()
    with rebuilt.graph.inserting_before(output):
        begin(rebuilt.graph)
        ended = rebuilt.graph.call_function(_raise, (output.args[0], error))
    output.args = (ended,)
    rebuilt.recompile()
    return rebuilt


@pytest.mark.parametrize("around", ["nothing", "no_grad", "autocast"])
@pytest.mark.filterwarnings("ignore:CUDA")
@pytest.mark.parametrize(("name", "end"), list(itertools.product(UNBALANCED, ENDS)))
def test_modes_are_put_back(name, end, around):
    inner = _edited(Base(), UNBALANCED[name], ENDS[end])
    outer = copy.deepcopy(nn.Sequential(inner, nn.Linear(4, 4)))
    modes = {
        "nothing": torch.enable_grad(),
        "no_grad": torch.no_grad(),
        "autocast": torch.autocast("cpu", torch.float16),
    }
    before = _modes()
    with modes[around]:
        inside = _modes()
        if ENDS[end] is None:
            outer(X)
        else:
            with pytest.raises(ENDS[end]):
                outer(X)
        assert _modes() == inside
    assert _modes() == before


@pytest.mark.parametrize(
    "wrong",
    [
        lambda graph: _end(graph, 1),
        lambda graph: _end(graph, graph.output_node().args[0]),
        lambda graph: _gradients(graph, 3),
        lambda graph: _gradients(graph, None),
    ],
)
def test_what_no_region_gave_is_refused(wrong):
    before = _modes()
    with pytest.raises(AssumptionError):
        _edited(Base(), wrong, None)(X)
    assert _modes() == before
