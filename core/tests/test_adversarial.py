"""A trap a class: what is captured by running comes back bit for bit, or is refused."""

# What the linter would have written otherwise are the traps; what is compared is a long list.
# ruff: noqa: C901, RET501, RET504, RUF005, RUF017, SIM300, TRY301, UP031, UP032

from __future__ import annotations

import builtins
import copy
import enum
import math
import os
import pickle
import random
import re
import threading
import time
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache, partial, reduce
from io import StringIO
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError, LayergraphError

# --- what is compared ---


@dataclass
class Trap:
    """A model, what it is captured with, what else it is called with, and what is to happen."""

    make: Callable[[], nn.Module]
    given: tuple[Any, ...]
    others: list[tuple[Any, ...]]
    kwargs: dict[str, Any]
    expect: str
    values: str
    training: bool
    reason: str = ""
    loud: str = ""


TRAPS: dict[str, Trap] = {}


def _draw(*shape, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(TRAPS)), **options)


def _register(cls, given, others, expect, values, kwargs, training, reason="", loud=""):
    given = (_draw(3, 4),) if given is None else given
    if others is None:
        others = [(_draw(5, 4),), (_draw(1, 4),), (_draw(2, 4) - 3,), (-_draw(3, 4),)]
    assert cls.__name__ not in TRAPS
    TRAPS[cls.__name__] = Trap(
        cls, given, others, kwargs or {}, expect, values, training, reason, loud
    )
    return cls


def exact(given=None, others=None, values="refuse", kwargs=None, training=True):
    """The rebuilt model does the same, whatever it is called with."""
    return lambda cls: _register(cls, given, others, "exact", values, kwargs, training)


def assumes(given=None, others=None, values="refuse", kwargs=None, training=True, loud=""):
    """It does the same where it was captured, and says so where something else is needed.

    Python or torch may say so as well, where the rebuilt model is given what neither can take: then
    ``loud`` is how that sounds.
    """
    return lambda cls: _register(cls, given, others, "assumes", values, kwargs, training, loud=loud)


def refused(reason, given=None, others=None, values="refuse", kwargs=None, training=True):
    """It is not captured."""
    return lambda cls: _register(cls, given, others, "refused", values, kwargs, training, reason)


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


def _leaves(value):
    return pytree.tree_leaves(_open(value), is_leaf=lambda each: each is None)


def _alike(one, other):
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        one, other = one.detach(), other.detach()
        return (
            one.dtype is other.dtype
            and one.device == other.device
            and one.shape == other.shape
            and one.stride() == other.stride()
            and (one.is_meta or torch.equal(one.isnan(), other.isnan()))
            and (one.is_meta or torch.equal(one.nan_to_num(), other.nan_to_num()))
        )
    return type(one) is type(other) and (one == other or one != one)


def _aliases(tensors):
    """Which of them lie in one memory, and which are one object."""
    memory = [each.untyped_storage().data_ptr() if each.numel() else 0 for each in tensors]
    return (
        [memory.index(each) for each in memory],
        [next(i for i, o in enumerate(tensors) if o is each) for each in tensors],
    )


def _seed(seed):
    # That of torch tells all devices, which takes longer than a call.
    torch.default_generator.manual_seed(seed)


def observe(model, args, kwargs, *, training, context=nullcontext, again=True):
    """Everything that can be seen of one call."""
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
    outputs = _leaves(result)
    tensors = [each for each in outputs if isinstance(each, torch.Tensor)]
    inputs = [each for each in _leaves([args, kwargs]) if isinstance(each, torch.Tensor)]
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
        if not _alike(one, theirs[what]):
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


def _touched(model, args, kwargs, capture):
    """Capture, and say what else than the caller of it would notice."""
    members = _members(model)
    state = {key: each.clone() for key, each in model.state_dict().items()}
    constants = {id(each): (each, each.clone()) for each in _constants(model)}
    inputs = [each for each in _leaves([args, kwargs]) if isinstance(each, torch.Tensor)]
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
        if not _alike(each, state[key]):
            touched.append(f"the state {key}")
    touched += ["a constant" for each, was in constants.values() if not _alike(each, was)]
    if any(each.grad is not None for each in [*model.parameters(), *inputs]):
        touched.append("a gradient")
    for each, (version, value) in zip(inputs, before, strict=True):
        if each._version != version or not _alike(each, value):
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


def explore(trap):
    """What happens in each situation; or that the model is refused."""
    with redirect_stdout(StringIO()):
        return _explore(trap)


def _explore(trap):
    model = _made(trap)
    given, kwargs = trap.given, trap.kwargs

    def capture():
        return lg.to_ir(model, given, kwargs, values=trap.values)

    ir, touched = _touched(model, given, kwargs, capture)
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


# --- sizes ---


@assumes()
class LoopOverRange(Base):
    def forward(self, x):
        for _ in range(x.shape[0]):
            x = self.lin(x)
        return x


@assumes()
class LoopOverLen(Base):
    def forward(self, x):
        for i in range(len(x)):
            x = x + self.lin(x) * i
        return x


@assumes()
class LoopOverTensor(Base):
    def forward(self, x):
        return torch.stack([self.lin(row) for row in x])


@assumes()
class LoopOverEnumerate(Base):
    def forward(self, x):
        out = 0
        for i, row in enumerate(x.t()[0]):
            out = out + self.lin(x).sum() * row * i
        return out


@assumes()
class LoopOverZip(Base):
    def forward(self, x):
        return sum(a * b for a, b in zip(x, self.lin(x), strict=True))


@assumes()
class ListTimesSize(Base):
    def forward(self, x):
        return torch.cat([self.lin(x)] * x.shape[0])


@assumes()
class SizeTimesList(Base):
    def forward(self, x):
        return torch.cat(x.shape[0] * [self.lin(x)])


@assumes()
class ListTimesEqualsSize(Base):
    def forward(self, x):
        parts = [self.lin(x)]
        parts *= x.shape[0]
        return torch.cat(parts)


@assumes()
class StringTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * len("a" * x.shape[0])


@assumes()
class IndexesAList(Base):
    def forward(self, x):
        return self.lin(x) * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0][x.shape[0]]


@assumes()
class IndexesARange(Base):
    def forward(self, x):
        return self.lin(x) * range(10)[x.shape[0]]


@assumes()
class SlicesAList(Base):
    def forward(self, x):
        return self.lin(x) * sum([1.0, 2.0, 3.0, 4.0, 5.0, 6.0][: x.shape[0]])


@assumes()
class SlicesATuple(Base):
    def forward(self, x):
        return self.lin(x) * sum((1.0, 2.0, 3.0, 4.0, 5.0)[-x.shape[0] :])


@assumes()
class SlicesAString(Base):
    def forward(self, x):
        return self.lin(x) * len("abcdefgh"[: x.shape[0]])


@assumes()
class SlicesARange(Base):
    def forward(self, x):
        return self.lin(x) * sum(range(10)[: x.shape[0]])


@assumes()
class SlicesModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(6)])

    def forward(self, x):
        n = x.shape[0]
        for layer in self.layers[:n]:
            x = layer(x)
        return x


@assumes()
class IndexesModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(6)])

    def forward(self, x):
        return self.layers[x.shape[0]](x)


@assumes()
class SequentialSlice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(4, 4) for _ in range(6)])

    def forward(self, x):
        return self.layers[: x.shape[0]](x)


@assumes()
class ShapeNumel(Base):
    def forward(self, x):
        return self.lin(x) * x.shape.numel()


@exact()
class MathProd(Base):
    def forward(self, x):
        return self.lin(x) * math.prod(x.shape)


@assumes()
class NumpyProd(Base):
    def forward(self, x):
        return self.lin(x) * int(np.prod(x.shape))


@assumes()
class NumpyProdOfSize(Base):
    def forward(self, x):
        return self.lin(x).reshape(int(np.prod(list(x.size()))))


@assumes()
class NumpyArrayOfSizes(Base):
    def forward(self, x):
        return self.lin(x) * float(np.array(x.shape).sum())


@exact()
class NumpySqrt(Base):
    def forward(self, x):
        return self.lin(x) / np.sqrt(x.shape[0])


@assumes()
class NumpyArangeOfSize(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(np.arange(x.shape[0]).tolist()).unsqueeze(1)


@assumes()
class NumpyInt(Base):
    def forward(self, x):
        return self.lin(x) * int(np.int64(x.shape[0]))


@assumes()
class NumpyFloat32(Base):
    def forward(self, x):
        return self.lin(x) * float(np.float32(x.shape[0]) * np.float32(0.1))


@exact()
class NumpyScalarTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (np.float64(0.5) * x.shape[0])


@exact()
class SizeTimesNumpyScalar(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * np.float32(0.1))


@exact()
class SizeTimesNumpyInt(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * np.int32(3))


@exact()
class NumpyArrayTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (np.array([1.0, 2.0]) * x.shape[0]).sum()


@exact()
class MathSqrt(Base):
    def forward(self, x):
        return self.lin(x) / math.sqrt(x.shape[0])


@exact()
class ImportedSqrt(Base):
    def forward(self, x):
        return self.lin(x) / sqrt(x.shape[0])


_log2, _ceil, _floor = math.log2, math.ceil, math.floor


@exact()
class AliasedLog(Base):
    def forward(self, x):
        return self.lin(x) * _log2(x.shape[0] + 1)


@exact()
class MathOfAllKinds(Base):
    def forward(self, x):
        n = x.shape[0]
        y = self.lin(x)
        y = y * math.log(n + 1) + math.ceil(n / 2) + math.floor(n / 2) + math.exp(-n)
        y = y * math.pow(n, 0.5) + math.gcd(n, 4) + math.isqrt(n) + math.trunc(n / 3)
        return y


@assumes()
class MathTanhSin(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * math.sin(n) + math.tanh(n) + math.cos(n / 2) + math.atan2(n, 2)


@assumes()
class MathOthers(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * math.comb(n, 1) + math.factorial(n) + math.lcm(n, 4) + math.hypot(n, 1)


@assumes()
class MathFsum(Base):
    def forward(self, x):
        return (
            self.lin(x) * math.fsum(x.shape)
            + math.fmod(x.shape[0], 2)
            + math.dist([x.shape[0]], [1])
        )


@assumes()
class MathIsclose(Base):
    def forward(self, x):
        return self.lin(x) if math.isclose(x.shape[0], 3) else x


@refused("ldexp")
class MathCopysign(Base):
    def forward(self, x):
        return self.lin(x) * math.copysign(x.shape[0] / 2, -1) + math.ldexp(1.0, x.shape[0])


@assumes()
class MathFrexp(Base):
    def forward(self, x):
        mantissa, exponent = math.frexp(x.shape[0])
        return self.lin(x) * mantissa + exponent + math.modf(x.shape[0] / 2)[0]


@assumes()
class IntOfHalf(Base):
    def forward(self, x):
        return self.lin(x) * int(x.shape[0] / 2)


@exact()
class Arithmetic(Base):
    def forward(self, x):
        n = x.shape[0]
        y = self.lin(x) * n**0.5 + n // 2 - n % 2 + -n + abs(-n) + 2**n + (n << 1) + (n >> 1)
        return y + (n & 1) + (n | 1) + (n ^ 1) + ~n + +n + 1 / n + 7 // n + 7 % n + n**2


@exact()
class Divmod(Base):
    def forward(self, x):
        a, b = divmod(x.shape[0], 2)
        c, d = divmod(7, x.shape[0])
        return self.lin(x) * a + b + c + d


@exact()
class Rounds(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * round(n / 2) + round(n / 3, 1) + round(n, -1)


@assumes()
class MinMax(Base):
    def forward(self, x):
        return self.lin(x) * min(x.shape[0], 3) + max(2, x.shape[0])


@assumes()
class MaxOfShape(Base):
    def forward(self, x):
        return self.lin(x) * max(x.shape)


@exact()
class SumOfShape(Base):
    def forward(self, x):
        return self.lin(x) * sum(x.shape)


@assumes()
class SortedShape(Base):
    def forward(self, x):
        return self.lin(x) * sorted(x.shape)[0]


@assumes()
class FormatsKey(Base):
    def __init__(self):
        super().__init__()
        self.table = {f"size_{i}": float(i * i) for i in range(9)}

    def forward(self, x):
        return self.lin(x) * self.table[f"size_{x.shape[0]}"]


@assumes()
class PercentFormats(Base):
    def forward(self, x):
        return self.lin(x) * len("%d" % (10 ** x.shape[0]))


@assumes()
class PercentFormatsOne(Base):
    def forward(self, x):
        return self.lin(x) * float("%i" % x.shape[0])


@assumes()
class PercentFormatsFloat(Base):
    def forward(self, x):
        return self.lin(x) * float("%.2f" % (x.shape[0] / 3))


@assumes()
class PercentFormatsIntAsFloat(Base):
    def forward(self, x):
        return self.lin(x) * float("%f" % x.shape[0])


@assumes()
class FormatMethod(Base):
    def forward(self, x):
        return self.lin(x) * float("{:03d}".format(x.shape[0]))


@assumes()
class FormatBuiltin(Base):
    def forward(self, x):
        return self.lin(x) * float(format(x.shape[0], "d"))


@assumes()
class HexChrBin(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * int(hex(n), 16) + ord(chr(n)) + int(bin(n), 2) + int(oct(n), 8)


@assumes()
class DictBySize(Base):
    def __init__(self):
        super().__init__()
        self.table = {i: float(i * i) for i in range(9)}

    def forward(self, x):
        return self.lin(x) * self.table[x.shape[0]]


@assumes()
class DictGetBySize(Base):
    def forward(self, x):
        return self.lin(x) * {3: 2.0, 4: 5.0}.get(x.shape[0], 1.0)


@assumes()
class DictOfSizes(Base):
    def forward(self, x):
        return self.lin(x) * {x.shape[0]: 2.0}.get(3, 1.0)


@assumes()
class SetOfSizes(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if x.shape[0] in {3, 4} else 1.0)


@assumes()
class InListOfSizes(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if x.shape[0] in [7, 3] else 1.0)


@assumes()
class InRange(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if x.shape[0] in range(2, 4) else 1.0)


@assumes()
class InShape(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if 5 in x.shape else 1.0)


@exact()
class ShapeIndex(Base):
    def forward(self, x):
        return self.lin(x) * x.shape.index(4) + x.shape.count(4)


@assumes()
class ListIndexOfSize(Base):
    def forward(self, x):
        return self.lin(x) * [1, 2, 5, 3].index(x.shape[0])


@assumes()
class LenOfUniqueSizes(Base):
    def forward(self, x):
        return self.lin(x) * len(set(x.shape))


@lru_cache
def _cached(n):
    return n * 2.0


@exact()
class LruCache(Base):
    def forward(self, x):
        return self.lin(x) * _cached(x.shape[0])


@lru_cache
def _positions(n):
    return torch.arange(n, dtype=torch.float32).unsqueeze(1)


@exact()
class LruCacheOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * _positions(x.shape[0])


@lru_cache
def _untraced_positions(n):
    return torch.arange(int(n), dtype=torch.float32).unsqueeze(1)


_untraced_positions(3)


@assumes()
class LruCacheOfTensorFilledBefore(Base):
    def forward(self, x):
        return self.lin(x) * _untraced_positions(x.shape[0])


@assumes(others=[(torch.randn(0, 4),)])
class Truth(Base):
    def forward(self, x):
        return self.lin(x) if x.shape[0] else x


@assumes(others=[(torch.randn(0, 4),)])
class Not(Base):
    def forward(self, x):
        return x if not x.shape[0] else self.lin(x)


@assumes(others=[(torch.randn(0, 4),)])
class AllOfShape(Base):
    def forward(self, x):
        return self.lin(x) if all(x.shape) else x - 1


@assumes(others=[(torch.randn(0, 4),)])
class OrDefault(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] or 5)


@assumes((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(3, 4), torch.randn(1, 4))])
class EqualSizes(Base):
    def forward(self, x, y):
        return self.lin(x) + y if x.shape[0] == y.shape[0] else self.lin(x) - y


@assumes((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(3, 4), torch.randn(1, 4))])
class EqualShapes(Base):
    def forward(self, x, y):
        return self.lin(x) + y if x.size() == y.size() else self.lin(x) - y


@assumes((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(3, 4), torch.randn(1, 4))])
class UnequalShapes(Base):
    def forward(self, x, y):
        return self.lin(x) - y if x.shape != y.shape else self.lin(x) + y


@assumes((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(3, 4), torch.randn(1, 4))])
class EqualSlicesOfShapes(Base):
    def forward(self, x, y):
        return self.lin(x) + y if x.shape[:1] == y.shape[:1] else self.lin(x) - y


