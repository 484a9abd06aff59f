"""Whether a model comes back the same: the round trip, and a comparison of all that can be seen."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.utils import _pytree as pytree

from layergraph.convert import to_ir, to_torch
from layergraph.errors import AssumptionError, CaptureError, first_line
from layergraph.ir import Ir
from layergraph.tensors import copy_of, unsuitable
from layergraph.torch2ir.running.outputs import opened
from layergraph.torch2ir.running.questions import Values

Status = Literal["passed", "failed", "refused", "skipped"]

_SEED = 0


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
        CaptureError: the arguments are no tuple and no mapping.
    """
    if not isinstance(args, tuple | list | None):
        raise CaptureError(
            f"args is a {type(args).__name__}; give a tuple of the positional arguments"
        )
    if not isinstance(kwargs, Mapping | None):
        raise CaptureError(f"kwargs is a {type(kwargs).__name__}; give a dict of arguments")
    inputs = None if args is None and kwargs is None else (tuple(args or ()), dict(kwargs or {}))
    state = model.state_dict() if isinstance(model, nn.Module) else {}
    devices = {each.device.index for each in _tensors([inputs, state]) if each.is_cuda}
    with torch.random.fork_rng(sorted(devices)):
        return _Verification(model, inputs, values, devices).run()


class _FailedError(Exception):
    """A check failed."""


class _SkippedError(Exception):
    """There is nothing to check."""


class _Verification:
    def __init__(
        self,
        model: nn.Module,
        inputs: _Inputs | None,
        values: Values,
        devices: Collection[int],
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._values = values
        self._devices = devices
        self._draw = torch.Generator().manual_seed(_SEED)
        self._report = Report()

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
            "fresh inputs": self._fresh,
            "another batch size": self._batch,
            "evaluation": lambda: self._in_mode(training=False),
            "training": lambda: self._in_mode(training=True),
        }
        for name, check in checks.items():
            self._report.checks.append(_outcome(name, check))
        if self._report.rebuilt is not None:
            self._rebuilt.reset()
        return self._report

    # --- the round trip ---

    def _capture(self) -> str:
        if not isinstance(self._model, nn.Module):
            raise _FailedError(f"{self._model!r} is no torch.nn.Module")
        for key, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            reason = unsuitable(tensor)
            if reason is not None:
                raise _FailedError(f"{key!r} {reason}")
        # Nobody knows what a model does to itself when it is run.
        try:
            original = copy.deepcopy(self._model)
        except Exception as error:
            raise _FailedError(
                f"only a copy is run, but there can be none: {_text(error)}"
            ) from error
        self._original = _Subject(original, self._model, self._devices)
        args, kwargs = (None, None) if self._inputs is None else _copied(self._inputs)
        self._report.ir = to_ir(self._original.module, args, kwargs, values=self._values)
        self._original.reset()
        return f"{len(self._report.ir)} implementations"

    def _dict_form(self) -> str:
        ir = self._ir()
        if Ir.from_dict(ir.to_dict()) != ir:
            raise _FailedError("the IR that the dict describes is another one")
        return ""

    def _rebuild(self) -> str:
        ir = self._ir()
        state = self._model.state_dict()
        devices = {tensor.device for tensor in _tensors(state)}
        device = devices.pop() if len(devices) == 1 else None
        rebuilt = to_torch(Ir.from_dict(ir.to_dict()), state, device)
        self._rebuilt = _Subject(rebuilt, self._model, self._devices)
        self._report.rebuilt = rebuilt
        return ""

    def _ir(self) -> Ir:
        if self._report.ir is None:
            raise _SkippedError("there is no IR")
        return self._report.ir

    def _both(self) -> tuple[_Subject, _Subject]:
        if self._report.rebuilt is None:
            raise _SkippedError("there is no rebuilt model")
        return self._original, self._rebuilt

    # --- what it is ---

    def _keys(self) -> str:
        was, now = (list(each.state()) for each in self._both())
        missing = [key for key in was if key not in now]
        added = [key for key in now if key not in was]
        if missing or added:
            raise _FailedError(f"missing: {_some(missing)}; superfluous: {_some(added)}")
        if was != now:
            moved = next(index for index, key in enumerate(was) if now[index] != key)
            raise _FailedError(f"in another order, from {now[moved]!r} on")
        return f"{len(was)} keys"

    def _ties(self) -> str:
        was, now = (each.ties() for each in self._both())
        lost, made = (
            [" = ".join(sorted(names)) for names in one - other]
            for one, other in ((was, now), (now, was))
        )
        if lost or made:
            raise _FailedError(f"lost: {_some(lost)}; made: {_some(made)}")
        return f"{len(was)} tensors under several keys" if was else ""

    def _tensors(self) -> str:
        was, now = (each.state() for each in self._both())
        shared = [key for key in was if key in now]
        for key in shared:
            for what, tell in _OF_TENSORS.items():
                one, other = tell(was[key]), tell(now[key])
                if one != other:
                    raise _FailedError(f"{key}: {what} was {one}, and is {other}")
        return _compare({key: was[key] for key in shared}, {key: now[key] for key in shared})

    def _classes(self) -> str:
        original, rebuilt = self._both()
        classes = {type(module) for module in original.module.modules()}
        own = [
            f"{type(module).__module__}.{type(module).__qualname__} at {name!r}"
            for name, module in rebuilt.module.named_modules()
            if type(module) in classes and type(module).__module__.partition(".")[0] != "torch"
        ]
        if own:
            raise _FailedError(f"it still needs {_some(own)}")
        return ""

    # --- what it does ---

    def _given(self) -> str:
        inputs = self._asked()
        try:
            was = self._original.seen(inputs)
        except Exception as error:
            raise _FailedError(f"the original refuses: {_text(error)}") from error
        try:
            now = self._rebuilt.seen(inputs)
        except AssumptionError as error:
            raise _FailedError(f"for what it was captured with: {_text(error)}") from error
        return _compare(was, now)

    def _fresh(self) -> str:
        return self._on(pytree.tree_map_only(torch.Tensor, self._drawn, self._asked()))

    def _drawn(self, given: torch.Tensor) -> torch.Tensor:
        return _drawn(given, self._draw)

    def _batch(self) -> str:
        inputs = self._asked()
        sizes = Counter(tensor.shape[0] for tensor in _tensors(inputs) if tensor.ndim)
        if not sizes:
            raise _SkippedError("no input has a size")
        size = sizes.most_common(1)[0][0]

        def doubled(tensor: torch.Tensor) -> torch.Tensor:
            if not tensor.ndim or tensor.shape[0] != size:
                return tensor
            return torch.cat([tensor, self._drawn(tensor)])

        told = self._on(pytree.tree_map_only(torch.Tensor, doubled, inputs))
        return f"{2 * size} instead of {size}; {told}"

    def _in_mode(self, *, training: bool) -> str:
        return self._on(self._asked(), training=training)

    def _on(self, inputs: _Inputs, *, training: bool | None = None) -> str:
        try:
            was = self._original.seen(inputs, training=training)
        except Exception as error:
            raise _SkippedError(f"the original refuses: {_text(error)}") from error
        return _compare(was, self._rebuilt.seen(inputs, training=training))

    def _asked(self) -> _Inputs:
        self._both()
        if self._inputs is None:
            raise _SkippedError("no inputs were given")
        return self._inputs


