"""Registering handlers on one converter."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar, overload

from layergraph.errors import RegistrationError

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)

_NOT_GIVEN: Any = object()


class Registered(NamedTuple):
    """A handler that is registered on a converter.

    Attributes:
        key: what it is registered for.
        handler: the handler.
        is_override: whether it comes before every other one.
    """

    key: Hashable
    handler: Handler
    is_override: bool


class Registry:
    """The handlers of one converter, by what they are for.

    A key is the name of a type, ``"linear"``; where modules are converted, also a class.

    Args:
        takes_classes: whether classes are keys.
    """

    def __init__(self, *, takes_classes: bool) -> None:
        self._takes_classes = takes_classes
        self._registered: dict[Hashable, Handler] = {}
        self._overrides: dict[Hashable, list[tuple[int, Handler]]] = {}
        self._count = 0

    @overload
    def register(self, key: str | type) -> Callable[[H], H]: ...
    @overload
    def register(self, key: str | type, handler: H) -> H: ...
    @overload
    def register(self, key: H) -> H: ...
    def register(self, key: Any, handler: Any = _NOT_GIVEN) -> Any:
        """Add a handler for a type that has none on this converter; plugins come after it.

        Usable as a call, ``register("linear", handler)``, and as a decorator,
        ``@register("linear")``, or ``@register`` for the type that the function is named after.

        Args:
            key: the name of the type (where modules are converted, also a class).
            handler: what to call for it.

        Returns:
            The handler, unchanged.

        Raises:
            RegistrationError: the type has a handler on this converter already, or the arguments
                are no type and handler.
        """
        return self._decorator(self._add, key, handler)

    @overload
    def register_override(self, key: str | type) -> Callable[[H], H]: ...
    @overload
    def register_override(self, key: str | type, handler: H) -> H: ...
    @overload
    def register_override(self, key: H) -> H: ...
    def register_override(self, key: Any, handler: Any = _NOT_GIVEN) -> Any:
        """Add a handler that comes before every other one, the latest first.

        Args and returns as for :meth:`register`.

        Raises:
            RegistrationError: the arguments are no type and handler.
        """
        return self._decorator(self._override, key, handler)

    def register_handlers(self, *handlers: Any) -> Any:
        """Register several at once, each as :meth:`register` would.

        ``register_handlers([linear, conv2d])`` takes functions, each for the type that it is named
        after; ``register_handlers({"linear": handler, …})`` a mapping, or pairs;
        ``@register_handlers("linear", "bilinear")`` registers one function for several types.

        Returns:
            The converter; as a decorator, the function.

        Raises:
            RegistrationError: as for :meth:`register`; then none of them is registered.
        """
        if len(handlers) == 1 and not isinstance(handlers[0], str | type):
            self._add_all(_pairs(handlers[0]))
            return self

        if not handlers:
            raise RegistrationError("there is nothing to register; give types, or a mapping")
        for key in handlers:
            self._check_key(key)

        def decorate(handler: H) -> H:
            self._add_all([(key, handler) for key in handlers])
            return handler

        return decorate

    def types(self) -> list[str]:
        """The names of types that have a handler."""
        return [key for key in (*self._overrides, *self._registered) if isinstance(key, str)]

    def find(self, *keys: Hashable) -> Iterator[Registered]:
        """The handlers for any of the keys, in the order in which they are asked."""
        if not self._overrides and not self._registered:
            return
        overrides = [
            (number, key, handler)
            for key in keys
            for number, handler in self._overrides.get(key, ())
        ]
        overrides.sort(key=lambda each: -each[0])
        for _, key, handler in overrides:
            yield Registered(key, handler, is_override=True)
        for key in keys:
            if key in self._registered:
                yield Registered(key, self._registered[key], is_override=False)

    def _decorator(self, add: Callable[[Any, Any], None], key: Any, handler: Any) -> Any:
        if handler is _NOT_GIVEN and callable(key) and not isinstance(key, type):
            add(_named_after(key), key)
            return key
        if handler is not _NOT_GIVEN:
            add(key, handler)
            return handler
        self._check_key(key)

        def decorate(decorated: H) -> H:
            add(key, decorated)
            return decorated

        return decorate

    def _add(self, key: Any, handler: Any) -> None:
        self._add_all([(key, handler)])

    def _add_all(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        added: dict[Hashable, Handler] = {}
        for key, handler in pairs:
            self._check(key, handler)
            if key in self._registered or key in added:
                raise RegistrationError(
                    f"{_name(key)} already has a handler on this converter; "
                    "use register_override to put another before it"
                )
            added[key] = handler
        self._registered |= added

    def _override(self, key: Any, handler: Any) -> None:
        self._check(key, handler)
        self._count += 1
        self._overrides.setdefault(key, []).append((self._count, handler))

    def _check(self, key: object, handler: object) -> None:
        self._check_key(key)
        if not callable(handler):
            raise RegistrationError(f"the handler for {_name(key)}, {handler!r}, cannot be called")

    def _check_key(self, key: object) -> None:
        if isinstance(key, type) and not self._takes_classes:
            raise RegistrationError(f"{_name(key)} is a class; here types are known by their names")
        if not isinstance(key, str | type) or key in ("", "<lambda>"):
            wanted = "its name, or a class" if self._takes_classes else "its name"
            raise RegistrationError(f"{key!r} is no type; give {wanted}")


def _pairs(handlers: Any) -> list[tuple[Any, Any]]:
    """The types and handlers in a mapping, among pairs, or among functions named after types."""
    try:
        items = handlers.items() if isinstance(handlers, Mapping) else handlers
        return [_pair(*item) if _is_pair(item) else (_named_after(item), item) for item in items]
    except (TypeError, ValueError):
        raise RegistrationError(
            f"{handlers!r} holds no types and handlers; give a mapping from type to handler, or "
            "functions that are named after their types"
        ) from None


def _pair(key: Any, handler: Any) -> tuple[Any, Any]:
    return key, handler


def _is_pair(item: Any) -> bool:
    return isinstance(item, type) or not callable(item)


def _named_after(handler: Any) -> Any:
    return getattr(handler, "__name__", handler)


def _name(key: object) -> str:
    return key.__qualname__ if isinstance(key, type) else repr(key)
