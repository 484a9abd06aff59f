"""Code that sets or reads torch's global state, by any name of the function: never lost."""

from __future__ import annotations

import functools
import random
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import default_generator as dice
from torch import get_default_dtype, inference_mode, nn
from torch import is_grad_enabled as takes_gradients
from torch import manual_seed as fix
from torch import set_default_dtype as use
from torch import set_num_threads as spread

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal
from layergraph.torch2ir.state import global_state

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
WAYS = pytest.mark.parametrize("args", [(X,), None], ids=["run", "traced"])


class Model(nn.Module):
    """A model whose constructor gets its forward."""

    def __init__(self, does):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.does = does

    def forward(self, x):
        return self.does(self, x)


def model(does):
    """Return a model whose class defines the forward, as in usual code."""
    return type("Model", (Model,), {"forward": does})(None)


# --- what is set ---


def seeds_by_alias(m, x):
    fix(3)
    return m.drop(x)


def seeds_the_generator(m, x):
    dice.manual_seed(3)
    return x + torch.rand(4)


def seeds_at_the_end(m, x):
    y = m.drop(x)
    torch.random.manual_seed(3)
    return y


def draws_twice_the_same(m, x):
    state = torch.random.get_rng_state()
    y = m.drop(x)
    torch.random.set_rng_state(state)
    return y + m.drop(x)


def draws_beside(m, x):
    with torch.random.fork_rng(devices=[]):
        y = x + torch.rand(4)
    return y + F.dropout(x)


def seeds_by_partial(m, x):
    functools.partial(torch.manual_seed, 3)()
    return m.drop(x)


def sets_the_dtype(m, x):
    use(torch.float64)
    y = x * torch.ones(4)
    use(torch.float32)
    return y


def sets_the_kind_of_tensors(m, x):
    torch.set_default_tensor_type(torch.DoubleTensor)
    y = x + torch.zeros(4)
    torch.set_default_tensor_type(torch.FloatTensor)
    return y


def is_deterministic(m, x):
    torch.use_deterministic_algorithms(True)
    y = m.lin(x)
    torch.use_deterministic_algorithms(False)
    return y


def goes_without_kernels(m, x):
    with torch.backends.mkldnn.flags(enabled=False):
        return m.lin(x)


def sets_an_attribute_of_a_backend(m, x):
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    y = m.lin(x)
    torch.backends.cudnn.benchmark = False
    return y


def computes_less_precisely(m, x):
    torch.set_float32_matmul_precision("medium")
    y = m.lin(x)
    torch.set_float32_matmul_precision("highest")
    return y


def infers(m, x):
    with inference_mode():
        return m.lin(x)


def spreads(m, x):
    count = torch.get_num_threads()
    spread(count + 1)
    y = m.lin(x)
    spread(count)
    return y


def casts_without_a_cache(m, x):
    torch.set_autocast_cache_enabled(False)
    y = m.lin(x)
    torch.set_autocast_cache_enabled(True)
    return y


def flushes(m, x):
    torch.set_flush_denormal(True)
    y = x * 1e-38
    torch.set_flush_denormal(False)
    return y


def moves_all(m, x):
    torch.set_default_device("meta")
    y = torch.zeros(4)
    torch.set_default_device(None)
    return x + y.shape[0]


SETS = [
    *(seeds_by_alias, seeds_the_generator, seeds_at_the_end, draws_twice_the_same, draws_beside),
    *(seeds_by_partial, sets_the_dtype, sets_the_kind_of_tensors, is_deterministic, moves_all),
    *(goes_without_kernels, sets_an_attribute_of_a_backend, computes_less_precisely, infers),
    *(spreads, casts_without_a_cache, flushes),
]


@WAYS
@pytest.mark.parametrize("does", SETS, ids=lambda does: does.__name__)
def test_what_code_sets_is_refused_by_its_line_and_put_back(does, args):
    original = model(does)
    before = global_state.snapshot(), torch.get_rng_state().tolist()
    with pytest.raises(CaptureError, match=rf"test_global_state.py, line \d+, in {does.__name__}"):
        lg.to_ir(original, args)
    assert (global_state.snapshot(), torch.get_rng_state().tolist()) == before


