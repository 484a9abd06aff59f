"""With a state dict, the build does not initialise weights first, without a visible effect."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError
from layergraph.ir2torch import Ir2Torch
from layergraph.ir2torch.deferred_init import DeferredInit
from layergraph.testing import bitwise_equal

LARGE = (64, 128)


def _parameter(fill=nn.init.normal_):
    # Use nan, so that a tensor that the build does not fill is visible.
    parameter = nn.Parameter(torch.full(LARGE, torch.nan))
    fill(parameter)
    return parameter


def test_what_is_not_read_is_not_filled():
    with DeferredInit():
        parameter = _parameter()
        again = nn.init.kaiming_uniform_(parameter)
        told = (parameter.shape, parameter.size(0), parameter.dtype, parameter.requires_grad)
    assert again is parameter
    assert told == (torch.Size(LARGE), LARGE[0], torch.float32, True)
    assert parameter.isnan().all()


READERS = {
    "an operator": lambda p: p * 1,
    "a function": lambda p: torch.stack([p, p])[1],
    "a keyword": lambda p: torch.add(torch.zeros(LARGE), other=p),
    "a view": lambda p: p.detach()[3:].view(-1).clone(),
    "data": lambda p: p.data.clone(),
    "indices": lambda p: p[torch.arange(3)],
    "another parameter": lambda p: nn.Parameter(p.data).clone(),
    "in place": lambda p: p.data.mul_(2),
    "itself in place": lambda p: p.data.fill_(p.data[0, 0]),
    "numpy": lambda p: torch.tensor(p.detach().numpy()),
    "float": lambda p: torch.tensor(p[0, 0].item()),
    "a norm": lambda p: nn.utils.parametrizations.weight_norm(_around(p)).weight,
}


def _around(parameter):
    module = nn.Module()
    module.weight = parameter
    return module


@pytest.mark.parametrize("name", READERS)
def test_who_reads_finds_it_filled(name):
    with DeferredInit(), torch.no_grad():
        read = READERS[name](_parameter())
    assert not read.isnan().any()


@pytest.mark.parametrize(
    "fill",
    [
        nn.init.xavier_uniform_,
        nn.init.kaiming_normal_,
        nn.init.orthogonal_,
        nn.init.trunc_normal_,
        nn.init.zeros_,
        nn.init.eye_,
        lambda p: p.data.uniform_(),
        lambda p: nn.init.normal_(p, generator=torch.Generator().manual_seed(0)),
    ],
)
def test_fills_are_made_up_for(fill):
    fills = DeferredInit()
    with fills:
        parameter = _parameter(fill)
        padded = nn.Embedding(*LARGE, padding_idx=1)
    fills.run_all()
    assert not parameter.isnan().any()
    assert not padded.weight[1].any()
    assert padded.weight[2].all()
    assert parameter.requires_grad


def test_a_fill_does_not_run_after_what_followed_it():
    fills = DeferredInit()
    with fills, torch.no_grad():
        copied, part = _parameter(), _parameter(nn.init.ones_)
        copied.copy_(torch.zeros(LARGE))
        part[0].fill_(5)
    fills.run_all()
    assert not copied.any()
    assert part[0, 0] == 5
    assert part[1, 0] == 1


def test_a_fill_that_cannot_be_is_refused_at_once():
    with DeferredInit(), pytest.raises(RuntimeError, match="from"):
        _parameter(lambda p: nn.init.uniform_(p, 2, 1))


def test_another_dtype():
    fills = DeferredInit()
    with fills:
        plain, padded = _parameter(nn.init.ones_), nn.Embedding(*LARGE, padding_idx=1).weight
    for parameter in (plain, padded):
        fills.convert(parameter, torch.bfloat16)
    fills.run_all()
    assert plain.dtype is padded.dtype is torch.bfloat16
    assert plain.eq(1).all()
    assert not padded[1].any()
    assert padded[2].all()


class Odd(nn.Module):
    """Has weights, and values derived from these, in attributes that no state dict contains."""

    def __init__(self):
        super().__init__()
        self.weight = _parameter(nn.init.ones_)
        self.hidden = [_parameter(nn.init.ones_)]
        self.shared = nn.Parameter(self.hidden[0].data[1:])
        self.total = self.weight.sum().item()
        self.register_buffer("mean", self.weight.mean(), persistent=False)


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.total = inner.total + inner.weight.sum().item()


def test_handlers_may_compute_with_weights():
    to_torch = Ir2Torch()
    to_torch.register("odd", lambda implementation: Odd())
    to_torch.register("around", lambda implementation, children: Around(children["inner"]))
    ir = lg.Ir(
        [
            lg.Implementation("around", name="root", children={"inner": "inner"}),
            lg.Implementation("odd", name="inner"),
        ]
    )
    state = {
        "inner.weight": torch.full(LARGE, 2.0),
        "inner.shared": torch.full((LARGE[0] - 1, LARGE[1]), 3.0),
    }
    rebuilt = to_torch.convert(ir, state)
    assert rebuilt.total == 2 * LARGE[0] * LARGE[1]
    assert rebuilt.inner.mean == 1
    assert rebuilt.inner.weight.eq(2).all()
    assert rebuilt.inner.shared.eq(3).all()
    assert rebuilt.inner.hidden[0][0].eq(1).all()
    assert rebuilt.inner.hidden[0][1:].eq(3).all()


def test_a_layer_may_compute_with_anothers_weights_where_one_like_it_did_not():
    made = []

    def large(implementation):
        module = nn.Module()
        module.weight = _parameter(nn.init.ones_)
        made.append(module)
        return module

    def reading(implementation):
        module = nn.Module()
        module.total = sum(each.weight.sum().item() for each in made)
        return module

    to_torch = Ir2Torch()
    to_torch.register("large", large)
    to_torch.register("reading", reading)
    ir = lg.Ir(
        [
            lg.Implementation("module", name="root", children={"a": "a", "b": "b", "c": "c"}),
            lg.Implementation("reading", name="a"),
            lg.Implementation("large", name="b"),
            lg.Implementation("reading", name="c"),
        ]
    )
    rebuilt = to_torch.convert(ir, {"b.weight": torch.full(LARGE, 2.0)})
    assert (rebuilt.a.total, rebuilt.c.total) == (0, LARGE[0] * LARGE[1])


def test_bad_attributes_are_refused_with_a_state_dict_too():
    prelu = lg.Implementation("prelu", {"num_parameters": 5000, "init": "much"}, name="root")
    with pytest.raises(BuildError, match="refused"):
        lg.to_torch(lg.Ir([prelu]), {"weight": torch.zeros(5000)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_a_state_dict_leaves_nothing_unfilled(dtype):
    model = nn.Sequential(
        nn.Linear(*LARGE), nn.Linear(*LARGE[::-1]), nn.Linear(*LARGE), nn.Linear(*LARGE[::-1])
    ).to(dtype)
    model[2].weight = model[0].weight
    state = model.state_dict()
    del state["2.weight"]
    ir = lg.to_ir(model)
    rebuilt = lg.to_torch(ir, state)
    assert rebuilt[2].weight is rebuilt[0].weight
    for (key, given), (_, got) in zip(
        model.state_dict().items(), rebuilt.state_dict().items(), strict=True
    ):
        assert got.dtype is dtype
        assert bitwise_equal(got, given), key


def test_without_a_state_dict_weights_are_as_the_constructors_make_them():
    ir = lg.to_ir(nn.Sequential(nn.Linear(*LARGE)))
    torch.manual_seed(0)
    rebuilt = lg.to_torch(ir)
    torch.manual_seed(0)
    assert bitwise_equal(rebuilt[0].weight, nn.Linear(*LARGE).weight)
