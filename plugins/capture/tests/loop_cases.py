"""Models with loops, the lengths that one capture of them serves, and what is compared."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, LayergraphError

LENGTHS = (1, 2, 3, 4, 5, 7, 9, 24)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 4)
        self.lin = nn.Linear(4, 4)


def sequence(length):
    return (torch.randn(2, length, 4),)


@dataclass(frozen=True)
class LoopCase:
    """A model with a loop.

    Attributes:
        model: makes it.
        given: makes the arguments of a length.
        captured: the length of the example.
        least: the shortest length that is served.
        most: the longest one; None: there is none.
        loops: the number of loops.
        only: whether the example's length is the only one.
        but: lengths between that are refused.
    """

    model: Callable[[], nn.Module]
    given: Callable[[int], tuple[Any, ...]] = sequence
    captured: int = 4
    least: int = 1
    most: int | None = None
    loops: int = 1
    only: bool = False
    but: Collection[int] = ()

    def serves(self, length):
        """Return whether a length is served."""
        if self.only:
            return length == self.captured
        return self.least <= length <= (self.most or length) and length not in self.but


class LoopCases(list):
    """The cases of a file."""

    def case(self, given=sequence, **options):
        """Add a model to the cases."""

        def add(model):
            self.append(pytest.param(LoopCase(model, given, **options), id=model.__name__))
            return model

        return add

    @property
    def parametrized(self):
        """The mark of a test of each case."""
        return pytest.mark.parametrize("case", self)


def check_loop(case, training, tmp_path):
    """Capture a case once; what is built from a file does the same for other lengths, or refuses.

    Compared are results, gradients and buffers, in both modes.
    """
    torch.manual_seed(0)
    original = case.model().train(training)
    ir = lg.to_ir(original, case.given(case.captured))
    assert str(ir).count("layergraph.loop(") == case.loops
    lg.save(ir, tmp_path / "m.safetensors", original.state_dict())
    for mode, length in itertools.product((True, False), LENGTHS):
        rebuilt = lg.load_model(tmp_path / "m.safetensors").train(mode)
        expected = copy.deepcopy(original).train(mode)
        args = case.given(length)
        try:
            outcome = _run(expected, args)
        except (RuntimeError, IndexError, ValueError):
            with pytest.raises((RuntimeError, IndexError, ValueError, LayergraphError)):
                _run(rebuilt, args)
            continue
        if case.serves(length):
            _assert_same(outcome, _run(rebuilt, args))
        else:
            with pytest.raises(AssumptionError):
                _run(rebuilt, args)


def _run(model, args, seed=1):
    torch.manual_seed(seed)
    given = [arg.clone().requires_grad_() for arg in args]
    result = model(*given)
    tensors = [each for each in _leaves(result) if each.requires_grad]
    total = sum(each.sum() for each in tensors)
    grads = ()
    if tensors:
        grads = torch.autograd.grad(total, [*given, *model.parameters()], allow_unused=True)
    return result, grads, dict(model.state_dict())


def _leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value
    return [leaf for each in inside for leaf in _leaves(each)]


def _assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        _assert_same([*one.values()], [*other.values()])
    elif one is not None:
        assert len(one) == len(other)
        for mine, yours in zip(one, other, strict=True):
            _assert_same(mine, yours)
