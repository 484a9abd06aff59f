"""Models that are captured, moved or called with another device, dtype or setting than before."""

# The traps use the code that the linter would rewrite.

from __future__ import annotations

import copy
import math
import pickle
import threading
from functools import partial

import pytest
import torch
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base, leaves, watched
from core.tests.traps.test_in_place import BufferInPlace
from core.tests.traps.test_numbers import Numpy
from core.tests.traps.test_regions import Autocast, CheckpointedDropout, NoGrad
from core.tests.traps.test_signatures import Outputs
from core.tests.traps.test_sizes import LoopOverRange, SplitsByConstant
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


def _rebuilt(model, *args, captured=None):
    ir = lg.to_ir(captured or model, args)
    return lg.to_torch(ir, model.state_dict())


def _lawful(model, rebuilt, *args):
    """Check that the results are equal, or that a guard refuses the call."""
    try:
        outputs = rebuilt(*args)
    except AssumptionError:
        return
    assert bitwise_equal(model(*args), outputs)


class Portable(Base):
    def forward(self, x):
        n, device = x.shape[0], x.device
        y = self.lin(x).view(n, 2, 2) + torch.arange(2, device=device)
        zeros = torch.zeros(2, dtype=x.dtype, device=self.lin.weight.device)
        return y + torch.zeros(n, 2, 2, device=device) + zeros


class AsksMeta(Base):
    def forward(self, x):
        return self.lin(x) if x.is_meta else self.lin(x) * 2


@pytest.mark.parametrize("cls", [Portable, AsksMeta])
def test_captured_on_the_meta_device(cls):
    model = cls()
    meta = copy.deepcopy(model).to("meta")
    rebuilt = lg.to_torch(lg.to_ir(meta, (X.to("meta"),)), model.state_dict())
    _lawful(model, rebuilt, X)
    _lawful(model, rebuilt, torch.randn(5, 4))


class WithConstant(Base):
    def __init__(self):
        super().__init__()
        self.factor = torch.full((4,), 0.1)

    def forward(self, x):
        return self.lin(x) * self.factor


class DtypeOfWeight(Base):
    def forward(self, x):
        kind = self.lin.weight.dtype
        return self.lin(x.to(kind)) + torch.zeros(4, dtype=kind)


class DtypeOfWeightDecides(Base):
    def forward(self, x):
        first = next(self.parameters())
        return self.lin(x) if first.dtype == torch.float32 else self.lin(x) * 2


class DtypeOfLeafDecides(Base):
    def forward(self, x):
        y = self.lin(x)
        return y.masked_fill(y > 0, torch.finfo(y.dtype).min)


@pytest.mark.parametrize(
    "cls", [Base, WithConstant, DtypeOfWeight, DtypeOfWeightDecides, DtypeOfLeafDecides]
)
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_cast_to_another_dtype(cls, kind):
    model = nn.Sequential(cls().lin) if cls is Base else cls()
    rebuilt = _rebuilt(model, X)
    _lawful(copy.deepcopy(model).to(kind), rebuilt.to(kind), X.to(kind))


class UsesDefaultDtype(Base):
    def forward(self, x):
        return self.lin(x).double() + torch.full((4,), 1 / 3) + x.shape[0] / 3


class BranchesOnDefaultDtype(Base):
    def forward(self, x):
        return self.lin(x) * (2 if torch.get_default_dtype() == torch.float32 else 3)


@pytest.mark.parametrize("cls", [UsesDefaultDtype, BranchesOnDefaultDtype])
def test_another_default_dtype(cls):
    model = cls()
    rebuilt = _rebuilt(model, X)
    torch.set_default_dtype(torch.float64)
    try:
        _lawful(model, rebuilt, X)
    finally:
        torch.set_default_dtype(torch.float32)


class AutocastAlone(Base):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.lin(x)


@pytest.mark.parametrize(
    "cls",
    [
        *(Portable, LoopOverRange, NoGrad, SplitsByConstant),
        pytest.param(AutocastAlone, marks=pytest.mark.needs("compiled_autocast")),
        pytest.param(Outputs, marks=pytest.mark.needs("compiled_named_tuples")),
    ],
)
def test_compiled_without_breaks(cls):
    model = cls()
    rebuilt = _rebuilt(model, X)
    torch.compiler.reset()
    result = torch.compile(rebuilt, backend="eager", fullgraph=True)(X)
    for one, other in zip(leaves(model(X)), leaves(result), strict=True):
        assert bitwise_equal(one, other)


