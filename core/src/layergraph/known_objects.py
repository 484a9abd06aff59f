"""Objects of Python, numpy and torch that a model returns with their class: a closed table.

A record of the IR stands for such an object. It has the name of a class of the table, and the parts
from which the object is made. So a file can name no other class.
"""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import distributions

_FACTORIES = {each.__name__: each for each in (bool, dict, float, int, list, set, str, tuple)}


@dataclass(frozen=True, slots=True)
class KnownClass:
    """One row of the table.

    Attributes:
        name: the name of its records.
        parts: the names of the parts, and the class that each has in a record.
        take: returns the parts of an object; None if a record cannot stand for this object.
        make: makes an object of its parts. A written module calls it by its path, or copies it if
            it is one of this module.
    """

    name: str
    parts: dict[str, type]
    take: Callable[[Any], Sequence[Any] | None]
    make: Callable[..., Any]


def parts_of(value: Any) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the parts of the record that stands for an object.

    Returns:
        None if the table lacks the class of the object, or the object has attributes of its own.

    Example:
        >>> from collections import OrderedDict
        >>> from layergraph.known_objects import parts_of
        >>> parts_of(OrderedDict(a=1))
        ('collections.OrderedDict', {'items': {'a': 1}})
    """
    kind = type(value)
    row = _by_class().get(kind)
    if row is not None:
        parts = row.take(value)
        return None if parts is None else (row.name, dict(zip(row.parts, parts, strict=True)))
    if _is_of_torch(value):
        state = {**vars(value)}
        if isinstance(state.get("_inv"), weakref.ref):
            state["_inv"] = None  # torch makes the inverse of a transform again
        return _path(kind), state
    return None


def maker_of(
    name: str, parts: Mapping[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """Return the function that makes an object of the parts of a record; None for other records.

    Returns:
        The function, and its arguments before the parts.

    Args:
        name: the name of the record.
        parts: its fields.

    Raises:
        ValueError: the class has other parts.

    Example:
        >>> from layergraph.known_objects import maker_of
        >>> maker_of("collections.deque", {"items": [1], "maxlen": None})
        (<class 'collections.deque'>, ())
    """
    given = tuple(parts)
    row = _by_name().get(name)
    if row is not None:
        kinds = row.parts.values()
        if given != tuple(row.parts) or not all(map(isinstance, parts.values(), kinds)):
            raise ValueError(f"{name} of {', '.join(given) or 'no parts'} of these types")
        return row.make, ()
    cls = _distribution(name)
    if cls is None:
        return None
    if any(not each.isidentifier() or each.startswith("__") for each in given):
        raise ValueError(f"{name} with attributes of these names: {', '.join(given)}")
    return with_attributes, (cls, given)


def with_attributes(cls: type, names: tuple[str, ...], *values: Any) -> Any:
    """Return an object of a class with these attributes, without a call of its constructor.

    The constructors of distributions normalize and check their arguments: two calls in a row give
    other bits than one.
    """
    made: Any = object.__new__(cls)
    vars(made).update(zip(names, values, strict=True))
    return made


def _is_of_torch(value: Any) -> bool:
    """Return whether a distribution, or a transform, and all that are inside are those of torch."""
    kind = type(value)
    if not kind.__module__.startswith(_DISTRIBUTIONS) or _distribution(_path(kind)) is not kind:
        return False
    inside = [each for part in vars(value).values() for each in _items_of_list(part)]
    return all(_is_of_torch(each) for each in inside if isinstance(each, _KINDS))


def _items_of_list(part: Any) -> list[Any]:
    return part if isinstance(part, list) else [part]


_KINDS = (distributions.Distribution, distributions.Transform)
_DISTRIBUTIONS = f"{distributions.__name__}."


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"


def _distribution(path: str) -> type | None:
    """Return a class of torch's distributions and their transforms; None for another path."""
    home, _, name = path.rpartition(".")
    if not home.startswith(_DISTRIBUTIONS):
        return None
    found = getattr(vars(distributions).get(home.removeprefix(_DISTRIBUTIONS)), name, None)
    is_one = isinstance(found, type) and issubclass(found, _KINDS) and _path(found) == path
    return found if is_one else None


def read_only(items: Mapping[Any, Any]) -> Any:
    """Return a read-only view of a dict."""
    return types.MappingProxyType(items)


