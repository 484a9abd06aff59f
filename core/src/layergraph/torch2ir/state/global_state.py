"""The global state of torch: compared around each recorded call, and restored after the run.

A recorded call computes under settings (the default dtype, oneDNN, deterministic algorithms …) and
draws from a generator. The rebuilt model makes the same calls but sets nothing, so it would lose a
setting that the original code changes. So we read the settings before each call.
"""

from __future__ import annotations

import functools
import operator
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _device

from layergraph.functions.foreign import applied_class
from layergraph.functions.operations import overloads
from layergraph.ir.function_name import FunctionName
from layergraph.torch_versions import has
from layergraph.undo import undoing


class Setting(NamedTuple):
    """A setting of torch: code sets it once, and it then holds for all calls.

    Attributes:
        name: its name.
        get: returns its value.
        set: sets its value; None if only a region can.
    """

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object] | None


# No result depends on messages, thread names and the state of other tracers. The number of interop
# threads cannot be changed after the start.
_UNCONCERNED = re.compile("warn|thread_name|interop|tracing_state|torch_function|graph_exec")
# Settings without a setter of the same name.
_UNPAIRED = (
    "_get_deterministic_algorithms_warn_only _get_fp32_precision_getter _is_any_autocast_enabled "
    "is_anomaly_check_nan_enabled is_inference_mode_enabled"
).split()


@functools.cache
def getters() -> dict[str, Callable[..., Any]]:
    """Return the functions of ``torch._C`` that read a setting and have a matching setter."""
    found = {name: each for name, each in vars(torch._C).items() if _is_c_function(each)}
    told = {name: found[name] for name in found if _setter_of(name, found) is not None}
    return told | {name: found[name] for name in _UNPAIRED if name in found}


def _is_c_function(value: object) -> bool:
    return type(value) is BuiltinFunctionType


@functools.cache
def setters() -> list[Callable[..., Any]]:
    """Return the functions of ``torch._C`` that set settings outside the quick comparison."""
    slow: list[Any] = [each.set for each in settings() if each.name not in _NOT_SLOW]
    return [
        *filter(_is_c_function, slow),
        *([torch._C._set_fp32_precision_setter] if has("fp32_precision") else []),
        torch._C.set_autocast_dtype,
    ]


def _setter_of(getter: str, among: dict[str, Any]) -> Any:
    match = re.fullmatch(r"_?(?:get|is)_(\w+)", getter)
    if match is None or _UNCONCERNED.search(getter):
        return None
    stem, bare = match[1], match[1].removesuffix("_enabled")
    kernel = f"sdp_use_{bare.removesuffix('_sdp')}"
    names = [f"{start}{each}" for start in ("_set_", "set_") for each in (stem, bare, kernel)]
    return next((among[name] for name in names if name in among), None)


@functools.cache
def settings() -> tuple[Setting, ...]:
    """Return all settings that can be read without arguments, or with a device type."""
    found = [*_paired(), *_odd()]
    for device in devices():
        for name in ("is_autocast_enabled", "get_autocast_dtype"):
            put = getattr(torch, name.replace("is_", "set_").replace("get_", "set_"))
            get = functools.partial(getattr(torch, name), device)
            found.append(Setting(f"autocast on {device}", get, functools.partial(put, device)))
    for backend, operation in _PRECISIONS if has("fp32_precision") else ():
        found.append(
            Setting(
                f"{backend} fp32 precision",
                functools.partial(torch._C._get_fp32_precision_getter, backend, operation),
                functools.partial(torch._C._set_fp32_precision_setter, backend, operation),
            )
        )
    return tuple(found)


_PRECISIONS = [(each, kind) for each in ("mkldnn", "cuda") for kind in ("matmul", "conv", "rnn")]


def _paired() -> Iterator[Setting]:
    with warnings.catch_warnings():
        # A deprecated getter duplicates another one.
        warnings.simplefilter("error")
        for name, get in getters().items():
            put = _setter_of(name, vars(torch._C))
            try:
                get()
            except Exception:  # noqa: S112 the getter needs arguments
                continue
            yield Setting(_plainly(name), get, put)


