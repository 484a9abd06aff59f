"""The refusals of one run, so that one capture reports them all."""

from __future__ import annotations

from layergraph.errors import CaptureError, Unsupported, first_line
from layergraph.torch2ir.indexing.leaves import assigned_states
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.tracing.lines import code_place, line_of
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph.torch2ir.tracing.unsupported import refusal_before, unsupported


class RefusalLog:
    """The constructs of a run that a graph cannot hold.

    Args:
        module_index: the model.
        recorder: the recorder of the run. The module call that it records is the place of a
            refusal.
        hint: the remedy that the error names.

    Attributes:
        refused: the refusals so far.
        caught: refusals that count only if the model catches the error and the run succeeds.
    """

    def __init__(self, module_index: ModuleIndex, recorder: Recorder, hint: str) -> None:
        self.refused: list[Unsupported] = []
        self.caught: list[Unsupported] = []
        self._module_index = module_index
        self._recorder = recorder
        self._hint = hint
        self._error: Exception | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether the run has no refusal, and has caught no error."""
        return not self.refused and not self.caught

    def add(self, reason: str, line: str) -> None:
        """Add a refusal.

        Args:
            reason: the construct that a graph cannot hold.
            line: its line of code; empty if no line belongs to it.
        """
        found = self._here(reason, line)
        if found not in self.refused:
            self.refused.append(found)

    def add_assigned(self) -> None:
        """Add a refusal for each hidden state that code assigned after the last call of its layer.

        No later call of the run reads it, so the graph does not show the assignment.
        """
        for each in self._module_index:
            for name in assigned_states(each):
                self.add(
                    f"it assigns {each.key(name)}, a hidden state, after the last call of "
                    f"{each.path or 'the model'!r}; assign it before a call",
                    "",
                )

    def failed(self, name: str, error: Exception) -> None:
        """Record an error of a module or function; if the model catches it, capture fails."""
        if error is not self._error:
            self._error = error
            reason = f"its code catches an error of {name}: for other inputs there may be none"
            self.caught.append(self._here(reason, code_place()))

    def succeeded(self) -> None:
        """Count the errors that the model caught, because the run succeeds."""
        self.refused += self.caught

    def error(self) -> CaptureError:
        """Return one error that lists all refusals."""
        return unsupported(self.refused, self._hint)

    def ended_by(self, error: Exception) -> tuple[CaptureError, BaseException]:
        """Add the error that ended the run; return the error to raise, and its cause."""
        line = line_of(error, self._module_index.code_files)
        if isinstance(error, CaptureError):
            self.add(str(error), line)
            return self.error(), error
        refusal = refusal_before(error)
        reason = f"{type(error).__name__}: {first_line(error)}"
        self.add(reason if refusal is None else str(refusal), line)
        return self.error(), refusal or error

    def end(self) -> None:
        """Release the last error, which holds the frames of the model's code."""
        self._error = None

    def _here(self, reason: str, line: str) -> Unsupported:
        path = self._recorder.scope.path
        cls = type(self._module_index.at(path).module)
        return Unsupported(path, f"{cls.__module__}.{cls.__qualname__}", reason, line)