@assumes()
class ShapeEqualsTuple(Base):
    def forward(self, x):
        return self.lin(x) if x.shape == (3, 4) else x - 1


@assumes()
class ShapeUnequalTuple(Base):
    def forward(self, x):
        return self.lin(x) if x.shape != (5, 4) else x - 1


@assumes()
class ShapeEqualsShape(Base):
    def forward(self, x):
        return self.lin(x) if x.shape == torch.Size([3, 4]) else x - 1


@assumes()
class ShapeLess(Base):
    def forward(self, x):
        return self.lin(x) if x.shape < (4, 4) else x - 1


@assumes()
class ShapeAsKey(Base):
    def forward(self, x):
        return self.lin(x) * {(3, 4): 2.0}.get(tuple(x.shape), 1.0)


@assumes()
class SizeAsKey(Base):
    def forward(self, x):
        return self.lin(x) * {torch.Size([3, 4]): 2.0}.get(x.shape, 1.0)


@assumes()
class ShapeInList(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if x.shape in [(3, 4)] else 1.0)


@assumes()
class ShapeMatches(Base):
    def forward(self, x):
        match tuple(x.shape):
            case (3, _):
                return self.lin(x)
            case (n, 4):
                return x - n
        return x


@assumes()
class SizeMatches(Base):
    def forward(self, x):
        match x.shape[0]:
            case 3:
                return self.lin(x)
            case _:
                return x


@assumes()
class ChunksByConstant(Base):
    def forward(self, x):
        return sum(part.sum() * i for i, part in enumerate(self.lin(x).chunk(3)))


@assumes()
class ChunksBySize(Base):
    def forward(self, x):
        return [part.sum() for part in self.lin(x).t().chunk(x.shape[0])]


@assumes()
class SplitsByConstant(Base):
    def forward(self, x):
        parts = self.lin(x).split(2)
        return parts[-1], len(parts)


@assumes()
class SplitsLast(Base):
    def forward(self, x):
        return self.lin(x).split(2)[-1]


@assumes()
class SplitsReversed(Base):
    def forward(self, x):
        return torch.cat(self.lin(x).split(1)[::-1])


@assumes()
class TorchSplitDim(Base):
    def forward(self, x):
        first, *rest = torch.split(self.lin(x), 2, dim=0)
        return first, rest


@exact()
class SplitWithSizes(Base):
    def forward(self, x):
        n = x.shape[0]
        a, b = self.lin(x).split([1, n - 1])
        return a, b


@exact()
class VSplit(Base):
    def forward(self, x):
        return torch.vsplit(self.lin(x), [2])[1]


@exact()
class ArraySplit(Base):
    def forward(self, x):
        return torch.tensor_split(self.lin(x), 2)[0]


@assumes((torch.randn(2, 4),), [(torch.randn(3, 4),)])
class Unpacks(Base):
    def forward(self, x):
        a, b = self.lin(x)
        return a - b


@assumes((torch.randn(2, 4),), [(torch.randn(3, 4),)])
class UnpacksWithStar(Base):
    def forward(self, x):
        a, *b = self.lin(x)
        return a, b


@assumes()
class CallsWithStar(Base):
    def forward(self, x):
        return torch.stack([*self.lin(x)])


@assumes()
class ListOfTensor(Base):
    def forward(self, x):
        return list(self.lin(x))[-1]


@assumes()
class ReversedTensor(Base):
    def forward(self, x):
        return torch.stack(list(reversed(self.lin(x))))


@assumes()
class UnbindLast(Base):
    def forward(self, x):
        return self.lin(x).unbind(0)[-1]


@assumes()
class MapsOverTensor(Base):
    def forward(self, x):
        return reduce(torch.add, map(self.lin, x))


@assumes()
class NextOfTensor(Base):
    def forward(self, x):
        return next(iter(self.lin(x)))


@exact()
class SizeArithmetic(Base):
    def forward(self, x):
        shape = x.shape[:-1] + (2, 2)
        y = self.lin(x).view(shape)
        return (
            y.view(*x.shape[:-1], -1).view((*x.shape[:1], 4)).reshape(torch.Size([x.shape[0], 4]))
        )


@exact()
class ShapeTimesTwo(Base):
    def forward(self, x):
        return torch.ones((x.shape * 2)[:3]).sum() * self.lin(x)


@exact()
class ShapeAsList(Base):
    def forward(self, x):
        shape = list(x.shape)
        shape[-1] = 2
        shape.insert(1, 2)
        return self.lin(x).view(shape)


