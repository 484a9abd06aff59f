"""``verify`` compares a model with the rebuilt one, and finds faults."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal
from layergraph_tools.verification import round_trip
from layergraph_tools.verification.comparison import difference
from layergraph_tools.verification.inputs import drawn, tensors_of
from layergraph_tools.verification.report import Report


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.ids = nn.Embedding(8, 6)
        self.conv = nn.Conv1d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 8, bias=False)
        self.head.weight = self.ids.weight
        self.frozen = nn.Parameter(torch.rand(6), requires_grad=False)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, ids, scale, *, mask):
        self.calls.add_(1)
        x = self.ids(ids) * scale + self.frozen
        x = self.norm(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return {"logits": self.head(self.drop(x)).masked_fill(mask, 0), "hidden": (x,)}


ARGS = (torch.tensor([[1, 7, 3], [2, 2, 5]]), torch.tensor([[[0.5]], [[2.0]]]))
KWARGS = {"mask": torch.tensor([[[True], [False], [True]], [[False], [True], [False]]])}
NAMES = (
    "captured, dict form, rebuilt, state-dict keys, ties, tensors, own classes, given inputs, "
    "through a file, captured without inputs, called again, fresh inputs, another batch size, "
    "evaluation, training, other settings, autocast, other environment, train() and eval(), casts"
).split(", ")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


def _statuses(report):
    return {check.name: check.status for check in report.checks}


def _failed(report):
    return {check.name: check.detail for check in report.checks if check.status == "failed"}


def _sabotage(monkeypatch, change):
    """Change every rebuilt model in one way."""

    def to_torch(*args):
        rebuilt = lg.to_torch(*args)
        with torch.no_grad():
            changed = change(rebuilt)
        return changed if isinstance(changed, nn.Module) else rebuilt

    monkeypatch.setattr(round_trip, "to_torch", to_torch)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_comes_back(model, training):
    report = lg.verify(model.train(training), ARGS, KWARGS)
    assert _statuses(report) == dict.fromkeys(NAMES, "passed"), str(report)
    assert report.ok
    assert report.ir.to_dict()
    assert all(m.training == training for m in report.rebuilt.modules())
    for key, tensor in model.state_dict().items():
        assert bitwise_equal(report.rebuilt.state_dict()[key], tensor)
    assert all(p.grad is None for p in report.rebuilt.parameters())


def test_the_table(model):
    lines = str(lg.verify(model, ARGS, KWARGS)).splitlines()
    assert lines[0].split() == ["captured", "passed", "6", "implementations"]
    assert len({line.index("passed") for line in lines[:-1]}) == 1
    assert lines[-1] == "20 passed"
    with pytest.raises(TypeError, match=r"use its attribute \.ok"):
        bool(Report())


def test_without_inputs_what_needs_none_is_compared(monkeypatch):
    model = nn.Sequential(nn.Linear(2, 2))
    report = lg.verify(model)
    assert report.ok
    run = {"given inputs", "called again", "fresh inputs", "another batch size", "evaluation"}
    run |= {
        "captured without inputs",
        "training",
        "other settings",
        "autocast",
        "other environment",
    }
    assert _statuses(report) == {name: "skipped" if name in run else "passed" for name in NAMES}
    _sabotage(monkeypatch, lambda rebuilt: rebuilt[0].weight.add_(1))
    assert list(_failed(lg.verify(model))) == ["tensors"]


def test_nothing_of_the_model_is_changed(model):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model
            self.seen = []

        def forward(self, ids, scale, mask):
            self.seen.append(1)
            return self.inner(ids, scale.mul_(2), mask=mask)

    around = Counting()
    model(*ARGS, **KWARGS)["logits"].sum().backward()
    model.norm.eval()
    called = []
    model.head.register_forward_hook(lambda *_: called.append(1))
    before = copy.deepcopy([around.state_dict(), ARGS, KWARGS])
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    members = {name: dict(vars(module)) for name, module in around.named_modules()}
    tensors = [id(each) for each in around.state_dict(keep_vars=True).values()]
    state = torch.get_rng_state()
    report = lg.verify(around, ARGS, KWARGS)
    assert _statuses(report)["training"] == "passed", str(report)
    assert bitwise_equal(torch.get_rng_state(), state)
    after = [around.state_dict(), ARGS, KWARGS]
    for one, other in zip(*map(tensors_of, (before, after)), strict=True):
        assert bitwise_equal(one, other)
    assert [id(each) for each in around.state_dict(keep_vars=True).values()] == tensors
    for name, gradient in gradients.items():
        assert bitwise_equal(dict(model.named_parameters())[name].grad, gradient)
    assert {name: dict(vars(module)) for name, module in around.named_modules()} == members
    assert [m.training for m in model.modules()] == [True, True, True, False, True, True]
    assert not around.seen


SABOTAGE = {
    "padding": (
        lambda m: setattr(m.conv, "padding", (0,)),
        "given inputs",
        r"output\['logits'\]: \d+ of 48 numbers differ, by up to \d",
    ),
    "a shape": (
        lambda m: Around(m, lambda output: {**output, "logits": output["logits"][:1]}),
        "given inputs",
        r"output\['logits'\]: it was a tensor of torch.float32 and shape \(2, 3, 8\), and is",
    ),
    "tie": (
        lambda m: setattr(m.head, "weight", nn.Parameter(m.head.weight.clone())),
        "ties",
        r"lost: head.weight = ids.weight; made: none",
    ),
    "another tie": (
        lambda m: setattr(m, "frozen", m.norm.weight),
        "ties",
        r"lost: none; made: frozen = norm.weight",
    ),
    "a key less": (
        lambda m: delattr(m, "calls"),
        "state-dict keys",
        "missing: calls; superfluous: none",
    ),
    "a key more": (
        lambda m: m.register_buffer("more", torch.zeros(1)),
        "state-dict keys",
        "missing: none; superfluous: more",
    ),
    "order": (
        lambda m: m._modules.update(ids=m._modules.pop("ids")),
        "state-dict keys",
        "in another order, from 'conv.weight' on",
    ),
    "dtype": (lambda m: m.double(), "tensors", "frozen: dtype was torch.float32, and is"),
    "frozen": (
        lambda m: m.frozen.requires_grad_(True),
        "tensors",
        "frozen: requires_grad was False, and is True",
    ),
    "value": (
        lambda m: m.frozen[0].add_(1),
        "tensors",
        "frozen: 1 of 6 numbers differ, by up to 1",
    ),
    "sign of zero": (
        lambda m: m.calls.neg_(),
        "tensors",
        "calls: 1 of 1 numbers differ, by up to 0",
    ),
    "dropout": (lambda m: setattr(m.drop, "p", 0.25), "training", r"output\['logits'\]: \d+ of 48"),
    "momentum": (
        lambda m: setattr(m.norm, "momentum", 0.2),
        "training",
        r"norm.running_mean, afterwards: \d of 6",
    ),
    "a gradient": (
        lambda m: m.conv.register_full_backward_hook(lambda *_: (torch.zeros(2, 6, 3),)),
        "training",
        "gradient of ids.weight: ",
    ),
    "a class": (
        lambda m: setattr(m, "drop", OwnDropout()),
        "own classes",
        r"the rebuilt model still needs \S*OwnDropout at 'drop'",
    ),
    "it raises": (
        lambda m: setattr(m.norm, "num_features", 7) or setattr(m.norm, "forward", _raise),
        "given inputs",
        "ValueError: no",
    ),
    "structure": (
        lambda m: Around(m, lambda output: {**output, "hidden": list(output["hidden"])}),
        "given inputs",
        r"output\['hidden'\]: it was 'a tuple of 1', and is 'a list of 1'",
    ),
    "an output more": (
        lambda m: Around(m, lambda output: {**output, "more": None}),
        "given inputs",
        "output: it was 'a dict of 2', and is 'a dict of 3'",
    ),
    "an input": (
        lambda m: m.register_forward_hook(_change_an_input),
        "given inputs",
        r"input\[0\]\[1\]: 2 of 2 numbers differ, by up to 1",
    ),
}


def _change_an_input(_module, args, _output):
    args[1].add_(1)


class OwnDropout(nn.Dropout):
    pass


class Around(nn.Module):
    def __init__(self, inner, change):
        super().__init__()
        self.__dict__["inner"], self.change = inner, change
        for name in ("_parameters", "_buffers", "_modules"):
            self.__dict__[name] = inner.__dict__[name]

    def forward(self, *args, **kwargs):
        self.inner.training = self.training
        return self.change(self.inner(*args, **kwargs))


def _raise(*_):
    raise ValueError("no")


@pytest.mark.parametrize("name", SABOTAGE)
def test_what_is_wrong_is_seen(name, model, monkeypatch):
    change, check, message = SABOTAGE[name]
    if name == "a class":
        model.drop = OwnDropout()
        monkeypatch.setattr(round_trip, "to_ir", lambda *_, **__: lg.to_ir(Model()))
    _sabotage(monkeypatch, change)
    report = lg.verify(model.eval(), ARGS, KWARGS)
    assert not report.ok
    failed = _failed(report)
    assert next(iter(failed)) == check, str(report)
    assert re.match(message, failed[check]), failed[check]


@pytest.mark.parametrize(
    "structure", ["dict", "named tuple", "list", "dict of its own", "dataclass"]
)
def test_structures_of_outputs(structure):
    class Result(OrderedDict):
        pass

    Named = namedtuple("Named", "one two")

    @dataclass
    class Record:
        one: torch.Tensor
        two: object

    class Structured(nn.Module):
        def forward(self, x):
            return {
                "dataclass": lambda: Record(x + 1, [Record(x, None)]),
                "dict": lambda: {"one": x, "two": [x, None, (3, "four")]},
                "named tuple": lambda: Named(x, (x,)),
                "list": lambda: [x, [x + 1], ()],
                "dict of its own": lambda: Result(one=x, two=(x,)),
            }[structure]()

    report = lg.verify(Structured(), (torch.randn(2, 3),))
    assert report.ok, str(report)
    assert _statuses(report)["training"] == "passed"


def test_numbers_that_are_none_are_equal():
    class Nan(nn.Module):
        def forward(self, x):
            return x / 0 - x / 0, (x / 0).to(torch.bfloat16), torch.view_as_complex(x / 0)

    report = lg.verify(Nan(), (torch.tensor([[0.0, 1.0], [torch.inf, torch.nan]]),))
    assert report.ok, str(report)
    assert _statuses(report)["fresh inputs"] == "passed"
    nan = torch.tensor([torch.nan, 1])
    assert not difference(nan, torch.tensor([-torch.nan, 1]))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() == 1 else -x


def test_a_capture_that_is_refused_is_reported():
    for args in (None, (torch.ones(2),)):
        report = lg.verify(Branching(), args, values="refuse")
        assert not report.ok
        assert list(_failed(report)) == ["captured"]
        assert _failed(report)["captured"].startswith("CaptureError: ")
        assert set(list(_statuses(report).values())[1:]) == {"skipped"}
        assert report.ir is report.rebuilt is None


def test_a_way_that_is_assumed_refuses_the_other():
    report = lg.verify(Branching(), (torch.tensor([-9.0, 10.0]),), values="assume")
    assert report.ok, str(report)
    assert _statuses(report)["given inputs"] == "passed"
    assert _statuses(report)["fresh inputs"] == "refused"


def test_both_ways_are_verified():
    report = lg.verify(Branching(), (torch.tensor([-9.0, 10.0]),))
    assert report.ok, str(report)
    assert _statuses(report)["given inputs"] == _statuses(report)["fresh inputs"] == "passed"


@pytest.mark.parametrize("model", [3, None, "model"])
def test_what_is_no_model_is_reported(model):
    assert _failed(lg.verify(model, ())) == {"captured": f"{model!r} is not a torch.nn.Module"}


def test_a_model_that_cannot_be_copied_is_reported():
    model = nn.Linear(2, 2)
    model.weight.extra = torch.ones(2, requires_grad=True) * 2
    model.held = model.weight * 2
    assert "cannot be copied: RuntimeError: Only" in _failed(lg.verify(model, ()))["captured"]


def _refusing_batches(rebuilt):
    def hook(_, args):
        if len(args[0]) != 2:
            raise AssumptionError("the size of ids was 2 when this model was captured")

    rebuilt.register_forward_pre_hook(hook)


def test_refused_clearly_is_no_failure(model, monkeypatch):
    _sabotage(monkeypatch, _refusing_batches)
    report = lg.verify(model, ARGS, KWARGS)
    assert report.ok
    assert _statuses(report)["another batch size"] == "refused"
    assert "refused  the size of ids was 2 when" in str(report)


def test_what_it_was_captured_with_may_not_be_refused(model, monkeypatch):
    def refuse(*_):
        raise AssumptionError("never")

    _sabotage(monkeypatch, lambda m: m.register_forward_pre_hook(refuse))
    assert list(_failed(lg.verify(model, ARGS, KWARGS))) == ["given inputs"]


def test_a_batch_that_the_original_refuses_is_skipped(monkeypatch):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(2, 3)

    report = lg.verify(Fixed(), (torch.ones(2, 3),))
    assert report.ok
    check = next(each for each in report.checks if each.name == "another batch size")
    assert check.status == "skipped"
    assert "the original refuses: RuntimeError: shape '[2, 3]' is invalid" in check.detail


def test_a_model_without_inputs_is_run():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3))

        def forward(self):
            return torch.rand(3) * self.weight

    report = lg.verify(Constant(), ())
    assert report.ok, str(report)
    assert _statuses(report)["another batch size"] == "skipped"
    assert _statuses(report)["training"] == "passed"


def test_drawn_inputs_are_like_the_given_ones():
    draw = torch.Generator().manual_seed(0)
    given = torch.randn(1000, dtype=torch.bfloat16) * 3 + 10
    given[0] = torch.inf
    floats = drawn(given, draw)
    assert floats.dtype is torch.bfloat16
    assert abs(floats.float().mean() - 10) < 0.5
    assert abs(floats.float().std() - 3) < 0.5
    ints = drawn(torch.tensor([[3, 5], [9, 9]], dtype=torch.int32), draw)
    assert ints.dtype is torch.int32
    assert ints.shape == (2, 2)
    assert set(ints.flatten().tolist()) <= {3, 5, 9}
    bools = drawn(torch.ones(100, dtype=torch.bool), draw)
    assert bools.any()
    assert not bools.all()
    assert drawn(torch.rand(3, dtype=torch.complex64), draw).is_complex()
    assert drawn(torch.zeros(0, 3), draw).shape == (0, 3)
    assert drawn(torch.rand(3, requires_grad=True), draw).requires_grad
