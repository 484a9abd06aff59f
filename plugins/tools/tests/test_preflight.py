"""``preflight``: the problems that it lists, and the stubs that it prints."""

from __future__ import annotations

import ast
import importlib
import linecache
import types

import numpy as np
import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError, Unsupported
from layergraph.ir2torch import Ir2Torch
from layergraph.plugins import Plugin, installed_plugins
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir

X = torch.arange(12.0).reshape(3, 4) / 12


class Right(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        return self.lin(x).view(x.shape[0], 2, -1)


class Reads(nn.Module):
    def forward(self, x):
        return x * float(x.sum().detach().numpy())


class Decides(nn.Module):
    def forward(self, x):
        if x.mean() > 0:
            return x + 1
        return x


class Scales(nn.Module):
    def forward(self, x):
        return x * x.sum().item()


class Maps(nn.Module):
    def forward(self, x):
        return x.detach().clone().map_(x.detach(), min)


SHIFT = nn.Parameter(torch.ones(1))


class Straight(torch.autograd.Function):
    """Reads a global parameter, which is not among its arguments."""

    @staticmethod
    def forward(ctx, x):
        return x.round() + SHIFT

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Quantizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = SHIFT

    def forward(self, x):
        return Straight.apply(x)


def _noise(x):
    return x + float(np.random.rand())


class Noise(nn.Module):
    def forward(self, x):
        return _noise(x)


class Fails(nn.Module):
    def forward(self, x):
        return x + self.nothing_of_that_name


class Rows(nn.Module):
    """Calls its children in a row, in a class that no handler knows."""

    def __init__(self, *children):
        super().__init__()
        self.rows = nn.ModuleList(children)

    def forward(self, x):
        for row in self.rows:
            x = row(x)
        return x


def _kind(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


def _found(report):
    return {each.path: each for each in report.unsupported}


# --- models that convert ---


def test_a_right_model_is_ok():
    report = lg.preflight(Right(), (X,))
    assert report.ok
    assert report.unsupported == ()
    assert report.error is None
    assert report.stubs() == {}
    assert str(report) == "the model converts"


def test_arguments_are_those_of_a_call():
    class Masked(nn.Module):
        def forward(self, x, *, mask):
            return x * mask

    assert lg.preflight(Masked(), (X,), {"mask": X}).ok
    assert lg.preflight(Masked(), kwargs={"x": X, "mask": X}).ok
    assert lg.preflight(Masked(), [X], {"mask": X}).ok


def test_without_inputs_it_is_traced():
    assert lg.preflight(nn.Sequential(nn.Linear(4, 4), nn.ReLU())).ok
    report = lg.preflight(Rows(nn.ReLU(), Decides()))
    assert not report.ok
    assert "rows.1" in str(report)
    assert "if x.mean() > 0:" in str(report)


@pytest.mark.parametrize("model", [Scales(), Decides()], ids=["scales", "decides"])
def test_a_number_is_a_problem_only_where_it_is_refused(model):
    assert lg.preflight(model, (X,)).ok
    assert lg.preflight(model, (X,), values="both").ok
    assert lg.preflight(model, (X,), values="assume").ok
    assert not lg.preflight(model, (X,), values="refuse").ok


def test_refused_numbers_are_found_at_once():
    model = Rows(Scales(), nn.Linear(4, 4), Decides(), Rows(Quantizes()))
    found = _found(lg.preflight(model, (X,), values="refuse"))
    assert list(found) == ["rows.0", "rows.2", "rows.3.rows.0"]
    assert found["rows.0"].line.endswith(": return x * x.sum().item()")
    assert "if x.mean() > 0:" in found["rows.2"].line
    assert "read out of a tensor" in found["rows.0"].reason
    assert "values='both'" in found["rows.2"].reason


def test_a_way_that_a_graph_cannot_hold_is_no_problem():
    """The example input takes the other branch. A guard refuses inputs that take this branch."""

    class MapsNegative(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else x.detach().clone().map_(x.detach(), min)

    assert lg.preflight(MapsNegative(), (X,)).ok
    (found,) = lg.preflight(MapsNegative(), (-X,)).unsupported
    assert "'map_' of a tensor" in found.reason


@pytest.mark.parametrize("sign", [1, -1])
def test_what_both_ways_cannot_hold_is_a_problem(sign):
    class MapsOrReads(nn.Module):
        def forward(self, x):
            return Reads()(x) if x.sum() > 0 else Maps()(x)

    assert not lg.preflight(MapsOrReads(), (sign * X,)).ok


def test_it_leaves_the_model_alone():
    model = Rows(Reads(), nn.BatchNorm1d(4), nn.Dropout())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    members = [set(vars(module)) for module in model.modules()]
    state = torch.random.get_rng_state()
    lg.preflight(model, (X,))
    assert bitwise_equal(torch.random.get_rng_state(), state)
    assert [set(vars(module)) for module in model.modules()] == members
    assert all(bitwise_equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())


# --- everything at once ---


def test_all_of_it_is_found_at_once():
    model = Rows(Reads(), nn.Linear(4, 4), Maps(), Rows(Quantizes()))
    report = lg.preflight(model, (X,))
    assert not report.ok
    assert report.error is None
    found = _found(report)
    assert list(found) == ["rows.0", "rows.2", "rows.3.rows.0"]
    assert [each.kind for each in found.values()] == [_kind(c) for c in (Reads, Maps, Quantizes)]
    lines = [each.line.rpartition(": ")[2] for each in found.values()]
    assert lines == [
        "return x * float(x.sum().detach().numpy())",
        "return x.detach().clone().map_(x.detach(), min)",
        "return Straight.apply(x)",
    ]
    assert "the result of numpy" in found["rows.0"].reason
    assert "'map_' of a tensor" in found["rows.2"].reason
    assert "Straight, an autograd.Function" in found["rows.3.rows.0"].reason


def test_a_line_is_where_the_code_is():
    (found,) = lg.preflight(Rows(Reads()), (X,)).unsupported
    place, code = found.line.split(": ", 1)
    name, number, function = place.split(", ")
    assert name == "test_preflight.py"
    assert function == "in forward"
    assert linecache.getline(__file__, int(number.removeprefix("line "))).strip() == code


def test_what_is_seen_before_the_run_is_listed_too():
    hooked = nn.Linear(4, 4)
    hooked.register_full_backward_hook(lambda *_: None)
    report = lg.preflight(Rows(Reads(), hooked, Quantizes()), (X,))
    assert {each.path for each in report.unsupported} == {"rows.0", "rows.1", "rows.2"}
    seen = report.unsupported[0]
    assert "backward hooks" in seen.reason
    assert (seen.path, seen.kind, seen.line) == ("rows.1", _kind(nn.Linear), "")
    assert "numpy()" in _found(report)["rows.0"].line


def test_a_scripted_module_does_not_hide_the_rest():
    scripted = torch.jit.script(nn.Linear(4, 4))
    report = lg.preflight(Rows(scripted, Reads(), Quantizes()), (X,))
    found = _found(report)
    assert list(found) == ["rows.0", "rows.1", "rows.2"]
    assert [each.path for each in report.unsupported].count("rows.0") == 1
    assert "ScriptModule" in found["rows.0"].reason
    assert "numpy()" in found["rows.1"].line


def test_random_numbers_of_numpy_are_found():
    state = np.random.get_state()[2]
    report = lg.preflight(Rows(Noise()), (X,))
    assert not report.ok
    assert "numpy" in str(report)
    assert np.random.get_state()[2] == state


def test_random_numbers_of_numpy_do_not_hide_the_rest():
    found = str(lg.preflight(Rows(Reads(), Noise(), Quantizes()), (X,)))
    assert "Straight" in found
    assert "x.sum().detach().numpy()" in found
    assert "numpy" in found


def test_an_error_that_is_caught_does_not_hide_the_rest():
    class Tries(nn.Module):
        def forward(self, x):
            try:
                return torch.linalg.cholesky(-torch.eye(3) * x.shape[0])
            except RuntimeError:
                return x

    alone = str(lg.preflight(Rows(Tries()), (X,)))
    assert "catches an error" in alone
    found = str(lg.preflight(Rows(Quantizes(), Tries()), (X,)))
    assert "Straight" in found
    assert "catches an error" in found


def test_a_loop_is_one_thing():
    model = Rows(*[Maps()] * 3)
    assert len(lg.preflight(model, (X,)).unsupported) == 1

    class Loops(nn.Module):
        def forward(self, x):
            for _ in range(5):
                x = x * float(x.sum().numpy())
            return x

    assert len(lg.preflight(Loops(), (X,)).unsupported) == 1


def test_both_modes_are_looked_at():
    class ReadsInTraining(nn.Module):
        def forward(self, x):
            return x * float(x.sum().numpy()) if self.training else x

    report = lg.preflight(ReadsInTraining(), (X,))
    assert [each.path for each in report.unsupported] == [""]
    assert "the model (" in str(report)


# --- what else is wrong ---


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), None, "'x'"),
        ((X, X), None, "too many positional"),
        ((X,), {"y": X}, "'y'"),
        (X, None, "args is a Tensor"),
        ((X,), [X], "kwargs is a list"),
        ((object(),), None, "'x'"),
    ],
)
def test_wrong_arguments_are_an_error(args, kwargs, said):
    report = lg.preflight(Right(), args, kwargs)
    assert not report.ok
    assert report.unsupported == ()
    assert said in report.error
    assert str(report) == report.error
    assert report.stubs() == {}


