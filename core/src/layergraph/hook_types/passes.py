"""A row of the hook ``passes``: a named function that edits an IR."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class PassOption(NamedTuple):
    """An option of a pass.

    Attributes:
        name: the parameter of the function.
        type: its annotation, as text; empty if it has none.
        default: its default.
        is_required: whether it has no default.
    """

    name: str
    type: str
    default: Any
    is_required: bool

    def __str__(self) -> str:
        kind = f": {self.type}" if self.type else ""
        return f"{self.name}{kind}" + ("" if self.is_required else f" = {self.default!r}")


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass, one row of the hook ``passes``.

    Attributes:
        name: the name, in lower case with hyphens: ``"fold-batchnorm"``.
        function: ``function(edit, **options)`` edits a :class:`layergraph_rewrite.Edit`, and
            returns None. Its docstring is the help. The parameters after the first one are the
            options.

    Example:
        >>> import layergraph as lg
        >>> def mark(edit, *, bits: int = 8):
        ...     "Annotate each linear layer with a number of bits."
        ...     for name in edit.select("linear").layers:
        ...         edit.annotate(name, {"acme.bits": bits})
        >>> row = lg.Pass("mark", mark)
        >>> row.help, [str(option) for option in row.options]
        ('Annotate each linear layer with a number of bits.', ['bits: int = 8'])
    """

    name: str
    function: Callable[..., None]

    @property
    def help(self) -> str:
        """The docstring of the function."""
        return inspect.getdoc(self.function) or ""

    @property
    def options(self) -> tuple[PassOption, ...]:
        """The options that the function takes."""
        try:
            _, *parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):
            return ()
        return tuple(
            PassOption(
                each.name,
                "" if each.annotation is each.empty else _text(each.annotation),
                None if each.default is each.empty else each.default,
                each.default is each.empty,
            )
            for each in parameters
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        )


def _text(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
