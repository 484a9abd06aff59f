"""The hook ``structures``: objects of a library among the arguments and results of a model."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import Structure, hookimpl
from layergraph.errors import AssumptionError, CaptureError, PluginError
from layergraph.ir2torch import Ir2Torch
from layergraph.plugins import Plugin, installed_plugins
from layergraph.torch2ir import Torch2Ir


class Memory:
    """A state that the model of a third party remembers."""

    def __init__(self, kept: torch.Tensor | None = None, step: int = 0, scale: float = 2.0) -> None:
        self.kept = kept
        self.step = step
        self.scale = scale
        self.inner: Memory | None = None
        self.note = "mine"


def memory_parts(memory: Any) -> dict[str, Any]:
    return {
        "empty": memory.kept is None,
        "step": torch.Size([memory.step]),
        "scale": memory.scale,
        "inner": memory.inner,
        "kept": memory.kept,
    }


def memory_of_parts(parts: dict[str, Any], into: Any = None) -> Any:
    memory = Memory() if into is None else into
    memory.kept, memory.scale, memory.inner = parts["kept"], parts["scale"], parts["inner"]
    memory.step = parts["step"][0]
    return memory


def plugin(
    rows: Any = lambda: [Structure(Memory, memory_parts, memory_of_parts)],
    names: tuple[str, ...] = ("memory_parts", "memory_of_parts", "failing"),
) -> Plugin:
    holder = types.SimpleNamespace(
        structures=hookimpl(rows),
        functions=hookimpl(lambda: [f"{__name__}.{name}" for name in names]),
    )
    return Plugin("acme-memory", "1.0", "memory", holder)


PLUGINS = (*installed_plugins(), plugin())


def to_ir(model: nn.Module, *examples: Any, plugins: Any = PLUGINS, **options: Any) -> lg.Ir:
    return Torch2Ir(plugins=plugins).convert(model, examples=list(examples), **options)


def rebuilt(model: nn.Module, *examples: Any, **options: Any) -> nn.Module:
    ir = to_ir(model, *examples, **options)
    return Ir2Torch(plugins=PLUGINS).convert(ir, model.state_dict()).train(model.training)


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> Any:
        memory = Memory() if memory is None else memory
        x = self.lin(x) * memory.scale
        memory.kept = x if memory.kept is None else torch.cat([memory.kept, x])
        memory.step += x.shape[0]
        if memory.step > 6:
            x = x + memory.kept.sum(0)
        return {"x": x, "memory": memory}


def draw(n: int) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(n))


# With a new memory and a given one, each on both sides of the number by which the model decides.
EXAMPLES: list[Any] = [
    ((draw(4),), {}),
    ((draw(7),), {}),
    ((draw(1), Memory(draw(2), 2)), {}),
    ((draw(2), Memory(draw(2), 7)), {}),
]


def same(one: Memory, other: Memory) -> bool:
    assert type(one) is type(other) is Memory
    assert (one.step, one.scale) == (other.step, other.scale)
    assert type(one.step) is int
    return torch.equal(one.kept, other.kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("training", [True, False])
def test_an_object_comes_and_goes(training: bool) -> None:
    model = Remembering().train(training)
    again = rebuilt(model, *EXAMPLES)
    for size in (1, 3, 5):
        expected, got = model(draw(size)), again(draw(size))
        for step in range(5):
            assert torch.equal(expected["x"], got["x"])
            assert same(expected["memory"], got["memory"])
            mine, x = got["memory"], draw(step + 1)
            mine.note = f"step {step}"
            expected, got = model(x, expected["memory"]), again(x, mine)
            assert got["memory"] is mine
            assert mine.note == f"step {step}"


def test_an_example_is_left_as_it_was() -> None:
    memory = Memory(draw(2), 2)
    kept = memory.kept
    rebuilt(Remembering(), ((draw(4), memory), {}))
    assert (memory.kept is kept, memory.step) == (True, 2)
    assert torch.equal(kept, draw(2))  # type: ignore[arg-type]


def test_gradients_flow_through_it() -> None:
    model = Remembering()
    again = rebuilt(model, EXAMPLES[3])
    grads = []
    for each in (model, again):
        kept = draw(3).requires_grad_()
        result = each(draw(5), Memory(kept, 3))
        (result["x"].sum() + result["memory"].kept.square().sum()).backward()
        grads.append([kept.grad, *(p.grad for p in each.parameters())])
    assert all(map(torch.equal, *grads))


def test_plain_values_are_fixed_and_numbers_are_not() -> None:
    model = Remembering()
    again = rebuilt(model, *EXAMPLES[2:])
    for step, scale in ((0, 2.0), (1, 3.0), (100, 0.5)):
        mine, theirs = (Memory(draw(2), step, scale=scale) for _ in range(2))
        assert torch.equal(model(draw(2), mine)["x"], again(draw(2), theirs)["x"])
        assert same(mine, theirs)
    with pytest.raises(AssumptionError, match="the class of a part of the input 'memory' was 'fl"):
        again(draw(4), Memory(draw(2), 2, scale=3))
    with pytest.raises(AssumptionError, match="a part of the input 'memory' was False"):
        again(draw(4), Memory())
    with pytest.raises(AssumptionError, match="the class of the input 'memory' was 'Memory'"):
        again(draw(4), {"kept": draw(2)})


def test_two_forms_of_parts_are_told_apart() -> None:
    model = Remembering()
    again = rebuilt(model, ((draw(4), Memory()), {}), ((draw(4), Memory(draw(2), 2)), {}))
    for make in (Memory, lambda: Memory(draw(3), 3)):
        mine, theirs = make(), make()
        assert torch.equal(model(draw(2), mine)["x"], again(draw(2), theirs)["x"])
        assert same(mine, theirs)


class Nested(nn.Module):
    def forward(self, x: torch.Tensor, bag: dict[str, Any]) -> Any:
        outer = bag["memories"][0]
        inner = outer.inner
        inner.kept = inner.kept + x
        outer.kept = inner.kept * 2
        new = Memory(x, 1)
        new.inner = inner
        bag["new"] = new
        return new, inner, outer


def test_objects_in_objects_and_in_containers() -> None:
    def bag() -> dict[str, Any]:
        outer = Memory(draw(2), 1)
        outer.inner = Memory(draw(2), 2)
        return {"memories": [outer]}

    model = Nested()
    again = rebuilt(model, ((draw(2), bag()), {}))
    mine, theirs = bag(), bag()
    outer, inner = theirs["memories"][0], theirs["memories"][0].inner
    expected, got = model(draw(2) + 1, mine), again(draw(2) + 1, theirs)
    assert all(map(same, expected, got))
    assert got[1] is inner
    assert got[2] is outer
    assert outer.inner is inner
    assert theirs["new"] is got[0]
    assert got[0].inner is inner


class Mode(nn.Module):
    def forward(self, x: torch.Tensor, memory: Memory) -> torch.Tensor:
        memory.kept = torch.cat([memory.kept, x if self.training else -x])  # type: ignore[list-item]
        return x + 1


def test_an_object_that_changes_differently_in_the_other_mode() -> None:
    model = Mode()
    again = rebuilt(model, ((draw(2), Memory(draw(2))), {}))
    for training in (True, False, True):
        mine, theirs = Memory(draw(3)), Memory(draw(3))
        model.train(training)(draw(4), mine)
        again.train(training)(draw(4), theirs)
        assert same(mine, theirs)


def test_through_a_file(tmp_path: Path) -> None:
    model = Remembering()
    ir = to_ir(model, *EXAMPLES)
    lg.save(ir, tmp_path / "m.json")
    read = lg.load(tmp_path / "m.json")
    assert read == ir
    again = Ir2Torch(plugins=PLUGINS).convert(read, model.state_dict())
    mine, theirs = model(draw(3))["memory"], again(draw(3))["memory"]
    model(draw(9), mine), again(draw(9), theirs)
    assert same(mine, theirs)
    with pytest.raises(lg.errors.BuildError, match="memory_parts"):
        lg.to_torch(read)


# --- refusals ---


def test_an_object_that_no_plugin_knows_is_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"the argument 'memory' holds .*Memory"):
        lg.to_ir(Remembering(), (draw(2), Memory(draw(2))))


class Sub(Memory):
    pass


def test_a_subclass_is_another_class() -> None:
    with pytest.raises(CaptureError, match=r"the argument 'memory' holds .*Sub"):
        to_ir(Remembering(), ((draw(2), Sub(draw(2))), {}))


def test_a_part_that_a_graph_cannot_hold() -> None:
    memory = Memory(draw(2), scale=object())  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match="the argument 'memory' holds <object"):
        to_ir(Remembering(), ((draw(2), memory), {}))


def test_functions_have_to_be_named() -> None:
    plugins = (*installed_plugins(), plugin(names=("memory_parts",)))
    with pytest.raises(PluginError, match=r"memory_of_parts .* does not name it"):
        to_ir(Remembering(), ((draw(2),), {}), plugins=plugins)


def failing(_: Any) -> Any:
    raise KeyError("a")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda: [1], "a layergraph.Structure"),
        (lambda: [Structure(Memory, memory_parts, None)], "whose unflatten is None"),  # type: ignore[arg-type]
        (lambda: [Structure("Memory", memory_parts, memory_of_parts)], "give a class"),  # type: ignore[arg-type]
        (lambda: [Structure(Memory, memory_parts, memory_of_parts)] * 2, "two structures"),
        (lambda: [Structure(Memory, failing, memory_of_parts)], "failing.* raised KeyError"),
        (lambda: [Structure(Memory, memory_parts, memory_parts)], "returns a|raised"),
    ],
)
def test_a_plugin_that_breaks_the_contract(rows: Any, said: str) -> None:
    plugins = (*installed_plugins(), plugin(rows))
    with pytest.raises(PluginError, match=said):
        to_ir(Remembering(), ((draw(2), Memory(draw(2))), {}), plugins=plugins)


# --- arguments that only some examples give ---


def test_not_given_is_not_none() -> None:
    class Named(nn.Module):
        def forward(self, x: torch.Tensor, **more: Any) -> torch.Tensor:
            return x + len(more) if "y" not in more else x * more["y"]

    model = Named()
    again = rebuilt(model, ((draw(2),), {}), ((draw(2),), {"y": draw(2)}))
    assert torch.equal(again(draw(2)), model(draw(2)))
    assert torch.equal(again(draw(2), y=draw(2) + 1), model(draw(2), y=draw(2) + 1))
    with pytest.raises(AssumptionError, match="fits none of the examples: y=not given; y=a tensor"):
        again(draw(2), y=None)


def test_this_module_is_importable_by_its_name() -> None:
    assert sys.modules[__name__].memory_parts is memory_parts
