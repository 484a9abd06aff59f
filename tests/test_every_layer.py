"""Every layer of the installed torch.nn has a handler, and is rebuilt from its IR."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.layers import signature_of
from layergraph.plugins import distribution_for
from layergraph.testing import bitwise_equal

LAYERS = sorted(
    {
        cls
        for cls in [*vars(nn).values(), *(getattr(nn.modules, name) for name in nn.modules.__all__)]
        if inspect.isclass(cls) and issubclass(cls, nn.Module)
    },
    key=lambda cls: cls.__name__,
)

ABSTRACT = {
    nn.Module: "the base of all",
    nn.Container: "the base of all, by its old name",
    nn.RNNBase: "the base of RNN, LSTM and GRU",
    nn.RNNCellBase: "the base of their cells",
}
# These classes are not layers: they place a model on devices.
WRAPPERS = {nn.DataParallel: lambda: nn.DataParallel(nn.Linear(2, 2))}

# Values for required arguments of the constructors, by the name of the argument.
ARGUMENTS = {
    "cutoffs": [2],
    "d_model": 4,
    "dim": 1,
    "downscale_factor": 2,
    "embed_dim": 4,
    "embedding_dim": 3,
    "groups": 2,
    "hidden_size": 3,
    "in1_features": 2,
    "in2_features": 3,
    "in_channels": 2,
    "in_features": 4,
    "input_size": 2,
    "kernel_size": 2,
    "n_classes": 5,
    "nhead": 2,
    "norm_type": 2,
    "normalized_shape": (3,),
    "num_channels": 4,
    "num_classes": 3,
    "num_embeddings": 5,
    "num_features": 2,
    "num_groups": 2,
    "num_heads": 2,
    "out_channels": 3,
    "out_features": 3,
    "output_size": (4, 4),
    "padding": 1,
    "size": 2,
    "threshold": 0.5,
    "unflattened_size": (2, 2),
    "upscale_factor": 2,
    "value": 0.5,
}
# Layers whose signatures do not show the required arguments, or that require another layer.
OTHERWISE = {
    nn.FractionalMaxPool2d: lambda: nn.FractionalMaxPool2d(2, output_size=2),
    nn.FractionalMaxPool3d: lambda: nn.FractionalMaxPool3d(2, output_size=2),
    nn.Transformer: lambda: nn.Transformer(4, 2, 1, 1, 4, batch_first=True),
    nn.TransformerDecoder: lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 4), 2),
    nn.TransformerEncoder: lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(4, 2, 4, batch_first=True), 2
    ),
}


def make(cls):
    """Return a layer of the class; for a lazy class, the layer after its first call."""
    if cls in OTHERWISE:
        return OTHERWISE[cls]()
    parameters = signature_of(cls).parameters.values()
    needed = {
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    unknown = needed - ARGUMENTS.keys()
    assert not unknown, f"say in ARGUMENTS or OTHERWISE what {cls.__name__} takes for {unknown}"
    layer = cls(**{name: ARGUMENTS[name] for name in needed})
    if issubclass(cls, LazyModuleMixin):
        dimensions = re.search(r"(\d)d$", cls.__name__)
        layer(torch.randn(2, 3, *[5] * (int(dimensions[1]) if dimensions else 0)))
        assert not isinstance(layer, LazyModuleMixin)
    return layer


class Holding(nn.Module):
    """Holds a layer. Containers of parameters cannot be called, so they are not models."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return x


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize("cls", [cls for cls in LAYERS if cls not in {**ABSTRACT, **WRAPPERS}])
def test_it_has_a_handler_and_comes_back(cls):
    model = Holding(make(cls))
    ir = lg.to_ir(model)
    assert ir["held"].type == type(model.held).__name__.lower()
    rebuilt = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    assert type(rebuilt.held) is type(model.held)
    assert repr(rebuilt.held) == repr(model.held)
    was, now = model.state_dict(), rebuilt.state_dict()
    assert list(now) == list(was)
    assert all(bitwise_equal(now[key], was[key]) for key in was)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize("cls", [cls for cls in LAYERS if cls not in {**ABSTRACT, **WRAPPERS}])
def test_who_lacks_its_plugin_is_told_the_right_one(cls):
    layer = make(cls)
    asked = lg.explain(layer).chains[0].asked
    answering = [each.distribution for each in asked if each.verdict in ("answers", "shadowed")]
    assert answering == [distribution_for(cls.__module__)]


@pytest.mark.parametrize("cls", WRAPPERS)
def test_a_wrapper_is_taken_off(cls):
    wrapper = WRAPPERS[cls]()
    assert lg.to_ir(wrapper)["root"].type == "linear"
    assert lg.to_ir(nn.Sequential(wrapper))["0"].type == "linear"


def test_a_lazy_layer_that_has_not_run_is_refused():
    with pytest.raises(CaptureError, match="run the lazy module once"):
        lg.to_ir(nn.Sequential(nn.LazyLinear(3)))


def test_the_exceptions_are_layers():
    assert {*ABSTRACT, *WRAPPERS, *OTHERWISE} <= {*LAYERS}
