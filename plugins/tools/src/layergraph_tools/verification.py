"""Whether a model comes back the same: the round trip, and a comparison of all that can be seen."""

from __future__ import annotations

import copy
import itertools
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from layergraph.api import to_ir, to_torch
from layergraph.capturing import Values
from layergraph.errors import ArgumentError, AssumptionError, LayergraphError, first_line
from layergraph.ir import Ir
from layergraph.state import is_channels_last
from layergraph.tensors import extent, is_plain, unsuitable
from layergraph.undo import undoes
from layergraph_tools.verifying.comparison import DifferenceError, compare, some
from layergraph_tools.verifying.inputs import Inputs, changed, copied, drawn, tensors_of
from layergraph_tools.verifying.subject import Subject
from layergraph_tools.verifying.surroundings import (
    OTHER_SETTINGS,
    Surroundings,
    in_autocast,
    other_variables,
    restored,
    variables_read,
    within_all,
)

Status = Literal["passed", "failed", "refused", "skipped"]

# Models that seed themselves use small numbers.
_FIRST_SEED = 0x5EED_1DEA


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared.

    Attributes:
        name: what.
        status: ``passed``; ``failed``; ``refused``, where the rebuilt model says clearly that it
            was not captured for this; or ``skipped``, where there was nothing to compare.
        detail: where the two differ and by how much, or why it was refused or skipped.
    """

    name: str
    status: Status
    detail: str = ""


@dataclass(eq=False)
class Report:
    """What :func:`verify` found; as text, a table.

    Attributes:
        checks: in the order in which they were made.
        ir: the model's IR; None if it could not be captured.
        rebuilt: the model that was built of it; None if it could not be.
    """

    checks: list[Check] = field(default_factory=list)
    ir: Ir | None = None
    rebuilt: nn.Module | None = None

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not any(check.status == "failed" for check in self.checks)

    def __bool__(self) -> bool:
        raise TypeError("a report is neither true nor false; ask for its .ok")

    def __str__(self) -> str:
        width = max((len(check.name) for check in self.checks), default=0)
        lines = [f"{each.name:{width}}  {each.status:7}  {each.detail}" for each in self.checks]
        counts = Counter(check.status for check in self.checks)
        lines.append(", ".join(f"{count} {status}" for status, count in counts.items()))
        return "\n".join(line.rstrip() for line in lines)


@undoes
def verify(
    model: nn.Module,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    values: Values = "refuse",
) -> Report:
    """Convert a model and back, and compare the two in all that can be seen.

    A copy of the model is what is run, with equal seeds as the rebuilt one. The model itself, the
    inputs and torch's random state are left as they were.

    Args:
        model: the model, in either mode, on any device.
        args: positional arguments of a call, by which the model is captured as by
            :func:`layergraph.to_ir`. Other inputs are drawn by them: floats with the mean and the
            spread of the given ones, integers from among these.
        kwargs: named arguments of that call. With neither, the model is captured without inputs,
            and never run.
        values: what to do where the model decides by a number in a tensor, as for
            :func:`layergraph.to_ir`.

    Returns:
        A report; it says what failed, and so nothing is raised for it.

    Raises:
        ArgumentError: the arguments are no tuple and no mapping.
    """
    for name, given, kind in (("args", args, tuple | list), ("kwargs", kwargs, Mapping)):
        if given is not None and not isinstance(given, kind):
            wanted = "a tuple of the positional arguments, as in (x,)"
            wanted = wanted if name == "args" else "a dict of the named arguments"
            raise ArgumentError(f"{name} is a {type(given).__name__}; give {wanted}")
    inputs = None if args is None and kwargs is None else (tuple(args or ()), dict(kwargs or {}))
    # Not the state dict: to make one is up to the model, and may fail.
    is_module = isinstance(model, nn.Module)
    state = [*model.parameters(), *model.buffers()] if is_module else []
    devices = {each.device.index for each in tensors_of([inputs, state]) if each.is_cuda}
    with restored(devices):
        return _Verification(model, inputs, values, devices).run()


class _SkippedError(Exception):
    """There is nothing to check."""


class _Call(NamedTuple):
    """A call of the original: its inputs, its seed, and all that was seen of it, or its error."""

    inputs: Inputs
    seed: int
    was: dict[str, object] | Exception


class _Verification:
    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs | None,
        values: Values,
        devices: Collection[int],
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._values = values
        self._devices = devices
        self._draw = torch.Generator().manual_seed(_FIRST_SEED)
        self._seeds = itertools.count(_FIRST_SEED)
        self._report = Report()
        self._read: Ir | None = None
        # The last call of the original, as long as nothing has changed its tensors since.
        self._last: _Call | None = None
        self._passed: dict[str, str] = {}
        self._without: Ir | None = None
        self._variables: set[str] = set()

    def run(self) -> Report:
        checks: dict[str, Callable[[], str]] = {
            "captured": self._capture,
            "dict form": self._dict_form,
            "rebuilt": self._rebuild,
            "state-dict keys": self._keys,
            "ties": self._ties,
            "tensors": self._tensors,
            "own classes": self._classes,
            "given inputs": self._given,
            "through a file": self._file,
            "captured without inputs": self._without_inputs,
            "called again": self._again,
            "fresh inputs": self._fresh,
            "another batch size": self._batch,
            "evaluation": lambda: self._in_mode(training=False),
            "training": lambda: self._in_mode(training=True),
            "other settings": self._settings,
            "autocast": self._autocast,
            "other environment": self._environment,
            "train() and eval()": self._modes,
            "casts": self._casts,
        }
        for name, check in checks.items():
            self._report.checks.append(_outcome(name, check))
        if self._report.rebuilt is not None:
            self._rebuilt.reset()
        return self._report

    # --- the round trip ---

    def _capture(self) -> str:
        if not isinstance(self._model, nn.Module):
            raise DifferenceError(f"{self._model!r} is no torch.nn.Module")
        for key, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            reason = unsuitable(tensor)
            if reason is not None:
                raise DifferenceError(f"{key!r} {reason}")
        for tensor in tensors_of(self._inputs):
            reason = unsuitable(tensor) if is_plain(tensor) else None
            if reason is not None:
                raise DifferenceError(f"an input {reason}")
        # Nobody knows what a model does to itself when it is run.
        try:
            original = copy.deepcopy(self._model)
        except Exception as error:
            raise DifferenceError(
                f"only a copy is run, but there can be none: {_text(error)}"
            ) from error
        self._original = Subject(original, self._model, self._devices, opens=True)
        args, kwargs = (None, None) if self._inputs is None else copied(self._inputs)
        self._report.ir = to_ir(self._original.module, args, kwargs, values=self._values)
        self._original.reset()
        return f"{len(self._report.ir)} implementations"

    def _dict_form(self) -> str:
        ir = self._ir()
        self._read = Ir.from_dict(ir.to_dict())
        if self._read != ir:
            raise DifferenceError("the IR that the dict describes is another one")
        return ""

    def _rebuild(self) -> str:
        if self._read is None:
            raise _SkippedError("there is no IR")
        state = self._model.state_dict()
        devices = {tensor.device for tensor in tensors_of(state)}
        device = devices.pop() if len(devices) == 1 else None
        self._device = device
        rebuilt = to_torch(self._read, state, device)
        self._rebuilt = Subject(rebuilt, self._model, self._devices)
        self._report.rebuilt = rebuilt
        return ""

    def _ir(self) -> Ir:
        if self._report.ir is None:
            raise _SkippedError("there is no IR")
        return self._report.ir

    def _both(self) -> tuple[Subject, Subject]:
        if self._report.rebuilt is None:
            raise _SkippedError("there is no rebuilt model")
        return self._original, self._rebuilt

    # --- what it is ---

    def _keys(self) -> str:
        was, now = (list(each.state()) for each in self._both())
        missing = [key for key in was if key not in now]
        added = [key for key in now if key not in was]
        if missing or added:
            raise DifferenceError(f"missing: {some(missing)}; superfluous: {some(added)}")
        if was != now:
            moved = next(index for index, key in enumerate(was) if now[index] != key)
            raise DifferenceError(f"in another order, from {now[moved]!r} on")
        return f"{len(was)} keys"

    def _ties(self) -> str:
        was, now = (each.ties() for each in self._both())
        lost, made = (
            [" = ".join(sorted(names)) for names in one - other]
            for one, other in ((was, now), (now, was))
        )
        if lost or made:
            raise DifferenceError(f"lost: {some(lost)}; made: {some(made)}")
        if was:
            # To build the model takes long, and this is the same for all of them.
            self._refuse_two_values(max(min(was, key=sorted)))
        return f"{len(was)} tensors under several keys" if was else ""

    def _refuse_two_values(self, key: str) -> None:
        """Raise unless a state dict is refused that has two values for one tensor."""
        state = self._model.state_dict()
        other = state[key].detach().clone(memory_format=torch.contiguous_format)
        if not other.numel() or other.is_meta:
            return
        other.flatten().view(torch.uint8)[0] ^= 1
        try:
            to_torch(self._ir(), {**state, key: other}, self._device)
        except LayergraphError:
            return
        raise DifferenceError(f"another value for {key} than under its other names is taken")

    def _tensors(self) -> str:
        was, now = (each.state() for each in self._both())
        shared = [key for key in was if key in now]
        _compare_tensors({key: was[key] for key in shared}, now)
        return compare(
            {key: was[key] for key in shared}, {key: now[key] for key in shared}, exact=True
        )

    def _classes(self) -> str:
        original, rebuilt = self._both()
        classes = {type(module) for module in original.module.modules()}
        own = [
            f"{type(module).__module__}.{type(module).__qualname__} at {name!r}"
            for name, module in rebuilt.module.named_modules()
            if type(module) in classes and type(module).__module__.partition(".")[0] != "torch"
        ]
        if own:
            raise DifferenceError(f"it still needs {some(own)}")
        return ""

    # --- what it does ---

    def _given(self) -> str:
        inputs = self._asked()
        with variables_read(self._variables):
            call = self._call(inputs)
        if isinstance(call.was, Exception):
            raise DifferenceError(f"the original refuses: {_text(call.was)}") from call.was
        was = call.was
        try:
            now = self._rebuilt.seen(inputs, call.seed)
        except AssumptionError as error:
            raise DifferenceError(f"for what it was captured with: {_text(error)}") from error
        self._passed["given inputs"] = compare(was, now)
        return self._passed["given inputs"]

    def _again(self) -> str:
        inputs = self._asked()
        if "given inputs" in self._passed:
            # One more call, with other inputs, says both, as long as it passes.
            with suppress(Exception):
                fresh = changed(inputs, self._drawn)
                self._passed["fresh inputs"] = self._on(fresh, goes_on=True)
                return self._passed["fresh inputs"]
        return self._on(inputs, calls=2)

    def _file(self) -> str:
        self._both()
        from layergraph.io import load_model, save

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            save(self._ir(), path, self._model.state_dict())
            loaded = Subject(load_model(path, device=self._device), self._model, self._devices)
            compared = compare(_state(self._model), dict(loaded.state()), exact=True)
            _compare_tensors(self._original.state(), loaded.state())
            # The addresses of weights decide how the kernels for one row round.
            _compare_places(self._original.state(), loaded.state())
            call = self._last
            if call is None or isinstance(call.was, Exception):
                return compared
            return compare(call.was, loaded.seen(call.inputs, call.seed))

    def _fresh(self) -> str:
        if "fresh inputs" in self._passed:
            return self._passed["fresh inputs"]
        return self._on_others(changed(self._asked(), self._drawn))

    def _drawn(self, given: torch.Tensor) -> torch.Tensor:
        return drawn(given, self._draw)

    def _batch(self) -> str:
        inputs = self._asked()
        size = _batch_size(inputs)
        if size is None:
            raise _SkippedError("no input has a size")

        def doubled(tensor: torch.Tensor) -> torch.Tensor:
            if not tensor.ndim or tensor.shape[0] != size:
                return tensor
            return torch.cat([tensor, self._drawn(tensor)])

        told = self._on_others(changed(inputs, doubled, packed=False))
        return f"{2 * size} instead of {size}; {told}"

    def _without_inputs(self) -> str:
        """Compare with the model that comes of a capture without inputs, if there can be one."""
        inputs = self._asked()
        if all(each.type != "module" for each in self._ir().values()):
            return "no code is captured"
        try:
            ir = to_ir(self._original.module)
        except LayergraphError as error:
            raise _SkippedError(f"it cannot be: {_text(error)}") from error
        if ir == self._ir():
            return "it is the same"
        call = self._last
        if call is None or isinstance(call.was, Exception):
            raise _SkippedError("the original refuses the inputs")
        self._without = ir
        return compare(call.was, self._built_without(ir).seen(inputs, call.seed))

    def _built_without(self, ir: Ir) -> Subject:
        module = to_torch(ir, self._model.state_dict(), self._device)
        return Subject(module, self._model, self._devices)

    def _in_mode(self, *, training: bool) -> str:
        inputs = self._asked()
        # A model in evaluation mode has been called in it already.
        both = self._original, self._rebuilt
        is_known = not training and "given inputs" in self._passed
        if is_known and all(each.is_in(training) for each in both) and not both[0].switches():
            return self._passed["given inputs"]
        return self._on(inputs, training=training)

    def _settings(self) -> str:
        return self._each(OTHER_SETTINGS)

    def _autocast(self) -> str:
        return self._on(self._asked(), within=partial(in_autocast, self._devices))

    def _environment(self) -> str:
        self._asked()
        if not self._variables:
            return "no variable is read"
        return self._each(
            {name: partial(other_variables, {name}) for name in sorted(self._variables)}
        )

    def _each(self, surroundings: Mapping[str, Surroundings]) -> str:
        """Compare in other surroundings: in all at once, and one by one if that does not pass.

        A difference counts most, then a refusal.
        """
        inputs = self._asked()
        with suppress(Exception):
            return self._on(inputs, within=partial(within_all, surroundings.values()))
        said, skipped = [], []
        refused: AssumptionError | None = None
        for name, within in surroundings.items():
            try:
                said.append(f"{name}: {self._on(inputs, within=within)}")
            except _SkippedError as error:
                skipped.append(f"{name}: {error}")
            except AssumptionError as error:
                refused = refused or error
            except Exception as error:
                text = str(error) if isinstance(error, DifferenceError) else _text(error)
                raise DifferenceError(f"{name}: {text}") from error
        if refused is not None:
            raise refused
        if not said:
            raise _SkippedError("; ".join(skipped))
        return "; ".join([*said, *skipped])

    def _on(self, inputs: Inputs, **how: Any) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call = self._call(inputs, **how)
            if isinstance(call.was, Exception):
                raise _SkippedError(f"the original refuses: {_text(call.was)}") from call.was
            return compare(call.was, self._rebuilt.seen(inputs, call.seed, **how))

    def _on_others(self, inputs: Inputs) -> str:
        """Compare on other inputs than the given ones: what one refuses, the other refuses too."""
        try:
            return self._on(inputs)
        except _SkippedError as refusal:
            subjects: dict[str, Callable[[], Subject]] = {
                "the rebuilt model": lambda: self._rebuilt
            }
            if self._without is not None:
                subjects["that of a capture without inputs"] = partial(
                    self._built_without, self._without
                )
            for name, subject in subjects.items():
                if self._takes(subject(), inputs):
                    raise DifferenceError(f"{refusal}; {name} takes it") from None
            raise

    def _takes(self, subject: Subject, inputs: Inputs) -> bool:
        try:
            subject.seen(inputs, next(self._seeds))
        except Exception:
            return False
        return True

    def _call(self, inputs: Inputs, **how: Any) -> _Call:
        """Call the original."""
        self._last = None
        number = next(self._seeds)
        try:
            was: dict[str, object] | Exception = self._original.seen(inputs, number, **how)
        except Exception as error:
            was = error
        self._last = _Call(inputs, number, was)
        return self._last

    def _modes(self) -> str:
        original, rebuilt = self._both()
        was, now = original.modes(), rebuilt.modes()
        # A layer may be made of others than the original, as long as it does the same.
        shared = was.keys() & now.keys()
        compare({k: was[k] for k in was if k in shared}, {k: now[k] for k in was if k in shared})
        return f"{len({name.partition(' after ')[0] for name in shared})} modules and tensors"

    def _casts(self) -> str:
        original, rebuilt = self._both()
        try:
            was = original.casts()
        except Exception as error:
            raise _SkippedError(f"the original refuses: {_text(error)}") from error
        compare(was, rebuilt.casts())
        return f"{len(original.state())} tensors"

    def _asked(self) -> Inputs:
        self._both()
        if self._inputs is None:
            raise _SkippedError("no inputs were given")
        return self._inputs


def _strides(tensor: torch.Tensor) -> object:
    """Give the order of its numbers in memory, without the gaps between them."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return None
    dense = zip(tensor.shape, torch.empty_like(tensor, device="meta").stride(), strict=True)
    return [stride for size, stride in dense if size > 1], is_channels_last(tensor)


