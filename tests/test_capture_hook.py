"""The hook ``capture``: a plugin captures a model."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import hookimpl
from layergraph.capturing import Capturer, CaptureRequest
from layergraph.errors import CaptureError, PluginError, PluginWarning
from layergraph.plugins import Plugin, installed_plugins
from layergraph.torch2ir import Torch2Ir
from layergraph.torch2ir.tracing.symbolic_tracer import SymbolicCapturer

X = (torch.ones(2, 3),)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 2


def converter(answer: Any, *, disable: tuple[str, ...] = ()) -> Torch2Ir:
    holder = type("Holder", (), {"capture": staticmethod(hookimpl(answer))})()
    mine = Plugin("acme-odd", "1.0", "odd", holder)
    return Torch2Ir(plugins=(*installed_plugins(), mine), disable=disable)


def test_a_plugin_captures_in_the_place_of_the_built_in() -> None:
    seen: list[CaptureRequest] = []
    finished: list[bool] = []

    class Noting(SymbolicCapturer):
        def finish(self) -> None:
            finished.append(True)

    def capture(request: CaptureRequest) -> Capturer:
        seen.append(request)
        return Noting(request)

    model = Scaled()
    ir = converter(capture).convert(model, X, values="assume", modes="own")
    assert ir == lg.to_ir(model)
    (request,) = seen
    assert request.model is model
    assert request.has_example
    assert request.examples == [(X, None)]
    assert (request.values, request.modes) == ("assume", "own")
    assert finished == [True]


def test_none_leaves_it_to_the_next() -> None:
    model = Scaled()
    ir = converter(lambda request: None).convert(model, X)
    assert ir == lg.to_ir(model, X)


def test_without_a_plugin_a_model_with_inputs_is_refused_by_name() -> None:
    mine = converter(lambda request: None, disable=("layergraph-capture",))
    assert mine.convert(Scaled()) == lg.to_ir(Scaled())
    with pytest.raises(CaptureError, match="pip install layergraph-capture"):
        mine.convert(Scaled(), X)


def raising(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: 5,
        lambda request: SymbolicCapturer,
        lambda request: raising(ValueError("x")),
        lambda request: sys.exit(3),
    ],
    ids=range(4),
)
def test_what_a_plugin_does_wrong_is_an_error_that_names_it(answer: Any) -> None:
    with pytest.raises(PluginError, match=r"the hook 'capture' of acme-odd 1.0 \(odd\)"):
        converter(answer).convert(Scaled(), X)


def test_it_finishes_after_an_error_too() -> None:
    finished: list[bool] = []

    class Failing(SymbolicCapturer):
        def tracer(self) -> Any:
            raise CaptureError("not today")

        def finish(self) -> None:
            finished.append(True)

    def capture(request: CaptureRequest) -> Capturer:
        return Failing(request)

    with pytest.raises(CaptureError, match="not today"):
        converter(capture).convert(Scaled(), X)
    assert finished == [True]


def exits(*_: Any) -> Any:
    sys.exit(3)


@pytest.mark.parametrize(
    ("name", "method", "said"),
    [
        ("tracer", lambda self: 5, "returned a int; it must return a Tracer"),
        ("tracer", lambda self: raising(ValueError("x")), "raised ValueError: x"),
        ("tracer", exits, "raised SystemExit: 3"),
        ("faults", lambda self: 5, "returned something other than a list"),
        ("faults", lambda self: raising(ValueError("x")), "raised ValueError: x"),
        ("finish", lambda self: raising(ValueError("x")), "raised ValueError: x"),
        ("finish", exits, "raised SystemExit: 3"),
    ],
    ids=range(7),
)
def test_what_a_capturer_does_wrong_is_an_error_that_names_it(
    name: str, method: Any, said: str
) -> None:
    class Odd(SymbolicCapturer):
        def __bool__(self) -> bool:
            return False

    setattr(Odd, name, method)
    # The test of ``faults`` needs a leaf.
    model = nn.Linear(3, 3) if name == "faults" else Scaled()

    def capture(request: CaptureRequest) -> Capturer:
        return Odd(request)

    with pytest.raises(PluginError, match=rf"{name!r} of the capturer \S*Odd {said}"):
        converter(capture).convert(model, X)


def gives_5(request: CaptureRequest) -> Any:
    yield
    return 5


def forces_5(request: CaptureRequest) -> Any:
    outcome = yield
    outcome.force_result(5)


def yields_twice(request: CaptureRequest) -> Any:
    yield
    yield


@pytest.mark.parametrize(
    ("wrapper", "mark", "said"),
    [
        (gives_5, "wrapper", "returned a int; it must return a Capturer"),
        (forces_5, "hookwrapper", "returned a int; it must return a Capturer"),
        (yields_twice, "wrapper", "second yield"),
    ],
    ids=range(3),
)
def test_what_a_wrapper_does_wrong_is_an_error_that_names_the_hook(
    wrapper: Any, mark: str, said: str
) -> None:
    marked = hookimpl(**{mark: True})(wrapper)
    holder = type("Holder", (), {"capture": staticmethod(marked)})()
    plugins = (*installed_plugins(), Plugin("acme-odd", "1.0", "odd", holder))
    with pytest.raises(PluginError, match=rf"capture.*{said}|{said}.*capture"):
        Torch2Ir(plugins=plugins).convert(Scaled(), X)


def test_a_warning_that_a_filter_makes_an_error_is_raised_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("layergraph.torch2ir.pipeline.unhandled", lambda _: {"acme": ["Scaled"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PluginWarning, match="no installed package handles Scaled"):
            lg.to_ir(Scaled())
