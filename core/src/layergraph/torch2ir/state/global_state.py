"""The state of torch that a model's code may set: compared around what is recorded, and put back.

A call that is recorded computes under settings (the default dtype, oneDNN, deterministic algorithms
…) and draws from a generator. The rebuilt model makes the same calls, and sets nothing: a setting
that the code changed, by whatever name, would be lost. So all of them are read before each call.
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
from layergraph.ir.function_name import FunctionName
from layergraph.torch_versions import has
from layergraph.undo import undoing


class Setting(NamedTuple):
    """A setting of torch: code sets it once, and it then holds for all calls.

    Attributes:
        name: what it is.
        get: tells what it is now.
        set: sets it; None where only a region does.
    """

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object] | None


# Messages, names of threads, and what belongs to one run of the tracer of another: no number
# depends on these. The number of threads between operations cannot be changed.
_UNCONCERNED = re.compile("warn|thread_name|interop|tracing_state|torch_function|graph_exec")
# Settings without a setter of the same name.
_UNPAIRED = (
    "_get_deterministic_algorithms_warn_only _get_fp32_precision_getter _is_any_autocast_enabled "
    "is_anomaly_check_nan_enabled is_inference_mode_enabled"
).split()


@functools.cache
def getters() -> dict[str, Callable[..., Any]]:
    """The functions of ``torch._C`` that tell a setting: for each there is one that sets it."""
    found = {name: each for name, each in vars(torch._C).items() if _is_c_function(each)}
    told = {name: found[name] for name in found if _setter_of(name, found) is not None}
    return told | {name: found[name] for name in _UNPAIRED if name in found}


def _is_c_function(value: object) -> bool:
    return type(value) is BuiltinFunctionType


@functools.cache
def setters() -> list[Callable[..., Any]]:
    """The functions of ``torch._C`` that set what is not compared before each call."""
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
    """All settings that can be read without arguments, and those that are there for a device."""
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
        # Deprecated is what says the same as another.
        warnings.simplefilter("error")
        for name, get in getters().items():
            put = _setter_of(name, vars(torch._C))
            try:
                get()
            except Exception:  # noqa: S112 it wants arguments
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
    # The processor's own flag, which torch sets and does not tell.
    yield Setting("flush denormal", _flushes, torch.set_flush_denormal)


def _entry(home: Any, name: str) -> Any:
    # It takes long to ask for an attribute that is not there.
    return home.__dict__.get(name)


def _put_entry(home: Any, name: str, value: Any) -> None:
    setattr(home, name, value)
    if value is None and name == _CONTEXT:
        # Older releases of torch expect that it is not there.
        delattr(home, name)


def _flushes() -> bool:
    return not _LEAST / 2.0


_LEAST = sys.float_info.min
_CONTEXT = "device_context"


@functools.cache
def devices() -> tuple[str, ...]:
    """The types of devices that there are."""
    is_there = torch.accelerator.is_available()
    accelerator = torch.accelerator.current_accelerator() if is_there else None
    return ("cpu",) if accelerator is None else ("cpu", accelerator.type)


def snapshot() -> list[Any]:
    """The values of all settings."""
    return [each.get() for each in settings()]


def put_back(before: list[Any]) -> None:
    """Make all settings what they were."""
    if snapshot() == before:
        return
    for setting, was in zip(settings(), before, strict=True):
        if setting.set is None:
            continue
        with suppress(Exception):  # Half put back, some of torch's settings contradict others.
            if setting.get() == was:
                continue
        with suppress(Exception):  # the others can be put back all the same
            setting.set(*was) if type(was) is tuple else setting.set(was)


# These are compared before each call, as it takes next to no time. The others are compared at the
# end, and as soon as something was called that may set them.
_QUICK = frozenset(
    {
        *("default device", "default dtype", "deterministic algorithms", "inference mode"),
        *("mkldnn", "num threads"),
    }
)
# Regions change it, and are nodes of the graph: torch tells modes of them, by whatever name.
_RECORDED = "grad"
REMEDY = "a graph would run without it; set it outside of the model"


class GlobalState:
    """The settings of torch, and its generators, while a model runs.

    The generators are seeded: at the beginning, and after each call that may draw. Their seed then
    tells whether they have been seeded since, or set to a state that was there before.

    Args:
        device: where the model runs; None if nothing tells.

    Attributes:
        is_touched: whether something was called that may set what is not compared each time.
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
        """While the model runs; then everything is put back."""
        before = snapshot()
        states = [(each, each.get_state()) for each in self._generators]
        # A model in the same state is captured with the same numbers.
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
        """Expect the settings to stay as they are now: a recorded region has changed them."""
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
        """Note that a change of a setting, or of a generator (no name), is already reported."""
        self._told.add(name)

    def change(self, *, of_all: bool = False) -> str | None:
        """The message about changes since the last recorded call; None if there are none.

        Args:
            of_all: to look at those, too, that it takes longer to read.
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
    """Have torch choose between its kernels of attention.

    On some GPUs the first attention of a process sets the order in which torch prefers them. No
    code of the model does that, and to put it back would change what the process computes with.
    """
    with torch._C.DisableTorchFunction(), torch.no_grad(), suppress(Exception):
        given = torch.zeros(1, 1, 8, 64, dtype=torch.float32, device="cuda")
        nn.functional.scaled_dot_product_attention(given, given, given)


def generators(device: torch.device | None) -> list[torch.Generator]:
    """Torch's own generators that a model draws from: that of the processor, and its device's."""
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
    """A seed that no model chooses; the same one for the same argument."""
    return (seed * 6364136223846793005 + 1442695040888963407) % 2**62


def _draws(name: str) -> bool:
    operation = getattr(torch.ops.aten, name, None)
    if not isinstance(operation, torch._ops.OpOverloadPacket):
        return True
    overloads = [getattr(operation, each or "default") for each in operation._overload_names]
    return any(torch.Tag.nondeterministic_seeded in each.tags for each in overloads)


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
    # A function in Python may draw, whatever the operation of the same name does.
    return is_python or _draws(last)


def may_layer_draw(cls: type) -> bool:
    """Return whether a layer may draw random numbers, by its class."""
    return cls.__module__ not in _STEADY


# The modules of torch whose layers draw none.
_STEADY = frozenset(
    f"torch.nn.modules.{name}" for name in "batchnorm conv linear normalization sparse".split()
)
_NEVER_DRAW = ("operator.", "math.", "builtins.", "layergraph.", "torch.Tensor.__")
