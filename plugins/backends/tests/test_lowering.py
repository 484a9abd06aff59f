"""``lower`` says each step once, in order, with values that never change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import Lowering
from layergraph.errors import ArgumentError, StateError
from layergraph_backends import Backend, LoweringError, lower
from layergraph_shapes import TensorMeta

# With older releases of torch, the plugins of other targets may lack their libraries.
pytestmark = pytest.mark.filterwarnings("ignore:the lowerings of layergraph-(nir|onnx)")


@dataclass(frozen=True)
class Value:
    """A value of the target: a function that computes it, so that a test can run what was said."""

    text: str
    tensor: torch.Tensor | None = None


class Running(Backend):
    """Runs each step on tensors as it is said, with copies, so that no value ever changes."""

    target = "running"

    def __init__(self, inputs: dict[str, torch.Tensor]) -> None:
        self.inputs = inputs
        self.said: list[str] = []

    def input(self, name: str, meta: Any) -> Value:
        if name in self.inputs and meta is not None:
            assert tuple(self.inputs[name].shape) == meta.shape
        return Value(name, self.inputs.get(name))

    def tensor(self, key: str, tensor: torch.Tensor) -> Value:
        return Value(key, tensor)


class Both(Running):
    computes_both_ways = True


def run(step, backend):
    def tensors(value):
        from layergraph.ir.values import map_leaves

        leaf = lambda each: each.tensor.clone() if isinstance(each, Value) else each
        return map_leaves(leaf, value)

    backend.said.append(step.where)
    args, kwargs = tensors(step.args), tensors(step.kwargs)
    result = step.compute(*args, **kwargs)
    if step.kind == "operator.setitem":
        result = args[0]  # the value of a step that changes a tensor is the changed one
    from torch.utils._pytree import tree_map

    return tree_map(lambda x: Value(step.name, x) if isinstance(x, torch.Tensor) else x, result)


ROWS = [Lowering("running", run)]


def ran(model: nn.Module, *args: torch.Tensor, backend: type[Running] = Running, ir=None):
    """Return what a lowering computed, and the back end."""
    from torch.utils._pytree import tree_map

    ir = ir or lg.to_ir(model, args)
    names = list(ir[ir.root].parameters().values())
    collected = backend(dict(zip(names, args, strict=True)))
    with torch.no_grad():
        lowered = lower(ir, collected, model.state_dict(), args, handlers=ROWS)
    value = tree_map(lambda x: x.tensor if isinstance(x, Value) else x, lowered.value)
    return value, collected, lowered


def module(forward, **children: nn.Module) -> nn.Module:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in children.items():
                self.add_module(name, child)

    Model.forward = forward
    return Model().eval()


def written_and_read(self, x):
    y = self.conv(x)
    z = y.relu_()
    y.add_(1)
    return y + z, z


def assigned(self, x):
    y = x * 2
    y[:, 0] = 5
    return y + 1


def in_a_child(self, x):
    y = self.conv(x)
    return self.child(y)


def sizes(self, x):
    n, c = x.shape[0], x.size(1)
    return x.reshape(n * c // 2, -1), n + 1


def containers(self, x):
    parts = {"a": (x + 1, x - 1), "b": [x]}
    first = torch.split(x, 1)[0]
    values, indices = x.max(1)
    return parts["a"][1] * parts["b"][0], first, values, indices


def view_read_later(self, x):
    y = self.conv(x)
    part = y[:, 0]
    y.relu_()
    return part


def whole_read_later(self, x):
    y = self.conv(x)
    y[:, 1:][..., 2].mul_(3)
    z = y.transpose(1, 2).permute(0, 3, 2, 1).unsqueeze(1).select(2, 3)
    z.narrow(1, 0, 1).add_(10)
    return y, z


def parts_of_parts(self, x):
    y = x * 2
    a, b = y.chunk(2, dim=2)
    rows = b.unbind(2)
    first, second = rows[0], rows[1]
    second.unsqueeze(1)[..., ::2] = -1
    a.copy_(second[:, :, None])
    return y, b, first, second


def values_and_indices(self, x):
    values, indices = x.topk(2, dim=-1)
    values /= values.sum(-1, keepdim=True)
    return values, indices


def indexed_before(self, x):
    y = self.conv(x)
    copy = y[torch.tensor([1, 0])]
    y.relu_()
    return copy, y


def groups_of_one(self, x):
    y = torch.nn.functional.conv2d(x, self.conv.weight, None, 1, 0, 1, 1)
    return y, x + 1


def in_a_child_in_a_tuple(self, x):
    y = self.conv(x)
    return self.child((y, x)) + y


class ReluOfFirst(nn.Module):
    def forward(self, pair):
        return pair[0].relu_()


def in_a_child_and_read(self, x):
    y = self.conv(x)
    part = y[:, :2]
    return self.child(part) + y[:, 2:], y, part


class Relu(nn.Module):
    def forward(self, x):
        return x.relu_() + 1


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3)


@pytest.mark.parametrize(
    ("forward", "children"),
    [
        (written_and_read, {"conv": conv()}),
        (assigned, {}),
        (in_a_child, {"conv": conv(), "child": Relu()}),
        (in_a_child_in_a_tuple, {"conv": conv(), "child": ReluOfFirst()}),
        (in_a_child_and_read, {"conv": conv(), "child": Relu()}),
        (view_read_later, {"conv": conv()}),
        (whole_read_later, {"conv": conv()}),
        (parts_of_parts, {}),
        (values_and_indices, {}),
        (indexed_before, {"conv": conv()}),
        (groups_of_one, {"conv": conv()}),
        (sizes, {}),
        (containers, {}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.parametrize("is_run", [True, False], ids=["by running", "on symbols"])
def test_values_of_the_target_are_those_of_the_model(forward, children, is_run) -> None:
    x = torch.randn(2, 3, 8, 8)
    model = module(forward, **children)
    # On symbols, the graph says the names of the code: a changed tensor has several.
    ir = None if is_run else lg.to_ir(model)
    found, _, _ = ran(model, x.clone(), ir=ir)
    torch.testing.assert_close(found, model(x.clone()), rtol=0, atol=0)


def perhaps_a_copy_read_later(self, x):
    y = self.conv(x)
    part = y.reshape(2, -1)
    y.relu_()
    return part


def state_changes(self, x):
    self.norm.running_mean.add_(1)
    return self.norm(x)


@pytest.mark.parametrize(
    ("forward", "children", "said"),
    [
        (perhaps_a_copy_read_later, {"conv": conv()}, "may share its memory"),
        (state_changes, {"norm": nn.BatchNorm2d(3)}, "norm.running_mean"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_change_that_values_cannot_follow_is_refused(forward, children, said) -> None:
    with pytest.raises(LoweringError, match=said):
        ran(module(forward, **children), torch.randn(2, 3, 8, 8))


def test_a_tensor_of_the_caller_may_be_changed() -> None:
    x = torch.randn(2, 3)
    found, _, _ = ran(module(lambda self, x: x.add_(1) * 2), x.clone())
    assert torch.equal(found, (x + 1) * 2)


def test_composites_are_inlined_in_execution_order_unless_a_handler_names_them() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.ReLU())
    x = torch.randn(3, 2)
    found, backend, _ = ran(model, x)
    assert torch.equal(found, model(x))
    assert backend.said == ["0:_0", "0:_1", "root:_1"]
    whole = Lowering("running", lambda step, backend: Value("whole"), layers=["sequential"])
    rows = [whole, *ROWS_OF_NOTHING]
    assert lower(lg.to_ir(model), Running({}), handlers=rows).value == Value("_1")
    inputs = []
    note = Lowering("running", lambda step, _: inputs.append(step.args) or Value("y"))
    lower(lg.to_ir(model), Running({}), handlers=[whole, note])
    assert inputs == [(Value("whole"),)]


def test_each_call_of_a_shared_layer_is_a_step_with_the_same_keys() -> None:
    keys = []

    def lower_linear(step, backend):
        keys.append((step.path, step.key("weight")))
        return Value("y")

    linear = nn.Linear(2, 2)
    model = nn.Sequential(linear, nn.Sequential(linear))
    rows = [Lowering("running", lower_linear, layers=["linear"])]
    lower(lg.to_ir(model), Running({}), handlers=rows)
    assert keys == [(("_0",), "0.weight"), (("_1", "_0"), "0.weight")]


def decides(self, x):
    return x.log() if (x > 0).all() else x * 2


def test_a_condition_needs_a_target_that_computes_both_ways() -> None:
    model = module(decides)
    with pytest.raises(LoweringError, match="computes no step under a condition"):
        ran(model, torch.ones(2))
    for x in (torch.tensor([1.0, 2.0]), torch.tensor([1.0, -2.0])):
        found, _, _ = ran(model, x, backend=Both)
        assert torch.equal(found, model(x))


def changes_on_one_way(self, x):
    y = x * 2
    part = y[:1]
    if (x > 0).all():
        part.mul_(5)
    return y, part


def test_a_change_under_a_condition_is_made_on_its_way_only() -> None:
    model = module(changes_on_one_way)
    for x in (torch.tensor([1.0, 2.0]), torch.tensor([1.0, -2.0])):
        found, _, _ = ran(model, x, backend=Both)
        torch.testing.assert_close(found, model(x), rtol=0, atol=0)


def test_guards_on_known_sizes_are_checked_and_the_others_are_listed() -> None:
    model = module(lambda self, x: x[:2] if x.shape[0] > 2 else x)
    _, _, lowered = ran(model, torch.randn(3, 2))
    assert lowered.guards == ()
    ir = lg.to_ir(model, (torch.randn(3, 2),))
    (said,) = lower(ir, Running({}), handlers=ROWS_OF_NOTHING).guards
    assert said.startswith("operator.gt(size, 2) is True (")


ROWS_OF_NOTHING = [Lowering("running", lambda step, backend: Value(step.name))]


def test_symbolic_sizes_are_values_and_other_numbers_are_known() -> None:
    seen = {}

    def note(step, backend):
        seen[step.name] = (step.args, step.meta)
        return Value(step.name)

    model = module(lambda self, x: x.view(x.shape[0], x.shape[1] * 2, -1))
    ir = lg.to_ir(model, (torch.randn(2, 3, 4),))
    rows = [Lowering("running", note)]
    lower(ir, Running({}), args=(("batch", 3, 4),), handlers=rows)
    args, meta = seen["view"]
    assert args == (Value("x"), Value("size"), 6, -1)
    assert meta == TensorMeta(("batch", 6, 2), torch.float32)
    assert seen["size"] == ((Value("x"), 0), "batch")


def test_the_tensors_of_a_container_are_inputs_of_their_own() -> None:
    def forward(self, pair, named):
        return pair[0] + pair[1] * named["scale"]

    args = ((torch.ones(2), torch.ones(2)), {"scale": torch.full((2,), 3.0)})
    model = module(forward)
    names = []

    class Named(Running):
        def input(self, name, meta):
            names.append((name, meta.shape))
            return Value(name)

    lower(lg.to_ir(model, args), Named({}), args=args, handlers=ROWS_OF_NOTHING)
    assert names == [("pair_0", (2,)), ("pair_1", (2,)), ("named_scale", (2,))]


def test_all_that_is_lacking_is_listed_with_its_places() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.GELU()), nn.Tanh())
    rows = [
        Lowering("running", lambda step, backend: lg.decline("it is too wide"), layers=["linear"]),
        Lowering("running", lambda step, backend: Value("tanh"), layers=["tanh"]),
    ]
    with pytest.raises(LoweringError) as caught:
        lower(lg.to_ir(model), Running({}), handlers=rows)
    assert [tuple(each) for each in caught.value.lacks] == [
        ("root:_0", "linear", "it is too wide", 0),
        ("1:_1", "gelu", "no handler", 0),
    ]
    assert "root:_0" in str(caught.value)
    lowered = lower(lg.to_ir(model), Running({}), handlers=rows, refuse=False)
    assert lowered.lacks == caught.value.lacks
    assert lowered.value is None


def test_handlers_that_name_a_layer_come_before_those_that_name_none() -> None:
    rows = [
        Lowering("running", lambda step, backend: Value("any")),
        Lowering("running", lambda step, backend: None, layers=["relu"]),
        Lowering("running", lambda step, backend: Value("relu"), layers=["relu"]),
        Lowering("other", lambda step, backend: Value("other"), layers=["relu"]),
    ]
    model = nn.Sequential(nn.ReLU())
    assert lower(lg.to_ir(model), Running({}), handlers=rows).value == Value("relu")
    assert lower(lg.to_ir(nn.Tanh()), Running({}), handlers=rows).value == Value("any")


def test_a_model_that_is_one_layer_is_one_step() -> None:
    linear, x = nn.Linear(2, 3), torch.randn(4, 2)
    ir = lg.to_ir(linear)
    lowered = lower(ir, Running({"input": x}), linear.state_dict(), (x,), handlers=ROWS)
    assert torch.equal(lowered.value.tensor, linear(x))


def test_an_error_of_ours_is_a_reason_and_weights_must_fit() -> None:
    def refuse(step, backend):
        raise ArgumentError("it needs a shape")

    ir = lg.to_ir(nn.Sequential(nn.Linear(2, 3)))
    with pytest.raises(LoweringError, match="root:_0: linear: it needs a shape"):
        lower(ir, Running({}), handlers=[Lowering("running", refuse)])
    with pytest.raises(StateError):
        lower(ir, Running({}), {}, handlers=ROWS_OF_NOTHING)


def test_dropout_is_off_and_batch_norm_uses_its_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9)).train()
    model(torch.randn(8, 3))
    x = torch.randn(8, 3)
    found, _, _ = ran(model, x)
    assert torch.equal(found, model.eval()(x))


def test_the_shape_of_what_one_layer_returns_is_known() -> None:
    seen = []
    note = Lowering("running", lambda step, _: seen.append(step.meta) or Value("y"))
    lower(lg.to_ir(nn.Linear(2, 3)), Running({}), args=((4, 2),), handlers=[note])
    assert seen == [TensorMeta((4, 3), torch.float32)]