def test_a_setter_that_no_patch_sees_is_seen_by_the_state():
    # An iterator holds the function, where a search does not find it.
    hidden = iter([torch._C._set_default_dtype] * 2)

    def forward(m, x):
        next(hidden)(torch.float64)
        y = x * torch.ones(4)
        next(hidden)(torch.float32)
        return y

    with pytest.raises(CaptureError, match=r"default dtype from torch\.float32 to"):
        lg.to_ir(model(forward), (X,))


def test_a_generator_that_no_patch_sees_is_seen_by_its_seed():
    # As above, the search does not find it.
    hidden = iter([torch.default_generator] * 4)

    def forward(m, x):
        state = next(hidden).get_state()
        y = x + torch.rand(4)
        next(hidden).set_state(state)
        return y + torch.rand(4)

    for args in ((X,), None):
        with pytest.raises(CaptureError, match="a change of the random number generator's state"):
            lg.to_ir(model(forward), args)


def test_what_sets_in_the_other_mode_only_is_seen_too():
    def forward(m, x):
        if not m.training:
            fix(3)
        return x + torch.rand(4)

    rebuilt = lg.to_torch(lg.to_ir(model(forward), (X,)))
    with pytest.raises(AssumptionError, match="training"):
        rebuilt.eval()(X)


# --- what is asked ---


def kept_by_default(x, asks=torch.is_grad_enabled):
    return x * 2 if asks() else x


def _closure(asks):
    return lambda x: x * 2 if asks() else x


kept_in_a_cell = _closure(torch.is_grad_enabled)
kept_in_a_partial = functools.partial(torch.is_grad_enabled)
kept_in_a_dict = {"asks": torch.is_grad_enabled}


class Kept:
    asks = staticmethod(torch.is_grad_enabled)


@pytest.fixture(scope="module")
def _library():
    """A foreign module with another name for the function."""
    module = types.ModuleType("a_library_of_others")
    code = "from torch import is_grad_enabled as asks\ndef double(x): return x * 2 if asks() else x"
    exec(code, vars(module))
    sys.modules[module.__name__] = module
    yield
    del sys.modules[module.__name__]


ASKS = {
    "alias": lambda m, x: x * 2 if takes_gradients() else x,
    "C": lambda m, x: x * 2 if torch._C.is_grad_enabled() else x,
    "default": lambda m, x: kept_by_default(x),
    "cell": lambda m, x: kept_in_a_cell(x),
    "partial": lambda m, x: x * 2 if kept_in_a_partial() else x,
    "dict": lambda m, x: x * 2 if kept_in_a_dict["asks"]() else x,
    "class": lambda m, x: x * 2 if Kept.asks() else x,
    "library": lambda m, x: sys.modules["a_library_of_others"].double(x),
    "attribute": lambda m, x: x * 2 if m.does() else x,
}


@WAYS
@pytest.mark.parametrize("does", ASKS.values(), ids=ASKS.keys())
@pytest.mark.usefixtures("_library")
def test_who_asks_for_the_grad_mode_under_any_name_is_followed_or_held_to_it(does, args):
    original = model(does)
    original.does = torch.is_grad_enabled
    rebuilt = lg.to_torch(lg.to_ir(original, args), original.state_dict())
    assert bitwise_equal(rebuilt(X), original(X))
    with torch.no_grad():
        if args:
            assert bitwise_equal(rebuilt(X), original(X))
            return
        with pytest.raises(AssumptionError, match="was True when"):
            rebuilt(X)


GUARDED = {
    "dtype": (lambda m, x: x * (get_default_dtype() is torch.float32), "get_default_dtype"),
    "inference": (lambda m, x: x * torch.is_inference_mode_enabled(), "is_inference_mode"),
    "threads": (lambda m, x: x * torch.get_num_threads(), "get_num_threads"),
    "algorithms": (
        lambda m, x: x * torch.are_deterministic_algorithms_enabled(),
        "are_deterministic_algorithms_enabled",
    ),
    "precision": (
        lambda m, x: x * len(torch.get_float32_matmul_precision()),
        "get_float32_matmul_precision",
    ),
    "flag of a backend": (
        lambda m, x: x * torch.backends.mkldnn.enabled,
        "torch.backends.mkldnn.enabled",
    ),
}


