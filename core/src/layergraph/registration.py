"""Registration of handlers on one converter."""

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
        key: the class, or the name of the type, that it handles.
        handler: the handler.
        is_override: True if it comes before all other handlers.
    """

    key: Hashable
    handler: Handler
    is_override: bool


class Registry:
    """The handlers that are registered on one converter, by class or type.

    A key is the name of a type, such as ``"linear"``, or a class.

    Args:
        takes_classes: True if a class can be a key, as in a converter of modules.
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
        """Add a handler for a type. The converter asks it before the plugins.

        Call ``register("linear", handler)``, or decorate a function with ``@register("linear")``,
        or with ``@register`` for the type of the function's name.

        Args:
            key: the name of the type. A converter of modules takes a class too.
            handler: the function to call for this type.

        Returns:
            The handler, unchanged.

        Raises:
            RegistrationError: this converter has a handler for the type already, or the arguments
                are not a type and a function.

        Example:
            >>> from layergraph.ir2torch import Ir2Torch
            >>> import torch
            >>> converter = Ir2Torch()
            >>> @converter.register("double")
            ... def double(implementation):
            ...     return torch.nn.Linear(2, 4)
            >>> converter.convert({"root": {"name": "root", "type": "double"}})
            Linear(in_features=2, out_features=4, bias=True)
        """
        return self._decorator(self._add, key, handler)

    @overload
    def register_override(self, key: str | type) -> Callable[[H], H]: ...
    @overload
    def register_override(self, key: str | type, handler: H) -> H: ...
    @overload
    def register_override(self, key: H) -> H: ...
    def register_override(self, key: Any, handler: Any = _NOT_GIVEN) -> Any:
        """Add a handler that the converter asks before all others; the latest override comes first.

        Args:
            key: as for :meth:`register`.
            handler: as for :meth:`register`.

        Returns:
            The handler, unchanged.

        Raises:
            RegistrationError: the arguments are not a type and a function.
        """
        return self._decorator(self._override, key, handler)

    def register_handlers(self, *handlers: Any) -> Any:
        """Register several handlers, each as :meth:`register` does; all of them, or none.

        ``register_handlers([linear, conv2d])`` takes functions, each for the type of its name;
        ``register_handlers({"linear": handler, …})`` takes a mapping or pairs; and
        ``@register_handlers("linear", "bilinear")`` registers one function for several types.

        Args:
            handlers: one list or mapping of handlers; or types, as a decorator.

        Returns:
            The converter; as a decorator, the function.

        Raises:
            RegistrationError: as for :meth:`register`. No handler is registered then.
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
        """Return the names of the types that have a handler."""
        return [key for key in (*self._overrides, *self._registered) if isinstance(key, str)]

    def find(self, *keys: Hashable) -> Iterator[Registered]:
        """Yield the handlers for any of the keys, in the order of asking."""
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
    """Return pairs of type and handler from a mapping, from pairs, or from named functions."""
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