def namespace(items: Mapping[str, Any]) -> Any:
    """Return a simple namespace with these attributes."""
    return types.SimpleNamespace(**items)


def chained(maps: Iterable[Any]) -> Any:
    """Return a chain of dicts."""
    return ChainMap(*maps)


def keys_of(items: Mapping[Any, Any]) -> Any:
    """Return the keys of a dict."""
    return items.keys()


def values_of(items: Mapping[Any, Any]) -> Any:
    """Return the values of a dict."""
    return items.values()


def items_of(items: Mapping[Any, Any]) -> Any:
    """Return the items of a dict."""
    return items.items()


def default_dict(factory: str | None, items: Mapping[Any, Any]) -> Any:
    """Return a dict with a default: an empty container, or the zero of a type.

    Raises:
        ValueError: the factory is none of those that a record can name.
    """
    if factory is not None and factory not in _FACTORIES:
        raise ValueError(f"no factory of a defaultdict is named {factory!r}")
    return defaultdict(None if factory is None else _FACTORIES[factory], items)


def _items(value: Any) -> tuple[Any] | None:
    """Return the items of a dict; None if it has attributes, as a state dict of torch."""
    return None if getattr(value, "__dict__", None) else (dict(value),)


def _hashed(value: Iterable[Any]) -> tuple[Any] | None:
    """Return the items of a set in one order; None if there are others than numbers and texts."""
    items = [*value]
    if any(type(each) not in (bool, int, float, complex, str, bytes) for each in items):
        return None
    return (sorted(items, key=lambda each: (type(each).__name__, repr(each))),)


def _defaults(value: Any) -> tuple[Any, ...] | None:
    name = getattr(value.default_factory, "__name__", None)
    if value.default_factory is not _FACTORIES.get(str(name)):
        return None
    return name, dict(value)


def _data(value: Any) -> tuple[Any] | None:
    return (value.data,) if [*vars(value)] == ["data"] else None


def _view(make: Callable[..., Any]) -> tuple[type, KnownClass]:
    cls = type(make({}))
    return cls, KnownClass(
        f"builtins.{cls.__name__}", _DICT, lambda each: _items(each.mapping), make
    )


_DICT: dict[str, type] = {"items": dict}
_LIST: dict[str, type] = {"items": list}
# The parts of each are as large as the file that names them: a range, for example, is not.
_ROWS: dict[type, KnownClass] = {
    OrderedDict: KnownClass("collections.OrderedDict", _DICT, _items, OrderedDict),
    Counter: KnownClass("collections.Counter", _DICT, _items, Counter),
    UserDict: KnownClass("collections.UserDict", _DICT, _data, UserDict),
    UserList: KnownClass("collections.UserList", _LIST, _data, UserList),
    ChainMap: KnownClass(
        "collections.ChainMap", {"maps": list}, lambda each: (each.maps,), chained
    ),
    defaultdict: KnownClass(
        "collections.defaultdict", {"factory": object, **_DICT}, _defaults, default_dict
    ),
    deque: KnownClass(
        "collections.deque",
        {**_LIST, "maxlen": object},
        lambda each: ([*each], each.maxlen),
        deque,
    ),
    types.MappingProxyType: KnownClass("types.MappingProxyType", _DICT, _items, read_only),
    types.SimpleNamespace: KnownClass(
        "types.SimpleNamespace", _DICT, lambda each: ({**vars(each)},), namespace
    ),
    set: KnownClass("builtins.set", _LIST, _hashed, set),
    frozenset: KnownClass("builtins.frozenset", _LIST, _hashed, frozenset),
    **dict(map(_view, (keys_of, values_of, items_of))),
}
_NUMPY = (
    "bool_ complex64 complex128 float16 float32 float64 int8 int16 int32 int64 str_ "
    "uint8 uint16 uint32 uint64"
).split()


@functools.cache
def _by_class() -> dict[type, KnownClass]:
    numpy = sys.modules.get("numpy")
    scalars = {} if numpy is None else {getattr(numpy, each): each for each in _NUMPY}
    return _ROWS | {
        cls: KnownClass(f"numpy.{name}", {"value": object}, lambda each: (each.item(),), cls)
        for cls, name in scalars.items()
    }


@functools.cache
def _by_name() -> dict[str, KnownClass]:
    return {row.name: row for row in _by_class().values()}
