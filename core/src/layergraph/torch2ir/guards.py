"""What must not happen unseen while a model runs on proxies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from layergraph.errors import CaptureError
from layergraph.torch2ir.patches import Patch
from layergraph.torch2ir.proxy import Proxy
from layergraph.torch2ir.survey import Survey, Surveyed


def guards(survey: Survey, is_here: Callable[[], bool]) -> Iterator[Patch]:
    """The patches that refuse what would be lost, or be answered wrongly, in silence.

    Args:
        survey: the model.
        is_here: whether the current thread is the one that captures; others see no change.
    """
    apply = inspect.getattr_static(torch.autograd.Function, "apply")
    enter: Any = torch.autocast.__enter__

    def refuse_autograd_function(cls: type, *args: Any, **kwargs: Any) -> Any:
        if is_here():
            raise CaptureError(
                f"the model calls {cls.__name__}, whose gradient a graph cannot hold"
            )
        return apply.__get__(None, cls)(*args, **kwargs)

    def refuse_autocast(region: Any) -> Any:
        if is_here():
            raise CaptureError("a graph cannot hold an autocast region")
        return enter(region)

    yield torch.autograd.Function, "apply", classmethod(refuse_autograd_function)
    yield torch.autocast, "__enter__", refuse_autocast
    for scope in _globals(survey):
        yield scope, "isinstance", _isinstance(scope.get("isinstance", isinstance), is_here)


def _globals(survey: Survey) -> list[dict[str, Any]]:
    """The globals of the model's own code: nobody else sees what is replaced there."""
    found: dict[int, dict[str, Any]] = {}
    for cls in {type(each.module) for each in survey if not each.is_leaf}:
        for base in cls.__mro__:
            forward = vars(base).get("forward")
            scope = getattr(inspect.unwrap(forward), "__globals__", None) if forward else None
            if scope is not None and not scope.get("__name__", "").startswith("torch."):
                found[id(scope)] = scope
    return list(found.values())


def _isinstance(original: Callable[..., bool], is_here: Callable[[], bool]) -> Callable[..., bool]:
    def check(value: object, kinds: Any) -> bool:
        if isinstance(value, Proxy) and is_here():
            raise CaptureError(f"the model asks whether a value is a {kinds!r}")
        return original(value, kinds)

    return check


@contextmanager
def unchanged(survey: Survey) -> Iterator[None]:
    """Put back what the model's code assigns to its modules, and refuse it by name.

    Raises:
        CaptureError: it assigned something.
    """
    holders = [
        (each, holder)
        for each in survey
        for holder in (vars(each.module), *map(vars(each.module).get, _REGISTERED))
        if holder is not None
    ]
    before = [dict(holder) for _, holder in holders]
    changed: list[tuple[Surveyed, str]] = []
    try:
        yield
    finally:
        for (each, now), was in zip(holders, before, strict=True):
            changed += [(each, name) for name in _put_back(now, was)]
    if changed:
        each, name = changed[0]
        raise CaptureError(
            f"the forward of {each.path or 'the model'!r} assigns self.{name}: what a model keeps "
            "from one call to the next, a graph cannot hold; use a buffer and change it in place"
        )


_REGISTERED = ("_parameters", "_buffers", "_modules")


def _put_back(now: dict[str, Any], was: dict[str, Any]) -> list[str]:
    """Make a dict what it was, and give the names of what was different."""
    changed = [
        name
        for name in now.keys() | was.keys()
        if name not in now or name not in was or now[name] is not was[name]
    ]
    if changed:
        now.clear()
        now.update(was)
    return sorted(changed)
