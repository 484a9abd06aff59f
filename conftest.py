"""What the tests of all packages share."""

from __future__ import annotations

import copy
import os
import pickle
import signal
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import layergraph as lg
from layergraph.testing import bitwise_equal
from layergraph.torch_versions import missing


def pytest_configure() -> None:
    """Set what holds here and in the processes that tests start.

    Tests run in parallel, so each computes on one thread. A shell ignores interrupts in what it
    runs in the background, and tests of interrupts need them.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a feature that this torch lacks: ``@pytest.mark.needs("norm_bias")``."""
    for mark in item.iter_markers("needs"):
        for reason in filter(None, map(missing, mark.args)):
            pytest.skip(reason)


# They share wheels and the environments in which these are installed.
_WHEELS = frozenset("test_examples.py test_new_plugin.py test_tutorial.py test_wheels.py".split())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file in one process, and those of files that share costly fixtures."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "wheels" if file.rpartition("/")[2] in _WHEELS else file

    return Scheduling(config, log)


def _tensors(value):
    if isinstance(value, tuple | list):
        return [leaf for each in value for leaf in _tensors(each)]
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in _tensors(each)]
    return [value]


def _run(model: nn.Module, inputs, *, training: bool):
    """Everything that can be seen of one call."""
    model.train(training)
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    given = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, inputs)
    returned = model(*given)
    outputs = _tensors(returned)
    wanting = [each for each in outputs if isinstance(each, torch.Tensor) and each.requires_grad]
    if wanting:
        torch.autograd.backward(wanting, [torch.randn_like(each) for each in wanting])
    gradients = {name: p.grad for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers() if ":" not in name}
    keys = set(model.state_dict())
    return returned, outputs, gradients, {k: v for k, v in buffers.items() if k in keys}


def _ties(model: nn.Module) -> list[list[str]]:
    keys: dict[int, list[str]] = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        keys.setdefault(id(tensor), []).append(key)
    return [names for names in keys.values() if len(names) > 1]


def assert_same(model: nn.Module, rebuilt: nn.Module, *inputs) -> None:
    """Two models are alike in all that a user can see: state, outputs, gradients, both modes."""
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    assert _ties(rebuilt) == _ties(model)
    for (key, one), other in zip(
        model.state_dict(keep_vars=True).items(),
        rebuilt.state_dict(keep_vars=True).values(),
        strict=True,
    ):
        assert one.dtype is other.dtype, key
        assert one.requires_grad == other.requires_grad, key
        assert type(one) is type(other), key
    was = model.training
    for training in (False, True):
        before = copy.deepcopy(model.state_dict())
        mine = _run(model, inputs, training=training)
        model.load_state_dict(before)
        theirs = _run(rebuilt, inputs, training=training)
        rebuilt.load_state_dict(before)
        mode = "train" if training else "eval"
        assert pytree.tree_structure(mine[1]) == pytree.tree_structure(theirs[1])
        for one, other in zip(mine[1], theirs[1], strict=True):
            assert bitwise_equal(one, other), f"{mode}: an output differs"
        for what, one, other in (("gradient", mine[2], theirs[2]), ("buffer", mine[3], theirs[3])):
            assert one.keys() == other.keys(), f"{mode}: {what}s differ"
            for name in one:
                assert bitwise_equal(one[name], other[name]), f"{mode}: {what} of {name} differs"
    model.train(was)
    rebuilt.train(was)


@pytest.fixture(name="assert_same")
def assert_same_fixture() -> Callable[..., None]:
    """See :func:`assert_same`."""
    return assert_same


RoundTrip = Callable[..., tuple[lg.Ir, nn.Module]]


@pytest.fixture
def round_trip() -> RoundTrip:
    """Convert a model, through the dict form, and back; compare all that a user can see."""

    def check(model: nn.Module, *inputs) -> tuple[lg.Ir, nn.Module]:
        members = {name: set(vars(module)) for name, module in model.named_modules()}
        ir = lg.to_ir(model)
        assert {name: set(vars(module)) for name, module in model.named_modules()} == members
        assert lg.Ir.from_dict(ir.to_dict()) == ir
        rebuilt = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
        assert [m.training for m in rebuilt.modules()] == [m.training for m in model.modules()]
        assert_same(model, rebuilt, *inputs)
        assert_same(model, lg.to_torch(ir.flatten(), model.state_dict()), *inputs)
        assert_same(model, copy.deepcopy(rebuilt), *inputs)
        assert_same(model, pickle.loads(pickle.dumps(rebuilt)), *inputs)
        return ir, rebuilt

    return check
