"""Functions of compiled extensions, which torch does not see, are refused by name."""

from __future__ import annotations

import _bisect
import cProfile
import sys

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal
from layergraph_capture.interception import compiled_calls


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.function = [function]

    def forward(self, x):
        return self.function[0](self.lin(x))


def _compiled(x):
    return x * _bisect.bisect_left([1, 2, 3], 2)


class Applied(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return _compiled(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


@torch.library.custom_op("layergraph_tests::compiled", mutates_args=())
def _operator(x: torch.Tensor) -> torch.Tensor:
    return _compiled(x)


_operator.register_fake(torch.empty_like)


@pytest.fixture
def extension(monkeypatch):
    """A module of Python's own stands for one that takes tensors."""
    monkeypatch.setattr(compiled_calls, "_takes_tensors", lambda file: "_bisect" in file)
    compiled_calls._among.cache_clear()
    if not compiled_calls._extensions():
        pytest.skip("here it is part of Python's own file")
    yield
    compiled_calls._among.cache_clear()


ARGS = (torch.ones(3, 4),)


def test_a_call_is_refused_by_name_and_line(extension):
    with pytest.raises(CaptureError, match=r"_bisect\.bisect_left") as error:
        lg.to_ir(Calls(_compiled), ARGS)
    assert "test_compiled_calls.py" in str(error.value)
    assert "torch.library.custom_op" in str(error.value)
    assert sys.getprofile() is None


@pytest.mark.parametrize("function", [Applied.apply, _operator], ids=["function", "operator"])
def test_in_a_function_that_torch_sees_it_is_right(extension, function):
    model = Calls(function)
    rebuilt = lg.to_torch(lg.to_ir(model, ARGS), model.state_dict())
    x = torch.randn(2, 4)
    assert bitwise_equal(rebuilt(x), model(x))


def test_a_model_that_calls_none_is_right(extension):
    model = Calls(torch.relu)
    rebuilt = lg.to_torch(lg.to_ir(model, ARGS), model.state_dict())
    x = torch.randn(2, 4)
    assert bitwise_equal(rebuilt(x), model(x))


def test_under_a_profiler_nothing_is_taken_unseen(extension):
    with cProfile.Profile(), pytest.raises(CaptureError, match="a profiler runs"):
        lg.to_ir(Calls(torch.relu), ARGS)


def test_without_such_an_extension_a_profiler_may_run():
    with cProfile.Profile():
        lg.to_ir(Calls(torch.relu), ARGS)


def test_what_is_imported_meanwhile_is_refused(monkeypatch):
    known = iter([frozenset(), frozenset({"fast"})])
    monkeypatch.setattr(compiled_calls, "_extensions", lambda: next(known, frozenset()))
    with pytest.raises(CaptureError, match="imports fast while it runs"):
        lg.to_ir(Calls(torch.relu), ARGS)


def test_what_torch_builds_is_known_by_its_names(monkeypatch):
    builder = pytest.importorskip("torch.utils.cpp_extension")
    entry = type("Entry", (), {"version": 1})()
    monkeypatch.setitem(builder.JIT_EXTENSION_VERSIONER.entries, "fast", entry)
    assert {"fast", "fast_v1"} <= compiled_calls._extensions()


def test_an_extension_is_known_by_its_file(tmp_path):
    assert compiled_calls._takes_tensors(torch._C.__file__)
    other = tmp_path / "other.so"
    other.write_bytes(b"\0" * 100)
    assert not compiled_calls._takes_tensors(str(other))
    assert not compiled_calls._takes_tensors(str(tmp_path / "none.so"))
