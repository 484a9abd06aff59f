"""The surroundings of a call: random state, settings of torch, environment variables."""

from __future__ import annotations

import os
import pickle
import random
import re
import sys
import warnings
from collections import UserDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch

from layergraph.torch2ir.state.global_state import put_back, settings, snapshot
from layergraph.undo import undoing


def seed(number: int, devices: Collection[int]) -> None:
    """Seed all random generators that models use.

    Args:
        number: the seed.
        devices: the numbers of the CUDA devices that are in use.
    """
    # torch.manual_seed would seed all devices, and initialise those that are not in use yet.
    torch.default_generator.manual_seed(number)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(number)
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number % 2**32)


def state(devices: Collection[int], before: list[Any]) -> dict[str, object]:
    """Return the global state that a call may change, by name.

    Args:
        devices: the numbers of the CUDA devices that are in use.
        before: the settings before the call; the result lists only those that changed.
    """
    found: dict[str, object] = {
        "torch's random state": torch.default_generator.get_state(),
        "Python's random state": random.getstate(),
    }
    for device in devices:
        found[f"the random state of cuda:{device}"] = torch.cuda.get_rng_state(device)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        # Pickle the state: comparing its text would take longer than running a small model.
        found["numpy's random state"] = pickle.dumps(numpy.random.get_state())
    for setting, was, value in zip(settings(), before, snapshot(), strict=True):
        if value != was:
            found[f"torch's {setting.name}"] = value
    return found


@contextmanager
def settings_restored() -> Iterator[list[Any]]:
    """Restore the settings of torch at the end. Yield the settings at the beginning."""
    before = snapshot()
    with undoing(partial(put_back, before)):
        yield before


@contextmanager
def restored(devices: Collection[int]) -> Iterator[None]:
    """Restore the random state and the settings of torch, which a call may change.

    Args:
        devices: the numbers of the CUDA devices that are in use.
    """
    numpy: Any = sys.modules.get("numpy")
    python, of_numpy = random.getstate(), numpy and numpy.random.get_state()
    generators = [torch.default_generator]
    generators += [torch.cuda.default_generators[device] for device in devices]
    states = [each.get_state() for each in generators]

    def undo() -> None:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(of_numpy)
        for generator, was in zip(generators, states, strict=True):
            generator.set_state(was)

    with undoing(undo), settings_restored():
        yield


# --- other surroundings ---


@contextmanager
def _another_default_dtype() -> Iterator[None]:
    with settings_restored():
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32 if usual is torch.float64 else torch.float64)
        yield


@contextmanager
def _other_determinism() -> Iterator[None]:
    """Switch deterministic algorithms on, or off if they are on."""
    with settings_restored():
        turned = not torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(turned, warn_only=True)
        yield


@contextmanager
def _other_settings() -> Iterator[None]:
    """Invert all switches of torch except those in _LEFT, and change the dtype of autocast."""
    with settings_restored(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for setting in settings():
            value, is_of_autocast = setting.get(), setting.name.startswith("autocast on")
            if setting.set is None:
                continue
            with suppress(Exception):  # this machine does not support the setting
                if is_of_autocast and isinstance(value, torch.dtype):
                    setting.set(_LESS_PRECISE[value])
                elif isinstance(value, bool) and not setting.name.startswith(_LEFT):
                    setting.set(not value)
        yield


# Settings that stay as they are, for one of three reasons: another check changes them alone;
# without them, kernels are much slower or missing; or torch has two names for one setting, and
# refuses to read it by one name after it was set by the other.
_LEFT = (
    *("deterministic algorithms", "grad", "inference mode", "autocast", "cublas allow tf32"),
    *("choice of attention's kernel", "mkldnn", "nnpack"),
)
_LESS_PRECISE = {torch.bfloat16: torch.float16, torch.float16: torch.bfloat16}


@contextmanager
def in_autocast(devices: Collection[int]) -> Iterator[None]:
    """Switch autocast on, or off if it is on.

    Args:
        devices: the numbers of the CUDA devices that are in use.
    """
    with ExitStack() as stack:
        for kind in ("cpu", "cuda") if devices else ("cpu",):
            is_on = torch.is_autocast_enabled(kind)
            stack.enter_context(torch.autocast(kind, enabled=not is_on))
        yield


Surroundings = Callable[[], AbstractContextManager[Any]]

OTHER_SETTINGS: Mapping[str, Surroundings] = {
    "no gradients": torch.no_grad,
    "another default dtype": _another_default_dtype,
    "deterministic algorithms": _other_determinism,
    "switches of torch": _other_settings,
    "inference mode": torch.inference_mode,
}


@contextmanager
def within_all(surroundings: Iterable[Surroundings]) -> Iterator[None]:
    """Enter several surroundings at once."""
    with ExitStack() as stack:
        for each in surroundings:
            stack.enter_context(each())
        yield


class _Noting(UserDict[Any, Any]):
    """The environment variables; it records which of them are read."""

    def __init__(self, variables: Any, read: set[str]) -> None:
        super().__init__()
        self.data, self._read = variables, read

    def __getitem__(self, key: Any) -> Any:
        self._read.add(os.fsdecode(key))
        return self.data[key]


@contextmanager
def variables_read(read: set[str]) -> Iterator[None]:
    """Record the names of the environment variables that are read."""
    both: list[Any] = [os.environ, getattr(os, "environb", None)]
    # A test may have replaced os.environ by a dict.
    homes = [each for each in both if hasattr(each, "_data")]
    before = [each._data for each in homes]

    def undo() -> None:
        for each, was in zip(homes, before, strict=True):
            each._data = was

    with undoing(undo):
        for each in homes:
            each._data = _Noting(each._data, read)
        yield


@contextmanager
def other_variables(names: Collection[str]) -> Iterator[None]:
    """Change the digits in environment variables; unset a variable that has none."""
    before = {name: os.environ.get(name) for name in names}

    def undo() -> None:
        for name, was in before.items():
            _set(name, was)

    with undoing(undo):
        for name, was in before.items():
            _set(name, _other_text(was))
        yield


def _set(name: str, text: str | None) -> None:
    if text is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = text


def _other_text(text: str | None) -> str | None:
    if text is None:
        return "2"
    other = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), text)
    return None if other == text else other