@pytest.mark.parametrize(
    "context", [torch.no_grad, partial(torch.autocast, "cpu", dtype=torch.bfloat16)]
)
@pytest.mark.parametrize("cls", [NoGrad, Portable, AutocastAlone])
def test_captured_inside_a_region(cls, context):
    model = cls()
    with context():
        rebuilt = _rebuilt(model, X)
        _lawful(model, rebuilt, X)
    _lawful(model, rebuilt, X)
    assert model(X).requires_grad == rebuilt(X).requires_grad


@pytest.mark.parametrize(
    "register",
    [
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
        nn.modules.module.register_module_full_backward_hook,
        nn.modules.module.register_module_full_backward_pre_hook,
    ],
)
def test_global_hooks_are_refused(register):
    handle = register(lambda *_: None)
    try:
        with pytest.raises(CaptureError, match="hook"):
            lg.to_ir(nn.Sequential(LoopOverRange()), (X,))
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, StopIteration, RecursionError])
def test_errors_leave_all_as_it_was(kind):
    class Raises(BufferInPlace):
        def forward(self, x):
            super().forward(x)
            self.added = 3
            with torch.no_grad(), torch.autocast("cpu"):
                raise kind("boom")

    model = Raises()
    expected = CaptureError if issubclass(kind, Exception) else kind

    def capture():
        with pytest.raises(expected):
            lg.to_ir(model, (X,))

    _, touched = watched(model, (X,), {}, capture)
    assert not touched


def test_other_threads_see_nothing_of_a_capture():
    entered, leave = threading.Event(), threading.Event()

    class Waits(Base):
        def forward(self, x):
            entered.set()
            assert leave.wait(10)
            return self.lin(x) * math.sqrt(x.shape[0])

    irs = []
    model, other = Waits(), nn.Sequential(Autocast(), CheckpointedDropout())
    other = other[0]
    thread = threading.Thread(target=lambda: irs.append(lg.to_ir(model, (X,))))
    expected = other(X)
    thread.start()
    try:
        assert entered.wait(10)
        for one, same in zip(other(X), expected, strict=True):
            assert bitwise_equal(one, same)
        assert type(range(3)) is range
        assert pickle.loads(pickle.dumps(range)) is range
        assert math.sqrt(4) == 2
    finally:
        leave.set()
        thread.join()
    assert irs == [lg.to_ir(model, (X,))]


class Deep(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.inner = Deep(depth - 1) if depth else None

    def forward(self, x):
        y = self.lin(x)
        return y * x.shape[0] if self.inner is None else self.inner(y)


@pytest.mark.parametrize("depth", [100, 150])
def test_deep_models(depth):
    model = Deep(depth)
    rebuilt = _rebuilt(model, X)
    assert bitwise_equal(model(X), rebuilt(X))


@pytest.mark.slow
def test_many_layers():
    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(2000)])

        def forward(self, x):
            for layer in self.layers:
                x = torch.tanh(layer(x)) + x.shape[0]
            return x

    model = Long()
    rebuilt = _rebuilt(model, X)
    y = torch.randn(5, 4)
    assert bitwise_equal(model(y), rebuilt(y))


def test_sizes_of_an_earlier_capture():
    kept = []

    class Keeps(Base):
        def forward(self, x):
            kept.append(x.shape[0])
            return self.lin(x).view(kept[0], 4)

    model = Keeps()
    for _ in range(2):
        with pytest.raises(CaptureError, match="kept"):
            lg.to_ir(model, (X,))
        assert kept == []
    model(X)
    assert kept[0] + 1 == 4


def test_values_has_three_policies():
    with pytest.raises((CaptureError, ValueError, TypeError), match="bogus"):
        lg.to_ir(Portable(), (X,), values="bogus")


def test_refusals_are_sentences():
    with pytest.raises(CaptureError) as caught:
        lg.to_ir(nn.Sequential(Numpy()), (X,))
    assert "'0'" in str(caught.value)
    assert not str(caught.value).startswith("(")
