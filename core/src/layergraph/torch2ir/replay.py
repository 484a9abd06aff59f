"""Running a model once for both modes.

The run is kept, step by step. Then the model's code goes through it again in the other mode, and
gets what each step gave, as long as it asks for the same. So nothing is computed twice, and what is
seen is where the modes differ. Where they differ in more than a number or a flag, it is given up:
who wants the other mode has to run the model in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import nn

from layergraph.ir import Symbol
from layergraph.ir import Value as Plain
from layergraph.torch2ir.arguments import tensors_in
from layergraph.torch2ir.calls import (
    Call,
    Changed,
    OtherMode,
    Recorder,
    Scope,
    Trace,
    values_in,
)
from layergraph.torch2ir.capture import changes_its_first_argument
from layergraph.torch2ir.guards import unchanged
from layergraph.torch2ir.keep import without_draws
from layergraph.torch2ir.outputs import opened
from layergraph.torch2ir.questions import NUMBERS
from layergraph.torch2ir.run import CHANGING, Running, is_as_found
from layergraph.torch2ir.sizes import Traced
from layergraph.torch2ir.survey import Surveyed, other_mode

# The results of a run are kept up to so many bytes.
ROOM = 2**28


class _OtherwiseError(Exception):
    """The other mode is another graph."""


@dataclass(slots=True)
class _Step:
    """Something that a run did.

    Attributes:
        subject: which function, leaf or module.
        given: its arguments; for a module that is traced through, the form of what crosses its
            border.
        gave: what came of it; for such a module None if what crosses the border stays the same.
        scope: for such a module, the call of it.
        call: for a function, the call that was recorded.
        asked_mode: for a leaf, whether its code asked whether it is training.
    """

    subject: object
    given: Any
    gave: Any
    scope: Scope | None = None
    call: Call | None = None
    asked_mode: bool = False


@dataclass(slots=True)
class _Log:
    """What a run did, in order.

    Attributes:
        steps: each step.
        size: how many bytes their results take.
        is_complete: whether all of it is there.
    """

    steps: list[_Step] = field(default_factory=list)
    size: int = 0
    is_complete: bool = True

    def add(self, step: _Step, size: int) -> None:
        """Keep a step, if there is room for it."""
        self.size += size
        if self.size > ROOM:
            self.give_up()
        if self.is_complete:
            self.steps.append(step)

    def give_up(self) -> None:
        """Something happened that cannot be gone through again."""
        self.is_complete = False
        self.steps.clear()


class Replaying(Running):
    """A run of a model on tensors that also tells what the other mode does, if it can."""

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        self._log = _Log()
        self._again: _Again | None = None
        self._asked_mode = False
        # How many functions are running that are steps themselves.
        self._depth = 0
        self._other: OtherMode | None = None

    def run(self) -> Trace:
        """See :class:`Capture`."""
        trace = super().run()
        if not self.changes:
            trace.other = self._other
        return trace

    def call(self, model: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> None:
        """See :class:`Capture`."""
        given = _held((tuple(args), kwargs))
        super().call(model, args, kwargs)
        if self._log.is_complete and self._asked_mode and not self.refused and not self._caught:
            self._other = self._in_other_mode(model, *given)

    def _in_other_mode(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> OtherMode | None:
        recorder, takes_gradients = self.recorder, torch.is_grad_enabled()
        self._again = again = _Again(self, self._log.steps)
        self.recorder = again.recorder
        try:
            # What the other mode does besides computing, is no fault of this one.
            with without_draws(), unchanged(self.survey) as changes, other_mode(self.survey):
                model(*args, **kwargs)
        except Exception:
            return None
        finally:
            self.recorder = recorder
            self._again = None
            # Regions that were given up while they were entered are not left.
            self.unrecorded(torch._C._set_grad_enabled, (takes_gradients,), {})
        return None if changes else again.found()

    # --- steps ---

    def torch_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See :class:`Capture`."""
        if self._again is not None:
            return self._again.function(func, args, kwargs)
        given = _held((args, kwargs))
        self._depth += 1
        try:
            result = super().torch_function(func, args, kwargs)
        finally:
            self._depth -= 1
        return self._kept_step(func, given, result, call=self.call_of(result))

    def leaf(
        self, surveyed: Surveyed, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """See :class:`Capture`."""
        if self._again is not None:
            return self._again.leaf(surveyed, original, args, kwargs)
        given = _held((args, kwargs))
        asked, self._asked_mode = self._asked_mode, False
        result = super().leaf(surveyed, original, args, kwargs)
        self._kept_step(surveyed, given, result, asked_mode=self._asked_mode)
        self._asked_mode = asked
        return result

    def enter(
        self, surveyed: Surveyed, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See :class:`Capture`."""
        if self._again is not None:
            return self._again.enter(surveyed, args, kwargs)
        passed = super().enter(surveyed, args, kwargs)
        self._kept_border(surveyed, (args, kwargs), passed, self.recorder.scope)
        return passed

    def leave(self, surveyed: Surveyed, result: Any) -> Any:
        """See :class:`Capture`."""
        if self._again is not None:
            return self._again.leave(surveyed, result)
        scope = self.recorder.scope
        renamed = super().leave(surveyed, result)
        self._kept_border(surveyed, result, renamed, scope)
        return renamed

    def device_type(self, kind: str) -> Plain:
        """See :class:`Running`."""
        if self._again is not None:
            return self._again.step("device_type", kind).gave
        return self._kept_step("device_type", kind, super().device_type(kind))

    def region(self, name: str, *args: Plain) -> Any:
        """See :class:`Running`."""
        if self._again is not None:
            return self._again.step(name, args).gave
        return self._kept_step(name, args, super().region(name, *args))

    def aten(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See :class:`Running`."""
        if self._again is not None:
            self._again.otherwise()
        if not self._depth:
            self._log.give_up()
        return super().aten(func, args, kwargs)

    def mode_read(self, module: nn.Module, training: bool) -> None:
        """See :class:`Capture`."""
        surveyed = self.survey.get(module)
        if self._again is not None:
            if not self._inside and surveyed is not None and not surveyed.is_leaf:
                self._again.readers.add(surveyed.path)
            return
        self._asked_mode = True
        super().mode_read(module, training)

    def refuse(self, reason: str) -> None:
        """See :class:`Capture`."""
        if self._again is not None:
            self._again.otherwise()
        super().refuse(reason)

    def _kept_step(self, subject: object, given: Any, gave: Any, **more: Any) -> Any:
        if self._log.is_complete:
            self._log.add(_Step(subject, given, _held(gave), **more), self._size(gave))
        return gave

    def _kept_border(self, surveyed: Surveyed, given: Any, gave: Any, scope: Scope) -> None:
        if self._log.is_complete:
            changes = not _are_alike(given, gave)
            form = _form(given if scope.parent is not None else opened(given))
            self._kept_step(surveyed, form, gave if changes else None, scope=scope)

    def _size(self, result: Any) -> int:
        if type(result) is not torch.Tensor:
            return 0
        self._inside += 1
        size = result.numel() * result.element_size()
        self._inside -= 1
        return size


class _Sealed(Recorder):
    """Stands for the recorder while nothing new may be recorded."""

    def __init__(self, again: _Again, scope: Scope) -> None:
        super().__init__()
        self._again = again
        self.root = self.scope = scope

    def value(self, wish: str) -> NoReturn:  # noqa: ARG002
        """Refuse."""
        self._again.otherwise()

    def call(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse."""
        self._again.otherwise()

    def late(self) -> NoReturn:
        """Refuse."""
        self._again.otherwise()


class _Again:
    """Goes through a run again.

    Args:
        run: the run.
        steps: what it did.

    Attributes:
        recorder: lets nothing new be recorded.
        readers: the modules whose mode was asked for.
    """

    def __init__(self, run: Running, steps: list[_Step]) -> None:
        self._run = run
        self._steps = iter(steps)
        self._done = 0
        # Behind the last step that tells numbers, it does not matter which they are.
        self._telling = max(
            (n for n, step in enumerate(steps, 1) if step.subject in _TELLING), default=0
        )
        self.recorder = _Sealed(self, run.recorder.root)
        self.readers: set[str] = set()
        self._changed: list[Changed] = []
        self._is_other = False
        # The tensors, and the memory, in which there may be other numbers than in this mode.
        self._doubtful: set[int] = set()

    def found(self) -> OtherMode | None:
        """What the other mode does; None if that is not known."""
        if self._is_other or next(self._steps, None) is not None:
            return None
        return OtherMode(self.readers, self._changed)

    def otherwise(self) -> NoReturn:
        """Give up."""
        # The model's code may catch the error.
        self._is_other = True
        raise _OtherwiseError

    def _require(self, holds: bool) -> None:
        if not holds:
            self.otherwise()

    def step(self, subject: object, given: Any) -> _Step:
        """The next step, which has to be this one."""
        step = self._next(subject)
        self._require(_are_alike(step.given, given))
        return step

    def _next(self, subject: object) -> _Step:
        step = next(self._steps, None)
        if step is None or step.subject != subject:
            self.otherwise()
        self._done += 1
        return step

    def function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function gave, or would give in this mode."""
        if func is torch._C._set_grad_enabled:
            func(*args, **kwargs)
        step = self._next(func)
        given = args, kwargs
        if not _are_alike(step.given, given):
            return self._other_function(step, func, args, kwargs)
        if self._doubtful and self._done <= self._telling:
            self._require(not (self._spread(step, self._run.name_of(func)) and func in _TELLING))
        return _held(step.gave)

    def _other_function(
        self, step: _Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name, call = self._run.name_of(func), step.call
        if name is None or call is None or call.target != name:
            self.otherwise()
        self._require(not _changes(name, kwargs))
        self._require(_are_alike([*tensors_in(step.given)], [*tensors_in((args, kwargs))]))
        changed = Changed(call, self._run.lower(args), self._run.lower(kwargs))
        # Sizes among the arguments have to be the same: the graph is the same but for plain values.
        self._require(values_in(call.args, call.kwargs) == values_in(changed.args, changed.kwargs))
        self._changed.append(changed)
        self._require_kind(self._run.unrecorded(func, args, kwargs), step.gave)
        self._doubt(step.gave, step.given)
        return step.gave

    def leaf(
        self, surveyed: Surveyed, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """What a leaf gave."""
        step = self.step(surveyed, (args, kwargs))
        self._require(self._run.unrecorded(is_as_found, (surveyed,), {}))
        self._require(vars(surveyed.module)["training"] != self._run.trains[surveyed])
        if self._doubtful and self._done <= self._telling:
            self._spread(step, None)
        if step.asked_mode:
            result = self._run.unrecorded(original, (surveyed.module, *args), kwargs)
            self._require_kind(result, step.gave)
            self._doubt((step.gave, *surveyed.module.buffers()), step.given)
        return _held(step.gave)

    def enter(
        self, surveyed: Surveyed, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a module is passed."""
        passed, scope = self._cross(surveyed, (args, kwargs))
        self._require((scope.parent or scope) is self.recorder.scope)
        self.recorder.scope = scope
        return passed  # type: ignore[no-any-return]

    def leave(self, surveyed: Surveyed, result: Any) -> Any:
        """What a module returns."""
        returned, scope = self._cross(surveyed, result)
        self._require(scope is self.recorder.scope)
        self.recorder.scope = scope.parent or scope
        return returned

    def _cross(self, surveyed: Surveyed, given: Any) -> tuple[Any, Scope]:
        step = self._next(surveyed)
        if step.scope is None:
            self.otherwise()
        form = _form(given if step.scope.parent is not None else opened(given))
        self._require(_are_alike(step.given, form))
        return (given if step.gave is None else _held(step.gave)), step.scope

    def _require_kind(self, result: Any, known: Any) -> None:
        """Require that two results are told apart by nothing but the numbers in them."""
        with torch._C.DisableTorchFunction():
            is_of_one_kind = _are_of_one_kind(result, known)
        self._require(is_of_one_kind)

    def _spread(self, step: _Step, name: str | None) -> bool:
        """Whether a step was given numbers that may be others; then what it gave may be too."""
        is_doubtful = not self._doubtful.isdisjoint(_memory(step.given) | _ids(step.given))
        if is_doubtful:
            self._doubt(step.gave, step.given)
            if name is None or _changes(name, step.given[1]):
                self._doubt(step.given)
        return is_doubtful

    def _doubt(self, value: Any, given: Any = ()) -> None:
        """Take note of tensors; of what they share with what was given, one mode knows nothing."""
        if self._done < self._telling:
            self._doubtful |= _ids(value) | (_memory(value) - _memory(given))


# What tells numbers that are in a tensor, or how they lie there.
_TELLING = NUMBERS | {
    *(torch.equal, torch.allclose, torch.Tensor.equal, torch.Tensor.allclose),
    *(torch.Tensor.stride, torch.Tensor.is_contiguous, torch.Tensor.storage_offset),
}


def _changes(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether a function changes what it is given."""
    changing = [kwargs[key] for key in CHANGING & kwargs.keys()]
    return changes_its_first_argument(name) or any(
        each is not None and each is not False for each in changing
    )


def _held(value: Any) -> Any:
    """The value in containers that nobody else has, and so cannot change."""
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([_held(each) for each in value])
    if kind is dict:
        return {key: _held(each) for key, each in value.items()}
    return value


_PLAIN = frozenset({bool, int, float, complex, str, bytes, Symbol})


def _are_alike(one: Any, other: Any) -> bool:
    """Whether two hold the same tensors and equal plain values."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind in _PLAIN:
        # NaN and -0.0 are told apart by it.
        return repr(one) == repr(other)
    if issubclass(kind, Traced):
        return bool(one.value == other.value and one.key() == other.key())
    if kind is slice:
        return all(
            _are_alike(getattr(one, name), getattr(other, name))
            for name in ("start", "stop", "step")
        )
    if kind is dict:
        return list(one) == list(other) and all(map(_are_alike, one.values(), other.values()))
    if kind is tuple or kind is list or kind is torch.Size:
        return len(one) == len(other) and all(map(_are_alike, one, other))
    return False


def _ids(value: Any) -> set[int]:
    return {id(each) for each in tensors_in(value)}


def _memory(value: Any) -> set[int]:
    """Where the tensors lie in nested containers."""
    with torch._C.DisableTorchFunction():
        return {
            each.untyped_storage()._cdata
            for each in tensors_in(value)
            if each.layout is torch.strided
        }


def _form(value: Any) -> Any:
    """What crosses the border of a module, without the objects that nothing is computed with.

    They are others each time that the code runs.
    """
    if isinstance(value, torch.Tensor | Traced) or type(value) in _PLAIN or type(value) is slice:
        return value
    if isinstance(value, dict):
        return {key: _form(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_form(each) for each in value]
    return type(value)


def _are_of_one_kind(one: Any, other: Any) -> bool:
    """Whether code that asks for no numbers sees no difference."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return all(getattr(one, name) == getattr(other, name) for name in _ASKED)
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(_are_of_one_kind, one.values(), other.values()))
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_are_of_one_kind, one, other))
    return _are_alike(one, other)


_ASKED = ("shape", "dtype", "device", "layout", "requires_grad")
