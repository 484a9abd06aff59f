"""A list of everything in a model that prevents its conversion."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from layergraph.capturing import Values
from layergraph.errors import CaptureError, PluginWarning, Unsupported
from layergraph.functions.foreign import listed_as, listing
from layergraph.functions.names import Targets
from layergraph.torch2ir import Torch2Ir
from layergraph.torch2ir.indexing.answers import answer_of
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.unhandled import advice, unhandled
from layergraph_capture.original import UNFIT
from layergraph_files.unlisted import unlisted


@dataclass(frozen=True, slots=True)
class Preflight:
    """The problems of a model. ``print`` shows them with a stub of each missing handler.

    Attributes:
        unsupported: everything that cannot be turned into an IR, in the order of the capture.
        error: the message of another error, such as arguments that the model does not take; None
            if there is none.
        missing: for each distribution that is not installed, the layers that it would handle.
            These convert nevertheless: the capture records the functions that they call.
        unlisted: functions that no plugin lists, each with the remedy and the line of code that
            calls it. The model converts nevertheless, but a file cannot hold it.
    """

    unsupported: tuple[Unsupported, ...] = ()
    error: str | None = None
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unlisted: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether the model converts."""
        return not self.unsupported and self.error is None

    def stubs(self) -> dict[str, str]:
        """Return a handler to fill in, for each class whose code a graph cannot hold."""
        hopeless = {each.kind for each in self.unsupported if not each.line or UNFIT in each.reason}
        kinds = dict.fromkeys(each.kind for each in self.unsupported)
        return {kind: _stub(kind) for kind in kinds if kind not in hopeless}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.ok:
            yield "the model converts"
        if self.error is not None:
            yield self.error
        if self.unsupported:
            count = len(self.unsupported)
            yield f"{count} thing{'s' * (count > 1)} that cannot be turned into an IR"
        for each in self.unsupported:
            yield ""
            yield f"{each.path or 'the model'} ({each.kind})"
            if each.line:
                yield f"  {each.line}"
            yield f"  {each.reason}"
        for stub in self.stubs().values():
            yield ""
            yield "a handler would keep it whole:"
            yield ""
            yield from (f"    {line}".rstrip() for line in stub.splitlines())
        for name, remedy in self.unlisted.items():
            yield f"a file cannot hold {name!r}; {remedy}"
        if self.missing:
            yield advice(self.missing)


def preflight(
    model: nn.Module,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    values: Values = "both",
) -> Preflight:
    """List everything in a model that prevents its conversion.

    This converts the model and drops the IR. With example inputs, it finds all problems at once;
    without, the capture stops at the first.

    Args:
        model: as for :func:`layergraph.to_ir`.
        args: as for :func:`layergraph.to_ir`.
        kwargs: as for :func:`layergraph.to_ir`.
        values: as for :func:`layergraph.to_ir`. With ``"refuse"``, each number that code reads from
            a tensor is a problem; otherwise none is.

    Returns:
        The problems. ``print`` shows them, with remedies.

    Example:
        >>> import torch, layergraph as lg
        >>> print(lg.preflight(torch.nn.Linear(2, 3), (torch.ones(1, 2),)))
        the model converts
    """
    converter = Torch2Ir()
    try:
        with warnings.catch_warnings():
            # The result lists these layers, so the warning would repeat it.
            warnings.filterwarnings("ignore", "no installed package handles", PluginWarning)
            ir = converter.convert(model, args, kwargs, values=values)
    except CaptureError as error:
        return Preflight(
            error.unsupported,
            None if error.unsupported else str(error),
            _missing(converter, model),
        )
    known = Targets(converter.hooks.named_functions())
    remedies: dict[str, str] = {}
    for _, name in unlisted(ir, known):
        place = f" ({name.where})" if name.where else ""
        remedies.setdefault(listed_as(name), f"{listing(name)}{place}")
    return Preflight(missing=_missing(converter, model), unlisted=remedies)


def _missing(converter: Torch2Ir, model: object) -> dict[str, list[str]]:
    if not isinstance(model, nn.Module):
        return {}
    return unhandled(ModuleIndex(model, partial(answer_of, converter.hooks)))


_STUB = """from layergraph import Implementation, hookimpl
{importing}


@hookimpl
def torch_to_ir(module):
    if type(module) is {name}:
        return Implementation("{type}", {{{attributes}}})


@hookimpl
def ir_to_torch(implementation):
    if implementation.type == "{type}":
        return {name}(**implementation.data)
"""


def _stub(kind: str) -> str:
    home, name = _home_and_name(kind)
    cls: Any = None
    if home:
        cls = importlib.import_module(home)
        for part in name.split("."):
            cls = getattr(cls, part, None)
    known = f"from {home} import {name.partition('.')[0]}" if cls else f"# and the class {kind}"
    return _STUB.format(
        importing=known,
        name=name,
        type=_type(kind),
        attributes=", ".join(f'"{each}": module.{each}' for each in _arguments(cls)),
    )


def _type(kind: str) -> str:
    """Return a type for a class: its name, unless a layer of torch has that type."""
    name = kind.rpartition(".")[2].lower()
    taken = name in {each.lower() for each in vars(nn)}
    return f"{kind.partition('.')[0]}_{name}".lower() if taken else name


def _home_and_name(kind: str) -> tuple[str, str]:
    """Return the Python module of a class, and its name in it; the class may be a nested one."""
    parts = kind.split(".")
    for count in range(len(parts) - 1, 0, -1) if "<locals>" not in kind else ():
        home = ".".join(parts[:count])
        if home in sys.modules:
            return home, ".".join(parts[count:])
    return "", parts[-1]


def _arguments(cls: type | None) -> list[str]:
    """Return the arguments of a constructor, which the handler must read from the module."""
    if cls is None:
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):  # its constructor is C code, or missing
        return []
    return [each.name for each in parameters if each.kind in named]