def test_no_module_is_an_error():
    report = lg.preflight(lambda x: x, (X,))
    assert "no torch.nn.Module" in report.error


def test_a_model_that_cannot_be_called_so():
    report = lg.preflight(Right(), (torch.zeros(3, 5),))
    (found,) = report.unsupported
    assert "shapes cannot be multiplied" in found.reason
    assert "return self.lin(x).view(x.shape[0], 2, -1)" in found.line
    (found,) = lg.preflight(Rows(nn.ReLU(), Fails()), (X,)).unsupported
    assert found.path == "rows.1"
    assert found.kind == _kind(Fails)
    assert "AttributeError" in found.reason
    assert "nothing_of_that_name" in found.reason
    assert "return x + self.nothing_of_that_name" in found.line


def test_what_was_found_before_it_fails_is_kept():
    report = lg.preflight(Rows(Reads(), Fails()), (X,))
    assert list(_found(report)) == ["rows.0", "rows.1"]


# --- the same as an error ---


def test_the_error_has_what_the_report_has():
    model = Rows(Reads(), Quantizes())
    with pytest.raises(CaptureError) as caught:
        lg.to_ir(model, (X,))
    assert caught.value.unsupported == lg.preflight(model, (X,)).unsupported
    assert all(type(each) is Unsupported for each in caught.value.unsupported)
    message = str(caught.value)
    assert message.startswith("the model does 2 things")
    assert all(str(each) in message for each in caught.value.unsupported)
    assert CaptureError("anything").unsupported == ()
    with pytest.raises(CaptureError) as caught:
        lg.to_ir(model, ())
    assert caught.value.unsupported == ()


