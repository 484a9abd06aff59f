"""From functions to their stable names, and from names to functions.

The table of torch's functions is in ``table.py``; plugins add names to it. A name leads to
an import only if a plugin has listed it, and never to an attribute that is not listed.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Collection, Mapping
from typing import Any

import torch

from layergraph.errors import BuildError, PluginError, first_line
from layergraph.functions.foreign import (
    applied_class,
    callable_of,
    foreign_name,
    full_name,
    identity_of,
)
from layergraph.functions.operations import (
    OPERATIONS,
    OPS,
    changes_arguments,
    gives_tensors,
    overloads,
    own_operation,
    registered,
)
from layergraph.functions.table import Function, Target, attributes, by_name, names
from layergraph.hook_types.factories import Factory
from layergraph.ir.function_name import FunctionName


class Targets:
    """Maps names of functions to functions.

    Args:
        added: the names that plugins add; torch's own keep their meaning.
    """

    def __init__(self, added: Collection[str]) -> None:
        own = by_name()
        # Subtracting the sets of keys would iterate over all keys.
        self._added = frozenset(name for name in added if name not in own)

    def target(self, name: str) -> Target | None:
        """Return the target of a name; None if the name stands for nothing.

        A :class:`FunctionName` stands for its own function. Of other names, only those that a
        plugin added lead to an import.

        Raises:
            BuildError: a plugin added the name, but the function cannot be imported.
        """
        if type(name) is FunctionName:
            return Target("call_function", callable_of(name.function))
        if name not in self._added:
            return by_name().get(name) or _own_operation(name)
        function = _imported(name)
        return None if function is None else Target("call_function", function)


class Functions(Targets):
    """Maps functions to names and back, with the functions that plugins added.

    Args:
        added: as for :class:`Targets`.
        factories: the rows of plugins, by the names of the classes that the factories make.

    Attributes:
        loaded: the added functions whose modules have been imported, by name. A model cannot call
            a function that it has not imported.
    """

    def __init__(
        self, added: Collection[str], factories: Mapping[str, Factory] | None = None
    ) -> None:
        # Read the names before a capture patches some of torch's functions.
        names()
        super().__init__(added)
        found = {name: _found(name) for name in sorted(self._added)}
        self._factories = {} if factories is None else factories
        self.loaded = {name: each for name, each in found.items() if each is not None}
        self._names = {
            each: name for name, function in self.loaded.items() for each in _forms(function)
        }

    @property
    def places(self) -> list[tuple[dict[str, Any], str]]:
        """Return the globals of Python modules, and the names in them, of the loaded functions."""
        called = map(callable_of, self.loaded.values())
        return places(tuple(each for each in called if applied_class(each) is None))

    def name_of(self, function: Function) -> str | None:
        """Return the name of a function; None if it has none and cannot be a node.

        A function that neither torch nor a plugin names has a :class:`FunctionName`, if it is a
        class of :class:`torch.autograd.Function` or an operation.
        """
        name = names().get(function) or self._names.get(identity_of(function))
        if name is None and isinstance(function, OPERATIONS):
            name = f"torch.ops.{function}"
            if own_operation(name) is not None:
                return name
            name = None
        return name or foreign_name(function)

    def remade(self, function: Function) -> tuple[Function, dict[str, Any]] | None:
        """Return the function that calls a class made by a factory, and its further arguments.

        None if no plugin lists the factory.

        Raises:
            PluginError: the row of the factory fails, or names no function.
        """
        cls = applied_class(function)
        row = None if cls is None else self._factories.get(full_name(cls))
        if cls is None or row is None:
            return None
        try:
            arguments = dict(row.arguments(cls))
        except Exception as error:
            raise PluginError(
                f"the arguments of the factory of {row.made!r} fail with {type(error).__name__}: "
                f"{first_line(error)}; mend the row of the hook 'functions'"
            ) from error
        # The model has imported the module already; during a capture, its global is patched.
        called = self.loaded.get(row.call)
        if called is None:
            raise PluginError(f"no function is named {row.call!r}; mend the row of its factory")
        return called, arguments


def places(functions: tuple[Function, ...]) -> list[tuple[dict[str, Any], str]]:
    """Return the globals of Python modules, and the names in them, that hold functions."""
    return _places(functions, len(sys.modules))


@functools.lru_cache(maxsize=8)
def _places(functions: tuple[Function, ...], _modules: int) -> list[tuple[dict[str, Any], str]]:
    """Return the places of functions; the number of modules is part of the cache's key."""
    named = [(getattr(each, "__name__", ""), each) for each in functions]
    modules = [vars(each) for each in list(sys.modules.values()) if hasattr(each, "__dict__")]
    return [
        (members, name)
        for members in modules
        for name, function in named
        if members.get(name) is function
    ]