class _Subject:
    """One of the two models, which is as it was at the beginning whenever it is run.

    Args:
        module: the model.
        source: a model with the same state-dict keys, which nobody changes.
        devices: the numbers of the CUDA devices that it may draw random numbers on.
    """

    def __init__(self, module: nn.Module, source: nn.Module, devices: Collection[int]) -> None:
        self.module = module
        self._devices = devices
        values = source.state_dict()
        starts = {
            id(tensor): (tensor, values[key])
            for key, tensor in self.state().items()
            if key in values and values[key].shape == tensor.shape
        }
        for tensor in (*module.parameters(), *module.buffers()):
            starts.setdefault(id(tensor), (tensor, tensor.detach().clone()))
        self._starts = list(starts.values())
        self._modes = [(each, each.training) for each in module.modules()]

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors of the state dict, themselves."""
        state = self.module.state_dict(keep_vars=True)
        return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}

    def ties(self) -> set[frozenset[str]]:
        """The keys of each tensor that has several."""
        names: dict[int, set[str]] = {}
        for key, tensor in self.state().items():
            names.setdefault(id(tensor), set()).add(key)
        return {frozenset(each) for each in names.values() if len(each) > 1}

    def seen(self, inputs: _Inputs, *, training: bool | None = None) -> dict[str, object]:
        """All that can be seen of a call, by name; of tensors, only until the next call.

        Args:
            inputs: what it is called with; it is not changed.
            training: the mode of all modules, with gradients where that is training; None for the
                modes that they were given in.
        """
        self.reset()
        args, kwargs = _copied(inputs)
        if training is not None:
            self.module.train(training)
        with torch.set_grad_enabled(bool(training) or torch.is_grad_enabled()):
            self._seed()
            outputs = self.module(*args, **kwargs)
            if training:
                _backward(outputs)
        # What libraries have classes of their own for comes back in plain containers.
        seen = dict(_told("output", opened(outputs)))
        # A model may work in place on what it is given, too.
        seen.update(_told("input", opened([args, kwargs])))
        for key, tensor in self.state().items():
            seen[f"{key}, afterwards"] = tensor.detach()
            if training:
                seen[f"gradient of {key}"] = tensor.grad
        return seen

    def _seed(self) -> None:
        # Not torch.manual_seed, which seeds other devices too, and those that nobody has used yet.
        torch.default_generator.manual_seed(_SEED)
        for device in self._devices:
            torch.cuda.default_generators[device].manual_seed(_SEED)

    def reset(self) -> None:
        """Make it what it was at the beginning."""
        with torch.no_grad():
            for tensor, start in self._starts:
                tensor.copy_(start)
                tensor.grad = None
        for module, mode in self._modes:
            module.training = mode


_Inputs = tuple[tuple[Any, ...], dict[str, Any]]

_OF_TENSORS: dict[str, Callable[[torch.Tensor], object]] = {
    "dtype": lambda tensor: tensor.dtype,
    "shape": lambda tensor: tuple(tensor.shape),
    "requires_grad": lambda tensor: tensor.requires_grad,
    "class": lambda tensor: type(tensor).__name__,
}


def _outcome(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "passed", check())
    except _SkippedError as error:
        return Check(name, "skipped", str(error))
    except AssumptionError as error:
        return Check(name, "refused", first_line(error))
    except _FailedError as error:
        return Check(name, "failed", str(error))
    except Exception as error:
        return Check(name, "failed", _text(error))


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "none") + more


# --- inputs ---


def _tensors(value: Any) -> list[torch.Tensor]:
    return [each for each in pytree.tree_leaves(value) if isinstance(each, torch.Tensor)]


def _copied(inputs: _Inputs) -> _Inputs:
    def copied(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return copy.deepcopy(value)
        return copy_of(value)

    return pytree.tree_map(copied, inputs)  # type: ignore[no-any-return]


def _drawn(given: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """A tensor like the given one, with other numbers."""
    plain = given.detach().cpu()
    if not plain.numel():
        drawn = plain
    elif plain.is_complex():
        drawn = torch.view_as_complex(_drawn(torch.view_as_real(plain), draw))
    elif plain.is_floating_point():
        noise = torch.randn(plain.shape, generator=draw, dtype=torch.double)
        finite = plain.double()[plain.isfinite()]
        drawn = noise * finite.std(correction=0) + finite.mean() if finite.numel() else plain
    elif plain.dtype is torch.bool:
        drawn = torch.randint(2, plain.shape, generator=draw)
    else:
        drawn = plain.flatten()[torch.randint(plain.numel(), plain.shape, generator=draw)]
    return drawn.to(given.device, given.dtype).requires_grad_(given.requires_grad)


def _backward(outputs: Any) -> None:
    wanting = [each for _, each in _told("", opened(outputs)) if _wants_gradient(each)]
    torch.autograd.backward(wanting, [torch.randn_like(each) for each in wanting])


def _wants_gradient(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


# --- outputs ---


def _told(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What is in a nested structure, and what it is made of, by name."""
    if isinstance(value, Mapping):
        parts = {f"{name}[{key!r}]": each for key, each in value.items()}
        kind = "a dict"
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", None)
        kind = (
            f"a tuple of {names}"
            if names
            else f"a {'list' if isinstance(value, list) else 'tuple'}"
        )
        parts = {
            (f"{name}.{names[index]}" if names else f"{name}[{index}]"): each
            for index, each in enumerate(value)
        }
    else:
        yield name, value
        return
    yield name, f"{kind} of {len(parts)}"
    for part, each in parts.items():
        yield from _told(part, each)


