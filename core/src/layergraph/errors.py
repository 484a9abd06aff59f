"""The errors of layergraph: one family, so that ``except LayergraphError`` catches all of it.

Every message says what is wrong, where it is, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class LayergraphError(Exception):
    """The base of all errors that layergraph raises on purpose."""


class Unsupported(NamedTuple):
    """Something in a model that cannot be turned into an IR.

    Attributes:
        path: the path of the module that does it; empty for the model itself.
        kind: the class of the module, with the Python module that defines it.
        reason: what it is; where there is no line, with its place.
        line: the line of code that does it; empty if it is no line.
    """

    path: str
    kind: str
    reason: str
    line: str = ""

    def __str__(self) -> str:
        if not self.line:
            return self.reason
        place = repr(self.path) if self.path else "the model"
        return f"in {place} ({self.kind.rpartition('.')[2]}), {self.line}: {self.reason}"


class ArgumentError(LayergraphError, TypeError):
    """A function was given something of another type than it takes: it is a TypeError too.

    Functions of files raise it, for swapped arguments say, and :func:`layergraph.verify`. What
    :func:`layergraph.to_ir` is given is part of the capture: it raises CaptureError.
    """


class CaptureError(LayergraphError):
    """A model cannot be turned into an IR: by this way of capturing it, or at all.

    Attributes:
        unsupported: what was found that cannot; empty if the error is about something else.
    """

    def __init__(self, message: str, unsupported: Sequence[Unsupported] = ()) -> None:
        super().__init__(message)
        self.unsupported = tuple(unsupported)


class BuildError(LayergraphError):
    """An IR cannot be turned into a model: a handler is missing, or it refused."""


class StateError(LayergraphError):
    """A state dict does not fit the model that an IR describes."""


class FileError(LayergraphError):
    """A file cannot be read or written, or holds something else than a model of layergraph.

    The message names the file, then the place in it.
    """


class AssumptionError(LayergraphError):
    """A rebuilt model is used in a way that its graph was not captured for."""


class RegistrationError(LayergraphError):
    """A handler cannot be registered as asked."""


class PluginError(LayergraphError):
    """A handler, from a plugin or registered by hand, broke the contract of its hook.

    It raised an error, SystemExit included, or gave an answer of a wrong type, a list that does
    not end, or one module for two implementations. The message names distribution and hook.
    """


class MissingDistributionError(LayergraphError, ModuleNotFoundError):
    """A distribution of the family is not installed, and the message names it."""


class PluginWarning(UserWarning):
    """An installed plugin cannot be used and was left out."""


class Place(NamedTuple):
    """Where something is, from the outside in; made into text only where it is wrong.

    Attributes:
        kind: what it is: ``implementation``, ``node``.
        name: which one; None for the only one of its kind.
        around: where that is.
    """

    kind: str
    name: object = None
    around: Place | None = None

    def at(self, kind: str, name: object = None) -> Place:
        """A place inside this one."""
        return Place(kind, name, self)

    def within(self, outer: Place) -> Place:
        """The same place, inside another one."""
        around = outer if self.around is None else self.around.within(outer)
        return Place(self.kind, self.name, around)

    def __str__(self) -> str:
        own = self.kind if self.name is None else f"{self.kind} {self.name!r}"
        return own if self.around is None else f"{self.around}, {own}"


class Problem(NamedTuple):
    """One broken rule of an IR.

    Attributes:
        place: where, as implementation, then node or edge or field.
        message: what is wrong there.
        remedy: what to do about it.
    """

    place: Place
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}; {self.remedy}"


MAX_PROBLEMS = 100
"""The check of an IR ends at so many: the rest is likely to be more of the same."""


class InvalidIrError(LayergraphError):
    """An IR breaks its rules.

    Attributes:
        problems: the broken rules that were found, in the order of the IR: the first hundred.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "the IR breaks a rule" if count == 1 else f"the IR breaks {count} rules"
        if count >= MAX_PROBLEMS:
            head += " or more"
        super().__init__("\n  ".join([f"{head}:", *map(str, self.problems)]))

    def __reduce__(self) -> tuple[type[InvalidIrError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


def first_line(error: BaseException) -> str:
    """What an error says, without the stack of C++ that torch puts beneath it."""
    return (str(error).splitlines() or [""])[0]


def near(unknown: str, known: Iterable[str]) -> list[str]:
    """A note that asks for a name like one that is unknown, if there is one."""
    import difflib  # Messages alone need it.

    lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(unknown.lower(), lower, n=3)
    listed = " or ".join(repr(lower[each]) for each in found)
    return [f"did you mean {listed}?"] if found else []


def brief(value: object, most: int = 200) -> str:
    """The text of a value for a message: cut where it is long, and never an error of its own."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # An integer is too long for Python to print.
        return f"a {type(value).__name__} that is too large to be printed"
    return text if len(text) <= most else f"{text[:most]}…"