def _own_operation(name: str) -> Target | None:
    operation = own_operation(name)
    return None if operation is None else Target("call_function", operation)


def is_own(name: str) -> bool:
    """Return whether a name stands for a function without any plugin."""
    return (by_name().get(name) or own_operation(name)) is not None


def stable_name(function: Function) -> str | None:
    """Return the name by which a pickle stores a function; None to use Python's qualified name.

    The qualified name is the place of the definition, which need not hold the function.
    """
    if isinstance(function, OPERATIONS):
        return f"torch.ops.{function}"
    name = names().get(function)
    target = None if name is None else by_name()[name]
    return name if target and target.target is function else _imports.get(function)


def function_of(name: str) -> Function:
    """Return the function that :func:`stable_name` named.

    Raises:
        BuildError: the function cannot be imported.
    """
    target = by_name().get(name)
    function: Any = None if target is None else target.target
    if name.startswith(OPS):
        function = registered(name)
    elif target is None:
        function = _imported(name)
    if not callable(function):
        raise BuildError(f"no function is named {name!r}; install what defines it")
    return function  # type: ignore[no-any-return]


_imports: dict[Function, str] = {}


def _imported(name: str) -> Function | None:
    """Return the function of a full name; import its module if necessary."""
    home = name.rpartition(".")[0]
    if name.startswith(OPS):
        function = _found(name)
        if function is None:
            raise BuildError(
                f"the operation {name!r} is not registered; import the package that registers it"
            )
        return function
    try:
        importlib.import_module(home)
    except Exception as error:
        raise BuildError(
            f"the function {name!r} cannot be imported: {type(error).__name__}: "
            f"{first_line(error)}; install what defines {home}"
        ) from error
    found = _found(name)
    function = None if found is None else callable_of(identity_of(found))
    if function is not None and not isinstance(function, OPERATIONS):
        _imports[function] = name
    return function


def _found(name: str) -> Function | None:
    """Return the function of a full name, or the operation that it stands for.

    The module has to be imported. ``torch.library.custom_op`` makes objects that stand for an
    operation.
    """
    home, _, last = name.rpartition(".")
    function = getattr(sys.modules.get(home), last, None)
    if function is None and name.startswith(OPS):
        return registered(name)
    function = getattr(function, "_opoverload", function)
    return function if callable(function) else None


def _forms(function: Function) -> list[Function]:
    """Return the objects by which code may call a function: an operation, or its packet."""
    if not isinstance(function, OPERATIONS):
        return [identity_of(function)]
    packet = getattr(function, "overloadpacket", function)
    forms = dict.fromkeys([function, *overloads(function), packet])
    return [each for each in forms if not changes_arguments(each)]


@functools.lru_cache(maxsize=4096)
def method_of(operation: Any) -> Function | None:
    """Return the tensor method that equals an operation which returns no tensor, such as ``size``.

    None if the operation returns tensors, or is none of torch's own.
    """
    namespace, _, name = str(operation).partition(".")
    name = name.partition(".")[0].removeprefix("sym_")
    if namespace != "aten" or method_name(name) is None or gives_tensors(operation):
        return None
    return getattr(torch.Tensor, name)  # type: ignore[no-any-return]


def method_name(name: str) -> str | None:
    """Return the full name of a tensor's method; None if there is no such method."""
    full = f"torch.Tensor.{name}"
    target = by_name().get(full)
    return full if target is not None and target.op == "call_method" else None


def attribute_name(name: str) -> str | None:
    """Return the full name of an attribute of a tensor or of a result type of torch; or None."""
    return attributes().get(name)