@exact()
class Numel(Base):
    def forward(self, x):
        return self.lin(x).view(x.numel() // 4, 4) * x.nelement() + torch.numel(x)


@exact()
class Strided(Base):
    def forward(self, x):
        y = self.lin(x)
        return y.as_strided((y.shape[0], 2), (y.stride(0), 2)) * y.stride()[0]


@exact()
class StridedTorch(Base):
    def forward(self, x):
        y = self.lin(x)
        return torch.as_strided(y, y.size(), y.stride(), y.storage_offset())


@exact()
class StrideOfTransposed(Base):
    def forward(self, x):
        y = self.lin(x).t().contiguous()
        return y * y.stride(0)


@assumes()
class StorageOffset(Base):
    def forward(self, x):
        return self.lin(x) * x[-1].storage_offset()


@assumes((torch.randn(3, 4),), [(torch.randn(4, 3).t(),)])
class IsContiguous(Base):
    def forward(self, x):
        return self.lin(x) if x.is_contiguous() else x - 1


@exact()
class KeepsSize(Base):
    def forward(self, x):
        self.n = x.shape[0]
        return self.lin(x) * self.n


class ScalesBy(nn.Module):
    def forward(self, x, n):
        return x * n


class ViewsAs(nn.Module):
    def forward(self, x, *, shape):
        return x.view(*shape, 2, 2)


@exact()
class PassesSizes(Base):
    def __init__(self):
        super().__init__()
        self.scale = ScalesBy()
        self.view = ViewsAs()

    def forward(self, x):
        n = x.shape[0]
        y = self.scale(self.lin(x), n)
        y = self.scale(y, n + 1)
        y = self.scale(y, 3)
        return self.view(y, shape=x.shape[:1])


class Chooses(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, n):
        return self.lin(x) if n > 2 else x


@assumes()
class BranchInSubmodule(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = Chooses()

    def forward(self, x):
        return self.one(x, x.shape[0]) + self.one(x, 5) + self.one(x, x.shape[0] + 1)


@exact()
class ReturnsSizes(Base):
    def forward(self, x):
        return (
            self.lin(x),
            x.shape[0],
            x.shape,
            [x.numel()],
            {"n": x.size(0) * 2, "f": x.size(0) / 2},
        )


@exact()
class OnlySizes(nn.Module):
    def forward(self, x):
        return x.shape[0] + 1


class GivesSize(nn.Module):
    def forward(self, x):
        return x.shape[0], x.shape[1]


@exact()
class SizeFromSubmodule(Base):
    def __init__(self):
        super().__init__()
        self.size = GivesSize()

    def forward(self, x):
        n, m = self.size(x)
        return self.lin(x).view(n, 2, m // 2) * n


@exact()
class TensorOfSize(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor([x.shape[0]]) + torch.tensor(x.shape[0])


@exact()
class TensorOfShape(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(x.shape).sum() + torch.as_tensor(x.shape[0])


@refused("as it is given here")
class OldTensorOfSize(Base):
    def forward(self, x):
        return self.lin(x) * torch.Tensor([x.shape[0]])


@refused("as it is given here")
class LongTensorOfSize(Base):
    def forward(self, x):
        return self.lin(x) * torch.LongTensor([x.shape[0], 2]).sum()


@refused("as it is given here")
class OldTensorByShape(Base):
    def forward(self, x):
        return self.lin(x) * torch.Tensor(x.shape[0], 1).fill_(2.0)


@exact()
class NewTensorOfSize(Base):
    def forward(self, x):
        return self.lin(x) * x.new_tensor([x.shape[0]]) + x.new_full((1,), x.shape[0])


@exact()
class OldNew(Base):
    def forward(self, x):
        return self.lin(x) * x.new([x.shape[0]]) + x.new(x.shape[0], 4).zero_()


@refused("from_numpy")
class FromNumpy(Base):
    def forward(self, x):
        return self.lin(x) * torch.from_numpy(np.arange(x.shape[0])).unsqueeze(1)


_from_numpy = torch.from_numpy


@refused("from_numpy|does not see")
class FromNumpyImportedBefore(Base):
    def forward(self, x):
        return self.lin(x) * _from_numpy(np.arange(x.shape[0])).unsqueeze(1)


@refused("ndarray|does not see")
class AsTensorOfNumpy(Base):
    def forward(self, x):
        return self.lin(x) * torch.as_tensor(np.arange(x.shape[0])).unsqueeze(1)


@refused("ndarray|does not see")
class TensorOfNumpy(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(np.arange(x.shape[0])).unsqueeze(1)


@refused("ndarray|does not see")
class TensorOfNumpyZeros(Base):
    def forward(self, x):
        return self.lin(x) + torch.tensor(np.ones((x.shape[0], 4)), dtype=torch.float32)


@refused("ndarray|does not see")
class OldTensorOfNumpy(Base):
    def forward(self, x):
        return self.lin(x) + torch.FloatTensor(np.ones((x.shape[0], 4)))


@exact()
class RandomMask(Base):
    def forward(self, x):
        n = x.shape[0]
        mask = torch.rand(n) < 0.5
        return self.lin(x) * mask.unsqueeze(1) + torch.bernoulli(torch.full((n, 1), 0.5))


@refused("assigns self.cache|does not see|key")
class CachesPositions(Base):
    def __init__(self):
        super().__init__()
        self.cache = None

    def forward(self, x):
        if self.cache is None or self.cache.shape[0] != x.shape[0]:
            self.cache = torch.arange(x.shape[0]).float().unsqueeze(1)
        return self.lin(x) * self.cache


@refused("assigns self.cache")
class CachesInDict(Base):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        n = x.shape[0]
        if n not in self.cache:
            self.cache[n] = torch.arange(n).float().unsqueeze(1)
        return self.lin(x) * self.cache[n]


@refused("assigns self.cache")
class CachesOneInDict(Base):
    """The cache ignores the size, so that the second call is another one than the first."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        if "ones" not in self.cache:
            self.cache["ones"] = torch.ones(4) * x.mean()
        return self.lin(x) * self.cache["ones"]


@exact()
class Closure(Base):
    def __init__(self):
        super().__init__()
        self.apply_ = Applies()

    def forward(self, x):
        n = x.shape[0]
        return self.apply_(self.lin(x), lambda y: y.view(n, 2, 2) * (n + 1) + x.sum())


class Applies(nn.Module):
    def forward(self, x, function):
        return function(x) * 2


@exact()
class BroadcastShapes(Base):
    def forward(self, x):
        shape = torch.broadcast_shapes(x.shape, (1, 4))
        return self.lin(x).expand(shape) + torch.zeros(shape)


@exact()
class SizeByName(Base):
    def forward(self, x):
        return self.lin(x) * x.size(dim=0) + x.size(-2) + x.stride(dim=0)


@exact()
class FullOfSize(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) + torch.full((n, 4), n / 7) + torch.arange(n).unsqueeze(1)


@exact()
class Linspace(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) + torch.linspace(0, n, n).unsqueeze(1) + torch.eye(n, 4)


@exact()
class SlicesBySize(Base):
    def forward(self, x):
        n = x.shape[0] // 2
        y = self.lin(x)
        return y[:n], y[n:], y[-n:], y[n - 1], y[..., : n + 1], y[n:, None]


@exact()
class NarrowsRolls(Base):
    def forward(self, x):
        n = x.shape[0]
        y = self.lin(x)
        return y.narrow(0, n - 1, 1), y.roll(n // 2, 0), y.select(0, n - 1), y.repeat(n, 1)


@exact()
class BoolArithmetic(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * True) + (True + x.shape[0])


@assumes()
class ComparisonArithmetic(Base):
    def forward(self, x):
        return self.lin(x) * ((x.shape[0] > 2) + 1)


@assumes()
class ComplexArithmetic(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * 1j).imag


@assumes()
class ComplexOf(Base):
    def forward(self, x):
        return self.lin(x) * complex(x.shape[0], 1).real


@assumes()
class FloatOf(Base):
    def forward(self, x):
        return self.lin(x) * float(x.shape[0])


@assumes()
class IntOf(Base):
    def forward(self, x):
        return self.lin(x) * int(x.shape[0])


@assumes()
class BytesOf(Base):
    def forward(self, x):
        return self.lin(x) * len(bytes(x.shape[0])) + len(bytearray(x.shape[0]))


@assumes()
class RealAndImag(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * n.real + n.numerator + n.conjugate()


@assumes()
class OfFloat(Base):
    def forward(self, x):
        n = x.shape[0] / 1
        return self.lin(x) * n.real + n.conjugate() + n.imag


@refused("__add__")
class IntPower(Base):
    def forward(self, x):
        return self.lin(x) * pow(x.shape[0], 2, 5) + pow(2, x.shape[0]) + int.__add__(x.shape[0], 1)


@assumes()
class FractionOf(Base):
    def forward(self, x):
        from fractions import Fraction

        return self.lin(x) * float(Fraction(x.shape[0], 2) + 1)


@assumes()
class FractionTimes(Base):
    def forward(self, x):
        from fractions import Fraction

        return self.lin(x) * float(Fraction(1, 2) * x.shape[0])


@refused("Decimal")
class DecimalOf(Base):
    def forward(self, x):
        from decimal import Decimal

        return self.lin(x) * float(Decimal(x.shape[0]) / 2)


@refused("TracedInt")
class Statistics(Base):
    def forward(self, x):
        import statistics

        return self.lin(x) * statistics.mean(x.shape)


@assumes()
class Itertools(Base):
    def forward(self, x):
        import itertools

        items = list(itertools.islice(itertools.count(), x.shape[0]))
        return self.lin(x) * sum(items)


@assumes()
class ItertoolsRepeat(Base):
    def forward(self, x):
        import itertools

        for _ in itertools.repeat(None, x.shape[0]):
            x = self.lin(x)
        return x


@assumes()
class ItertoolsCombinations(Base):
    def forward(self, x):
        import itertools

        return self.lin(x) * len(list(itertools.combinations([1, 2, 3, 4, 5, 6], x.shape[0])))


@assumes()
class RepeatsProduct(Base):
    def forward(self, x):
        import itertools

        return self.lin(x) * len(list(itertools.product([1, 2], repeat=x.shape[0])))


@refused("integer is required")
class Deque(Base):
    def forward(self, x):
        from collections import deque

        return self.lin(x) * sum(deque([1, 2, 3, 4, 5, 6], maxlen=x.shape[0]))


@assumes()
class Padded(Base):
    def forward(self, x):
        return self.lin(x) * len("ab".ljust(x.shape[0])) + len("1".zfill(x.shape[0]))


@assumes()
class RangeOfNumpy(Base):
    def forward(self, x):
        for i in np.arange(x.shape[0]):
            x = self.lin(x) + int(i)
        return x


@assumes()
class BisectOf(Base):
    def forward(self, x):
        import bisect

        return self.lin(x) * bisect.bisect_left([1, 2, 3, 4, 6], x.shape[0])


@assumes()
class WhileOverSize(Base):
    def forward(self, x):
        n = x.shape[0]
        while n > 0:
            x = self.lin(x)
            n -= 1
        return x


@assumes()
class ChainedComparison(Base):
    def forward(self, x):
        return self.lin(x) if 2 < x.shape[0] <= 4 else x


@exact()
class IsSize(Base):
    def forward(self, x):
        return self.lin(x) if x.shape[0] is not None and isinstance(x.shape[0], int) else x


@assumes()
class DoublesRange(Base):
    def forward(self, x):
        return self.lin(x) * sum(range(0, x.shape[0], 2)) + len(range(x.shape[0] // 2))


_range = range


@assumes()
class AliasedRange(Base):
    def forward(self, x):
        for _ in _range(x.shape[0]):
            x = self.lin(x)
        return x


def _defaulted(n, range=range):
    return sum(range(n))


@assumes()
class RangeAsDefault(Base):
    def forward(self, x):
        return self.lin(x) * _defaulted(x.shape[0])


@assumes()
class Struct(Base):
    def forward(self, x):
        import struct

        return self.lin(x) * struct.unpack("i", struct.pack("i", x.shape[0]))[0]


@refused("not JSON serializable")
class Json(Base):
    def forward(self, x):
        import json

        return self.lin(x) * json.loads(json.dumps([x.shape[0]]))[0]


@assumes()
class CopiedSize(Base):
    def forward(self, x):
        n = copy.deepcopy(x.shape[0])
        return self.lin(x) * n + pickle.loads(pickle.dumps(x.shape[0]))


@assumes()
class ArrayModule(Base):
    def forward(self, x):
        import array

        return self.lin(x) * array.array("i", [x.shape[0]])[0]


@assumes()
class OperatorIndex(Base):
    def forward(self, x):
        import operator

        return self.lin(x) * operator.index(x.shape[0])


@exact()
class SumStartsAtSize(Base):
    def forward(self, x):
        return self.lin(x) * sum([1, 2], x.shape[0])


@assumes()
class AnyOfSizes(Base):
    def forward(self, x):
        return self.lin(x) if any(n == 3 for n in x.shape) else x


@exact((torch.randn(2, 6, 4),), [(torch.randn(3, 5, 4),), (torch.randn(1, 1, 4),)])
class Attention(Base):
    def forward(self, x):
        b, t, c = x.shape
        q = self.lin(x).view(b, t, 2, c // 2).transpose(1, 2)
        mask = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
        weights = (q @ q.transpose(-2, -1)) * (1.0 / math.sqrt(q.size(-1)))
        weights = weights.masked_fill(~mask[:t, :t], float("-inf")).softmax(-1)
        return (weights @ q).transpose(1, 2).contiguous().view(b, t, c)


@exact((torch.randn(2, 6, 4),), [(torch.randn(3, 5, 4),)])
class CausalBuffer(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer(
            "mask", torch.tril(torch.ones(16, 16)).view(1, 16, 16), persistent=False
        )
        self.position = nn.Embedding(16, 4)

    def forward(self, x):
        t = x.size(1)
        x = x + self.position(torch.arange(0, t, dtype=torch.long, device=x.device))
        return self.mask[:, :t, :t].float() @ self.lin(x)


@assumes((torch.randn(1, 2, 7, 7),), [(torch.randn(1, 2, 8, 8),), (torch.randn(2, 2, 6, 7),)])
class PadsToEven(nn.Module):
    def forward(self, x):
        h, w = x.shape[-2:]
        if h % 2 or w % 2:
            x = F.pad(x, (0, w % 2, 0, h % 2))
        return F.avg_pool2d(x, 2)


@exact((torch.randn(1, 2, 7, 7),), [(torch.randn(1, 2, 8, 9),)])
class Interpolates(nn.Module):
    def forward(self, x):
        h, w = x.shape[-2:]
        y = F.interpolate(x, size=(h * 2, w + 1), mode="bilinear")
        return F.interpolate(y, size=x.shape[2:]), F.interpolate(x, scale_factor=2.0)


@exact()
class FloatTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (0.5 * x.shape[0])


@exact()
class FloatOverSize(Base):
    def forward(self, x):
        return self.lin(x) * (1.0 / x.shape[0]) + (2.0 - x.shape[0]) + 2.0 ** x.shape[0]


@assumes()
class FloatLessThanSize(Base):
    def forward(self, x):
        return self.lin(x) if 3.5 > x.shape[0] else x


@assumes()
class FloatEqualsSize(Base):
    def forward(self, x):
        return self.lin(x) if 3.0 == x.shape[0] else x


@exact()
class TrueTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (True * x.shape[0])


@exact()
class TruePlusSize(Base):
    def forward(self, x):
        return self.lin(x) * (self.training + x.shape[0])


class Level(enum.IntEnum):
    LOW = 2


@exact()
class EnumTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (Level.LOW * x.shape[0])


@exact()
class SizeTimesEnum(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * Level.LOW)


@assumes()
class ComplexTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (1j * x.shape[0]).imag


@exact()
class DivmodOfSize(Base):
    def forward(self, x):
        a, b = divmod(x.shape[0], 2)
        return self.lin(x) * a + b


@exact()
class ImportedSqrtOfFloat(Base):
    def forward(self, x):
        return self.lin(x) / sqrt(x.shape[0] / 2)


@exact()
class ImportedCeil(Base):
    def forward(self, x):
        return self.lin(x) * _ceil(x.shape[0] / 2) + _floor(x.shape[0] / 2)


@assumes()
class MathSinOfFloat(Base):
    def forward(self, x):
        return self.lin(x) * math.sin(x.shape[0] / 2)


@assumes()
class MathFmodOfFloat(Base):
    def forward(self, x):
        return self.lin(x) * math.fmod(x.shape[0] / 2, 2)


@assumes()
class MathIsfinite(Base):
    def forward(self, x):
        return self.lin(x) if math.isclose(x.shape[0] / 2, 1.5) else x


@assumes()
class MathFactorial(Base):
    def forward(self, x):
        return self.lin(x) * math.factorial(x.shape[0]) + math.comb(x.shape[0], 1)


@assumes()
class MathProdOfFloats(Base):
    def forward(self, x):
        return self.lin(x) * math.prod([2.0, *x.shape]) + math.fsum([x.shape[0] / 2, 1.0])


@exact()
class SumOfFloats(Base):
    def forward(self, x):
        return self.lin(x) * sum([0.5, x.shape[0], 1.0])


@exact()
class SumOfManySizes(Base):
    def forward(self, x):
        return self.lin(x) * sum([1, x.shape[0], 2]) + sum(n / 2 for n in x.shape)


@assumes()
class NumpyZeros(Base):
    def forward(self, x):
        return self.lin(x) * np.zeros(x.shape[0]).size


@assumes()
class NumpyReshape(Base):
    def forward(self, x):
        return self.lin(x) * np.ones(60).reshape(x.shape[0], -1).shape[1]


@assumes()
class NumpyCompares(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if np.int64(3) == x.shape[0] else 1.0)


@exact()
class ReversedShape(Base):
    def forward(self, x):
        a, b = reversed(x.shape)
        return self.lin(x).view(x.shape[::-1]) * b, self.lin(x).t().reshape((b, a))


@exact()
class SizesInterpolate(nn.Module):
    def forward(self, x):
        n = x.shape[0]
        y = F.interpolate(x[None, None], scale_factor=n / 2)
        return F.adaptive_avg_pool2d(x[None], (n, 2)), y, F.pad(x, (0, n)), F.pad(x, [n, 1, 0, n])


@exact()
class SizesToSplit(Base):
    def forward(self, x):
        a, b = x.shape[0] // 2, x.shape[0] - x.shape[0] // 2
        y, z = self.lin(x).split([a, b])
        return torch.cat([z, y])


@assumes()
class IteratesKeys(Base):
    def forward(self, x):
        return self.lin(x) * next(iter(dict.fromkeys(x.shape)))


@assumes()
class ZipOfShapes(Base):
    def forward(self, x):
        return self.lin(x) * sum(1 for a, b in zip(x.shape, (3, 4), strict=True) if a == b)


@assumes()
class StringJoin(Base):
    def forward(self, x):
        return self.lin(x) * len("x".join(map(str, x.shape)) + "-" * x.shape[0])


@assumes()
class TensorOnListIndex(Base):
    def forward(self, x):
        return self.lin(x) * [p.sum() for p in (x, x * 2, x * 3, x * 4, x * 5, x * 6)][x.shape[0]]


@assumes()
class PopsFromList(Base):
    def forward(self, x):
        return self.lin(x) * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].pop(x.shape[0])


@assumes()
class GetitemOfModuleSlice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(6)])

    def forward(self, x):
        for layer in self.layers[-x.shape[0] :]:
            x = layer(x)
        return x


# --- numbers of tensors ---


@refused("read out")
class Item(Base):
    def forward(self, x):
        return self.lin(x) * x.sum().item()


@refused("read out")
class TruthOfTensor(Base):
    def forward(self, x):
        return self.lin(x) if bool(x.sum() > 0) else x


@refused("read out")
class IfTensor(Base):
    def forward(self, x):
        return self.lin(x) if x.sum() > 0 else x


@assumes(values="assume")
class IfTensorAssumed(Base):
    def forward(self, x):
        return self.lin(x) if x.sum() > 0 else x


@assumes(values="assume")
class ItemAssumed(Base):
    def forward(self, x):
        return self.lin(x) * x.sum().item()


@assumes(values="assume")
class IntAssumed(Base):
    def forward(self, x):
        return self.lin(x) * int(x.sum()) + float(x.max())


@assumes(values="assume")
class TolistAssumed(Base):
    def forward(self, x):
        return self.lin(x) * sum(sum(x.tolist(), []))


@refused("read out")
class Tolist(Base):
    def forward(self, x):
        return self.lin(x) * sum(sum(x.tolist(), []))


@refused("numpy")
class Numpy(Base):
    def forward(self, x):
        return self.lin(x) * float(x.detach().numpy().sum())


@refused("numpy|array")
class NumpyAsarray(Base):
    def forward(self, x):
        return self.lin(x) * float(np.asarray(x).sum())


@refused("numpy|array|axis")
class NumpyOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * float(np.sum(x.detach().cpu()))


@refused("numpy", values="assume")
class NumpyAssumed(Base):
    def forward(self, x):
        return self.lin(x) * float(x.detach().numpy().sum())


@refused("read out of a tensor")
class Contains(Base):
    def forward(self, x):
        return self.lin(x) if 0.0 in x else x


@assumes(others=[(torch.ones(3, 4),)])
class TorchEqual(Base):
    def forward(self, x):
        return self.lin(x) if not torch.equal(x, torch.ones(3, 4)) else x


@assumes(others=[(torch.ones(3, 4),)])
class Allclose(Base):
    def forward(self, x):
        return self.lin(x) if not torch.allclose(x, torch.ones(3, 4)) else x


@assumes(others=[(torch.ones(3, 4),)])
class AllcloseByName(Base):
    def forward(self, x):
        return self.lin(x) if not torch.allclose(x, torch.ones(4), atol=1e-3) else x


@refused("read out")
class AllOfTensor(Base):
    def forward(self, x):
        return self.lin(x) if (x > -99).all() else x


@exact()
class Mask(Base):
    def forward(self, x):
        y = self.lin(x)
        return y[y > 0], torch.where(y > 0, y, x), y.masked_select(x > 0)


@exact()
class Nonzero(Base):
    def forward(self, x):
        y = self.lin(x)
        return (y > 0).nonzero(), torch.nonzero(y > 0, as_tuple=True), torch.where(y > 0)


@exact()
class SizeOfNonzero(Base):
    def forward(self, x):
        y = self.lin(x)
        found = y[y > 0]
        return found.view(found.shape[0], 1) / max(1.0, 2.0) * found.numel()


@assumes(None, [(_draw(5, 4),), (torch.ones(60, 4),)])
class BranchOnNonzero(Base):
    def forward(self, x):
        found = (x > 0).nonzero()
        return self.lin(x) if len(found) > 100 else x * found.shape[0]


@exact(others=[(torch.randn(3, 4) * 5,)])
class Unique(Base):
    def forward(self, x):
        values, index, counts = torch.unique(
            (x * 3).long(), return_inverse=True, return_counts=True
        )
        return self.lin(x), values, index, counts


@exact()
class Prints(Base):
    def forward(self, x):
        print("shape", x.dtype, x.device)
        return self.lin(x)


@exact()
class PrintsTensor(Base):
    def forward(self, x):
        print(x, repr(x), str(x), f"{x}")
        return self.lin(x)


@exact()
class PrintsShape(Base):
    def forward(self, x):
        print(x.shape)
        return self.lin(x)


@refused("read out", others=[(-torch.randn(3, 4).abs(),)])
class Asserts(Base):
    def forward(self, x):
        assert (x < 100).all()
        return self.lin(x)


@refused("read out", others=[(torch.randn(3, 4) + 200,)])
class TorchAsserts(Base):
    def forward(self, x):
        torch._assert((x < 100).sum() >= 0, "large")
        return self.lin(x)


@refused("read out|format|text")
class FormatsItem(Base):
    def forward(self, x):
        return self.lin(x) * float(f"{x.sum():.2f}")


@refused("read out")
class IndexByTensor(Base):
    def forward(self, x):
        return self.lin(x) * [1.0, 2.0, 3.0, 4.0][x[0].argmax()]


@refused("read out")
class RangeOfTensor(Base):
    def forward(self, x):
        for _ in range(x[0].argmax()):
            x = self.lin(x)
        return x


@exact()
class SliceByTensor(Base):
    def forward(self, x):
        return self.lin(x)[: x[0].argmax()]


@exact()
class IndexTensorByTensor(Base):
    def forward(self, x):
        y = self.lin(x)
        return y[x[0].argmax() % 1], y[:, x.argmax(1)], y[torch.arange(x.shape[0]), x.argmax(1)]


@refused("read out")
class MathOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * math.sqrt(x.abs().sum()) + math.exp(x.sum() * 0)


@refused("read out")
class MaxOfTensors(Base):
    def forward(self, x):
        return self.lin(x) * max(x.sum(), x.mean())


@exact()
class FullOfItem(Base):
    def forward(self, x):
        return self.lin(x) + torch.full((4,), x.sum())


@exact()
class TensorOfTensors(Base):
    def forward(self, x):
        return self.lin(x) + torch.tensor(x.shape[0] * 0.5) + torch.stack([x.sum(), x.mean()]).sum()


@exact()
class TensorOfTensorList(Base):
    def forward(self, x):
        return self.lin(x) + torch.tensor([x.sum(), x.mean()]).sum()


@exact()
class DictByTensor(Base):
    def forward(self, x):
        return self.lin(x) * {x: 2.0}[x]


@exact()
class DictByTensorIdentity(Base):
    def forward(self, x):
        y = self.lin(x)
        return y * {id(y): 2.0}[id(y)] if y in [y] and x is not y else y


@refused("data_ptr")
class DataPointer(Base):
    def forward(self, x):
        return self.lin(x) * (2 if x.data_ptr() == self.lin.weight.data_ptr() else 1)


@refused("read out")
class MaxOfPython(Base):
    def forward(self, x):
        return self.lin(x) * sorted([x.sum(), x.mean()])[0]


@refused("read out")
class StateDecides(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("initted", torch.tensor([False]))

    def forward(self, x):
        if not self.initted:
            self.initted.fill_(True)
            return x
        return self.lin(x)


@assumes(values="assume")
class StateDecidesAssumed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        return self.lin(x) if self.calls.item() < 2 else x


_COUNTS = torch.tensor([2, 1])


@refused("read out of a tensor")
class ConstantDecides(Base):
    def __init__(self):
        super().__init__()
        self.counts = torch.tensor([2, 3])

    def forward(self, x):
        for _ in range(self.counts[0].item()):
            x = self.lin(x)
        return x * self.counts.tolist()[1] if self.counts[0] > 1 else x


@exact()
class GlobalDecides(Base):
    def forward(self, x):
        return self.lin(x) * int(_COUNTS[0])


@exact()
class MadeHereDecides(Base):
    def forward(self, x):
        steps = torch.linspace(0, 0.5, 3).tolist()
        rates = [each.item() for each in torch.arange(3)]
        return self.lin(x) * steps[1] + rates[2]


@refused("read out")
class RandomDecides(Base):
    def forward(self, x):
        return self.lin(x) if torch.rand(1) < 0.5 else x


@refused("read out")
class RandintDecides(Base):
    def forward(self, x):
        return self.lin(x) * int(torch.randint(0, 5, (1,)))


@refused("read out")
class RandpermDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.randperm(4)[0].item()


@assumes(values="assume")
class RandomDecidesAssumed(Base):
    def forward(self, x):
        return self.lin(x) if torch.rand(1) < 0.5 else x


@refused("read out")
class UniformDecides(Base):
    def forward(self, x):
        return self.lin(x) if torch.zeros(1).uniform_() < 0.5 else x


@refused("read out")
class GeometricDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.zeros(1).geometric_(0.3).item()


@refused("read out")
class CauchyDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.zeros(1).cauchy_().item()


@refused("read out")
class BinomialDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.binomial(torch.tensor([9.0]), torch.tensor([0.5])).item()


@refused("read out")
class LogNormalDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.zeros(1).log_normal_().item()


@refused("read out")
class RandomUnderscoreDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.zeros(1).random_(0, 9).item()


@refused("read out")
class GumbelDecides(Base):
    def forward(self, x):
        return self.lin(x) * F.gumbel_softmax(torch.zeros(4)).argmax().item()


@refused("read out")
class OutDecides(Base):
    def forward(self, x):
        out = torch.zeros(())
        torch.sum(x, out=out) if False else torch.add(x.sum().detach(), 0, out=out)
        return self.lin(x) * out.item()


@refused("read out")
class SetItemDecides(Base):
    def forward(self, x):
        out = torch.zeros(2)
        out[0] = x.sum().detach()
        return self.lin(x) * out[0].item()


@refused("read out")
class InPlaceDecides(Base):
    def forward(self, x):
        out = torch.zeros(2)
        out.add_(x.sum().detach())
        return self.lin(x) * out.tolist()[0]


@refused("read out")
class ViewOfInPlaceDecides(Base):
    def forward(self, x):
        out = torch.zeros(2)
        view = out[:1]
        view.add_(x.sum().detach())
        return self.lin(x) * out[0].item()


@refused("read out")
class BaseOfInPlaceDecides(Base):
    def forward(self, x):
        out = torch.zeros(2)
        view = out[:1]
        out.add_(x.sum().detach())
        return self.lin(x) * view.item()


@refused("read out")
class CopiedDecides(Base):
    def forward(self, x):
        out = torch.zeros(3)
        out.copy_(x[:3, 0].detach()) if False else out.fill_(x.sum().detach())
        return self.lin(x) * out[0].item()


@refused("read out")
class DeviceSizeDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.ones(x.shape[0]).sum().item()


@refused("read out")
class ArangeOfSizeDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.arange(x.shape[0]).tolist()[-1]


@refused("read out")
class TensorOfSizeDecides(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(x.shape[0]).item()


# --- in place ---


@exact()
class InPlaceAll(Base):
    def forward(self, x):
        y = self.lin(x)
        z = y
        y += 1
        y.mul_(2)
        y[:, 0] = 0
        y[y > 1] = 0.5
        y -= x
        y /= 2
        return y * z


@exact()
class InPlaceOnView(Base):
    def forward(self, x):
        y = self.lin(x).clone()
        part = y[:, :2]
        y.add_(1)
        part.zero_()
        view = y.view(-1)
        view[0] = 9
        y[0].mul_(3)
        return y, part, view


@exact()
class InPlaceOnInput(Base):
    def forward(self, x):
        x.add_(1)
        return self.lin(x)


@exact()
class SetsInput(Base):
    def forward(self, x):
        x[0] = 0
        x.t_()
        return self.lin(x.t())


@exact()
class InPlaceOnViewOfInput(Base):
    def forward(self, x):
        part = x[:1]
        part += 1
        return self.lin(x), part


@exact()
class ReluResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.lin(x)
        z = self.relu(y)
        return y + z


@exact()
class ReluOnInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(x) + x


@exact()
class FunctionalReluInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        z = F.relu(y, inplace=True)
        w = F.dropout(y, 0.5, self.training, inplace=True)
        return y + z + F.leaky_relu_(w)


@exact()
class DropoutInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5, inplace=True)

    def forward(self, x):
        y = self.lin(x)
        self.drop(y)
        return y


@exact()
class BufferInPlace(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
                self.steps += 1
        return self.lin(x) - self.mean / (self.steps + 1)


@exact()
class BufferCopied(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        before = self.last.clone()
        self.last.copy_(x.detach().mean(0))
        self.last[0] = 3
        return self.lin(x) + before + self.last


@exact()
class BufferData(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        self.last.data.add_(x.detach().mean(0))
        return self.lin(x) + self.last


@refused("assigns|attribute|data")
class BufferSetData(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        self.last.data = self.last + x.detach().mean(0)
        return self.lin(x) + self.last


@exact()
class BufferByView(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(3, 4))

    def forward(self, x):
        row = self.table[1]
        row += x.detach().sum(0)
        self.table.t()[0, 2] = 1.0
        return self.lin(x) + self.table.sum(0)


@exact()
class BufferOut(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x):
        torch.sum(x.detach(), 0, out=self.last)
        return self.lin(x) + self.last


@exact()
class ParameterInPlace(Base):
    def forward(self, x):
        with torch.no_grad():
            self.lin.weight.mul_(0.5)
            self.lin.bias.data.clamp_(-0.1, 0.1)
        return self.lin(x)


@exact()
class ParameterDataCopied(Base):
    def forward(self, x):
        self.lin.weight.data.copy_(self.lin.weight.data / self.lin.weight.data.norm())
        return self.lin(x)


@refused("attribute|data")
class ParameterSetData(Base):
    def forward(self, x):
        self.lin.weight.data = self.lin.weight.data / 2
        return self.lin(x)


@exact()
class ParameterSetItem(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        with torch.no_grad():
            self.weight[0] = 1.0
            self.weight[1].fill_(2)
        return x @ self.weight


@exact()
class MaskedFillInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        y.masked_fill_(x > 0, -1.0)
        y.index_fill_(1, torch.tensor([1]), 3.0)
        y.index_add_(0, torch.tensor([0]), x[:1])
        y.scatter_(1, torch.zeros(x.shape[0], 1, dtype=torch.long), 7.0)
        return y.clamp_(-2, 2)


@exact()
class OutArgument(Base):
    def forward(self, x):
        out = torch.empty(x.shape[0], 4)
        torch.add(x.detach(), 1, out=out)
        result = torch.mul(out, 2, out=out)
        return self.lin(out) + result


@exact()
class OutTuple(Base):
    def forward(self, x):
        values, index = torch.empty(0), torch.empty(0, dtype=torch.long)
        torch.max(x.detach(), 1, out=(values, index))
        return self.lin(x) + values.unsqueeze(1) + index.unsqueeze(1)


@exact()
class OutOfView(Base):
    def forward(self, x):
        out = torch.zeros(x.shape[0], 8)
        torch.neg(x.detach(), out=out[:, :4])
        return self.lin(x), out


@exact((torch.randn(3, 1, 4),), [(torch.randn(5, 1, 4),)])
class SqueezesBetween(Base):
    def forward(self, x):
        y = self.lin(x)
        n, one = y.shape[0], y.shape[1]
        m = y.size(1)
        y.squeeze_(1)
        return y.view(n, one, 4) * m + y.shape[1] + y.dim()


@exact()
class TransposesInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        n = y.shape[0]
        y.t_()
        m = y.shape[0]
        y.unsqueeze_(0)
        return y * n + m + y.shape[0] + y.shape[2]


@exact()
class InPlaceOnNothing(Base):
    def forward(self, x):
        y = self.lin(x)
        z = y.contiguous()
        z.add_(1)
        w = z.to(torch.float32)
        w.mul_(2)
        v = w.float().detach()
        v.sub_(1)
        return y, z, w


@exact((torch.randn(3, 4),), [(torch.randn(4, 5).t(),), (torch.randn(4, 3).t(),)])
class ContiguousInput(Base):
    def forward(self, x):
        y = x.contiguous()
        y.add_(1)
        return self.lin(x) + y


@exact((torch.randn(3, 4),), [(torch.randn(4, 5).t(),), (torch.randn(4, 3).t(),)])
class ReshapedInput(Base):
    def forward(self, x):
        y = x.reshape(-1)
        y.add_(1)
        return self.lin(x), y


@exact((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.randn(3, 4).bfloat16(),)])
class ToFloatInput(nn.Module):
    def forward(self, x):
        y = x.float()
        y.add_(1)
        return x * 2, y


@exact()
class DataInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        y.data.add_(1)
        y.detach().mul_(2)
        return y * 3


@exact()
class DetachInPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        z = y * 2
        z.detach_()
        return y, z


@exact()
class RequiresGradInPlace(Base):
    def forward(self, x):
        y = self.lin(x).detach().requires_grad_()
        return y * 2


@exact()
class SetsRequiresGrad(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        y.requires_grad = True
        return y * 2


@refused("attribute")
class SetsDataOfResult(Base):
    def forward(self, x):
        y = self.lin(x)
        y.data = x.detach() * 2
        return y * 2


@exact()
class InPlaceInSubmodule(Base):
    def __init__(self):
        super().__init__()
        self.change = AddsOne()

    def forward(self, x):
        y = self.lin(x).clone()
        view = y[:, 1:]
        self.change(y)
        self.change(view)
        return y, view


class AddsOne(nn.Module):
    def forward(self, x):
        x.add_(1)
        x[:, 0] *= 2


@exact()
class UnusedInPlace(Base):
    """Nothing reads the result of the change, so that it must not be left out as dead."""

    def __init__(self):
        super().__init__()
        self.inner = ChangesViewOfBuffer()

    def forward(self, x):
        self.inner(x)
        return self.lin(x)


class ChangesViewOfBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        self.seen[:2].add_(x.detach().sum())


@exact()
class AssignsSlice(Base):
    def forward(self, x):
        out = torch.zeros(x.shape[0], 8)
        out[:, :4] = self.lin(x)
        out[:, 4:] += x
        out[x.shape[0] - 1, ...] = x.shape[0]
        out[:, [0, 2]] = 0
        return out


@exact(others=[])
class ResizeInPlace(Base):
    def forward(self, x):
        y = torch.zeros(2)
        y.resize_(4)
        y.fill_(1)
        return self.lin(x) + y


@refused("set_")
class SetStorage(Base):
    def forward(self, x):
        y = torch.zeros(2)
        y.set_(x.detach())
        return self.lin(x) + y


@exact()
class SwapsInPlace(Base):
    def forward(self, x):
        y, z = self.lin(x), x * 2
        y, z = z, y
        y[0], z[0] = z[0].clone(), y[0].clone()
        return y, z


@exact((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(5, 4), torch.randn(5, 4))])
class OneTensorTwoParameters(Base):
    def __init__(self):
        super().__init__()
        self.both = AddsToFirst()

    def forward(self, x, y):
        z = self.lin(x)
        first = self.both(z, z)
        second = self.both(z, y)
        return first, second, z, y


class AddsToFirst(nn.Module):
    def forward(self, a, b):
        a.mul_(2)
        return a + b


_SHARED = torch.randn(3, 4)


@exact((_SHARED, _SHARED), [(_SHARED, torch.randn(3, 4))])
class SameTensorGivenTwice(Base):
    def forward(self, x, y):
        x.add_(1)
        return self.lin(x) + y


@exact((_SHARED, _SHARED), [(_SHARED, torch.randn(3, 4))])
class AsksIdentityOfInputs(Base):
    def forward(self, x, y):
        return self.lin(x) if x is y else self.lin(y) * 2


# --- identity ---


@exact(others=[(torch.randn(5, 4),), (torch.randn(4, 3).t(),)])
class NoOps(nn.Module):
    def forward(self, x):
        a = x.contiguous()
        b = x.to(torch.float32)
        c = x.float()
        d = F.dropout(x, 0.5, False)
        return a, b, c, d, x.view(x.shape), x.expand(x.shape), x.reshape(-1, 4), x.squeeze()


@exact()
class IdentityModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Identity()
        self.two = Returns()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.one(x)
        z = self.two(y)
        w = self.drop(z)
        z.add_(1)
        return x, y, z, w


class Returns(nn.Module):
    def forward(self, x):
        return x


@exact((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(5, 4), torch.randn(5, 4))])
class ReturnsInputsAlone(nn.Module):
    def forward(self, x, y):
        return (y, x)


@exact((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(5, 4), torch.randn(5, 4))])
class SubmoduleReturnsTuple(Base):
    def __init__(self):
        super().__init__()
        self.swap = ReturnsInputsAlone()

    def forward(self, x, y):
        a, b = self.swap(x, y)
        a, b = self.swap(a, b)
        a += 1
        return self.lin(a) - b, a


class Doubles(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, how="a", extra=None):
        y = self.lin(x)
        if how == "b":
            y = y * 2
        return y if extra is None else y + extra


@exact()
class CallsDifferently(nn.Module):
    def __init__(self):
        super().__init__()
        self.two = Doubles()
        self.again = self.two

    def forward(self, x):
        y = self.two(x)
        y = self.two(y, "b")
        y = self.again(y, "a", extra=x)
        y = self.again(y, how="b", extra=2)
        return self.two(y)


class Recurses(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, depth=3):
        return self.lin(x) if depth == 0 else torch.relu(self(self.lin(x), depth - 1))


@exact()
class Recursion(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = Recurses()

    def forward(self, x):
        return self.one(x) + self.one(x, depth=1)


@exact()
class RecursionOfRoot(Base):
    def forward(self, x, depth=2):
        return self.lin(x) if depth == 0 else self.lin(self(x, depth - 1))


class Collects(nn.Module):
    def forward(self, x, into, key=None):
        into.append(x * 2)
        return None


@exact()
class MutatesList(Base):
    def __init__(self):
        super().__init__()
        self.collect = Collects()

    def forward(self, x):
        into = [x]
        self.collect(self.lin(x), into)
        self.collect(x, into, key="z")
        return into, torch.cat(into)


class FillsDict(nn.Module):
    def forward(self, x, into):
        into["y"] = x.relu()
        into["n"] = x.shape[0]


@exact()
class MutatesDict(Base):
    def __init__(self):
        super().__init__()
        self.fill = FillsDict()

    def forward(self, x):
        into = {}
        self.fill(self.lin(x), into)
        return into["y"] * into["n"], into


class Saves(nn.Module):
    def __init__(self, store):
        super().__init__()
        self.store = store
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        self.store["x"] = x
        return self.lin(x)


class Loads(nn.Module):
    def __init__(self, store):
        super().__init__()
        self.store = store

    def forward(self, y):
        return y + self.store["x"]


@exact()
class StoresForAnother(nn.Module):
    def __init__(self):
        super().__init__()
        store = {}
        self.save, self.load = Saves(store), Loads(store)

    def forward(self, x):
        return self.load(self.save(x))


@refused("store|keeps|assigns")
class StoresFromCallToCall(nn.Module):
    def __init__(self):
        super().__init__()
        self.store = {"x": torch.zeros(4)}
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        y = self.lin(x) + self.store["x"]
        self.store["x"] = y.detach().mean(0)
        return y


@refused("store|keeps|assigns")
class CountsInList(Base):
    def __init__(self):
        super().__init__()
        self.counts = [0]

    def forward(self, x):
        self.counts[0] += 1
        return self.lin(x) * self.counts[0]


@refused("store|keeps|assigns")
class AppendsToHistory(Base):
    def __init__(self):
        super().__init__()
        self.history = []

    def forward(self, x):
        self.history.append(x.mean())
        return self.lin(x) + sum(self.history)


class Tally:
    def __init__(self):
        self.n = 0


@refused("store|keeps|assigns")
class CountsInObject(Base):
    def __init__(self):
        super().__init__()
        self.counter = Tally()

    def forward(self, x):
        self.counter.n += 1
        return self.lin(x) * self.counter.n


@refused("store|keeps|assigns|class")
class CountsInClass(Base):
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return self.lin(x) * type(self).calls


_CALLS = [0]


@refused("store|keeps|assigns|global")
class CountsInGlobal(Base):
    def __init__(self):
        super().__init__()
        _CALLS[0] = 0

    def forward(self, x):
        _CALLS[0] += 1
        return self.lin(x) * _CALLS[0]


class Yields(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x):
        for i in range(3):
            yield self.lin(x) * i


@exact()
class Generators(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = Yields()

    def forward(self, x):
        total = 0
        for part in self.parts(x):
            total = total + part.relu()
        return total


@exact()
class Views(Base):
    def forward(self, x):
        return x[:1], x.t(), x.view(-1), x.unsqueeze(0), x.detach(), x.diagonal(), x.unbind(1)[0]


@exact()
class AsksIdentityInSubmodule(Base):
    def __init__(self):
        super().__init__()
        self.asks = AsksWhetherSame()

    def forward(self, x):
        return self.asks(self.lin.weight, self.lin.weight) + self.asks(x, x).sum()


class AsksWhetherSame(nn.Module):
    def forward(self, x, y):
        return x * 2 if x is y else x * 3


@exact()
class DefaultDictState(Base):
    def forward(self, x):
        groups = defaultdict(list)
        for i, part in enumerate(self.lin(x).unbind(1)):
            groups[i % 2].append(part)
        return {key: torch.stack(each) for key, each in groups.items()}


@exact()
class ParametersByName(Base):
    def forward(self, x):
        for name, each in self.named_parameters():
            x = x + each.sum() if name.endswith("weight") else x * each
        return x + sum(p.norm() for p in self.state_dict().values())


@exact()
class ParameterTwice(Base):
    def __init__(self):
        super().__init__()
        self.both = AddsOut()

    def forward(self, x):
        return self.both(self.lin.weight, self.lin.weight) + self.both(self.lin.bias, x).sum()


class AddsOut(nn.Module):
    def forward(self, a, b):
        return a * 2 + b


@exact()
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4, bias=False)
        self.b = nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.c = nn.ModuleList([self.a, self.b])

    def forward(self, x):
        return self.c[1](self.a(x)) @ self.b.weight


@exact()
class OutOfOrder(nn.Module):
    def __init__(self):
        super().__init__()
        self.outer = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.never = nn.Linear(2, 2)

    def forward(self, x):
        y = self.outer[2](x)
        y = self.outer(y)
        return self.outer[0](y) + self.outer[1:](y)


# --- regions ---


@exact()
class NoGrad(Base):
    def forward(self, x):
        with torch.no_grad():
            y = self.lin(x)
            with torch.enable_grad():
                z = self.lin(y) * 2
        return y + z + self.lin(x)


@exact()
class NoGradDecorated(Base):
    @torch.no_grad()
    def frozen(self, x):
        return self.lin(x)

    def forward(self, x):
        return self.frozen(x) + self.lin(x)


@exact()
class NoGradWhole(Base):
    @torch.no_grad()
    def forward(self, x):
        return self.lin(x)


@exact()
class SetGradFunction(Base):
    def forward(self, x):
        torch.set_grad_enabled(False)
        y = self.lin(x)
        torch.set_grad_enabled(True)
        return y + self.lin(x)


@exact()
class SetGradByMode(Base):
    def forward(self, x):
        with torch.set_grad_enabled(self.training):
            return self.lin(x)


@assumes()
class GradAsBefore(Base):
    def forward(self, x):
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        y = self.lin(x)
        torch.set_grad_enabled(before)
        return y + self.lin(x)


@assumes()
class SetGradNested(Base):
    def forward(self, x):
        with torch.no_grad():
            torch.set_grad_enabled(True)
            y = self.lin(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.training):
            z = self.lin(x)
        return y + z + self.lin(x)


@refused("does not end")
class GradLeaks(Base):
    """Something in it leaves with gradients off."""

    def __init__(self):
        super().__init__()
        self.off = TurnsOff()

    def forward(self, x):
        before = torch.is_grad_enabled()
        y = self.off(self.lin(x))
        y = y + self.lin(x)
        torch.set_grad_enabled(before)
        return y


class TurnsOff(nn.Module):
    def forward(self, x):
        torch.set_grad_enabled(False)
        return x * 2


@exact()
class NoGradInSubmodules(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = NoGrad()

    def forward(self, x):
        with torch.no_grad():
            y = self.inner(x)
        return self.inner(x) + y


@exact()
class NoGradWithReturn(Base):
    def forward(self, x):
        for i in range(3):
            with torch.no_grad():
                if i == 1:
                    break
        try:
            with torch.no_grad():
                raise ValueError
        except ValueError:
            pass
        return self.lin(x)


@assumes()
class BreaksInsideRegion(Base):
    def forward(self, x):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            for _ in range(x.shape[0]):
                x = self.lin(x)
        return x


@exact()
class Autocast(Base):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.lin(x)
            with torch.autocast("cpu", enabled=False):
                z = self.lin(y.float())
        return y, z, self.lin(x)


@exact()
class AutocastDecorated(Base):
    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, x):
        return self.lin(x) @ x.t()


@exact()
class AutocastByDtype(Base):
    def forward(self, x):
        y = self.lin(x)
        with torch.autocast(device_type=x.device.type, enabled=False):
            return y * 2 + self.lin(x)


@refused("inference")
class Inference(Base):
    def forward(self, x):
        with torch.inference_mode():
            return self.lin(x)


@refused("inference")
class InferenceDecorated(Base):
    @torch.inference_mode()
    def forward(self, x):
        return self.lin(x)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


@refused("Straight")
class OwnGradient(Base):
    def forward(self, x):
        return Straight.apply(self.lin(x))


_straight = Straight.apply


@refused("Straight|gradient")
class OwnGradientAliased(Base):
    def forward(self, x):
        return _straight(self.lin(x))


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad * 5


_scaled = Scaled.apply


@refused("Scaled|gradient")
class OwnGradientNewStyle(Base):
    def forward(self, x):
        return _scaled(self.lin(x))


@exact()
class Checkpointed(Base):
    def forward(self, x):
        y = checkpoint(self.lin, x, use_reentrant=False)
        return checkpoint(lambda a, b: (a * b).relu(), y, x, use_reentrant=False)


@exact()
class CheckpointedReentrant(Base):
    def forward(self, x):
        y = self.lin(x)
        return checkpoint(lambda a: self.lin(a).relu(), y, use_reentrant=True)


@refused("reentrant checkpoint")
class CheckpointedReentrantWithoutGradients(Base):
    """Its input needs no gradients, so that reentrant checkpointing gives the weights none."""

    def forward(self, x):
        return checkpoint(self.lin, x, use_reentrant=True) + self.lin(x)


@exact()
class CheckpointedDropout(Base):
    def forward(self, x):
        y = self.lin(x)
        return checkpoint(lambda a: F.dropout(a, 0.5, self.training), y, use_reentrant=False)


@exact()
class CheckpointSequential(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Dropout(0.5))

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint_sequential

        return checkpoint_sequential(self.rows, 2, x, use_reentrant=False)


@refused("gradient")
class GradInside(Base):
    def forward(self, x):
        y = self.lin(x).requires_grad_()
        (grad,) = torch.autograd.grad(y.pow(2).sum(), y, create_graph=True)
        return grad


@refused("gradient|backward|NoneType")
class BackwardInside(Base):
    def forward(self, x):
        z = x.detach().requires_grad_()
        (z**2).sum().backward()
        return self.lin(x) + z.grad


@refused("hook")
class TensorHook(Base):
    def forward(self, x):
        y = self.lin(x)
        if y.requires_grad:
            y.register_hook(lambda grad: grad * 2)
        return y


@refused("hook|retain")
class RetainsGrad(Base):
    def forward(self, x):
        y = self.lin(x)
        y.retain_grad()
        return y * 2


@refused("hook")
class ParameterHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.weight.register_hook(lambda grad: grad * 2)

    def forward(self, x):
        return self.lin(x)


@refused("hook")
class PostAccumulateHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2))

    def forward(self, x):
        return self.lin(x)


@refused("hook")
class BackwardHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.register_full_backward_hook(lambda module, given, taken: (given[0] * 2,))

    def forward(self, x):
        return self.lin(self.lin(x))


@refused("hook")
class BackwardPreHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.register_full_backward_pre_hook(lambda module, taken: (taken[0] * 2,))

    def forward(self, x):
        return self.lin(self.lin(x))


@exact()
class ForwardHooks(Base):
    def __init__(self):
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.lin.register_forward_hook(lambda module, args, out: out * 3)
        self.lin.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        self.rows.register_forward_hook(lambda m, args, kwargs, out: out + 1, with_kwargs=True)
        self.rows.register_forward_pre_hook(lambda module, args: args[0] * 2)
        self.register_forward_hook(lambda module, args, out: {"out": out})

    def forward(self, x):
        return self.rows(self.lin(x))


@exact()
class RootPreHook(Base):
    def __init__(self):
        super().__init__()
        self.register_forward_pre_hook(lambda module, args: (args[0] + 1,))

    def forward(self, x):
        return self.lin(x)


@exact()
class AlwaysCalledHook(Base):
    def __init__(self):
        super().__init__()
        self.lin.register_forward_hook(lambda module, args, out: out * 3, always_call=True)

    def forward(self, x):
        return self.lin(x)


@exact()
class WeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = parametrizations.weight_norm(nn.Linear(4, 4))
        self.b = torch.nn.utils.weight_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.b(self.a(x))


@exact()
class SpectralNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = parametrizations.spectral_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.a(x)


@exact()
class OldSpectralNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.utils.spectral_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.a(x)


@exact()
class Orthogonal(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = parametrizations.orthogonal(nn.Linear(4, 4))

    def forward(self, x):
        return self.a(x)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)


@exact()
class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        parametrize.register_parametrization(self.a, "weight", Symmetric())

    def forward(self, x):
        with parametrize.cached():
            return self.a(self.a(x)) + self.a.weight.sum()


@exact()
class Pruned(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        prune.l1_unstructured(self.a, "weight", amount=0.5)

    def forward(self, x):
        return self.a(x)


@refused("lasts for a call")
class FunctionalCall(Base):
    def forward(self, x):
        state = {name: each * 2 for name, each in self.lin.named_parameters()}
        return torch.func.functional_call(self.lin, state, (x,)) + self.lin(x)


@refused("lasts for a call")
class FunctionalCallOfComposite(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Doubles()

    def forward(self, x):
        state = {name: each * 2 for name, each in self.inner.named_parameters()}
        return torch.func.functional_call(self.inner, state, (x,)) + self.inner(x)


@refused("operation torch.ops.higher_order.cond, which calls functions")
class Cond(Base):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (self.lin(x),))


@refused("vmap|batch|level|see|name")
class Vmap(Base):
    def forward(self, x):
        return torch.vmap(lambda row: row * 2 + row.sum())(self.lin(x))


@refused("vmap|batch|level|see|name")
class VmapOfLayer(Base):
    def forward(self, x):
        return torch.vmap(self.lin)(x)


@refused("vmap|batch|level|see|name")
class VmapOfModuleCode(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Doubles()

    def forward(self, x):
        return torch.func.vmap(self.inner, randomness="same")(x)


@refused("grad|level|see|name")
class FuncGrad(Base):
    def forward(self, x):
        return torch.func.grad(lambda y: (y**2).sum())(self.lin(x))


@refused("function transform")
class FuncJvp(Base):
    def forward(self, x):
        return torch.func.jvp(torch.sin, (self.lin(x),), (x,))[1]


@refused("function transform")
class FuncJacrev(Base):
    def forward(self, x):
        return torch.func.jacrev(lambda y: y.sin().sum(0))(self.lin(x))


@torch.jit.script
def _scripted(x):
    return x * 2 + 1


@torch.jit.script
def _scripted_often(x, by: float = 1.0):
    return x.relu() * by


@torch.jit.script
def _scripted_loop(x):
    for i in range(x.size(0)):
        x = x + i
    if x.size(0) > 4:
        x = x * 2
    return x


@torch.jit.script
def _scripted_value(x):
    if bool(x.sum() > 0):
        x = x * 2
    return x


@torch.jit.script
def _scripted_dim(x):
    return x * float(x.size(0))


@exact()
class Scripted(Base):
    def forward(self, x):
        return _scripted(self.lin(x))


@exact()
class ScriptedBefore(Base):
    """A scripted function that has been called so often that it computes its own gradients."""

    def __init__(self):
        super().__init__()
        for _ in range(3):
            _scripted_often(self.lin(torch.randn(3, 4)), 2.0).sum().backward()
        self.zero_grad()

    def forward(self, x):
        return _scripted_often(self.lin(x), by=3.0)


@assumes()
class ScriptedLoop(Base):
    def forward(self, x):
        return _scripted_loop(self.lin(x))


@refused("read out|script|name")
class ScriptedValue(Base):
    def forward(self, x):
        return _scripted_value(self.lin(x))


@assumes()
class ScriptedDim(Base):
    def forward(self, x):
        return _scripted_dim(self.lin(x))


@torch.library.custom_op("adversarial::twice", mutates_args=())
def _twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@refused("adversarial|does not see")
class CustomOp(Base):
    def forward(self, x):
        return _twice(self.lin(x).detach())


@refused("adversarial|does not see")
class CustomOpByName(Base):
    def forward(self, x):
        return torch.ops.adversarial.twice(self.lin(x).detach())


@exact()
class AtenByName(Base):
    def forward(self, x):
        return torch.ops.aten.mul.Tensor(self.lin(x), x) + torch.ops.aten.relu(x)


@exact()
class AtenWithSizes(Base):
    def forward(self, x):
        return (
            torch.ops.aten.view(self.lin(x), [x.shape[0], 2, 2]) + torch.ops.aten.sum(x, [0]).sum()
        )


@torch.compile(backend="eager")
def _compiled(x):
    return x.sin() * x.shape[0]


@exact()
class CompiledFunction(Base):
    def forward(self, x):
        return _compiled(self.lin(x))


@exact()
class CompiledModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.compile(Doubles(), backend="eager")

    def forward(self, x):
        return self.inner(x)


@refused("thread|see")
class StartsThread(Base):
    def forward(self, x):
        found = []
        thread = threading.Thread(target=lambda: found.append(self.lin(x) * 2))
        thread.start()
        thread.join()
        return found[0] + x


@refused("thread|see")
class ThreadChangesInPlace(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        thread = threading.Thread(target=lambda: y.add_(1))
        thread.start()
        thread.join()
        return y + x


@exact()
class GetsMode(Base):
    def forward(self, x):
        return self.lin(x) * 2 if self.training else self.lin(x)


@assumes()
class AsksGradMode(Base):
    def forward(self, x):
        return self.lin(x) * 2 if torch.is_grad_enabled() else self.lin(x)


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).requires_grad_(),)])
class AsksRequiresGrad(Base):
    def forward(self, x):
        return self.lin(x) * 2 if x.requires_grad else self.lin(x)


@assumes()
class AsksRequiresGradOfResult(Base):
    def forward(self, x):
        y = self.lin(x)
        return y * 2 if y.requires_grad else y


@assumes()
class AsksGradFn(Base):
    def forward(self, x):
        y = self.lin(x)
        return y * 2 if y.grad_fn is not None else y


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).requires_grad_(),)])
class AsksIsLeaf(Base):
    def forward(self, x):
        y = x * 2
        return self.lin(x) if y.is_leaf else x


@refused("'grad' of a tensor")
class AsksGrad(Base):
    def forward(self, x):
        return self.lin(x) if self.lin.weight.grad is None else x


@exact()
class AsksVersion(Base):
    def forward(self, x):
        y = self.lin(x)
        return y * (1 + x._version)


@exact()
class AsksAutocast(Base):
    def forward(self, x):
        return self.lin(x) * 2 if torch.is_autocast_enabled("cpu") else self.lin(x)


@exact()
class AsksInferenceMode(Base):
    def forward(self, x):
        return self.lin(x) * 2 if torch.is_inference_mode_enabled() else self.lin(x)


# --- random ---


@exact()
class Dropouts(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.alpha = nn.AlphaDropout(0.3)

    def forward(self, x):
        x = F.dropout(self.alpha(self.drop(x)), 0.2, self.training)
        return F.dropout(x, training=True) + F.feature_alpha_dropout(x, 0.1, self.training)


@exact()
class Draws(Base):
    def forward(self, x):
        n = x.shape[0]
        y = self.lin(x) + torch.rand(n, 4) + torch.randn_like(x) + torch.rand(x.shape)
        y = y + torch.bernoulli(torch.full_like(x, 0.5)) + torch.normal(0.0, 1.0, (n, 1))
        y = y + torch.randint(0, 9, (n, 1)) + torch.empty(n, 1).exponential_()
        y = y + torch.multinomial(torch.ones(n, 5), 4) + torch.poisson(torch.ones(n, 1))
        y = y + torch.empty_like(x).normal_() + torch.randint_like(x, 7) + x.new_empty(4).uniform_()
        return y[torch.randperm(n)] + torch.zeros(4).random_(5) + torch.zeros(4).cauchy_()


@refused("Generator|generator")
class GivenGenerator(Base):
    def forward(self, x):
        generator = torch.Generator().manual_seed(3)
        return self.lin(x) + torch.rand(4, generator=generator)


@refused("Generator|generator")
class OwnGenerator(Base):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, x):
        return self.lin(x) + torch.rand(4, generator=self.generator)


@refused("seed")
class SeedsInside(Base):
    def forward(self, x):
        torch.manual_seed(3)
        return self.lin(x) + torch.rand(4)


@refused("seed|random")
class ForksRandom(Base):
    def forward(self, x):
        with torch.random.fork_rng():
            y = self.lin(x) + torch.rand(4)
        return y + torch.rand(4)


@refused("seed|random")
class InitialSeed(Base):
    def forward(self, x):
        return self.lin(x) * (torch.initial_seed() % 100)


@refused("random numbers")
class PythonRandom(Base):
    def forward(self, x):
        return self.lin(x) * random.random()


@refused("random numbers")
class NumpyRandom(Base):
    def forward(self, x):
        return self.lin(x) * float(np.random.rand())


@exact()
class StochasticDepth(Base):
    def forward(self, x):
        keep = (torch.rand(x.shape[0], 1) < 0.8).float()
        return x + self.lin(x) * keep.div_(0.8)


@exact()
class Permutes(Base):
    def forward(self, x):
        order = torch.randperm(x.shape[0], device=x.device)
        back = torch.argsort(order)
        return self.lin(x)[order][back] + x[order]


@exact()
class RandomLeaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.RReLU(0.1, 0.9)

    def forward(self, x):
        return self.act(x) + F.rrelu(x, training=self.training)


# --- signatures ---


class Masked(Base):
    def forward(self, x, mask=None, scale=2.0, *, flag="a"):
        y = self.lin(x) * scale
        y = y if mask is None else y * mask
        return y if flag == "a" else -y


_X = torch.randn(3, 4)

# Python counts the arguments of the rebuilt model.
_ARGUMENTS = r"TypeError: forward\(\) (missing|takes|got an unexpected)"


@assumes(
    (_X,),
    [
        ((_X,), {}),
        ((_X, None), {}),
        ((_X, None, 2.0), {"flag": "a"}),
        ((_X, _X), {}),
        ((_X,), {"scale": 3.0}),
        ((_X,), {"flag": "b"}),
        ((), {"x": _X}),
        ((), {}),
        ((_X,), {"bogus": 1}),
        ((_X, None, 2), {}),
        ((_X, None, True), {}),
        ((_X, None, torch.tensor(2.0)), {}),
        ((None,), {}),
    ],
)
class Defaults(Masked):
    pass


@assumes(
    (_X, _X),
    [
        ((_X, _X), {"scale": 3.0, "flag": "b"}),
        ((_X,), {}),
        ((_X, None), {"scale": 3.0, "flag": "b"}),
        ((_X, _X), {}),
        ((_X, _X, 3.0), {"flag": "b"}),
        ((_X, 2.0), {"scale": 3.0, "flag": "b"}),
        ((), {"mask": _X, "x": _X, "flag": "b", "scale": 3.0}),
        ((_X, _X.double()), {"scale": 3.0, "flag": "b"}),
    ],
    kwargs={"scale": 3.0, "flag": "b"},
)
class AllGiven(Masked):
    pass


@assumes(
    (_X, _X, _X),
    [((_X, _X), {}), ((_X, _X, _X, _X), {}), ((_X, 1, _X), {}), ((_X, _X, _X), {"c": _X})],
    loud=_ARGUMENTS,
)
class AnyNumber(Base):
    def forward(self, *inputs, **named):
        return self.lin(sum(inputs)) + sum(named.values())


@assumes(
    (_X,),
    [
        ((_X,), {"a": _X, "b": 2}),
        ((_X,), {"a": _X, "b": 3}),
        ((_X,), {"a": _X}),
        ((_X,), {"a": _X, "b": 2, "c": _X}),
    ],
    kwargs={"a": _X, "b": 2},
    loud=_ARGUMENTS,
)
class AnyNames(Base):
    def forward(self, x, **named):
        for key, value in named.items():
            x = self.lin(x) + value * len(key)
        return x


Pair = namedtuple("Pair", ["left", "right"])


@assumes(
    ([_X, {"a": _X, "b": (2, "s", None)}], Pair(_X, 3)),
    [
        ([_X + 1, {"a": _X, "b": (2, "s", None)}], Pair(_X, 3)),
        ([_X, {"b": (2, "s", None), "a": _X}], Pair(_X, 3)),
        ([_X, {"a": _X, "b": (3, "s", None)}], Pair(_X, 3)),
        ([_X, {"a": _X, "b": (2, "t", None)}], Pair(_X, 3)),
        ([_X, {"a": _X, "b": (2, "s", _X)}], Pair(_X, 3)),
        ([_X, {"a": _X, "b": (2, "s", None)}], Pair(_X, 4)),
        ([_X, {"a": _X, "c": (2, "s", None)}], Pair(_X, 3)),
        ([_X, {"a": _X}], Pair(_X, 3)),
        ([_X, {"a": None, "b": (2, "s", None)}], Pair(_X, 3)),
        ((_X, {"a": _X, "b": [2, "s", None]}), (_X, 3)),
        ([_X, _X], Pair(_X, 3)),
    ],
)
class Nested(Base):
    def forward(self, parts, pair):
        x, more = parts
        n, s, extra = more["b"]
        y = self.lin(x) * n + more["a"] * len(s) + pair.left * pair.right
        return y if extra is None else y + extra


@assumes(({"b": _X, "a": _X + 1},), [({"a": _X + 1, "b": _X},), ({"b": _X, "a": _X},)])
class OrderOfDict(Base):
    def forward(self, parts):
        x = 0
        for index, value in enumerate(parts.values()):
            x = x + self.lin(value) * index
        return x


@assumes(([_X],), [([_X, _X],), ((_X,),), (_X[None],)])
class KindOfContainer(Base):
    def forward(self, parts):
        return self.lin(parts[0]) if isinstance(parts, list) else parts[0] * 2


@assumes(
    (torch.randn(3, 4),),
    [(torch.randn(3, 4).tolist(),), (np.zeros((3, 4)),), (None,), (3,)],
    loud="Could not infer dtype of NoneType",
)
class NotATensor(nn.Module):
    def forward(self, x):
        return torch.as_tensor(x) * 2 if x is not None else torch.zeros(1)


@exact(
    (torch.randn(3, 4, requires_grad=True),),
    [(torch.randn(3, 4),), (torch.randn(5, 4, requires_grad=True),)],
)
class InputWithGradient(Base):
    def forward(self, x):
        return self.lin(x) * x


@exact(
    (torch.randn(4, 3).t(),),
    [(torch.randn(3, 4),), (torch.randn(5, 4),), (torch.randn(3, 8)[:, ::2],)],
)
class NotContiguous(Base):
    def forward(self, x):
        return self.lin(x), x * 2, x + x.contiguous(), torch.empty_like(x).fill_(1), x.reshape(-1)


@exact(
    (torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last),),
    [(torch.randn(2, 3, 5, 5),), (torch.randn(1, 3, 7, 7).to(memory_format=torch.channels_last),)],
)
class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x), x * 2, x.flatten(1)


@assumes(
    (torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last),),
    [(torch.randn(2, 3, 5, 5),)],
)
class AsksFormat(nn.Module):
    def forward(self, x):
        last = x.is_contiguous(memory_format=torch.channels_last)
        return x * 2 if last else x * 3


@exact((torch.randn(0, 4),), [(torch.randn(3, 4),), (torch.randn(1, 4),)])
class ZeroSize(Base):
    def forward(self, x):
        return self.lin(x).view(x.shape[0], 4) + x.sum()


@exact((torch.tensor(2.0),), [(torch.tensor(-3.0),)])
class ZeroDim(nn.Module):
    def forward(self, x):
        return x * 2, x.view(1), x[None], 3 / x, x**2


@assumes((torch.tensor(2.0),), [(torch.tensor([2.0, 3.0]),), (torch.randn(2, 2, 2),)])
class Rank(nn.Module):
    def forward(self, x):
        if x.dim() == 0:
            x = x[None]
        elif x.ndim == 1:
            x = x * 5
        return x * len(x.shape)


@assumes((torch.randn(2, 3),), [(torch.randn(3),), (torch.randn(1, 2, 3),)])
class RankByShape(nn.Module):
    def forward(self, x):
        return x * len(x.shape) + len(x.size())


@assumes((torch.randn(2, 3),), [(torch.randn(3),), (torch.randn(1, 2, 3),)])
class RankByLastSize(nn.Module):
    def forward(self, x):
        return x.reshape(-1, x.shape[-1]) * x.stride(-1) + x.shape[-1]


@assumes((torch.randn(2, 3),), [(torch.randn(1, 2, 3),)])
class RankOfResult(nn.Module):
    def forward(self, x):
        y = x.sum(0)
        return y * 2 if y.dim() == 1 else y * 3


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.ones(3, 4).long(),)])
class DtypeBranch(nn.Module):
    def forward(self, x):
        return x * 2 if x.dtype == torch.float32 else x.double() * 3


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.ones(3, 4).long(),)])
class DtypeOfResult(nn.Module):
    def forward(self, x):
        y = x + 1
        return y * 2 if y.dtype is torch.float32 else y * 3


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.ones(3, 4).long(),)])
class DtypeOtherwise(nn.Module):
    def forward(self, x):
        y = x * 2 if x.is_floating_point() else x * 3
        return y + torch.finfo(y.dtype).max * 0 if torch.is_floating_point(y) else y


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.randn(3, 4).bfloat16(),)])
class DtypeUsed(nn.Module):
    def forward(self, x):
        return torch.zeros(4, dtype=x.dtype) + x, torch.ones(3).to(x), torch.ones(3).type_as(x)


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.randn(3, 4).bfloat16(),)])
class FinfoOfDtype(nn.Module):
    def forward(self, x):
        return x.masked_fill(x > 0, torch.finfo(x.dtype).min)


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),)])
class TypeByName(nn.Module):
    def forward(self, x):
        return x * 2 if x.type() == "torch.FloatTensor" else x * 3


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),)])
class ItemSize(nn.Module):
    def forward(self, x):
        return x * x.element_size() + x.itemsize + x.nbytes


@exact((torch.randn(3, 4, dtype=torch.complex64),), [(torch.randn(5, 4, dtype=torch.complex64),)])
class Complex(nn.Module):
    def forward(self, x):
        y = torch.view_as_real(x)
        y[..., 0] += 1
        return x.real, x.imag, x.conj() * 2j, torch.fft.fft(x), x.abs(), y, x.angle()


@exact((torch.tensor([True, False, True]),), [(torch.tensor([False, False]),)])
class Bools(nn.Module):
    def forward(self, x):
        return ~x, x & x, x.sum(), x.float(), x | True, x ^ x, x.any(), torch.zeros(len(x.shape))


@exact((torch.ones(3, 4, dtype=torch.int8),), [(torch.ones(5, 4, dtype=torch.int8) * 3,)])
class Int8(nn.Module):
    def forward(self, x):
        return x + 1, x // 2, x / 2, x << 1, x * x, 2 - x, x.float() @ x.float().t()


@exact((torch.randn(3, 4, dtype=torch.bfloat16),), [(torch.randn(5, 4, dtype=torch.bfloat16),)])
class BFloat(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4).bfloat16()

    def forward(self, x):
        return self.lin(x), x.float() + 1, torch.softmax(x, -1)


@dataclass
class Result:
    logits: torch.Tensor
    hidden: Any = None
    more: list = field(default_factory=list)


class Special(OrderedDict):
    pass


@exact()
class Outputs(Base):
    def forward(self, x):
        y = self.lin(x)
        return {
            "list": [y, (x, None, 3, 2.5, "text", True)],
            "pair": Pair(y, x),
            "data": Result(y, (x,), [1, y]),
            "special": Special(a=y, b=None),
            "dtype": y.dtype,
            "shape": y.shape,
            5: y + 1,
        }


@exact()
class ReturnsNothing(Base):
    def forward(self, x):
        self.lin(x)


@exact()
class ReturnsConstants(Base):
    def forward(self, x):
        return 3, "text", [1.5, None], {"a": True}


@exact()
class ReturnsParameter(Base):
    def forward(self, x):
        return self.lin.weight, self.lin.bias, self.lin(x), x


@exact()
class ReturnsEmpty(Base):
    def forward(self, x):
        return self.lin(x), (), [], {}


@refused("set|frozenset")
class ReturnsSet(Base):
    def forward(self, x):
        return self.lin(x), {1, 2}


@refused("function|lambda")
class ReturnsFunction(Base):
    def forward(self, x):
        return self.lin(x), lambda: 3


@refused("ndarray|numpy")
class ReturnsArray(Base):
    def forward(self, x):
        return self.lin(x), np.ones(3)


@exact()
class ReturnsTorchStruct(Base):
    def forward(self, x):
        return torch.max(self.lin(x), 1), x.sort(), torch.linalg.qr(x), x.topk(2)


@exact()
class ReturnsDevice(Base):
    def forward(self, x):
        return self.lin(x), x.device.type


@exact()
class TakesBack(Base):
    def forward(self, x):
        y = self.lin(x)
        return y, y.shape == x.shape, len(y)


# --- other ways in which values come about ---


@refused("see|numpy|ndarray")
class ThroughNumpyAndBack(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        array = np.zeros((3, 4), dtype=np.float32)
        torch.from_numpy(array).copy_(y[:3])
        return y + torch.tensor(array[0])


@refused("see|numpy|storage")
class ThroughStorage(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        y.untyped_storage().fill_(0)
        return y + x


@refused("see|pickle|save|copy|storage")
class ThroughPickle(Base):
    def forward(self, x):
        return pickle.loads(pickle.dumps(self.lin(x).detach())) * 2


@refused("set_|storage")
class DeepCopies(Base):
    def forward(self, x):
        return copy.deepcopy(self.lin(x).detach()) * 2 + copy.copy(x)


@refused("see|deepcopy|copy")
class CopiesModule(Base):
    def forward(self, x):
        return copy.deepcopy(self.lin)(x)


@refused("not registered in the model")
class MakesModule(Base):
    def forward(self, x):
        return nn.Softmax(1)(nn.LayerNorm(4)(self.lin(x)))


@refused("see|parameter|registered|random")
class MakesModuleWithWeights(Base):
    def forward(self, x):
        return nn.Linear(4, 4)(self.lin(x))


class Wrapped(torch.Tensor):
    pass


@refused("subclass|Wrapped|see")
class Subclasses(Base):
    def forward(self, x):
        return self.lin(x).as_subclass(Wrapped) * 2


@exact()
class Sparse(Base):
    def forward(self, x):
        return torch.sparse.mm(x.relu().to_sparse(), self.lin.weight)


@exact()
class NestedTensor(Base):
    def forward(self, x):
        nested = torch.nested.nested_tensor([x, x[:1]])
        return self.lin(nested.to_padded_tensor(0.0))


@exact()
class Einsum(Base):
    def forward(self, x):
        return torch.einsum("ij,kj->ik", self.lin(x), x), torch.block_diag(x, x), torch.cdist(x, x)


@exact()
class Operators(Base):
    def forward(self, x):
        y = self.lin(x)
        y = 2 - y + 3 / (y + 9) + 2**y + (y > 0).float() + (5 // (y + 9)) + (7 % (y + 9)) - (-y)
        y @= torch.eye(4)
        y **= 2
        y //= 0.5
        y %= 3
        return y, y[None, ..., 1], y >= 0, y != x, abs(y), +y, divmod(y, 2) if False else y


@exact()
class DivmodOfTensor(Base):
    def forward(self, x):
        a, b = torch.div(x, 2, rounding_mode="floor"), torch.remainder(x, 2)
        return a, b, self.lin(x).__rsub__(1), torch.Tensor.add(x, 1), torch.add(x, x, alpha=2)


@exact()
class Partial(Base):
    def forward(self, x):
        act = partial(F.leaky_relu, negative_slope=0.3)
        table = {"relu": torch.relu, "gelu": F.gelu}
        return table["gelu"](act(self.lin(x)))


_FACTOR = torch.tensor([1.0, 2.0, 3.0, 4.0])


@exact()
class GlobalTensor(Base):
    def forward(self, x):
        return self.lin(x) * _FACTOR


@refused("register_buffer")
class ChangesGlobal(Base):
    def forward(self, x):
        _FACTOR.mul_(1.0)
        return self.lin(x) * _FACTOR


@refused("not registered")
class ChangesViewOfConstant(Base):
    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(2, 4)

    def forward(self, x):
        self.cache[0].add_(1)
        return self.lin(x) + self.cache[0]


@refused("not registered")
class ChangesConstantByData(Base):
    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(4)

    def forward(self, x):
        self.cache.data.add_(1)
        return self.lin(x) + self.cache


@refused("not registered")
class ChangesConstantByOut(Base):
    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(4)

    def forward(self, x):
        torch.add(self.cache, 1, out=self.cache)
        return self.lin(x) + self.cache


@refused("not registered")
class ChangesConstantInLeaf(Base):
    def __init__(self):
        super().__init__()
        self.cache = [torch.full((4,), -1.0)]
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        before = self.cache[0].clone()
        self.relu(self.cache[0])
        return self.lin(x) + before


@refused("not registered")
class ChangesConstantByFunction(Base):
    def __init__(self):
        super().__init__()
        self.cache = [torch.full((4,), -1.0)]

    def forward(self, x):
        before = self.cache[0].clone()
        F.relu(self.cache[0], inplace=True)
        return self.lin(x) + before


@exact()
class TensorInDefault(Base):
    def forward(self, x, scale=_FACTOR):
        return self.lin(x) * scale


@exact()
class DefaultDevice(Base):
    def forward(self, x):
        return self.lin(x).to(x.device) + torch.zeros(4, device=self.lin.weight.device)


@exact()
class AsksDeviceEqual(Base):
    def forward(self, x):
        return self.lin(x) * 2 if x.device == torch.device("cpu") else self.lin(x)


@exact()
class TwiceModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.norm(x) + 1)


@exact((torch.randn(3, 4),), [(torch.randn(5, 4),)])
class BatchNormByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        norm = self.norm
        y = F.batch_norm(x, norm.running_mean, norm.running_var, training=self.training)
        return y + norm.running_mean


@exact((torch.randn(3, 4),), [(torch.randn(5, 4),)])
class InstanceNormByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        return F.instance_norm(x.t()[None], self.mean[:3], self.var[:3]) if False else x + self.mean


@exact((torch.tensor([[1, 2], [3, 0]]),), [(torch.tensor([[1], [3]]),)])
class EmbeddingWithMaxNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4, max_norm=0.5)
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        return self.table(x) + F.embedding(x, self.weight.detach(), max_norm=0.3)


# --- what is changed for a while, and put back ---


class WithDropout(Base):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)


@refused("drop|assigns|changes|p")
class ChangesLeafForAWhile(WithDropout):
    def forward(self, x):
        self.drop.p = 0.0
        y = self.drop(self.lin(x))
        self.drop.p = 0.5
        return y


@refused("drop|mode|training")
class ChangesModeForAWhile(WithDropout):
    def forward(self, x):
        was = self.drop.training
        self.drop.eval()
        y = self.drop(self.lin(x))
        self.drop.train(was)
        return y


@refused("lin|forward|assigns")
class ChangesForwardForAWhile(Base):
    def forward(self, x):
        was = self.lin.forward
        self.lin.forward = lambda each: was(each) * 5
        y = self.lin(x)
        del self.lin.forward
        return y


@refused("lasts for a call")
class HooksForAWhile(Base):
    def forward(self, x):
        handle = self.lin.register_forward_hook(lambda module, args, out: out * 5)
        y = self.lin(x)
        handle.remove()
        return y


@refused("weight|assigns|lin")
class SwapsWeightForAWhile(Base):
    def forward(self, x):
        weight = self.lin.weight
        del self.lin._parameters["weight"]
        self.lin.weight = weight * 2
        y = self.lin(x)
        del self.lin.weight
        self.lin._parameters["weight"] = weight
        return y


@refused("attention's kernel")
class ChoosesKernel(Base):
    def forward(self, x):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return F.scaled_dot_product_attention(x[None], x[None], x[None])[0]


@refused("autocast")
class SetsAutocast(Base):
    def forward(self, x):
        torch.set_autocast_enabled("cpu", True)
        y = self.lin(x)
        torch.set_autocast_enabled("cpu", False)
        return y


@refused("saved_tensors|hook")
class SavedTensorsHooks(Base):
    def forward(self, x):
        with torch.autograd.graph.saved_tensors_hooks(lambda each: each * 2, lambda each: each):
            return self.lin(x) ** 2


@refused("default dtype|default_dtype")
class AsksDefaultDtype(Base):
    def forward(self, x):
        kind = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        y = x * torch.ones(4)
        torch.set_default_dtype(kind)
        return y


@refused("apply_")
class AppliesFunction(Base):
    def forward(self, x):
        y = self.lin(x).detach()
        y.apply_(lambda each: each * 2)
        return y


@refused("catches an error of torch")
class CatchesError(Base):
    def forward(self, x):
        y = self.lin(x)
        try:
            return y + torch.ones(5, 4)
        except RuntimeError:
            return y


@refused("catches an error of child: for other inputs")
class CatchesErrorOfChild(Base):
    """What is recorded after a module did not come to its end, is not its own."""

    class Child(nn.Module):
        def forward(self, x):
            raise ValueError

    def __init__(self):
        super().__init__()
        self.child = self.Child()

    def forward(self, x):
        y = self.lin(x)
        try:
            return self.child(y)
        except ValueError:
            return y + 1


@assumes()
class PadsSequences(Base):
    """A function without a name, which decides by the sizes of tensors in a list."""

    def forward(self, x):
        return nn.utils.rnn.pad_sequence([self.lin(x), x[:1]], batch_first=True)


@assumes()
class PadsAround(Base):
    """Likewise; what it does fails with other sizes, and what is assumed of them comes before."""

    def forward(self, x):
        y = x * 2
        part = self.lin(x).chunk(2, -1)[0]
        return torch._C._nn.pad(part, (1, 1), "circular") + y.sum()


@exact()
class PowerOfSize(Base):
    def forward(self, x):
        return self.lin(x) ** x.shape[0]


@exact()
class SizeOverTensor(Base):
    def forward(self, x):
        return x.shape[0] / self.lin(x)


@exact()
class SizeAgainstTensor(Base):
    def forward(self, x):
        n, y = x.shape[0], self.lin(x)
        return n - y, n + y, n * y, n > y, n**y, n // (y + 9), n % (y + 9), y.__rsub__(n), y == n


@exact()
class AtenFull(Base):
    def forward(self, x):
        return torch.ops.aten.full([x.shape[0], 4], 1.0) * self.lin(x).sum()


@assumes()
class UnbindsCopies(Base):
    def forward(self, x):
        return sum((i + 1) * each for i, each in enumerate(torch.unbind_copy(self.lin(x))))


@assumes()
class SplitsCopies(Base):
    def forward(self, x):
        return sum((i + 1) * each.sum() for i, each in enumerate(torch.split_copy(x, 2)))


@assumes()
class SplitsByOperation(Base):
    def forward(self, x):
        return sum((i + 1) * each.sum() for i, each in enumerate(torch.ops.aten.split.Tensor(x, 2)))


@assumes()
class HSplitsBySize(Base):
    def forward(self, x):
        return sum((i + 1) * each.sum() for i, each in enumerate(x.t().hsplit(x.shape[0])))


@exact()
class SplitsTensorByOperation(Base):
    def forward(self, x):
        return torch.ops.aten.tensor_split(self.lin(x), 2)[0]


@exact()
class RepeatsByOperation(Base):
    def forward(self, x):
        return torch.ops.aten.repeat_interleave(self.lin(x), 2, 0)


@exact()
class DropsFeaturesByOperation(Base):
    def forward(self, x):
        return torch.ops.aten.feature_dropout(self.lin(x), 0.5, True)


@exact()
class MaxPools(nn.Module):
    def forward(self, x):
        return F.max_pool1d(x[None], 2), F.adaptive_max_pool1d(x[None], 2)


@exact()
class PicklesOperators(Base):
    def forward(self, x):
        y = self.lin(x)
        return y**2, 3 / y


# What refuses these is no line of theirs.
UNPLACED = frozenset(
    "AppendsToHistory CachesInDict CachesOneInDict CachesPositions ChangesConstantByData "
    "ChangesConstantByFunction ChangesConstantByOut ChangesConstantInLeaf "
    "ChangesViewOfConstant CountsInList "
    "CountsInObject GradLeaks NumpyRandom ParameterHook "
    "PostAccumulateHook PythonRandom ReturnsArray ReturnsFunction ReturnsSet "
    "StoresFromCallToCall".split()
)

# They are captured with what another seed, or a second call, does not give them.
FICKLE = frozenset({"RandomDecidesAssumed", "StateDecidesAssumed"})


@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    trap = TRAPS[name]
    outcomes = explore(trap)
    wrong = {where: what for where, what in outcomes.items() if what.startswith("WRONG")}
    assert not wrong
    assumed = [where for where, what in outcomes.items() if what.startswith("assumption")]
    if trap.expect == "refused":
        assert "capture" in outcomes, "captured"
        assert re.search(trap.reason, outcomes["capture"]), outcomes["capture"]
        is_placed = "test_adversarial.py, line" in outcomes["capture"]
        assert is_placed != (name in UNPLACED), outcomes["capture"]
    else:
        assert "capture" not in outcomes, outcomes["capture"]
        assert bool(assumed) == (trap.expect == "assumes"), outcomes
        if name not in FICKLE:
            assert not any(where.startswith("given, train, null") for where in assumed), outcomes


# --- elsewhere than where it was captured ---

X = torch.randn(3, 4)


def _rebuilt(model, *args, captured=None):
    ir = lg.to_ir(captured or model, args)
    return lg.to_torch(ir, model.state_dict())


def _lawful(model, rebuilt, *args):
    """The same, or refused."""
    try:
        outputs = rebuilt(*args)
    except AssumptionError:
        return
    assert _alike(model(*args), outputs)


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
    for one, other in zip(_leaves(model(X)), _leaves(result), strict=True):
        assert _alike(one, other)


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

    _, touched = _touched(model, (X,), {}, capture)
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
            assert _alike(one, same)
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
    assert _alike(model(X), rebuilt(X))


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
    assert _alike(model(y), rebuilt(y))


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


def test_values_has_two_policies():
    with pytest.raises((CaptureError, ValueError, TypeError), match="bogus"):
        lg.to_ir(Portable(), (X,), values="bogus")


def test_refusals_are_sentences():
    with pytest.raises(CaptureError) as caught:
        lg.to_ir(nn.Sequential(Item()), (X,))
    assert "'0'" in str(caught.value)
    assert not str(caught.value).startswith("(")


# --- limits ---


@dataclass
class Limit:
    """A model that may come back wrong, in silence: Python shows nobody what it decides by."""

    reason: str
    given: tuple[Any, ...]
    others: list[tuple[Any, ...]]
    kwargs: dict[str, Any]
    device: str


LIMITS: dict[type[nn.Module], Limit] = {}


def limit(reason, given=(X,), others=None, kwargs=None, device="cpu"):
    """What is known, and accepted, not to be seen."""

    def register(cls):
        LIMITS[cls] = Limit(reason, given, others or [(given, kwargs or {})], kwargs or {}, device)
        return cls

    return register


@limit("a size passes for an int, except where its very type is asked for")
class TypeOfSize(Base):
    def forward(self, x):
        return self.lin(x) if type(x.shape[0]) is int else x


@limit("the text of a shape is for messages", (X,), [((torch.randn(5, 4),), {})])
class ShapeAsText(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if str(x.shape) == "torch.Size([3, 4])" else 1.0)


@limit("a function that gives its argument back, gives another object for it", (X, X + 1))
class AsksIdentity(Base):
    def forward(self, x, y):
        z = x.contiguous()
        return self.lin(z) if z is x else self.lin(y)


@limit("a function that gives its argument back, gives another object for it")
class AsksIdentityOfOwn(Base):
    def __init__(self):
        super().__init__()
        self.same = nn.Identity()

    def forward(self, x):
        y = self.lin(x)
        return y * 2 if self.same(y) is y else y


@limit("likewise: a dict finds tensors by which object they are")
class KeyedByTensor(Base):
    def forward(self, x):
        y = self.lin(x)
        known = {y: 1.0}
        return y * known.get(y.contiguous(), 2.0)


@limit("tensors are printed all the time, so that their text is no decision", others=[((-X,), {})])
class TextOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * len(str(x.sum() > 0))


@limit("tensors are printed all the time, so that their text is no decision", others=[((-X,), {})])
class ReprOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * (2 if "-" in repr(x[0, 0]) else 1)


@limit("the operating system tells it, and there is nothing to compare")
class AsksClock(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if time.time() > 0 else 1.0)


@limit("the operating system tells it, and there is nothing to compare")
class AsksForBytes(Base):
    def forward(self, x):
        return self.lin(x) * len(os.urandom(2)) * len(uuid.uuid4().bytes)


@limit("the operating system tells it, and there is nothing to compare")
class ReadsFile(Base):
    def forward(self, x):
        with Path(__file__).open() as file:
            return self.lin(x) * len(file.readline())


@limit("a second run is no other than the first, and a hundredth is not tried")
class CountsCalls(Base):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.lin(x) * (2.0 if self.calls % 100 == 0 else 1.0)


GETTERS = [torch.is_grad_enabled]


@limit("getters are looked for by their names, and not in what is in lists")
class AsksByListedGetter(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if GETTERS[0]() else 1.0)


@limit(
    "Python binds names to parameters, and their order is gone",
    (X,),
    [((X,), {"b": X + 1, "a": X})],
    {"a": X, "b": X + 1},
)
class OrderOfNames(Base):
    def forward(self, x, **named):
        for index, value in enumerate(named.values()):
            x = x + value * index
        return x


@limit(
    "the parameters of a graph have no kinds: a name can do without",
    (X,),
    [((X, 2.0), {})],
    {"scale": 2.0},
)
class KeywordOnly(Base):
    def forward(self, x, *, scale=2.0):
        return self.lin(x) * scale


@limit(
    "that there was no error for these inputs, does not show that one would be caught",
    others=[((torch.randn(5, 4),), {})],
)
class CatchesNoError(Base):
    def forward(self, x):
        y = self.lin(x)
        try:
            return y.view(3, 4) * 2
        except RuntimeError:
            return y


@limit("the device is free to change, for graphs are captured on meta", device="meta")
class AsksDevice(Base):
    def forward(self, x):
        return self.lin(x) if x.device.type == "meta" else self.lin(x) * 2


@limit("the device is free to change, for graphs are captured on meta", device="meta")
class AsksDeviceAsText(Base):
    def forward(self, x):
        return self.lin(x) if str(x.device) == "meta" else self.lin(x) * 2


@limit("the device is free to change, for graphs are captured on meta", device="meta")
class AsksIsCpu(Base):
    def forward(self, x):
        return self.lin(x) * 2 if x.is_cpu else self.lin(x)


@pytest.mark.parametrize("cls", LIMITS)
def test_limits_do_no_damage(cls):
    known = LIMITS[cls]
    model = cls().to(known.device)
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda each: each.to(known.device), (known.given, known.kwargs)
    )

    def capture():
        try:
            return lg.to_ir(model, args, kwargs)
        except LayergraphError:
            return None

    ir, touched = _touched(model, args, kwargs, capture)
    assert not touched
    if ir is not None:
        model = cls()
        rebuilt = lg.to_torch(ir, model.state_dict())
        for given, named in [(known.given, known.kwargs), *known.others]:
            assert observe(rebuilt, given, named, training=True)
