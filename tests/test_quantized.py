"""Modules of torch.ao.nn are rebuilt bit for bit, or are refused: never silently wrong.

Their classes have the names of layers of torch.nn, and many derive from them, but what they compute
is something else.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
import re

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.nn import intrinsic, qat, quantizable, quantized
from torch.ao.nn.intrinsic import qat as intrinsic_qat
from torch.ao.nn.intrinsic import quantized as intrinsic_quantized
from torch.ao.nn.intrinsic.quantized import dynamic as intrinsic_dynamic
from torch.ao.nn.qat import dynamic as qat_dynamic
from torch.ao.nn.quantized import dynamic, reference
from torch.ao.nn.sparse import quantized as sparse
from torch.ao.nn.sparse.quantized import dynamic as sparse_dynamic
from torch.utils import _pytree as pytree

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Quantizing(nn.Module):
    """Calls its module with a quantized input, and dequantizes the result."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return self.held(torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)).dequantize()


class Adding(nn.Module):
    """Calls the methods of its module."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return self.held.mul_scalar(self.held.add_relu(x, x), 2.0)


class Twice(nn.Module):
    """Calls its module with one input as both arguments."""

    def __init__(self, held, times=2):
        super().__init__()
        self.held = held
        self.times = times

    def forward(self, x):
        return self.held(*[x] * self.times)


def random(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


INPUTS = {
    "": random(3, 4),
    "1d": random(2, 4, 6),
    "2d": random(2, 4, 6, 6),
    "3d": random(2, 4, *[5] * 3),
}
SEQUENCE = random(5, 2, 4)
IMAGE = INPUTS["2d"]
WORDS = torch.tensor([[0, 2], [1, 3]])
NORM = [nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4)), 0.1, 3]
QAT = quantization.get_default_qat_qconfig("fbgemm")
EMBEDDING_QAT = quantization.qconfig.default_embedding_qat_qconfig
CONVOLUTIONS = "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d"
FUSED = "ConvBn1d ConvBn2d ConvBn3d ConvBnReLU1d ConvBnReLU2d ConvBnReLU3d"


def rows(namespace, names, *arguments, around=None, given=None, engine="x86", **keywords):
    """Return for each name of a class: the class, a factory of a model, an input, the engine."""
    for name in names.split():
        cls = getattr(namespace, name)

        def make(cls=cls):
            layer = cls(*copy.deepcopy(arguments), **keywords)
            return layer if around is None else around(layer)

        size = name[-2:] if name[-2:] in INPUTS else ""
        x = INPUTS[size] if given is None else given
        yield pytest.param(cls, make, x, engine, id=_name(cls))


def fused(names):
    """Return the floating-point modules that hold the layers to fuse."""
    for name in names.split():
        size = name[-2] if name[-1] == "d" else ""
        parts = []
        if name.startswith("Conv"):
            parts.append(getattr(nn, f"Conv{size}d")(4, 4, 3))
        elif name.startswith("Linear"):
            parts.append(nn.Linear(4, 4))
        if "Bn" in name or name.startswith("BN"):
            parts.append(getattr(nn, f"BatchNorm{size}d")(4))
        for activation in ("LeakyReLU", "ReLU", "Tanh"):
            if activation in name:
                parts.append(getattr(nn, activation)())
                break
        given = INPUTS[""] if name == "LinearBn1d" else None
        yield from rows(intrinsic, name, *parts, given=given)


def _name(cls):
    return f"{cls.__module__.removeprefix('torch.ao.nn.')}.{cls.__name__}"


CASES = [
    *rows(quantized, CONVOLUTIONS, 4, 4, 3, around=Quantizing),
    *rows(quantized, "Linear", 4, 3, around=Quantizing),
    *rows(quantized, "BatchNorm2d BatchNorm3d", 4, around=Quantizing),
    *rows(quantized, "ELU Hardswish LeakyReLU PReLU Sigmoid", 0.1, 3, around=Quantizing),
    *rows(quantized, "ReLU6 Softmax Dropout", around=Quantizing),
    *rows(quantized, "GroupNorm", 2, 4, *NORM, around=Quantizing, given=IMAGE),
    *rows(quantized, "InstanceNorm1d InstanceNorm2d InstanceNorm3d", 4, *NORM, around=Quantizing),
    *rows(quantized, "LayerNorm", 4, *NORM, around=Quantizing),
    *rows(quantized, "Quantize", 0.05, 128, torch.quint8),
    *rows(quantized, "DeQuantize"),
    *rows(quantized, "Embedding EmbeddingBag", 4, 3, given=WORDS),
    *rows(quantized, "FloatFunctional FXFloatFunctional", around=Adding),
    *rows(quantized, "QFunctional", around=lambda held: Quantizing(Adding(held))),
    *rows(quantized.modules.rnn, "LSTM", 4, 3, given=SEQUENCE),
    *rows(dynamic, CONVOLUTIONS, 4, 4, 3),
    *rows(dynamic, "Linear", 4, 3),
    *rows(dynamic, "LSTM GRU", 4, 3, given=SEQUENCE),
    *rows(dynamic, "RNNCell LSTMCell GRUCell", 4, 3),
    *rows(reference, CONVOLUTIONS, 4, 4, 3),
    *rows(reference, "Linear", 4, 3),
    *rows(reference, "LSTM GRU", 4, 3, given=SEQUENCE),
    *rows(reference, "RNNCell LSTMCell GRUCell", 4, 3),
    *rows(reference, "Embedding EmbeddingBag", 4, 3, given=WORDS),
    *rows(quantizable, "LSTM", 4, 3, given=SEQUENCE),
    *rows(quantizable, "LSTMCell", 4, 3),
    *rows(
        quantizable,
        "MultiheadAttention",
        4, 2,
        around=lambda held: Twice(held, 3),
        given=SEQUENCE,
    ),
    *rows(qat, "Conv1d Conv2d Conv3d", 4, 4, 3, qconfig=QAT),
    *rows(qat, "Linear", 4, 3, qconfig=QAT),
    *rows(qat, "Embedding EmbeddingBag", 4, 3, qconfig=EMBEDDING_QAT, given=WORDS),
    *rows(qat_dynamic, "Linear", 4, 3, qconfig=quantization.default_dynamic_qat_qconfig),
    *fused(f"{FUSED} ConvReLU1d ConvReLU2d ConvReLU3d LinearReLU LinearBn1d"),
    *fused("LinearLeakyReLU LinearTanh BNReLU2d BNReLU3d"),
    *rows(
        intrinsic.modules.fused, "ConvAdd2d", nn.Conv2d(4, 4, 3, padding=1), torch.add, around=Twice
    ),
    *rows(
        intrinsic.modules.fused,
        "ConvAddReLU2d",
        nn.Conv2d(4, 4, 3, padding=1), torch.add, nn.ReLU(),
        around=Twice,
    ),
    *rows(intrinsic_qat, f"{FUSED} ConvReLU1d ConvReLU2d ConvReLU3d", 4, 4, 3, qconfig=QAT),
    *rows(intrinsic_qat, "LinearReLU", 4, 3, qconfig=QAT),
    *rows(intrinsic_qat, "LinearBn1d", 4, 3, qconfig=QAT, given=INPUTS[""]),
    *rows(intrinsic_quantized, "ConvReLU1d ConvReLU2d ConvReLU3d", 4, 4, 3, around=Quantizing),
    *rows(intrinsic_quantized, "LinearReLU", 4, 3, around=Quantizing),
    *rows(intrinsic_quantized, "LinearTanh", 4, 3, around=Quantizing, engine="onednn"),
    *rows(intrinsic_quantized, "LinearLeakyReLU", 4, 3, 0.1, around=Quantizing, engine="onednn"),
    *rows(intrinsic_quantized, "BNReLU2d BNReLU3d", 4, around=Quantizing),
    *rows(
        intrinsic_quantized,
        "ConvAdd2d ConvAddReLU2d",
        4, 4, 3, padding=1,
        around=lambda held: Quantizing(Twice(held)),
        engine="onednn",
    ),
    *rows(intrinsic_dynamic, "LinearReLU", 4, 3),
    *rows(sparse, "Linear", 4, 3, 1, 4, around=Quantizing, engine="fbgemm"),
    *rows(sparse_dynamic, "Linear", 4, 3, 1, 4, engine="qnnpack"),
]  # fmt: skip

# Classes that are tested through their subclasses or containers.
NOT_ALONE = set(
    "quantized.modules.utils.WeightedQuantizedModule "
    "quantized.modules.linear.LinearPackedParams "
    "quantized.modules.embedding_ops.EmbeddingPackedParams "
    "quantized.modules.activation.MultiheadAttention "  # these are only made from a trained module
    "quantized.dynamic.modules.rnn.PackedParameter "
    "quantized.dynamic.modules.rnn.RNNBase "
    "quantized.dynamic.modules.rnn.RNNCellBase "
    "quantized.reference.modules.rnn.RNNBase "
    "quantized.reference.modules.rnn.RNNCellBase "
    "quantized.reference.modules.utils.ReferenceQuantizedModule "
    "sparse.quantized.linear.LinearPackedParams".split()
)


def test_no_class_is_forgotten():
    found = set()
    for module in pkgutil.walk_packages(torch.ao.nn.__path__, "torch.ao.nn."):
        for cls in vars(importlib.import_module(module.name)).values():
            is_module = inspect.isclass(cls) and issubclass(cls, nn.Module)
            if is_module and cls.__module__.startswith("torch.ao.nn.") and cls.__name__[0] != "_":
                found.add(_name(cls))
    assert found <= {case.id for case in CASES} | NOT_ALONE


def outcome(model, given):
    """Return the differences of the rebuilt model; None if the capture refused the model."""
    try:
        ir = lg.to_ir(model)
    except CaptureError:
        return None
    rebuilt = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    differs = [] if list(rebuilt.state_dict()) == list(model.state_dict()) else ["keys"]
    for training in (False, True):
        was, now = (run(each.train(training), given) for each in (model, rebuilt))
        same = len(was) == len(now) and all(map(bitwise_equal, was, now))
        differs += [] if same else [f"outputs, {training=}"]
    states = (model.state_dict().values(), rebuilt.state_dict().values())
    differs += [] if all(map(bitwise_equal, *states)) else ["state after the calls"]
    return differs


def run(model, given):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        returned = model(given.clone())
    return [x.dequantize() for x in pytree.tree_leaves(returned) if isinstance(x, torch.Tensor)]


@pytest.mark.parametrize(("cls", "make", "given", "engine"), CASES)
def test_it_comes_back_bit_exact_or_is_refused(cls, make, given, engine, monkeypatch):
    if engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this machine has no {engine}")
    monkeypatch.setattr(torch.backends.quantized, "engine", engine)
    model = make()
    assert any(type(each) is cls for each in model.modules())
    run(make(), given)  # check that the original runs
    assert not outcome(model, given)


EXACT = "DeQuantize Dropout FloatFunctional FXFloatFunctional".split()
PACKED = re.compile(
    r"(intrinsic\.|sparse\.)?quantized\..*\.(Conv\w+|Linear\w*|Embedding(Bag)?|QFunctional)"
    r"|quantized\.dynamic\.modules\.rnn\..*"
)


@pytest.mark.parametrize(
    ("cls", "make", "given", "engine"), [case for case in CASES if PACKED.fullmatch(case.id)]
)
def test_what_is_packed_is_refused_by_name(cls, make, given, engine, monkeypatch):
    if engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this machine has no {engine}")
    monkeypatch.setattr(torch.backends.quantized, "engine", engine)
    with pytest.raises(CaptureError, match=rf"\({cls.__name__}\) is a quantized module"):
        lg.to_ir(make())


@pytest.mark.parametrize(
    ("cls", "make", "given", "engine"),
    [case for case in CASES if case.values[0].__name__ in EXACT],
)
def test_what_only_quantizes_elsewhere_comes_back(cls, make, given, engine):
    assert outcome(make(), given) == []


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        quantization.QuantStub(),
        nn.Conv2d(4, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 4),
        quantization.DeQuantStub(),
    )


def prepared(*, training):
    model = network().train(training)
    fuse = quantization.fuse_modules_qat if training else quantization.fuse_modules
    model = fuse(model, [["1", "2", "3"]])
    model.qconfig = QAT if training else quantization.get_default_qconfig("fbgemm")
    prepare = quantization.prepare_qat if training else quantization.prepare
    prepare(model, inplace=True)
    model(IMAGE)
    return model


MODELS = {
    "with stubs": network,
    "fused": lambda: quantization.fuse_modules(network().eval(), [["1", "2", "3"]]),
    "wrapped": lambda: quantization.QuantWrapper(nn.Conv2d(4, 3, 3)),
    "prepared": lambda: prepared(training=False),
    "prepared to be trained": lambda: prepared(training=True),
    "converted": lambda: quantization.convert(prepared(training=False)),
    "quantized dynamically": lambda: quantization.quantize_dynamic(network(), {nn.Linear}),
    "observing": lambda: nn.Sequential(nn.Conv2d(4, 3, 3), quantization.MinMaxObserver()),
    "quantizing as if": lambda: nn.Sequential(nn.Conv2d(4, 3, 3), quantization.FakeQuantize()),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_a_quantized_model_comes_back_bit_exact_or_is_refused(make):
    assert not outcome(make(), IMAGE)


@pytest.mark.parametrize("name", ["with stubs", "fused", "wrapped"])
def test_what_only_marks_where_to_quantize_comes_back(name):
    assert outcome(MODELS[name](), IMAGE) == []