def _plainly(getter: str) -> str:
    name = re.sub(r"^_?(get|is)_|_enabled$", "", getter)
    return "choice of attention's kernel" if "sdp" in name else name.replace("_", " ")


def _odd() -> Iterator[Setting]:
    mha = torch.backends.mha
    yield Setting("attention's fast path", mha.get_fastpath_enabled, mha.set_fastpath_enabled)
    for home, name in ((_device, "CURRENT_DEVICE"), (torch._GLOBAL_DEVICE_CONTEXT, _CONTEXT)):
        yield Setting(
            "default device",
            functools.partial(_entry, home, name),
            functools.partial(_put_entry, home, name),
        )
    algorithms = torch._C._get_deterministic_algorithms
    yield Setting(
        "deterministic algorithms warn only",
        torch._C._get_deterministic_algorithms_warn_only,
        lambda only: torch._C._set_deterministic_algorithms(algorithms(), warn_only=only),
    )
    # A flag of the CPU, which torch sets but has no getter for.
    yield Setting("flush denormal", _flushes, torch.set_flush_denormal)


def _entry(home: Any, name: str) -> Any:
    # getattr is slow for a missing attribute.
    return home.__dict__.get(name)


def _put_entry(home: Any, name: str, value: Any) -> None:
    setattr(home, name, value)
    if value is None and name == _CONTEXT:
        # Older releases of torch expect the attribute to be missing.
        delattr(home, name)


def _flushes() -> bool:
    return not _LEAST / 2.0


_LEAST = sys.float_info.min
_CONTEXT = "device_context"


@functools.cache
def devices() -> tuple[str, ...]:
    """Return the available device types."""
    is_there = torch.accelerator.is_available()
    accelerator = torch.accelerator.current_accelerator() if is_there else None
    return ("cpu",) if accelerator is None else ("cpu", accelerator.type)


def snapshot() -> list[Any]:
    """Return the values of all settings."""
    return [each.get() for each in settings()]


def put_back(before: list[Any]) -> None:
    """Restore all settings."""
    if snapshot() == before:
        return
    for setting, was in zip(settings(), before, strict=True):
        if setting.set is None:
            continue
        with suppress(Exception):  # Partly restored, some settings contradict others.
            if setting.get() == was:
                continue
        with suppress(Exception):  # continue with the others
            setting.set(*was) if type(was) is tuple else setting.set(was)


# We compare these before each call, because they are fast to read. We compare the others at the
# end, and after a call that may set them.
_QUICK = frozenset(
    {
        *("default device", "default dtype", "deterministic algorithms", "inference mode"),
        *("mkldnn", "num threads"),
    }
)
# Grad mode changes in regions, which are nodes of the graph.
_RECORDED = "grad"
REMEDY = "a graph would run without it; set it outside of the model"


