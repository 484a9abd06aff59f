"""Classes that are layers by a decorator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any, TypeVar, overload

from torch import nn

from layergraph.layers.row import Layer, Reader, Writer

C = TypeVar("C", bound=type[nn.Module])

_MARK = "layergraph_layer"


@overload
def layer(cls: C, /) -> C: ...
@overload
def layer(
    *,
    type: str | None = None,
    always: Collection[str] = (),
    never: Collection[str] = (),
    readers: Mapping[str, Reader] | None = None,
    writers: Mapping[str, Writer] | None = None,
    derived: Collection[str] = (),
) -> Callable[[C], C]: ...
def layer(cls: Any = None, /, **said: Any) -> Any:
    """Decorate a class of a plugin: it is kept whole, with its own constructor arguments.

    As ``@layer``, or with the arguments of :class:`Layer`, ``@layer(type="acme_scale")``. The
    class has to be a global of the Python module that the entry point names, or be imported there
    from the same package. In a script or a notebook there is no entry point, and the decorator has
    no effect: a conversion warns, and :func:`layergraph.explain` says so.

    Returns:
        The class, which computes as before.

    Raises:
        PluginError: as for :class:`Layer`.
    """

    def mark(cls: C) -> C:
        setattr(cls, _MARK, Layer(cls, **said))
        return cls

    return mark if cls is None else mark(cls)


def is_marked(cls: type) -> bool:
    """Return whether a class is decorated itself; those that are derived from it are not."""
    return _MARK in vars(cls)


def marked_layers(module: ModuleType) -> list[Layer]:
    """The rows of the decorated classes that are globals of a Python module, each once.

    Those that it imported from another package are that package's.
    """
    package = module.__name__.partition(".")[0]
    rows: dict[type, Layer] = {}
    for each in vars(module).values():
        if isinstance(each, type) and each.__module__.partition(".")[0] == package:
            row = vars(each).get(_MARK)
            if isinstance(row, Layer):
                rows[each] = row
    return list(rows.values())
