"""A wrong implementation of a hook raises an error that names the plugin and the hook."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import Implementation, hookimpl
from layergraph.errors import BuildError, LayergraphError, PluginError, PluginWarning
from layergraph.ir2torch import Ir2Torch
from layergraph.plugins import HookFailure, Plugin, installed_plugins
from layergraph.torch2ir import Torch2Ir
from layergraph_cli.installed import installed_commands

MODEL = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
IR = lg.to_ir(MODEL)


def plugin(**functions: Any) -> tuple[Plugin, ...]:
    holder = type("Holder", (), {})()
    for name, function in functions.items():
        setattr(holder, name, hookimpl(function))
    return (*installed_plugins(), Plugin("acme-odd", "1.0", "odd", holder))


def raising(error: BaseException) -> Any:
    raise error


ERRORS = [
    ValueError("two\nlines"),
    KeyError("x"),
    RecursionError(),
    SystemExit(3),
    GeneratorExit(),
    StopIteration(),
]
EVERY_ERROR = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


def named(it: Any, hook: str, *said: str) -> None:
    text = str(it.value)
    for expected in ("acme-odd 1.0 (odd)", repr(hook), *said):
        assert expected in text
    assert "\n" not in text


@EVERY_ERROR
def test_torch_to_ir_raises(error: BaseException) -> None:
    def torch_to_ir(module: nn.Module) -> Any:
        return raising(error) if isinstance(module, nn.Linear) else None

    converter = Torch2Ir(plugins=plugin(torch_to_ir=torch_to_ir))
    with pytest.raises(PluginError) as it:
        converter.convert(MODEL)
    named(it, "torch_to_ir", type(error).__name__, "'0' (Linear)")
    assert type(error).__name__ in str(converter.explain(MODEL[0]))


@EVERY_ERROR
def test_ir_to_torch_raises(error: BaseException) -> None:
    def ir_to_torch(implementation: Implementation) -> Any:
        return raising(error) if implementation.type == "linear" else None

    converter = Ir2Torch(plugins=plugin(ir_to_torch=ir_to_torch))
    if isinstance(error, Exception):  # the handler refuses the attributes
        with pytest.raises(BuildError, match=type(error).__name__):
            converter.convert(IR)
        return
    with pytest.raises(PluginError) as it:
        converter.convert(IR)
    named(it, "ir_to_torch", type(error).__name__, "implementation '0'")


@EVERY_ERROR
def test_functions_raises(error: BaseException) -> None:
    converter = Torch2Ir(plugins=plugin(functions=lambda: raising(error)))
    with pytest.raises(PluginError) as it:
        converter.convert(nn.Sequential(MODEL), (torch.ones(1, 2),))
    named(it, "functions", type(error).__name__)


@pytest.mark.parametrize("error", ERRORS[:4], ids=lambda error: type(error).__name__)
def test_a_wrapper_raises(error: BaseException) -> None:
    def torch_to_ir(module: nn.Module) -> Any:
        answer = yield
        return raising(error) if isinstance(module, nn.Linear) else answer

    holder = type("Holder", (), {"torch_to_ir": None})()
    holder.torch_to_ir = hookimpl(wrapper=True)(torch_to_ir)
    odd = Plugin("acme-odd", "1.0", "odd", holder)
    with pytest.raises(PluginError) as it:
        Torch2Ir(plugins=(*installed_plugins(), odd)).convert(MODEL)
    named(it, "torch_to_ir", type(error).__name__, "'0' (Linear)")


def test_a_wrapper_gives_something_else() -> None:
    def torch_to_ir(module: nn.Module) -> Any:
        yield
        return 5

    holder = type("Holder", (), {"torch_to_ir": None})()
    holder.torch_to_ir = hookimpl(wrapper=True)(torch_to_ir)
    odd = Plugin("acme-odd", "1.0", "odd", holder)
    with pytest.raises(PluginError, match="wraps the hook 'torch_to_ir' returned a int"):
        Torch2Ir(plugins=(*installed_plugins(), odd)).convert(MODEL)


def test_an_interrupt_is_no_fault_of_a_plugin() -> None:
    def torch_to_ir(module: nn.Module) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Torch2Ir(plugins=plugin(torch_to_ir=torch_to_ir)).convert(MODEL)


def test_an_error_of_ours_is_passed_on() -> None:
    error = BuildError("it is on purpose")

    def ir_to_torch(implementation: Implementation) -> Any:
        raise error

    with pytest.raises(BuildError) as it:
        Ir2Torch(plugins=plugin(ir_to_torch=ir_to_torch)).convert(IR)
    assert it.value is error


@pytest.mark.parametrize(
    "answer",
    [
        5,
        "linear",
        [],
        nn.Identity(),
        Implementation(5, {}),  # type: ignore[arg-type]
        Implementation("x", 7),  # type: ignore[arg-type]
        Implementation("x", {}, children=[]),  # type: ignore[arg-type]
        Implementation("x", {}, tensors=3),  # type: ignore[arg-type]
    ],
    ids=range(8),
)
def test_torch_to_ir_gives_something_else(answer: Any) -> None:
    with pytest.raises(PluginError) as it:
        Torch2Ir(plugins=plugin(torch_to_ir=lambda module: answer)).convert(MODEL)
    named(it, "torch_to_ir", "'the model' (Sequential)", "it must")


@pytest.mark.parametrize(
    "answer", [5, "x", nn.Linear, torch.ones(2), (nn.Identity(),)], ids=range(5)
)
def test_ir_to_torch_gives_something_else(answer: Any) -> None:
    with pytest.raises(PluginError) as it:
        Ir2Torch(plugins=plugin(ir_to_torch=lambda implementation: answer)).convert(IR)
    named(it, "ir_to_torch", "implementation '0'", "it must return a torch.nn.Module")


@pytest.mark.parametrize(
    "answer", [5, "x.y", [1], {"a": 1}.values(), itertools.repeat("x.y"), [None]], ids=range(6)
)
def test_functions_gives_something_else(answer: Any) -> None:
    converter = Torch2Ir(plugins=plugin(functions=lambda: answer))
    with pytest.raises(PluginError) as it:
        converter.convert(nn.Sequential(MODEL), (torch.ones(1, 2),))
    named(it, "functions")


@pytest.mark.parametrize(
    "answer", [lambda: 5, lambda: itertools.repeat(3), lambda: sys.exit(2), lambda: 1 / 0]
)
def test_layers_gives_something_else(answer: Any) -> None:
    def layers() -> Any:
        return answer()

    (*_, odd) = plugin(layers=layers)
    with pytest.raises(PluginError, match="layers: it "):
        odd.hooks  # noqa: B018 -- reading them is what fails


@pytest.mark.parametrize(
    "answer",
    [
        lambda: 5,
        lambda: ((), {}, 1),
        lambda: sys.exit(2),
        lambda: 1 / 0,
        lambda: [torch.ones(2)],
    ],
)
def test_example_inputs_gives_something_else(answer: Any, monkeypatch: Any) -> None:
    converter = Torch2Ir(plugins=plugin(example_inputs=lambda model: answer()))
    monkeypatch.setattr("layergraph.inputs.default_torch2ir", lambda: converter)
    with pytest.raises(PluginError) as it:
        lg.example_inputs(MODEL)
    named(it, "example_inputs", "Sequential")


def one_command() -> None:
    """Do nothing."""


def _hidden() -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    "answer",
    [
        lambda: 5,
        lambda: "show",
        lambda: [1],
        lambda: [print],
        lambda: [int],
        lambda: [lambda: 0],
        lambda: [_hidden],
        lambda: [one_command, one_command],
        lambda: itertools.repeat(one_command),
        lambda: sys.exit(2),
        lambda: 1 / 0,
    ],
    ids=range(11),
)
def test_commands_gives_something_else(answer: Any, monkeypatch: Any) -> None:
    (*_, odd) = plugin(commands=answer)
    (implementation,) = odd.hooks
    with pytest.raises(HookFailure) as it:
        implementation.ask()
    named(it, "commands")
    (*_, other) = plugin(commands=lambda: [one_command])
    monkeypatch.setattr("layergraph.plugins.listing.installed_plugins", lambda hook: (odd, other))
    with pytest.warns(PluginWarning, match=r"the commands of acme-odd 1.0 \(odd\) are skipped"):
        assert [each.name for each in installed_commands()] == ["one-command"]


# --- one module for two implementations ---


class Borrows(nn.Module):
    def __init__(self, shared: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = shared.weight, shared.bias


class Inside(nn.Module):
    def __init__(self, shared: nn.Linear) -> None:
        super().__init__()
        self.inner = shared


@pytest.mark.parametrize(
    ("make", "device"),
    [
        (lambda shared: shared, None),
        (lambda shared: shared, "meta"),
        (Inside, None),
        (Inside, "meta"),
        # On the meta device, each layer gets its own tensors.
        (Borrows, None),
    ],
)
def test_one_module_for_two_implementations(make: Any, device: Any) -> None:
    shared = nn.Linear(2, 2)

    def ir_to_torch(implementation: Implementation) -> Any:
        return make(shared) if implementation.type == "linear" else None

    with pytest.raises(PluginError, match=r"implementation '1': its handler returned a module"):
        Ir2Torch(plugins=plugin(ir_to_torch=ir_to_torch)).convert(IR, device=device)


def test_a_child_for_its_parent() -> None:
    def ir_to_torch(implementation: Implementation, children: Any) -> Any:
        return children["0"] if children else None

    with pytest.raises(PluginError, match="is another implementation's"):
        Ir2Torch(plugins=plugin(ir_to_torch=ir_to_torch)).convert(IR)


def test_a_registered_handler_that_gives_one_module_for_two() -> None:
    shared = nn.Linear(2, 2)
    converter = Ir2Torch()
    converter.register_override("linear", lambda _: shared)
    with pytest.raises(PluginError, match="it must make a new one each time"):
        converter.convert(IR)


def test_one_implementation_in_two_places_is_one_module() -> None:
    inner = nn.Linear(2, 2)
    model = nn.Sequential(inner, nn.ReLU(), inner)
    rebuilt = lg.to_torch(lg.to_ir(model), model.state_dict())
    assert rebuilt[0] is rebuilt[2]


def test_a_registered_handler_that_exits() -> None:
    converter = Torch2Ir()
    converter.register_override(nn.Linear, lambda _: sys.exit(1))
    with pytest.raises(PluginError, match=r"of this converter raised SystemExit: 1"):
        converter.convert(MODEL)


def test_all_are_errors_of_ours() -> None:
    assert issubclass(PluginError, LayergraphError)
    assert issubclass(PluginWarning, UserWarning)
