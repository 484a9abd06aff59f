"""Buffers that keep their dtype when the model is cast to a narrower one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError, InvalidIrError
from layergraph.testing import bitwise_equal

CASTS = ("bfloat16", "double", "half", "float")


class Rotary(nn.Module):
    """Position embeddings that recompute their frequencies after a cast to a narrow dtype."""

    def __init__(self, persistent: bool = False) -> None:
        super().__init__()
        self.persistent = persistent
        self.register_buffer("bands", self.make(), persistent=persistent)
        self.register_buffer("scale", torch.rand(4))

    def make(self) -> torch.Tensor:
        return 1.3 ** torch.linspace(0, 9, 4)

    def _apply(self, fn, *args, **kwargs):
        super()._apply(fn, *args, **kwargs)
        if self.bands.itemsize < 4:
            bands = self.make().to(self.bands.device)
            self.register_buffer("bands", bands, persistent=self.persistent)
        return self

    def forward(self, x):
        return x * (torch.arange(4) * self.bands).sin() * self.scale


class Net(nn.Module):
    def __init__(self, persistent: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.rotary = Rotary(persistent)

    def forward(self, x):
        return self.rotary(self.layer(x))


@pytest.mark.parametrize("persistent", [False, True])
def test_casts_are_those_of_the_original(persistent, tmp_path):
    model, x = Net(persistent), torch.randn(2, 4)
    before = copy.deepcopy(model.state_dict())
    ir = lg.to_ir(model, (x,))
    assert bitwise_equal(model.state_dict(), before)
    assert ir["rotary"].tensors["bands"].narrows is False
    assert ir["rotary"].tensors["scale"].narrows is None
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    narrow = lg.load_model(tmp_path / "m.safetensors", dtype=torch.bfloat16)
    assert narrow.rotary.bands.dtype == torch.float32
    assert narrow.rotary.scale.dtype == torch.bfloat16
    wide = lg.load_model(tmp_path / "m.safetensors", dtype=torch.float64)
    assert wide.rotary.bands.dtype == torch.float64
    rebuilt = lg.to_torch(ir, model.state_dict())
    models = [copy.deepcopy(rebuilt), lg.load_model(tmp_path / "m.safetensors"), rebuilt]
    for cast in CASTS:
        getattr(model, cast)()
        given = x.to(model.layer.weight.dtype)
        for each in models:
            getattr(each, cast)()
            assert bitwise_equal(dict(each.named_buffers()), dict(model.named_buffers()))
            assert bitwise_equal(each(given), model(given))
    again = lg.to_ir(rebuilt, (x,))
    assert again["rotary"].tensors["bands"].narrows is False


class Drifting(Rotary):
    """Has other frequencies after a cast."""

    def make(self):
        return super().make() if not hasattr(self, "bands") else super().make() * 2


class AlwaysWide(Rotary):
    """Ignores casts to wider dtypes, too."""

    def _apply(self, fn, *args, **kwargs):
        bands = self.bands
        nn.Module._apply(self, fn, *args, **kwargs)
        self.register_buffer("bands", bands, persistent=False)
        return self


class OnlyHalf(Rotary):
    """Keeps its frequencies for one of two narrow dtypes only."""

    def _apply(self, fn, *args, **kwargs):
        nn.Module._apply(self, fn, *args, **kwargs)
        if self.bands.dtype == torch.bfloat16:
            self.register_buffer("bands", self.make(), persistent=False)
        return self


@pytest.mark.parametrize("kind", [Drifting, AlwaysWide, OnlyHalf])
def test_other_ways_of_casting_are_refused(kind):
    model = nn.Sequential(kind())
    with pytest.raises(CaptureError, match=r"overrides _apply\(\), which treats 'bands'"):
        lg.to_ir(model, (torch.randn(2, 4),))


def test_what_the_ir_says_is_checked():
    ir = lg.to_ir(Net(), (torch.randn(2, 4),))
    ir["rotary"].tensors["bands"].narrows = 3
    with pytest.raises(InvalidIrError, match="narrows"):
        lg.to_torch(ir)
