"""Modules that override state_dict() convert if it returns the same as torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("count", torch.ones(4))
        self.register_buffer("passing", torch.ones(4), persistent=False)

    def forward(self, x):
        return self.lin(x) * self.count + self.passing


class WritesTheSame(Base):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}count"] = self.count if keep_vars else self.count.detach()


class WritesCopies(Base):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}count"] = self.count.clone()


class CallsSuper(Base):
    def state_dict(self, *args, **kwargs):
        return super().state_dict(*args, **kwargs)


class CopiesAll(Base):
    def state_dict(self, *args, destination=None, **kwargs):
        found = super().state_dict(*args, destination=destination, **kwargs)
        return type(found)((key, value.clone()) for key, value in found.items())


class HookThatLooks(Base):
    def __init__(self):
        super().__init__()
        self.register_state_dict_post_hook(lambda module, found, prefix, _: None)
        self.register_state_dict_pre_hook(lambda module, prefix, keep_vars: None)


SAME = [WritesTheSame, WritesCopies, CallsSuper, HookThatLooks]


class Renames(Base):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}times"] = self.count


class LeavesOut(Base):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        pass


class Scales(Base):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}count"] = self.count * 2


class Casts(Base):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}count"] = self.count.double()


class AddsMore(Base):
    def get_extra_state(self):
        return {"version": 3}


class Reorders(Base):
    def state_dict(self, *args, **kwargs):
        found = super().state_dict(*args, **kwargs)
        found.move_to_end(next(iter(found)))
        return found


class HookThatRemoves(Base):
    def __init__(self):
        super().__init__()
        self.register_state_dict_post_hook(_remove)


def _remove(module, found, prefix, _):
    del found[f"{prefix}count"]


class Fails(Base):
    def state_dict(self, *args, **kwargs):
        raise RuntimeError("not now")


OTHER = [Renames, LeavesOut, Scales, Casts, AddsMore, Reorders, HookThatRemoves, Fails]


@pytest.mark.parametrize("cls", [*SAME, CopiesAll])
@pytest.mark.parametrize("args", [None, (X,)], ids=["symbols", "inputs"])
def test_the_same_state_dict_is_no_obstacle(cls, args):
    model = cls()
    rebuilt = lg.to_torch(lg.to_ir(model, args), model.state_dict())
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))


@pytest.mark.parametrize("cls", SAME)
def test_inside_of_a_model_and_not_called(cls):
    model = nn.Sequential(nn.Linear(4, 4))
    model.metric = cls()
    model.forward = model[0].forward
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert list(rebuilt.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("cls", OTHER)
@pytest.mark.parametrize("args", [None, (X,)], ids=["symbols", "inputs"])
def test_another_state_dict_is_refused_by_its_module(cls, args):
    with pytest.raises(
        CaptureError, match=rf"'1' \({cls.__name__}\) makes its own state dict"
    ) as it:
        lg.to_ir(nn.Sequential(WritesTheSame(), cls()), args)
    (found,) = it.value.unsupported
    assert found.path == "1"


def test_the_state_dicts_are_made_once_for_the_whole_model():
    class Counts(Base):
        made = 0

        def state_dict(self, *args, **kwargs):
            Counts.made += 1
            return super().state_dict(*args, **kwargs)

    lg.to_ir(nn.Sequential(*[Counts() for _ in range(20)]))
    assert Counts.made == 20
