"""The handlers of a subject in the order of precedence, with the answer of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from layergraph.errors import first_line
from layergraph.hook_types.declining import listening
from layergraph.ir import Implementation
from layergraph.layers import Layer
from layergraph.plugins.contract import HookFailure
from layergraph.plugins.hooks import Hooks
from layergraph.plugins.plugin import HookImplementation

Verdict = Literal["answers", "shadowed", "declines", "fails", "wraps"]
Say = Callable[[HookImplementation], Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A handler, and its answer.

    Attributes:
        distribution: the handler's distribution; None: it is registered on the converter.
        version: the version of the distribution.
        entry_point: the handler's entry point.
        level: the level of precedence: ``"override"``, ``"registered"``,
            ``"third party tryfirst"``, ``"third party"``, ``"built-in"`` or
            ``"third party trylast"``.
        file: the source file of the handler; empty if it is unknown.
        line: the number of the line in the file, from 1; 0 if it is unknown.
        verdict: ``"answers"``; ``"shadowed"``, if an earlier handler answers; ``"declines"``;
            ``"fails"``; or ``"wraps"``, if it wraps the others.
        reason: the reason why it declines, or the error; empty if it declines without a reason.
    """

    distribution: str | None
    version: str | None
    entry_point: str | None
    level: str
    file: str
    line: int
    verdict: Verdict
    reason: str = ""

    @property
    def who(self) -> str:
        """Return the name of the handler for messages."""
        if self.distribution is None:
            return "this converter"
        return f"{self.distribution} {self.version} ({self.entry_point})"

    @property
    def merely_declines(self) -> bool:
        """Return whether the handler is built in and declines without a reason."""
        return self.level == "built-in" and self.verdict == "declines" and not self.reason

    def __str__(self) -> str:
        place = f", {self.file}:{self.line}" if self.file else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.verdict:9} {self.who}, {self.level}{place}{reason}"


@dataclass(frozen=True, slots=True)
class Chain:
    """All handlers of one hook for one subject.

    Attributes:
        hook: the name of the hook.
        subject: the subject, as text.
        wrappers: the hook wrappers, the outermost first.
        asked: the other handlers, in the order of precedence.
        answer: the result of the hook, after the wrappers; None if no handler answers, or if the
            subject is a class or a type.
        row: the row of layers that answers; None if another handler does.
    """

    hook: str
    subject: str
    wrappers: tuple[Asked, ...]
    asked: tuple[Asked, ...]
    answer: Any = field(default=None, compare=False)
    row: Layer | None = field(default=None, compare=False)

    @property
    def winner(self) -> Asked | None:
        """Return the handler that answers; None if none does, or if an earlier one fails."""
        return next((each for each in self.asked if each.verdict == "answers"), None)

    @property
    def ties(self) -> tuple[Asked, ...]:
        """Return the third-party handlers that come after the winner only by their names."""
        winner = self.winner
        if winner is None or not winner.level.startswith("third party"):
            return ()
        return tuple(
            each
            for each in self.asked
            if each.verdict == "shadowed"
            and each.level == winner.level
            and each.distribution != winner.distribution
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the chain as plain values: ``answer`` as text, with ``winner`` and ``ties``."""
        return {
            "hook": self.hook,
            "subject": self.subject,
            "wrappers": [asdict(each) for each in self.wrappers],
            "asked": [asdict(each) for each in self.asked],
            "winner": None if self.winner is None else asdict(self.winner),
            "ties": [asdict(each) for each in self.ties],
            "answer": None if self.answer is None else str(self.answer),
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines that ``print`` shows."""
        yield f"{self.hook}: {self.subject}"
        silent = [each for each in self.asked if each.merely_declines]
        for each in (*self.wrappers, *self.asked):
            if not each.merely_declines:
                yield f"  {'*' if each is self.winner else ' '} {each}"
        if silent:
            others = "s" if len(silent) > 1 else ""
            yield f"    declines  {len(silent)} built-in plugin{others}, without a reason"
        winner = self.winner
        if winner is None:
            fails = any(each.verdict == "fails" for each in self.asked)
            yield "    no handler answers" + (", because one fails" if fails else "")
        for each in self.ties:
            yield (
                f"    a tie: {each.who} answers on the same level, and only its name puts it after "
                f"{winner.who if winner else ''}; disable one, or register the one that you want"
            )


@dataclass(frozen=True, slots=True)
class Explanation:
    """The handlers of a module, a class or a type. ``print`` shows them.

    Attributes:
        subject: the subject, as text.
        notes: other facts that decide about the conversion.
        chains: the handlers of each hook.
    """

    subject: str
    notes: tuple[str, ...] = ()
    chains: tuple[Chain, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain values."""
        return {
            "subject": self.subject,
            "notes": list(self.notes),
            "chains": [each.to_dict() for each in self.chains],
        }

    def __add__(self, other: Explanation) -> Explanation:
        return Explanation(self.subject, self.notes + other.notes, self.chains + other.chains)

    def __str__(self) -> str:
        lines = [self.subject] if not self.chains else []
        for chain in self.chains:
            lines += chain.lines()
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def chain(
    hook: str,
    subject: str,
    hooks: Hooks,
    registered: Iterable[HookImplementation],
    say: Say,
) -> Chain:
    """Call all handlers of a hook, even those after the first that answers.

    Args:
        hook: the name of the hook.
        subject: the subject, as text.
        hooks: the plugins.
        registered: the handlers that are registered on the converter, in the order of precedence.
        say: calls one handler and returns its answer; None means that it declines.
    """
    wrappers: list[Asked] = []
    asked: list[Asked] = []
    decided = False
    answer = None
    for each in (*registered, *hooks.implementations):
        if each.hook != hook:
            continue
        if each.is_wrapper:
            wrappers.append(_asked(each, "wraps"))
            continue
        verdict, reason, said = _said(each, say)
        if verdict == "answers" and decided:
            verdict = "shadowed"
        elif verdict == "answers":
            answer = said
        decided = decided or verdict in ("answers", "fails")
        asked.append(_asked(each, verdict, reason, said))
    row = answer if isinstance(answer, Layer) else None
    return Chain(hook, subject, tuple(wrappers), tuple(asked), answer, row)


def _said(each: HookImplementation, say: Say) -> tuple[Verdict, str, Any]:
    with listening() as reasons:
        try:
            said = say(each)
        except HookFailure as failure:
            return "fails", failure.reason.removeprefix("raised "), None
        except Exception as error:
            return "fails", f"{type(error).__name__}: {first_line(error)}", None
    if said is None:
        return "declines", "; ".join(reasons), None
    return "answers", "", said


def _asked(
    each: HookImplementation, verdict: Verdict, reason: str = "", said: object = None
) -> Asked:
    plugin = each.plugin
    file, line = _place(_source(each, said))
    return Asked(
        None if plugin is None else plugin.distribution,
        None if plugin is None else plugin.version,
        None if plugin is None else plugin.entry_point,
        str(each.level),
        file,
        line,
        verdict,
        reason,
    )


def _source(each: HookImplementation, said: object) -> object:
    """Return the object whose source to show: for a table of decorated classes, the class."""
    if each.table is None or not isinstance(each.source, type):
        return each.source
    if isinstance(said, Layer):
        return said.cls
    row = each.table.find(said.type if isinstance(said, Implementation) else type(said))
    return each.source if row is None else row.cls


def _place(source: Any) -> tuple[str, int]:
    try:
        written = inspect.unwrap(source)
        return inspect.getsourcefile(written) or "", inspect.findsource(written)[1] + 1
    except (OSError, TypeError, ValueError):  # it was made at run time, or is written in C
        return "", 0