class GlobalState:
    """The settings and the generators of torch during a run.

    We seed the generators at the beginning, and after each call that may draw. Their seed then
    shows whether code has seeded them since, or has restored an older state.

    Args:
        device: where the model runs; None if unknown.

    Attributes:
        is_touched: whether a call may have set a setting that is not compared before each call.
    """

    def __init__(self, device: torch.device | None) -> None:
        if device is not None and device.type == "cuda":
            _choose_attention()
        self.is_touched = False
        self._generators = generators(device)
        seeds = [Setting("", each.initial_seed, None) for each in self._generators]
        quick = [each for each in settings() if each.name in _QUICK] + seeds
        self._quick = [each.get for each in quick]
        self._first = len(quick) - len(seeds)
        self._compared = quick + [each for each in settings() if each.name not in _NOT_SLOW]
        self._told: set[str] = set()

    @contextmanager
    def compared(self) -> Iterator[None]:
        """Compare the state inside a ``with`` block, and restore it at the end."""
        before = snapshot()
        states = [(each, each.get_state()) for each in self._generators]
        # Derived from the current seed, so two captures in the same state draw the same numbers.
        self._seed = _scrambled(self._generators[0].initial_seed())

        def put_everything_back() -> None:
            put_back(before)
            for generator, state in states:
                generator.set_state(state)

        with undoing(put_everything_back):
            self.refresh()
            self.drew()
            yield

    def refresh(self) -> None:
        """Take the current settings as the expected ones: a recorded region has changed them."""
        self.is_touched = False
        self._expected = [each.get() for each in self._compared]
        self._quick_ones = self._expected[: len(self._quick)]

    def drew(self) -> None:
        """Seed the generators: a call may have drawn from them."""
        self._seed = seed = self._seed + 1
        for index, generator in enumerate(self._generators, self._first):
            generator.manual_seed(seed)
            self._quick_ones[index] = seed

    def tell(self, name: str) -> None:
        """Record that a change of a setting, or of a generator (empty name), is reported."""
        self._told.add(name)

    def change(self, *, of_all: bool = False) -> str | None:
        """Return the message about changes since the last recorded call; None if there are none.

        Args:
            of_all: also compare the settings that are slow to read.
        """
        now = list(map(operator.call, self._quick))
        if now == self._quick_ones and not of_all and not self.is_touched:
            return None
        return self._changed()

    def _changed(self) -> str | None:
        now = [each.get() for each in self._compared]
        expected = [*self._quick_ones, *self._expected[len(self._quick) :]]
        changed = {
            setting.name: f"a change of torch's {setting.name} from {was!r} to {is_now!r}"
            if setting.name
            else "a change of the random number generator's state"
            for setting, was, is_now in zip(self._compared, expected, now, strict=True)
            if was != is_now
        }
        if changed:
            self.refresh()
            self.drew()
        told = [said for name, said in changed.items() if name not in self._told]
        self._told |= changed.keys()
        return f"{', '.join(told)}: {REMEDY}" if told else None


_NOT_SLOW = _QUICK | {_RECORDED}


@functools.cache
def _choose_attention() -> None:
    """Make torch choose its attention kernels before the run.

    On some GPUs the first attention of a process sets the order of the kernels. This is no change
    by the model's code, and restoring the old order would change later results.
    """
    with torch._C.DisableTorchFunction(), torch.no_grad(), suppress(Exception):
        given = torch.zeros(1, 1, 8, 64, dtype=torch.float32, device="cuda")
        nn.functional.scaled_dot_product_attention(given, given, given)


def generators(device: torch.device | None) -> list[torch.Generator]:
    """Return torch's default generators that a model draws from: of the CPU, and of its device."""
    found = [torch.default_generator]
    if device is not None and device.type not in ("cpu", "meta"):
        module = torch.get_device_module(device)
        of_devices = getattr(module, "default_generators", ())
        if of_devices:
            index = device.index if device.index is not None else module.current_device()
            found.append(of_devices[index])
        elif device.type == "mps":
            found.append(torch.mps._get_default_mps_generator())
    return found


def _scrambled(seed: int) -> int:
    """Return a seed that no model would choose; equal arguments give equal seeds."""
    return (seed * 6364136223846793005 + 1442695040888963407) % 2**62


def _draws(name: str) -> bool:
    operation = getattr(torch.ops.aten, name, None)
    if not isinstance(operation, torch._ops.OpOverloadPacket):
        return True
    return any(torch.Tag.nondeterministic_seeded in each.tags for each in overloads(operation))


def may_draw(name: str, function: object) -> bool:
    """Return whether a function, by its name, may draw random numbers."""
    is_python = type(function) is FunctionType or applied_class(function) is not None
    return _may_draw(str(name), is_python or type(name) is FunctionName)


@functools.cache
def _may_draw(name: str, is_python: bool) -> bool:
    if name.startswith(_NEVER_DRAW):
        return False
    parts = name.split(".")
    last = parts[3] if parts[:3] == ["torch", "ops", "aten"] else parts[-1]
    # A Python function may draw even if the operation of that name does not.
    return is_python or _draws(last)


def may_layer_draw(cls: type) -> bool:
    """Return whether a layer may draw random numbers, by its class."""
    return cls.__module__ not in _STEADY


# The modules of torch whose layers draw no random numbers.
_STEADY = frozenset(
    f"torch.nn.modules.{name}" for name in "batchnorm conv linear normalization sparse".split()
)
_NEVER_DRAW = ("operator.", "math.", "builtins.", "layergraph.", "torch.Tensor.__")
