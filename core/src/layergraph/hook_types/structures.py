"""A row of the hook ``structures``: a class of objects that models take and return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Structure:
    """A class of objects that cross the border of a model, one row of the hook ``structures``.

    A graph holds the parts of such an object. It takes the caller's object apart with ``flatten``
    and makes the model's object with ``unflatten``. So both are functions that the plugin also
    names by the hook ``functions``. Neither computes with tensors.

    Attributes:
        cls: the class. Instances of its subclasses are other structures.
        flatten: ``flatten(object)`` returns the parts: tensors, plain values, objects of other
            structures, and dicts, lists and tuples of these. The parts determine the object. A
            number flows through the graph, and a guard checks the branches that depend on it.
        unflatten: ``unflatten(parts)`` returns a new object of these parts. ``unflatten(parts,
            into)`` sets the parts, as the model changed them, on an object of the caller, and
            returns that object. The numbers of a ``torch.Size`` are in a tuple.
        has_items: whether ``len(object)`` counts items, like that of a list. A guard fixes it then.
            False if it may differ between calls, like a batch size.

    Example:
        >>> import types, layergraph as lg
        >>> def flatten(point):
        ...     return [point.x, point.y]
        >>> def unflatten(parts, into=None):
        ...     point = types.SimpleNamespace() if into is None else into
        ...     point.x, point.y = parts
        ...     return point
        >>> lg.Structure(types.SimpleNamespace, flatten, unflatten).cls.__name__
        'SimpleNamespace'
    """

    cls: type
    flatten: Callable[[Any], Any]
    unflatten: Callable[..., Any]
    has_items: bool = True
