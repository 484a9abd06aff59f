"""The decorator that makes a class of a plugin a layer."""

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
def layer(cls: Any = None, /, **options: Any) -> Any:
    """Mark a class of a plugin as a layer: a leaf that its constructor arguments describe.

    Write ``@layer``, or ``@layer(type="acme_scale")`` with the arguments of :class:`Layer`. The
    class has to be a global of the Python module that the entry point names; it may be imported
    there from another module of the same package. A script or a notebook has no entry point, and
    the decorator has no effect there: a conversion warns, and :func:`layergraph.explain` says so.

    Args:
        cls: the class, if the decorator has no arguments.
        options: the arguments of :class:`Layer` besides the class, by name.

    Returns:
        The same class; without a class, a decorator.

    Raises:
        PluginError: as for :class:`Layer`.

    Example:
        >>> import torch
        >>> from layergraph.layers import is_marked, layer
        >>> @layer(type="acme_scale")
        ... class Scale(torch.nn.Module):
        ...     def __init__(self, factor: float = 2.0) -> None:
        ...         super().__init__()
        ...         self.factor = factor
        >>> is_marked(Scale)
        True
    """

    def mark(cls: C) -> C:
        setattr(cls, _MARK, Layer(cls, **options))
        return cls

    return mark if cls is None else mark(cls)


def is_marked(cls: type) -> bool:
    """Return whether a class itself is decorated with :func:`layer`. Subclasses do not inherit it.

    Example:
        >>> import torch
        >>> from layergraph.layers import is_marked
        >>> is_marked(torch.nn.Linear)
        False
    """
    return _MARK in vars(cls)


def marked_layers(module: ModuleType) -> list[Layer]:
    """Return the rows of the decorated classes among the globals of a Python module, each once.

    A class that the module imported from another package belongs to that package, and is skipped.

    Example:
        >>> import layergraph_linear
        >>> from layergraph.layers import marked_layers
        >>> marked_layers(layergraph_linear)
        []
    """
    package = module.__name__.partition(".")[0]
    rows: dict[type, Layer] = {}
    for each in vars(module).values():
        if isinstance(each, type) and each.__module__.partition(".")[0] == package:
            row = vars(each).get(_MARK)
            if isinstance(row, Layer):
                rows[each] = row
    return list(rows.values())