def _compare(was: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Compare what is under each name; give a summary.

    Raises:
        _FailedError: they differ; it says where first, and how.
    """
    for name, one in was.items():
        if name not in now:
            raise _FailedError(f"{name}: it was {_named(one)}, and is missing")
        difference = _difference(one, now[name])
        if difference:
            raise _FailedError(f"{name}: {difference}")
    added = [name for name in now if name not in was]
    if added:
        raise _FailedError(f"{_some(added)}: not in the original")
    count = sum(isinstance(one, torch.Tensor) for one in was.values())
    return f"{count} tensors bit for bit"


def _difference(was: object, now: object) -> str:
    if not isinstance(was, torch.Tensor) or not isinstance(now, torch.Tensor):
        same = type(was) is type(now) and bool(was == now)
        return "" if same else f"it was {_named(was)}, and is {_named(now)}"
    if (was.dtype, was.shape) != (now.dtype, now.shape):
        return f"it was {_named(was)}, and is {_named(now)}"
    if torch.equal(_bits(was), _bits(now)):
        return ""
    one, other = _comparable(was), _comparable(now)
    differing = one != other
    if one.is_floating_point():
        differing |= one.signbit() != other.signbit()
        differing &= ~(one.isnan() & other.isnan())
    if not differing.any():
        return ""
    by = (one.double() - other.double()).abs()[differing].max().item()
    count, total = int(differing.sum()), differing.numel()
    return f"{count} of {total} numbers differ, by up to {by:.3g}"


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.detach().resolve_conj().resolve_neg().to_dense().contiguous()
    return plain.flatten().view(torch.uint8)


def _comparable(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor, as ones that can be compared; exactly these."""
    plain = tensor.detach().to_dense().cpu()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    return plain.double() if plain.is_floating_point() else plain


def _named(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    return repr(value) if isinstance(value, bool | int | float | str | None) else f"{value!r:.60}"
