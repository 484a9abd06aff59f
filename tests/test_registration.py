"""Handlers that a user registers on one converter, in every form of registration."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from layergraph import Implementation, Ir
from layergraph.errors import BuildError, PluginError, RegistrationError
from layergraph.ir2torch import Ir2Torch
from layergraph.registration import Registry
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir


class CustomLinear(nn.Linear):
    """Has no handler in an installed plugin, because these handle exact classes only."""


def said(who: str) -> dict[str, Any]:
    return {"in_features": 1, "out_features": 2, "by": who}


def tagged(who: str) -> nn.Module:
    made = CustomLinear(1, 2)
    made.by = who
    return made


class ToIr:
    """The direction to the IR: registers handlers, and returns which one answers."""

    def __init__(self, **options: Any) -> None:
        self.converter = Torch2Ir(**options)

    @staticmethod
    def handler(who: str) -> Callable[[nn.Module], Any]:
        return lambda _module: said(who)

    def who(self) -> str | None:
        ir = self.converter.convert(CustomLinear(1, 2))
        return ir[ir.root].data.get("by")


class ToTorch:
    """The direction to torch: registers handlers, and returns which one answers."""

    def __init__(self, **options: Any) -> None:
        self.converter = Ir2Torch(**options)

    @staticmethod
    def handler(who: str) -> Callable[[Implementation], Any]:
        return lambda _implementation: tagged(who)

    def who(self) -> str | None:
        try:
            return self.converter.convert(Ir([Implementation("custom_linear", name="root")])).by
        except BuildError:
            return None


@pytest.fixture(params=[ToIr, ToTorch])
def side(request: pytest.FixtureRequest) -> ToIr | ToTorch:
    return request.param()


Side = ToIr | ToTorch


# --- the ways to write it ---


def as_call(register: Any, handler: Any) -> Any:
    return register("custom_linear", handler)


def as_call_by_keyword(register: Any, handler: Any) -> Any:
    return register(key="custom_linear", handler=handler)


def as_decorator_with_key(register: Any, handler: Any) -> Any:
    return register("custom_linear")(handler)


def as_bare_decorator(register: Any, handler: Any) -> Any:
    handler.__name__ = "custom_linear"
    return register(handler)


ONE_BY_ONE = [as_call, as_call_by_keyword, as_decorator_with_key, as_bare_decorator]


@pytest.mark.parametrize("method", ["register", "register_override"])
@pytest.mark.parametrize("written", ONE_BY_ONE)
def test_a_handler_is_asked_and_stays_what_it_was(
    side: Side, method: str, written: Callable[[Any, Any], Any]
) -> None:
    assert side.who() is None
    handler = side.handler("mine")
    assert written(getattr(side.converter, method), handler) is handler
    assert side.who() == "mine"


def _named(handler: Any, name: str = "custom_linear") -> Any:
    def call(given: Any) -> Any:
        return handler(given)

    call.__name__ = name
    return call


MANY_AT_ONCE = {
    "mapping": lambda register, handler: register({"custom_linear": handler, "other": handler}),
    "pairs": lambda register, handler: register([("custom_linear", handler), ("other", handler)]),
    "iterator": lambda register, handler: register(iter({"custom_linear": handler}.items())),
    "functions": lambda register, handler: register([_named(handler), _named(len, "other")]),
    "a generator": lambda register, handler: register(each for each in [_named(handler)]),
    "functions and pairs": lambda register, handler: register([("other", len), _named(handler)]),
    "decorator": lambda register, handler: register("custom_linear", "other")(handler),
    "decorator of one": lambda register, handler: register("custom_linear")(handler),
}


@pytest.mark.parametrize("written", MANY_AT_ONCE)
def test_several_handlers_at_once(side: Side, written: str) -> None:
    MANY_AT_ONCE[written](side.converter.register_handlers, side.handler("mine"))
    assert side.who() == "mine"


@pytest.mark.parametrize("handlers", [{"other": len}, [("other", len)], [_named(len, "other")]])
def test_register_handlers_gives_the_converter(side: Side, handlers: Any) -> None:
    assert side.converter.register_handlers(handlers) is side.converter


def test_register_handlers_as_decorator_gives_the_handler_back(side: Side) -> None:
    handler = side.handler("mine")
    assert side.converter.register_handlers("custom_linear", "other")(handler) is handler
    with pytest.raises(RegistrationError, match="'other' already"):
        side.converter.register("other", handler)


# --- torch2ir: what a handler is registered for, and what it gives ---

NAMES = ["CustomLinear", "customlinear", "custom_linear"]


@pytest.mark.parametrize("method", ["register", "register_override", "register_handlers"])
@pytest.mark.parametrize(
    ("key", "kind"), [(CustomLinear, "customlinear"), *((name, name) for name in NAMES)]
)
def test_attributes_without_a_type_get_it_from_the_key(
    method: str, key: str | type, kind: str
) -> None:
    converter = Torch2Ir()
    getattr(converter, method)(key)(lambda _: said("mine"))
    ir = converter.convert(CustomLinear(1, 2))
    assert (ir[ir.root].type, ir[ir.root].data) == (kind, said("mine"))


@pytest.mark.parametrize("key", [CustomLinear, *NAMES])
def test_an_implementation_keeps_its_own_type(key: str | type) -> None:
    converter = Torch2Ir()
    converter.register(key, lambda module: Implementation("own", {"n": module.in_features}))
    ir = converter.convert(CustomLinear(7, 2))
    assert (ir[ir.root].type, ir[ir.root].data) == ("own", {"n": 7})


def test_a_container_says_that_its_children_are_to_be_captured() -> None:
    class Chain(nn.Sequential):
        pass

    torch2ir, ir2torch = Torch2Ir(), Ir2Torch()
    torch2ir.register(Chain, lambda _: Implementation("chain", children={}))
    ir2torch.register("chain", lambda _, children: Chain(*children.values()))
    model = Chain(nn.Linear(2, 3), nn.ReLU())
    ir = torch2ir.convert(model)
    assert [each.type for each in ir.values()] == ["chain", "linear", "relu"]
    rebuilt = ir2torch.convert(ir, model.state_dict())
    given = torch.randn(5, 2)
    assert type(rebuilt) is Chain
    assert bitwise_equal(rebuilt(given), model(given))


@pytest.mark.parametrize("key", [nn.Linear, "Linear", "linear"])
def test_a_handler_is_not_asked_for_a_subclass(key: str | type) -> None:
    asked: list[nn.Module] = []
    converter = Torch2Ir()
    converter.register(key, asked.append)
    ir = converter.convert(nn.Sequential(CustomLinear(1, 2), nn.Linear(2, 1)))
    assert [type(module) for module in asked] == [nn.Linear]
    assert [each.type for each in ir.values()] == ["sequential", "module", "linear"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.BatchNorm2d(2), "batch_norm2d"),
        (nn.LSTMCell(2, 3), "lstm_cell"),
        (nn.ReLU(), "re_lu"),
        (nn.ReLU(), "relu"),
        (nn.GELU(), "gelu"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_names_of_torch_with_underscores(module: nn.Module, name: str) -> None:
    asked: list[nn.Module] = []
    converter = Torch2Ir(plugins=())
    converter.register(name, lambda given: asked.append(given) or {})
    converter.convert(module)
    assert asked == [module]


@pytest.mark.parametrize("answer", [3, "linear", [("in_features", 1)], nn.Identity()])
def test_an_answer_of_another_kind_is_refused(side: Side, answer: Any) -> None:
    if isinstance(side, ToTorch) and isinstance(answer, nn.Module):
        answer = nn.Identity  # the class instead of a module
    side.converter.register("custom_linear", lambda _: answer)
    with pytest.raises(PluginError, match="returned"):
        side.converter.convert(
            CustomLinear(1, 2)
            if isinstance(side, ToIr)
            else Ir([Implementation("custom_linear", name="root")])
        )


# --- not mine ---


def test_none_lets_the_next_one_be_asked(side: Side) -> None:
    converter, asked = side.converter, []

    def declining(who: str) -> Callable[[Any], None]:
        return lambda _: asked.append(who)

    converter.register("custom_linear", side.handler("registered"))
    converter.register_override("custom_linear", declining("first override"))
    converter.register_override("custom_linear", declining("second override"))
    assert side.who() == "registered"
    assert asked == ["second override", "first override"]


def test_when_all_decline_a_module_is_traced_and_a_type_is_unknown() -> None:
    torch2ir, ir2torch = Torch2Ir(), Ir2Torch()
    for converter in (torch2ir, ir2torch):
        converter.register("custom_linear", lambda _: None)
        converter.register_override("custom_linear", lambda _: None)
    ir = torch2ir.convert(CustomLinear(1, 2))
    assert ir[ir.root].type == "module"
    with pytest.raises(BuildError, match="'custom_linear'"):
        ir2torch.convert(Ir([Implementation("custom_linear", name="root")]))


def test_none_falls_through_to_the_plugins() -> None:
    torch2ir, ir2torch = Torch2Ir(), Ir2Torch()
    for converter in (torch2ir, ir2torch):
        converter.register("linear", lambda _: None)
    ir = torch2ir.convert(nn.Linear(1, 2))
    assert (ir[ir.root].type, ir[ir.root].data["in_features"]) == ("linear", 1)
    assert type(ir2torch.convert(ir)) is nn.Linear


# --- one type, one handler ---


@pytest.mark.parametrize("written", ONE_BY_ONE)
def test_a_second_handler_for_a_type_is_refused_and_the_way_out_named(
    side: Side, written: Callable[[Any, Any], Any]
) -> None:
    side.converter.register("custom_linear", side.handler("first"))
    with pytest.raises(RegistrationError, match=r"'custom_linear' already .*register_override"):
        written(side.converter.register, side.handler("second"))
    assert side.who() == "first"
    side.converter.register_override("custom_linear", side.handler("third"))
    assert side.who() == "third"


def test_a_second_handler_for_a_class_is_refused() -> None:
    converter = Torch2Ir()
    converter.register(CustomLinear, lambda _: said("first"))
    with pytest.raises(RegistrationError, match=r"CustomLinear already .*register_override"):
        converter.register(CustomLinear, lambda _: said("second"))


def test_a_type_of_a_plugin_is_free_to_be_registered(side: Side) -> None:
    side.converter.register("linear", side.handler("mine"))
    if isinstance(side, ToIr):
        ir = side.converter.convert(nn.Linear(1, 2))
        assert ir[ir.root].data["by"] == "mine"
    else:
        assert side.converter.convert(Ir([Implementation("linear", name="root")])).by == "mine"


REFUSED_PAIRS = {
    "a type has one already": [("new", len), ("taken", len)],
    "a type twice": [("new", len), ("new", len)],
    "not callable": [("new", len), ("newer", 3)],
    "no type": [("new", len), (3, len)],
    "no handler": [("new", len), ("newer", None)],
    "no pair": [("new", len), ("newer",)],
}


@pytest.mark.parametrize("kind", REFUSED_PAIRS)
def test_register_handlers_registers_all_or_none(side: Side, kind: str) -> None:
    side.converter.register("taken", len)
    with pytest.raises(RegistrationError):
        side.converter.register_handlers(REFUSED_PAIRS[kind])
    side.converter.register("new", len)


def test_register_handlers_as_decorator_registers_all_or_none(side: Side) -> None:
    side.converter.register("taken", len)
    with pytest.raises(RegistrationError, match=r"'taken' already .*register_override"):
        side.converter.register_handlers("new", "taken")(len)
    side.converter.register("new", len)


# --- what is no type, and what is no handler ---

NO_HANDLER = [3, "linear", {}]
NO_KEY = [3, 1.5, ("linear",), b"linear"]


@pytest.mark.parametrize("method", ["register", "register_override"])
@pytest.mark.parametrize("handler", NO_HANDLER, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("written", [as_call, as_decorator_with_key])
def test_what_cannot_be_called_is_no_handler(
    side: Side, method: str, handler: Any, written: Callable[[Any, Any], Any]
) -> None:
    with pytest.raises(RegistrationError, match=r"'custom_linear'.*cannot be called"):
        written(getattr(side.converter, method), handler)
    assert side.who() is None


@pytest.mark.parametrize("method", ["register", "register_override"])
@pytest.mark.parametrize("key", NO_KEY, ids=lambda each: type(each).__name__)
def test_what_is_neither_name_nor_class_is_no_type(side: Side, method: str, key: Any) -> None:
    with pytest.raises(RegistrationError, match="is no type"):
        getattr(side.converter, method)(key, side.handler("mine"))
    with pytest.raises(RegistrationError, match="is no type"):
        getattr(side.converter, method)(key)


@pytest.mark.parametrize("method", ["register", "register_override"])
def test_a_bare_decorator_needs_a_name(side: Side, method: str) -> None:
    nameless = functools.partial(side.handler("mine"))
    with pytest.raises(RegistrationError, match="is no type"):
        getattr(side.converter, method)(nameless)


@pytest.mark.parametrize(
    "handlers",
    [3, len, [3], [nn.Linear], [lambda _: None], {"custom_linear": 3}],
    ids=lambda each: re.sub(r" at 0x\w+", "", repr(each)),
)
def test_register_handlers_refuses_what_holds_no_types_and_handlers(
    side: Side, handlers: Any
) -> None:
    with pytest.raises(RegistrationError):
        side.converter.register_handlers(handlers)
    assert side.who() is None


@pytest.mark.parametrize(
    "attempt",
    {
        "None for a handler": lambda converter: converter.register("custom_linear", None),
        "two arguments": lambda converter: converter.register_handlers("custom_linear", len),
        "no arguments": lambda converter: converter.register_handlers(),
    }.values(),
)
def test_a_registration_that_registers_nothing_is_refused(
    side: Side, attempt: Callable[[Registry], None]
) -> None:
    with pytest.raises(RegistrationError):
        attempt(side.converter)


@pytest.mark.parametrize("method", ["register", "register_override"])
def test_only_torch2ir_takes_classes(method: str) -> None:
    with pytest.raises(RegistrationError):
        getattr(Ir2Torch(), method)(nn.Linear, lambda _: nn.Linear(1, 2))


# --- ir2torch: one parameter or two ---


class Chain(nn.Module):
    def __init__(self, children: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


class Handlers:
    def of_one(self, implementation: Implementation) -> nn.Module:
        return tagged(implementation.name)

    def of_two(self, implementation: Implementation, children: Mapping[str, nn.Module]) -> Chain:
        return Chain(children)

    def __call__(
        self, implementation: Implementation, children: Mapping[str, nn.Module]
    ) -> nn.Module:
        return Chain(children)


def leaf(implementation: Implementation) -> nn.Module:
    return tagged(implementation.name)


def with_option(implementation: Implementation, bias: bool = True) -> nn.Module:
    # The argument has a default: a handler that needs children must declare it without one.
    assert bias is True
    return tagged(implementation.name)


def chain(implementation: Implementation, children: Mapping[str, nn.Module]) -> nn.Module:
    return Chain(children)


LEAF_HANDLERS = {
    "function": leaf,
    "lambda": lambda implementation: tagged(implementation.name),
    "method": Handlers().of_one,
    "with an option": with_option,
}
CONTAINER_HANDLERS = {
    "function": chain,
    "lambda": lambda implementation, children: Chain(children),
    "positional only": lambda implementation, children, /: Chain(children),
    "other names": lambda it, kids: Chain(kids),
    "method": Handlers().of_two,
    "object": Handlers(),
    "partial": functools.partial(lambda cls, implementation, children: cls(children), Chain),
}

CHAIN_OF_ONE = {
    "root": {
        "name": "root",
        "type": "chain",
        "children": {"only": "only"},
        "nodes": {},
        "edges": {},
    },
    "only": {"name": "only", "type": "custom_linear", "nodes": {}, "edges": {}},
}


@pytest.mark.parametrize("method", ["register", "register_override"])
@pytest.mark.parametrize("kind", LEAF_HANDLERS)
def test_a_handler_of_one_parameter_gets_the_implementation(method: str, kind: str) -> None:
    converter = Ir2Torch(plugins=())
    getattr(converter, method)("custom_linear", LEAF_HANDLERS[kind])
    model = converter.convert(Ir([Implementation("custom_linear", name="root")]))
    assert model.by == "root"


@pytest.mark.parametrize("method", ["register", "register_override"])
@pytest.mark.parametrize("kind", CONTAINER_HANDLERS)
def test_a_handler_of_two_parameters_gets_the_built_children_too(method: str, kind: str) -> None:
    converter = Ir2Torch(plugins=())
    getattr(converter, method)("chain", CONTAINER_HANDLERS[kind])
    converter.register("custom_linear", leaf)
    model = converter.convert(Ir.from_dict(CHAIN_OF_ONE))
    assert type(model) is Chain
    assert [(name, child.by) for name, child in model.named_children()] == [("only", "only")]


# --- no handler answers ---


def test_an_unknown_type_is_named_with_its_place_and_help() -> None:
    ir = Torch2Ir().convert(nn.Sequential(nn.Identity(), nn.Linear(1, 2)))
    converter = Ir2Torch(plugins=())
    converter.register("sequential", lambda _, children: nn.Sequential(*children.values()))
    converter.register("identity", lambda _: nn.Identity())
    with pytest.raises(BuildError) as caught:
        converter.convert(ir)
    for expected in ("'1'", "'linear'", "asked were this converter", "layergraph-linear"):
        assert expected in str(caught.value)


def test_an_unknown_type_that_is_none_of_torch_names_who_was_asked() -> None:
    with pytest.raises(BuildError) as caught:
        Ir2Torch().convert(Ir([Implementation("custom_linear", name="root")]))
    for expected in (
        "'root'",
        "'custom_linear'",
        "this converter",
        "layergraph-linear",
        "register",
    ):
        assert expected in str(caught.value)
    assert "pip install" not in str(caught.value)


@pytest.mark.parametrize("bias", [True, False])
def test_without_any_plugin_a_layer_is_traced_through(bias: bool) -> None:
    model = nn.Linear(2, 3, bias=bias)
    ir = Torch2Ir(plugins=()).convert(model)
    assert ir[ir.root].type == "module"
    rebuilt = Ir2Torch(plugins=()).convert(ir, model.state_dict())
    given = torch.randn(4, 2)
    assert bitwise_equal(rebuilt(given), model(given))
    assert list(rebuilt.state_dict()) == list(model.state_dict())