_OF_TENSORS: dict[str, Callable[[torch.Tensor], object]] = {
    "dtype": lambda tensor: tensor.dtype,
    "shape": lambda tensor: tuple(tensor.shape),
    "requires_grad": lambda tensor: tensor.requires_grad,
    "strides": _strides,
    "class": lambda tensor: type(tensor).__name__,
}


def _state(module: nn.Module) -> dict[str, object]:
    found = module.state_dict(keep_vars=True)
    return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}


def _compare_tensors(was: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]) -> None:
    """Raise if tensors differ in anything but their numbers."""
    for key, tensor in was.items():
        for what, tell in _OF_TENSORS.items():
            one, other = tell(tensor), tell(now[key])
            if one != other:
                raise DifferenceError(f"{key}: {what} was {one}, and is {other}")


def _compare_places(was: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]) -> None:
    """Raise if a tensor begins where kernels do not expect it: there, some round otherwise."""
    for key, tensor in now.items():
        begins = [place[1] % 64 for each in (was[key], tensor) if (place := extent(each))]
        if begins[:1] == [0] and any(begins):
            raise DifferenceError(f"{key} lies at an address that is no multiple of 64")


def _batch_size(inputs: Inputs) -> int | None:
    """The most frequent first size of the inputs."""
    sizes = Counter(tensor.shape[0] for tensor in tensors_of(inputs) if tensor.ndim)
    return sizes.most_common(1)[0][0] if sizes else None


def _outcome(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "passed", check())
    except _SkippedError as error:
        return Check(name, "skipped", str(error))
    except AssumptionError as error:
        return Check(name, "refused", first_line(error))
    except DifferenceError as error:
        return Check(name, "failed", str(error))
    except Exception as error:
        return Check(name, "failed", _text(error))


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
