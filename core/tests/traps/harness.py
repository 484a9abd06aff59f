"""Traps, and the comparison of a model with the rebuilt one."""

# The comparison is one long function.
# ruff: noqa: C901

from __future__ import annotations

import builtins
import copy
import math
import pickle
import random
import re
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal


@dataclass
class Trap:
    """A model, the inputs of the capture, the inputs of later calls, and the expected outcome."""

    make: type[nn.Module]
    given: tuple[Any, ...]
    others: list[tuple[Any, ...]]
    expect: str
    values: str = "both"
    kwargs: dict[str, Any] = field(default_factory=dict)
    training: bool = True
    reason: str = ""
    loud: str = ""
    placed: bool = True
    fickle: bool = False
    pickled: bool = True


class Traps(dict[str, Trap]):
    """The traps of one file, by the names of their classes."""

    def draw(self, *shape, **options):
        """Return random numbers that are the same in every process."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(len(self)), **options)

    def exact(self, given=None, others=None, **options):
        """Expect equal results for every call.

        ``pickled`` is False if pickle refuses the original's code: a class that a function makes.
        """
        return lambda cls: self._add(cls, given, others, "exact", **options)

    def assumes(self, given=None, others=None, **options):
        """Expect equal results for calls like that of the capture, and an error for other calls.

        If Python or torch raises the error for inputs that neither takes, ``loud`` matches the
        message. A ``fickle`` model takes another path with another seed or in a second call, so
        that only a call with the seed of the capture is like the capture.
        """
        return lambda cls: self._add(cls, given, others, "assumes", **options)

    def refused(self, reason, given=None, others=None, **options):
        """Expect a refusal of the capture; ``placed``: the error names a line of the trap."""
        return lambda cls: self._add(cls, given, others, "refused", reason=reason, **options)

    def _add(self, cls, given, others, expect, **options):
        given = (self.draw(3, 4),) if given is None else given
        if others is None:
            draw = self.draw
            others = [(draw(5, 4),), (draw(1, 4),), (draw(2, 4) - 3,), (-draw(3, 4),)]
        assert cls.__name__ not in self
        self[cls.__name__] = Trap(cls, given, others, expect, **options)
        return cls


def _fresh(value):
    if isinstance(value, torch.Tensor):
        copied = value.detach().clone(memory_format=torch.preserve_format)
        return copied.requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return type(value)({key: _fresh(each) for key, each in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_fresh, value))
    if isinstance(value, list | tuple):
        return type(value)(map(_fresh, value))
    return value


def _open(value):
    if isinstance(value, dict):
        return {key: _open(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, map(_open, value), strict=True))
    if isinstance(value, list | tuple):
        return [_open(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _open(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def leaves(value):
    return pytree.tree_leaves(_open(value), is_leaf=lambda each: each is None)


def _aliases(tensors):
    """Return which tensors share memory, and which are one object."""
    memory = [each.untyped_storage().data_ptr() if each.numel() else 0 for each in tensors]
    return (
        [memory.index(each) for each in memory],
        [next(i for i, o in enumerate(tensors) if o is each) for each in tensors],
    )


def _seed(seed):
    # torch.manual_seed would seed all devices, which takes longer than a call.
    torch.default_generator.manual_seed(seed)


def observe(model, args, kwargs, *, training, context=nullcontext, again=True):
    """Return everything observable of one call."""
    model.train(training)
    model.zero_grad(set_to_none=True)
    once_more = args, kwargs
    args, kwargs = _fresh(args), _fresh(kwargs)
    _seed(0)
    grad_mode, autocast = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    seen: dict[str, Any] = {}
    raised = None
    try:
        with context():
            result = model(*args, **kwargs)
    except Exception as error:
        raised = error
    modes = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    torch.set_grad_enabled(grad_mode)
    torch.set_autocast_enabled("cpu", autocast)
    if raised is not None:
        return {"raised": raised, "modes": modes}
    seen["modes"] = modes
    seen["random"] = torch.get_rng_state()
    seen["structure"] = pytree.tree_structure(_open(result))
    outputs = leaves(result)
    tensors = [each for each in outputs if isinstance(each, torch.Tensor)]
    inputs = [each for each in leaves([args, kwargs]) if isinstance(each, torch.Tensor)]
    for index, each in enumerate(outputs):
        seen[f"output {index}"] = each.detach().clone() if isinstance(each, torch.Tensor) else each
    seen["needs gradients"] = [each.requires_grad for each in tensors]
    seen["aliases"] = _aliases(inputs + tensors)
    for index, each in enumerate(inputs):
        seen[f"input {index} afterwards"] = each.detach().clone()
    wanting = [each for each in tensors if each.requires_grad]
    if wanting:
        _seed(1)
        try:
            torch.autograd.backward(wanting, [torch.randn_like(each) for each in wanting])
        except RuntimeError as error:
            seen["error of backward"] = str(error).partition(":")[0]
    for index, each in enumerate(inputs):
        seen[f"gradient of input {index}"] = each.grad if each.is_leaf else None
    for name, each in model.named_parameters():
        if ":" not in name:
            seen[f"gradient of {name}"] = each.grad
    for name, each in model.state_dict().items():
        seen[f"state {name}"] = each.clone()
    if again:
        seen |= {
            f"second call: {what}": value
            for what, value in observe(
                model, *once_more, training=training, context=context, again=False
            ).items()
            if what.startswith(("raised", "output", "state"))
        }
    return seen


def _difference(mine, theirs):
    refused = _refusal(mine, theirs)
    if refused:
        return refused
    if mine.keys() != theirs.keys():
        return f"WRONG {mine.keys() ^ theirs.keys()}"
    for what, one in mine.items():
        if not bitwise_equal(one, theirs[what]):
            return f"WRONG {what}: {one} became {theirs[what]}"
    return "same"


def _refusal(mine, theirs):
    if theirs["modes"] != mine["modes"]:
        return f"WRONG modes: {mine['modes']} became {theirs['modes']}"
    if "raised" in theirs:
        error = theirs["raised"]
        if isinstance(error, AssumptionError):
            return f"assumption: {error}"
        if "raised" in mine:
            return "same"
        return f"WRONG ERROR {type(error).__name__}: {str(error).splitlines()[0]}"
    second = "second call: raised"
    if second in theirs and isinstance(theirs[second], AssumptionError):
        return f"assumption: {theirs[second]}"
    if "raised" in mine:
        return f"WRONG the original raises {mine['raised']!r}, the rebuilt does not"
    return ""


def _made(trap):
    _seed(7)
    return trap.make().train(trap.training)


def _members(model):
    return {
        name: (dict(vars(module)), dict(module._parameters), dict(module._buffers))
        for name, module in model.named_modules()
    }


def watched(model, args, kwargs, capture):
    """Capture, and return the side effects of the capture on the model and the process."""
    members = _members(model)
    state = {key: each.clone() for key, each in model.state_dict().items()}
    # A clone of a parameter is a plain tensor.
    found = [each.detach() for each in _constants(model)]
    constants = [(each, each.clone()) for each in found]
    inputs = [each for each in leaves([args, kwargs]) if isinstance(each, torch.Tensor)]
    before = [(each._version, each.detach().clone()) for each in inputs]
    modes = [each.training for each in model.modules()]
    generators = _generators()
    torch_was = _torch_as_seen()
    touched = []
    try:
        result = capture()
    except CaptureError as error:
        result = error
    if _torch_as_seen() != torch_was:
        touched.append("torch")
    if _generators() != generators:
        touched.append("a random number generator")
    if [each.training for each in model.modules()] != modes:
        touched.append("a mode")
    now = _members(model)
    for name, holders in members.items():
        for was, is_now in zip(holders, now[name], strict=True):
            keys = [key for key in was | is_now if was.get(key) is not is_now.get(key)]
            touched += [f"the attribute {key} of {name!r}" for key in keys]
    for key, each in model.state_dict().items():
        if not bitwise_equal(each, state[key]):
            touched.append(f"the state {key}")
    touched += ["a constant" for each, was in constants if not bitwise_equal(each, was)]
    if any(each.grad is not None for each in [*model.parameters(), *inputs]):
        touched.append("a gradient")
    for each, (version, value) in zip(inputs, before, strict=True):
        if each._version != version or not bitwise_equal(each, value):
            touched.append("an input")
    return result, touched


def _constants(model):
    found = [vars(module) for module in model.modules()]
    for each in found:
        if isinstance(each, dict):
            found += [
                value for key, value in each.items() if key not in ("_parameters", "_modules")
            ]
        elif isinstance(each, list | tuple):
            found += each
    return [each for each in found if isinstance(each, torch.Tensor)]


def _generators():
    numpy_state = np.random.get_state()
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        numpy_state[1].tobytes(),
        numpy_state[2],
    )


def _torch_as_seen():
    return (
        nn.Module.__call__,
        nn.Module._call_impl,
        vars(nn.Module).get("training", "nothing"),
        vars(torch.autograd.Function).get("apply", "nothing"),
        vars(torch.autocast)["__enter__"],
        vars(torch.autocast)["__exit__"],
        vars(torch.inference_mode)["__enter__"],
        torch.from_numpy,
        torch.frombuffer,
        torch.is_grad_enabled,
        torch.is_autocast_enabled,
        builtins.range,
        [getattr(math, name) for name in dir(math)],
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_inference_mode_enabled(),
        torch.overrides._get_current_function_mode_stack(),
    )


def check(trap):
    """Check that the rebuilt model is never silently wrong, and that the outcome is expected."""
    outcomes = explore(trap)
    wrong = {where: what for where, what in outcomes.items() if what.startswith("WRONG")}
    assert not wrong
    assumed = [where for where, what in outcomes.items() if what.startswith("assumption")]
    if trap.expect == "refused":
        assert "capture" in outcomes, "captured"
        assert re.search(trap.reason, outcomes["capture"]), outcomes["capture"]
        is_placed = bool(re.search(r"\btest_\w+\.py, line", outcomes["capture"]))
        assert is_placed == trap.placed, outcomes["capture"]
    else:
        assert "capture" not in outcomes, outcomes["capture"]
        assert bool(assumed) == (trap.expect == "assumes"), outcomes
        if not trap.fickle:
            assert not any(where.startswith("given, train, null") for where in assumed), outcomes


def explore(trap):
    """Return the outcome of each situation, or the refusal of the model."""
    with redirect_stdout(StringIO()):
        return _explore(trap)


def _explore(trap):
    model = _made(trap)
    given, kwargs = trap.given, trap.kwargs

    def capture():
        return lg.to_ir(model, given, kwargs, values=trap.values)

    ir, touched = watched(model, given, kwargs, capture)
    outcomes = {f"touched {each}": "WRONG touched" for each in touched}
    if isinstance(ir, CaptureError):
        return outcomes | {"capture": f"refused: {ir}"}
    try:
        if capture() != ir:
            outcomes["again"] = "WRONG captured again it is another graph"
    except Exception as error:
        outcomes["again"] = f"WRONG captured again: {error!r}"
    model = _made(trap)
    assert lg.Ir.from_dict(ir.to_dict()) == ir
    rebuilt = lg.to_torch(lg.Ir.from_dict(ir.to_dict()), model.state_dict())
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    assert [m.training for _, m in _own(rebuilt)] == [m.training for _, m in _own(model)]
    drawn = pytree.tree_map(
        lambda x: (
            torch.randn_like(x).requires_grad_(x.requires_grad)
            if isinstance(x, torch.Tensor) and x.is_floating_point()
            else x
        ),
        given,
    )
    calls = {"given": (given, kwargs), "fresh": (drawn, kwargs)}
    for index, other in enumerate(trap.others):
        is_call = len(other) == 2 and isinstance(other[0], tuple) and isinstance(other[1], dict)
        calls[f"other {index}"] = other if is_call else (other, kwargs)
    for name, (args, named) in calls.items():
        for training in (trap.training, not trap.training):
            for context in (nullcontext, torch.no_grad):
                where = f"{name}, {'train' if training else 'eval'}, {context.__name__}"
                mine = _made(trap)
                rebuilt.load_state_dict(mine.state_dict())
                options = {"training": training, "context": context}
                outcomes[where] = _difference(
                    observe(mine, args, named, **options),
                    observe(rebuilt, args, named, **options),
                )
    rebuilt.load_state_dict(model.state_dict())
    mine = observe(_made(trap), given, kwargs, training=trap.training)
    for name, other in {
        "flat": lambda: lg.to_torch(ir.flatten(), model.state_dict()),
        "pickled": lambda: pickle.loads(pickle.dumps(rebuilt)),
        "copied": lambda: copy.deepcopy(rebuilt),
    }.items():
        try:
            moved = other()
        except Exception as error:
            if name == "pickled" and not trap.pickled:
                continue
            outcomes[name] = f"WRONG {name}: {type(error).__name__}: {error}"
            continue
        theirs = observe(moved, given, kwargs, training=trap.training)
        outcomes[name] = _difference(mine, theirs)
    return {where: _heard(trap, outcome) for where, outcome in outcomes.items()}


def _heard(trap, outcome):
    is_loud = trap.loud and outcome.startswith("WRONG ERROR") and re.search(trap.loud, outcome)
    return f"assumption: {outcome}" if is_loud else outcome


def _own(model):
    return [(name, each) for name, each in model.named_modules() if ":" not in name]


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