def test_another_flag_of_a_backend_is_refused(tmp_path):
    net, x = model(lambda m, x: x + 1 if torch.backends.mkldnn.enabled else x), torch.randn(2, 4)
    ir = lg.to_ir(net, (x,))
    lg.save(ir, tmp_path / "m.safetensors", net.state_dict())
    again = lg.load_model(tmp_path / "m.safetensors")
    assert torch.equal(again(x), net(x))
    with (
        torch.backends.mkldnn.flags(enabled=False),
        pytest.raises(lg.errors.AssumptionError, match="was True"),
    ):
        again(x)


@WAYS
@pytest.mark.parametrize(("does", "name"), GUARDED.values(), ids=GUARDED.keys())
def test_what_torch_tells_under_a_name_is_asked_again(does, name, args):
    ir = lg.to_ir(model(does), args)
    assert any(name in str(node.implementation) for node in ir["root"].nodes.values())


def _put_back(get, put):
    state = get()
    number = random.random() if get is random.getstate else np.random.rand()
    put(state)
    return number


REFUSED = {
    "seed": lambda m, x: x * (torch.random.initial_seed() % 7),
    "seed of the generator": lambda m, x: x * (dice.initial_seed() % 7),
    "kernels": lambda m, x: x * torch.backends.cuda.flash_sdp_enabled(),
    "precision": pytest.param(
        lambda m, x: x * len(torch.backends.mkldnn.matmul.fp32_precision),
        marks=pytest.mark.needs("fp32_precision"),
    ),
    "Python's, put back": lambda m, x: x * _put_back(random.getstate, random.setstate),
    "numpy's, put back": lambda m, x: x * _put_back(np.random.get_state, np.random.set_state),
    "a draw of Python": lambda m, x: x * random.random(),
}


@WAYS
@pytest.mark.parametrize("does", REFUSED.values(), ids=REFUSED.keys())
def test_what_a_graph_cannot_ask_for_is_refused(does, args):
    with pytest.raises(CaptureError, match=r"state of torch|generator|random numbers"):
        lg.to_ir(model(does), args)


# --- what is done every day ---


def regions(m, x):
    with torch.no_grad():
        y = m.lin(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = y + m.lin(x)
    with torch.set_grad_enabled(m.training):
        y = y + m.drop(x)
    return F.dropout(y.float(), training=m.training) + torch.rand(4)


def own_generators(m, x):
    return x * random.Random(0).random() * np.random.default_rng(0).random()


def inference_off(m, x):
    with torch.inference_mode(mode=False):
        return m.drop(x)


@pytest.mark.parametrize("does", [regions, own_generators, inference_off])
def test_what_changes_nothing_else_is_kept(does):
    original = model(does)
    rebuilt = lg.to_torch(lg.to_ir(original, (X,)), original.state_dict())
    torch.manual_seed(5)
    expected = original(X)
    torch.manual_seed(5)
    assert bitwise_equal(rebuilt(X), expected)


def test_captures_in_one_state_are_one():
    original = model(lambda m, x: x[: int(torch.randint(1, 3, ()))])
    torch.manual_seed(5)
    first = lg.to_ir(original, (X,), values="assume")
    torch.manual_seed(5)
    assert lg.to_ir(original, (X,), values="assume") == first


def test_all_that_torch_lets_set_is_compared():
    names = {each.name for each in global_state.settings()}
    assert {"default dtype", "mkldnn", "num threads", "inference mode", "qengine"} <= names


@pytest.mark.parametrize("name", ["torch.rand", "torch.dropout", "torch.Tensor.bernoulli_"])
def test_what_draws_is_known(name):
    function = (
        lg.torch2ir.get_default_converter
    )  # every generator that is written in Python may draw
    assert global_state.may_draw(name, torch.rand)
    assert global_state.may_draw("torch.relu", function)
    assert not global_state.may_draw("torch.relu", torch.relu)


class SetsPrecision(nn.Module):
    def forward(self, x):
        torch.set_float32_matmul_precision("medium")
        return x @ x


@pytest.mark.slow
def test_a_precision_of_two_names_is_put_back():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(CaptureError, match="float32 matmul precision from 'highest' to 'medium'"):
        lg.to_ir(SetsPrecision(), (torch.randn(2, 2),))
    assert torch.get_float32_matmul_precision() == before
    assert not lg.verify(SetsPrecision(), (torch.randn(2, 2),)).ok
    assert lg.to_ir(nn.Linear(2, 2), (torch.randn(2, 2),))
