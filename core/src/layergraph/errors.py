"""The errors of layergraph, all subclasses of ``LayergraphError``.

Each message states the problem, its place and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class LayergraphError(Exception):
    """The base class of all errors that layergraph raises on purpose.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph.errors import LayergraphError
        >>> try:
        ...     lg.to_ir(torch.nn.Linear(2, 3), torch.ones(1, 2))
        ... except LayergraphError as error:
        ...     print(type(error).__name__)
        CaptureError
    """


class Unsupported(NamedTuple):
    """One thing in a model that a capture refuses.

    Attributes:
        path: the path of the module whose code contains it; empty for the model itself.
        kind: the full name of that module's class.
        reason: the reason of the refusal, and the remedy; with the place if there is no line.
        line: file, number and text of the line of code; empty if there is none.

    Example:
        >>> from layergraph.errors import Unsupported
        >>> print(Unsupported("body.0", "acme.Block", "calls numpy", "acme.py:3 `np.sin(x)`"))
        in 'body.0' (Block), acme.py:3 `np.sin(x)`: calls numpy
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
    """An argument of a wrong type, for example in a wrong order. It is a TypeError too.

    :func:`layergraph.save`, :func:`layergraph.load` and :func:`layergraph.verify` raise it.
    :func:`layergraph.to_ir` raises :class:`CaptureError` instead.
    """


class CaptureError(LayergraphError):
    """A model that cannot be turned into an IR, with these options or at all.

    Args:
        message: the problem, its place and the remedy.
        unsupported: see below.

    Attributes:
        unsupported: each thing in the model that the capture refuses; empty if the error has
            another cause.
    """

    def __init__(self, message: str, unsupported: Sequence[Unsupported] = ()) -> None:
        super().__init__(message)
        self.unsupported = tuple(unsupported)


class BuildError(LayergraphError):
    """An IR that cannot be turned into a model: a handler is missing, or it refuses."""


class UnknownTypeError(BuildError):
    """A layer of a type that no installed handler makes."""


class StateError(LayergraphError):
    """A state dict that does not fit the model that an IR describes."""


class FileError(LayergraphError):
    """A file that cannot be read or written, or that holds no model of layergraph.

    The message names the file, then the place in it.
    """


class AssumptionError(LayergraphError):
    """A failed guard: the graph of a rebuilt model is not valid for this input or state."""


class ShapeError(LayergraphError):
    """A call whose shapes or costs cannot be computed.

    A layer or function refuses its arguments, or its result shape depends on numbers in a tensor.
    The message names the node.
    """


class RegistrationError(LayergraphError):
    """A handler that a converter cannot register."""


class PluginError(LayergraphError):
    """A handler, from a plugin or registered on a converter, that broke the contract of its hook.

    It raised an error (SystemExit included), or returned an answer of a wrong type, an endless
    list, or one module for two implementations. The message names distribution and hook.
    """


class MissingDistributionError(LayergraphError, ModuleNotFoundError):
    """A distribution of layergraph that is not installed. The message names it."""


class AssumptionWarning(UserWarning):
    """A warning that a model may compute other results than the original on this device."""


class PluginWarning(UserWarning):
    """A warning that an installed plugin cannot be used and is left out."""


class Place(NamedTuple):
    """The place of a thing in an IR or a file, from the outside in.

    It becomes text only if an error needs it.

    Attributes:
        kind: the kind of thing: ``"implementation"``, ``"node"``.
        name: its name; None for the only thing of its kind.
        around: the place that contains it.

    Example:
        >>> from layergraph.errors import Place
        >>> print(Place("implementation", "root").at("node", "relu"))
        implementation 'root', node 'relu'
    """

    kind: str
    name: object = None
    around: Place | None = None

    def at(self, kind: str, name: object = None) -> Place:
        """Return a place inside this one.

        Args:
            kind: the kind of thing there.
            name: its name; None for the only thing of its kind.
        """
        return Place(kind, name, self)

    def within(self, outer: Place) -> Place:
        """Return this place inside an outer one.

        Args:
            outer: the place to put around this one.
        """
        around = outer if self.around is None else self.around.within(outer)
        return Place(self.kind, self.name, around)

    def __str__(self) -> str:
        own = self.kind if self.name is None else f"{self.kind} {self.name!r}"
        return own if self.around is None else f"{self.around}, {own}"


class Problem(NamedTuple):
    """One broken rule of an IR.

    Attributes:
        place: the place: implementation, then node, edge or field.
        message: the problem.
        remedy: the remedy.
    """

    place: Place
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}; {self.remedy}"


MAX_PROBLEMS = 100
"""The number of problems after which the check of an IR stops."""


class InvalidIrError(LayergraphError):
    """An IR that breaks rules.

    Args:
        problems: see below.

    Attributes:
        problems: the broken rules in the order of the IR, at most the first hundred.
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
    r"""Return the first line of an error's message; torch appends its C++ stack as more lines.

    Args:
        error: any exception.

    Example:
        >>> from layergraph.errors import first_line
        >>> first_line(RuntimeError("no such operator\nException raised …"))
        'no such operator'
    """
    return (str(error).splitlines() or [""])[0]


def near(unknown: str, known: Iterable[str]) -> list[str]:
    """Return a note for a message: a question that lists known names similar to an unknown one.

    Args:
        unknown: the unknown name.
        known: the known names.

    Returns:
        A list of one note; empty if no known name is similar.

    Example:
        >>> from layergraph.errors import near
        >>> near("linaer", ["linear", "conv2d"])
        ["did you mean 'linear'?"]
    """
    import difflib  # only messages need it

    lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(unknown.lower(), lower, n=3)
    listed = " or ".join(repr(lower[each]) for each in found)
    return [f"did you mean {listed}?"] if found else []


def brief(value: object, most: int = 200) -> str:
    """Return the ``repr`` of a value for a message, cut if it is long. It raises nothing.

    Args:
        value: any value.
        most: the number of characters to keep.

    Example:
        >>> from layergraph.errors import brief
        >>> brief("a" * 1000, most=5)
        "'aaaa…"
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # ValueError: Python prints no integer of 4301 digits
        return f"a {type(value).__name__} that is too large to be printed"
    return text if len(text) <= most else f"{text[:most]}…"