def test_the_error_of_one_thing_names_it():
    with pytest.raises(CaptureError, match=r"in 'rows\.0' \(Reads\), test_pre") as it:
        lg.to_ir(Rows(Reads()), (X,))
    assert "handler" in str(it.value)
    assert len(it.value.unsupported) == 1


def test_messages_are_sentences():
    model = Rows(Reads(), Maps(), Quantizes(), Rows(Fails()))
    scripted = Rows(torch.jit.script(nn.Linear(4, 4)))
    for report in (lg.preflight(model, (X,)), lg.preflight(scripted, (X,))):
        for each in report.unsupported:
            assert each.reason == " ".join(each.reason.split())
            assert " " in each.reason
            assert " at 0x" not in each.reason
            assert not each.reason.endswith((".", ",", ";", ":"))
    text = str(lg.preflight(model, (X,)))
    assert text.startswith("4 things that cannot be turned into an IR\n")
    assert all(line == line.rstrip() for line in text.splitlines())
    one = str(lg.preflight(Rows(Reads()), (X,)))
    assert one.startswith("1 thing that cannot be turned into an IR\n")


# --- stubs ---


_MODULE = """
import torch
from torch import nn
from torch.nn import functional as F


class Keeps(nn.Module):
    def __init__(self, width, *, slope: float = 0.5):
        super().__init__()
        self.width, self.slope = width, slope
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return x * self.weight * (2 if x.sum().detach().numpy() > 0 else self.slope)


class Plain(nn.Module):
    def forward(self, x):
        return x + 1 if x.mean().detach().numpy() > 0 else x - 1


class Linear(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.randn(features, features))

    def forward(self, x):
        return F.linear(x, self.weight) * float(x.sum().detach().numpy())


class Outer:
    class Inner(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, x):
            return x * self.scale * float(x.sum().detach().numpy())
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch, request):
    """Return a foreign Python module, with classes that a graph cannot hold."""
    name = f"theirs_{request.node.name}".replace("[", "_").replace("]", "")
    (tmp_path / f"{name}.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


def _executed(stub):
    module = types.ModuleType("stub")
    exec(compile(ast.parse(stub), "stub", "exec"), vars(module))
    return module


def _with_plugins(model, stubs):
    own = [Plugin(f"own-{i}", "1", "own", _executed(stub)) for i, stub in enumerate(stubs)]
    plugins = (*installed_plugins(), *own)
    ir = Torch2Ir(plugins).convert(model, (X,))
    ir = lg.Ir.from_dict(ir.to_dict())
    return ir, Ir2Torch(plugins).convert(ir, model.state_dict())


def _check_same(model, rebuilt):
    for x in (X, -X, X[:1]):
        assert bitwise_equal(rebuilt(x), model(x))


def test_stubs_are_handlers_of_a_plugin(theirs):
    model = Rows(theirs.Keeps(4, slope=0.25), nn.Linear(4, 4), theirs.Plain(), theirs.Keeps(4))
    report = lg.preflight(model, (X,))
    stubs = report.stubs()
    assert list(stubs) == [_kind(theirs.Keeps), _kind(theirs.Plain)]
    ir, rebuilt = _with_plugins(model, stubs.values())
    assert ir["rows.0"].type == "keeps"
    assert ir["rows.0"].data == {"width": 4, "slope": 0.25}
    assert [type(row) for row in rebuilt.rows] == [type(row) for row in model.rows]
    _check_same(model, rebuilt)


def test_stubs_are_handlers_of_a_converter(theirs):
    model = Rows(theirs.Keeps(4), nn.ReLU())
    (stub,) = lg.preflight(model, (X,)).stubs().values()
    made = _executed(stub)
    forth, back = Torch2Ir(), Ir2Torch()
    forth.register(theirs.Keeps, made.torch_to_ir)
    back.register("keeps", made.ir_to_torch)
    _check_same(model, back.convert(forth.convert(model, (X,)), model.state_dict()))


def test_stubs_stand_in_the_text(theirs):
    report = lg.preflight(Rows(theirs.Keeps(4), theirs.Plain()), (X,))
    text = str(report)
    for stub in report.stubs().values():
        assert "\n".join(f"    {line}".rstrip() for line in stub.splitlines()) in text
    assert text.count("a handler would keep it whole:") == 2


def test_a_stub_of_a_name_that_torch_has_too(theirs):
    """The handler of a user's class Linear must not build torch's Linear."""
    model = Rows(theirs.Linear(4), nn.Linear(4, 4))
    _, rebuilt = _with_plugins(model, lg.preflight(model, (X,)).stubs().values())
    assert type(rebuilt.rows[1]) is nn.Linear
    _check_same(model, rebuilt)


def test_a_stub_of_a_class_in_a_class(theirs):
    model = Rows(theirs.Outer.Inner(3.0))
    _, rebuilt = _with_plugins(model, lg.preflight(model, (X,)).stubs().values())
    _check_same(model, rebuilt)


def test_a_stub_of_a_class_that_cannot_be_imported_is_valid():
    class Local(Reads):
        pass

    (stub,) = lg.preflight(Rows(Local()), (X,)).stubs().values()
    ast.parse(stub)
    assert "class " in stub
    assert "Local" in stub


def test_a_stub_is_given_only_where_a_handler_helps():
    """No handler is asked about a module that is scripted or has hooks on gradients."""
    hooked = nn.Linear(4, 4)
    hooked.register_full_backward_hook(lambda *_: None)
    for module in (torch.jit.script(nn.Linear(4, 4)), hooked):
        report = lg.preflight(Rows(module), (X,))
        assert not report.ok
        assert report.stubs() == {}
        assert "handler" not in str(report)
