"""Going through a run again, in the other mode of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from layergraph.torch2ir.calls import (
    Call,
    Changed,
    OtherMode,
    Recorder,
    Replaced,
    Scope,
    values_in,
)
from layergraph.torch2ir.capture import changes_its_first_argument
from layergraph.torch2ir.leaves import is_as_found
from layergraph.torch2ir.replaying.alike import (
    are_alike,
    form,
    held,
    ids,
    is_open,
    memory,
    sizes_in,
    with_tensors_of,
)
from layergraph.torch2ir.replaying.anew import Anew
from layergraph.torch2ir.replaying.kinds import Kinds, kind_of
from layergraph.torch2ir.running.arguments import tensors_in
from layergraph.torch2ir.running.outputs import opened
from layergraph.torch2ir.running.questions import NUMBERS
from layergraph.torch2ir.running.run import CHANGING, Running
from layergraph.torch2ir.survey import Surveyed
from layergraph.undo import raise_interrupt


class _OtherwiseError(Exception):
    """The other mode is another graph."""


@dataclass(slots=True)
class Step:
    """Something that a run did.

    Attributes:
        subject: which function, leaf or module.
        given: its arguments; for a module that is traced through, the form of what crosses its
            border.
        gave: what came of it; for such a module None if what crosses the border stays the same.
        scope: for such a module, the call of it.
        call: for a function, the call that was recorded.
        asked_mode: for a leaf, whether its code asked whether it is training.
        sizes: where such a module is entered, the shapes of the tensors that it is given.
    """

    subject: object
    given: Any
    gave: Any
    scope: Scope | None = None
    call: Call | None = None
    asked_mode: bool = False
    sizes: tuple[torch.Size, ...] = ()


class _Sealed(Recorder):
    """Stands for the recorder while nothing new may be recorded."""

    def __init__(self, again: Again, scope: Scope) -> None:
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


class Again:
    """Goes through a run again.

    Args:
        run: the run.
        steps: what it did.

    Attributes:
        recorder: lets nothing new be recorded.
        is_refused: whether a module does something in this mode that cannot be carried over.
    """

    def __init__(self, run: Running, steps: Sequence[Step]) -> None:
        self.is_refused = False
        self._run = run
        self._steps = steps
        self._done = 0
        # Behind the last step that tells numbers, it does not matter which they are.
        self._telling = max(
            (n for n, step in enumerate(steps, 1) if step.subject in TELLING), default=0
        )
        self._recorded = run.recorder
        self.recorder = _Sealed(self, run.recorder.root)
        self._readers: set[str] = set()
        self._changed: list[Changed] = []
        self._replaced: list[Replaced] = []
        self._anew: Anew | None = None
        self._kinds = Kinds()
        self._is_other = False
        # The tensors, and the memory, in which there may be other numbers than in this mode.
        self._doubtful: set[int] = set()

    @property
    def is_following(self) -> bool:
        """Whether nothing is recorded now."""
        return self._anew is None

    def found(self) -> OtherMode | None:
        """What the other mode does; None if that is not known."""
        if self._is_other or self._done < len(self._steps):
            return None
        return OtherMode(self._readers, self._changed, self._replaced)

    def otherwise(self) -> NoReturn:
        """Give up: the code that is running does something else than it did."""
        # The model's code may catch the error.
        self._is_other = True
        raise _OtherwiseError

    def refuse(self) -> NoReturn:
        """Give up: nor would it help to run the model in this mode."""
        self.is_refused = not self.is_following
        self.otherwise()

    def put_back(self) -> None:
        """Leave what the run recorded as it was."""
        if self._anew is not None:
            self._anew.put_back()
            self._anew, self._run.recorder = None, self.recorder

    def mode_read(self, surveyed: Surveyed) -> None:
        """Take note that a module was asked for its mode."""
        self._readers.add(surveyed.path)

    def _require(self, holds: bool) -> None:
        if not holds:
            self.otherwise()

    def step(self, subject: object, given: Any) -> Step:
        """The next step, which has to be this one."""
        step = self._next(subject)
        self._require(are_alike(step.given, given))
        return step

    def _next(self, subject: object) -> Step:
        step = self._steps[self._done] if self._done < len(self._steps) else None
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
        if not are_alike(step.given, given):
            return self._other_function(step, func, args, kwargs)
        if self._doubtful and self._done <= self._telling:
            is_doubtful = self._spread(step, self._run.name_of(func))
            if is_doubtful and func in TELLING:
                self.otherwise()
        return held(step.gave)

    def _other_function(
        self, step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name, call = self._run.name_of(func), step.call
        if name is None or call is None or call.target != name:
            self.otherwise()
        self._require(not _changes(name, kwargs))
        self._require(are_alike([*tensors_in(step.given)], [*tensors_in((args, kwargs))]))
        changed = Changed(call, self._run.lower(args), self._run.lower(kwargs))
        # Sizes among the arguments have to be the same: the graph is the same but for plain values.
        self._require(values_in(call.args, call.kwargs) == values_in(changed.args, changed.kwargs))
        self._changed.append(changed)
        kind = self._run.unrecorded(self._kinds.of_result, (func, args, kwargs), {})
        self._require(kind == kind_of(step.gave))
        self._doubt(step.gave, step.given)
        return step.gave

    def leaf(
        self, surveyed: Surveyed, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """What a leaf gave."""
        step = self.step(surveyed, (args, kwargs))
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            self._require(is_as_found(surveyed))
        self._require(vars(surveyed.module)["training"] == self._run.trains[surveyed])
        if self._doubtful and self._done <= self._telling:
            self._spread(step, None)
        if step.asked_mode:
            result = self._run.unrecorded(original, (surveyed.module, *args), kwargs)
            self._require(kind_of(result) == kind_of(step.gave))
            self._doubt((step.gave, *surveyed.module.buffers()), step.given)
        return held(step.gave)

    def module(
        self, surveyed: Surveyed, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """What a module gave whose code does the same as it did, or whose calls are recorded anew.

        The code around it goes on with what it gave before.
        """
        (args, kwargs), scope = self._cross(surveyed, (args, kwargs))
        self._require((scope.parent or scope) is self.recorder.scope)
        self.recorder.scope = scope
        entered, was_other = self._done, self._is_other
        takes_gradients = torch._C.is_grad_enabled()
        try:
            result, left = self._cross(surveyed, original(surveyed.module, *args, **kwargs))
            # Its code may have caught the error.
            self._require(left is scope and self._is_other == was_other)
        except _OtherwiseError as error:
            raise_interrupt(error)
            if not self._is_replaceable(scope, (args, kwargs), entered):
                raise
            self._is_other = was_other
            self._run.unrecorded(torch._C._set_grad_enabled, (takes_gradients,), {})
            result = self._anew_module(surveyed, original, args, kwargs)
        self.recorder.scope = scope.parent or scope
        return result

    def _cross(self, surveyed: Surveyed, given: Any) -> tuple[Any, Scope]:
        step = self._next(surveyed)
        if step.scope is None:
            self.otherwise()
        crosses = form(given if step.scope.parent is not None else opened(given))
        self._require(are_alike(step.given, crosses))
        return (given if step.gave is None else held(step.gave)), step.scope

    def _is_replaceable(self, scope: Scope, given: Any, entered: int) -> bool:
        """Whether the module call whose code does something else can be recorded anew.

        If so, the steps inside it are passed over.
        """
        if self._anew is not None or self.recorder.scope is not scope or scope.parent is None:
            return False
        later = range(entered, len(self._steps))
        end = next(n for n in later if self._steps[n].scope is scope)
        self._done = end + 1
        # What it was given may have been changed in place since.
        is_as_it_was = sizes_in(given) == self._steps[entered - 1].sizes
        return is_as_it_was and is_open(given) and is_open(self._steps[end].given)

    def _anew_module(
        self, surveyed: Surveyed, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """Call a module anew; what it gave before, where the code around it cannot tell."""
        scope, step = self.recorder.scope, self._steps[self._done - 1]
        self._doubt(tuple(surveyed.module.buffers()))
        self._run.forget(scope)
        self._run.recorder = self._recorded
        self._anew = anew = Anew(self._recorded, scope, [*tensors_in((args, kwargs))])
        try:
            result = self._run.leave(surveyed, original(surveyed.module, *args, **kwargs))
        except Exception:
            self.put_back()
            # The code around it may catch the error.
            self._is_other = True
            raise
        is_closed = anew.done()
        self._anew, self._run.recorder = None, self.recorder
        gave = step.given if step.gave is None else form(step.gave)
        self._require(is_closed and is_open(result) and kind_of(form(result)) == kind_of(gave))
        self._replaced.append(anew.replaced)
        self._readers |= anew.readers
        self._doubt((gave, result))
        return with_tensors_of(result, gave)

    def _spread(self, step: Step, name: str | None) -> bool:
        """Whether a step was given numbers that may be others; then what it gave may be too."""
        is_doubtful = not self._doubtful.isdisjoint(memory(step.given) | ids(step.given))
        if is_doubtful:
            self._doubt(step.gave, step.given)
            if name is None or _changes(name, step.given[1]):
                self._doubt(step.given)
        return is_doubtful

    def _doubt(self, value: Any, given: Any = ()) -> None:
        """Take note of tensors; of what they share with what was given, one mode knows nothing."""
        if self._done < self._telling:
            self._doubtful |= ids(value) | (memory(value) - memory(given))


# What tells numbers that are in a tensor, or how they lie there.
TELLING = NUMBERS | {
    *(torch.equal, torch.allclose, torch.Tensor.equal, torch.Tensor.allclose),
    *(torch.Tensor.stride, torch.Tensor.is_contiguous, torch.Tensor.storage_offset),
}


def _changes(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether a function changes what it is given."""
    changing = [kwargs[key] for key in CHANGING & kwargs.keys()]
    return changes_its_first_argument(name) or any(
        each is not None and each is not False for each in changing
    )
