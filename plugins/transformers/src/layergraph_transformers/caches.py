"""Take the caches of transformers apart, and make them of parts.

A graph calls these functions, so a file may pass them any parts. They make and change only objects
of the cache classes of transformers, and never call an object that the parts name.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Collection, Iterable
from typing import Any

import torch

from layergraph.errors import AssumptionError, CaptureError

_HOME = "transformers.cache_utils"
_BASES = ("Cache", "CacheLayerMixin", "LinearAttentionCacheLayerMixin", "DummyLayer")
# The numbers that differ from call to call.
_COUNTS = frozenset({"cumulative_length", "batch_size", "max_batch_size", "_seen_tokens"})
# The class of the layers that a cache adds. The parts contain its name.
_CLASSES = frozenset({"layer_class_to_replicate"})
# Attributes that only the code around a model sets and reads.
_OF_CALLERS = frozenset({"_is_user_defined"})
_PLAIN = (type(None), str, torch.dtype)


def flatten_cache(cache: Any) -> dict[str, Any]:
    """Return the parts of a cache, or of a layer of one: its class by name, and its attributes.

    Args:
        cache: the cache.

    Raises:
        CaptureError: the object is not a cache of transformers, or an attribute is neither a
            tensor, nor a plain value, nor a layer of a cache.
    """
    if not _is_cache(type(cache)):
        raise CaptureError(f"a {type(cache).__name__} is not a cache of transformers; pass one")
    attributes = {
        name: _part(cache, name, value)
        for name, value in vars(cache).items()
        if name not in _OF_CALLERS
    }
    # Plain values come first, because some of them say whether the cache has tensors. Sort the
    # names, because the code of a cache sets attributes in any order.
    in_order = sorted(
        attributes, key=lambda name: (isinstance(attributes[name], torch.Tensor), name)
    )
    return {"class": type(cache).__name__, **{name: attributes[name] for name in in_order}}


def unflatten_cache(parts: dict[str, Any], into: Any = None) -> Any:
    """Return a cache made of parts.

    Args:
        parts: the result of :func:`flatten_cache`, with each count in a tuple.
        into: a cache to change; None to make a new one.

    Returns:
        The cache; the parts themselves if transformers is not installed.

    Raises:
        AssumptionError: the parts do not describe a cache of transformers.
    """
    try:
        import transformers.cache_utils  # noqa: F401 the module is read below
    except ImportError:
        return parts
    cls = _class(parts.get("class"))
    if into is None:
        into = cls.__new__(cls)
    elif type(into) is not cls:
        raise AssumptionError(f"a {type(into).__name__} gets the parts of a {cls.__name__}")
    held = vars(into)
    given = list(held)
    attributes = {name: part for name, part in parts.items() if name != "class"}
    for name in held.keys() - attributes.keys() - _OF_CALLERS:
        del held[name]
    for name, part in attributes.items():
        if callable(getattr(cls, name, None)):
            raise AssumptionError(f"{name!r} is a method of {cls.__name__}, and no part of it")
        if name != "device":
            held[name] = _attribute(name, part, held.get(name))
    if "device" in attributes:
        tensors = (each for each in _inside(attributes.values()) if isinstance(each, torch.Tensor))
        device = next((each.device for each in tensors), None)
        held["device"] = device if attributes["device"] else None
    _put_in_order(held, given)
    return into


def _put_in_order(held: dict[str, Any], given: Collection[str]) -> None:
    """Sort the new attributes of a cache of caches in the order in which its class makes them."""
    for name in _IN_ORDER:
        if name in held and name not in given:
            held[name] = held.pop(name)


# The parts are sorted by name. Code that iterates over the attributes needs the order of the
# class.
_IN_ORDER = ("self_attention_cache", "cross_attention_cache", "is_updated")


def _part(cache: Any, name: str, value: Any) -> Any:
    if name in _COUNTS and type(value) is not bool and not isinstance(value, torch.Tensor | None):
        return torch.Size([value])
    if name in _CLASSES:
        return None if value is None else value.__name__
    if name == "device":
        # The rebuilt cache takes the device of its tensors, because the model may run elsewhere.
        return value is not None
    if isinstance(value, torch.Tensor | numbers.Number) or type(value) in _PLAIN:
        return value
    if type(value) in (list, tuple):
        return type(value)(_part(cache, "", each) for each in value)
    if type(value) is dict:
        return {key: _part(cache, "", each) for key, each in value.items()}
    if _is_cache(type(value)):
        return flatten_cache(value)
    raise CaptureError(
        f"a {type(cache).__name__} whose {name or 'part'!r} is a {type(value).__name__} cannot be "
        "taken apart; pass a cache of tensors and numbers"
    )


def _attribute(name: str, part: Any, before: Any) -> Any:
    """Return the value of an attribute. Caches in the old value stay, and get the new parts."""
    if name in _COUNTS and isinstance(part, tuple):
        return part[0]
    if name in _CLASSES:
        return None if part is None else _class(part)
    if type(part) is dict and "class" in part:
        is_kept = _is_cache(type(before)) and type(before).__name__ == part["class"]
        return unflatten_cache(part, before if is_kept else None)
    if type(part) is list:
        kept = before if type(before) is list else []
        padded = [*kept, *[None] * len(part)]
        kept[:] = [_attribute("", each, old) for each, old in zip(part, padded, strict=False)]
        return kept
    if type(part) is tuple:
        return tuple(_attribute("", each, None) for each in part)
    if type(part) is dict:
        old = before if type(before) is dict else {}
        new = {key: _attribute("", each, old.get(key)) for key, each in part.items()}
        old.clear()
        old.update(new)
        return old
    return part


def _inside(parts: Iterable[Any]) -> Iterable[Any]:
    for part in parts:
        yield from _inside(part.values()) if isinstance(part, dict) else (part,)


def _class(name: object) -> Any:
    cls = vars(sys.modules[_HOME]).get(name) if isinstance(name, str) else None
    if not _is_cache(cls):
        raise AssumptionError(
            f"this version of transformers has no cache {name!r}; install the one that the model "
            "was captured with"
        )
    return cls


def _is_cache(cls: Any) -> bool:
    """Return whether a class is one of the caches, or of the layers of caches, of transformers."""
    home = sys.modules.get(_HOME)
    bases = tuple(base for name in _BASES if (base := getattr(home, name, None)) is not None)
    return isinstance(cls, type) and cls.__module__ == _HOME and issubclass(cls, bases)
