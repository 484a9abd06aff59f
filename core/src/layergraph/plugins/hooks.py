"""The hooks of one converter: its own handlers and those of its plugins, in order."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pluggy

from layergraph import hookspecs
from layergraph.errors import PluginError
from layergraph.plugins.contract import HookFailure, contained, first_answer_of
from layergraph.plugins.loading import installed_plugins
from layergraph.plugins.plugin import (
    PARAMETERS,
    HookImplementation,
    Level,
    Plugin,
    by_precedence,
    marked_functions,
)

if TYPE_CHECKING:
    from layergraph.hook_types.factories import Factory
    from layergraph.hook_types.structures import Structure
    from layergraph.layers import Layer, LayerTable
    from layergraph.tensors.kinds import TensorKinds


class Hooks:
    """The hooks of one converter.

    Args:
        plugins: the plugins to ask, in load order.
        converter: an object whose hook implementations come before those of all plugins.

    Attributes:
        implementations: the hook implementations of the plugins, in the order of asking.
        ask: the hooks of pluggy: ``ask.torch_to_ir(module=…)`` asks all implementations in order.
    """

    def __init__(self, plugins: Iterable[Plugin], converter: object) -> None:
        listed = by_precedence(plugins)
        own = [
            HookImplementation(name, Level.REGISTERED, function, function)
            for name, function, _ in marked_functions(converter)
        ]
        self._manager = _Manager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for number, each in enumerate(_joined([*listed, *own])):
            self._manager.register(each, name=f"{number}: {each.owner}")
        self.implementations = tuple(reversed(listed))
        self.ask = self._manager.hook

    def named_functions(self) -> frozenset[str]:
        """Return the full names that the plugins list through the hook ``functions``.

        Raises:
            PluginError: a plugin returned something other than names.
        """
        return frozenset(map(_name_of, self._listed_functions()))

    def factories(self) -> dict[str, Factory]:
        """Return the rows of the hook ``functions``, by the names of the classes they make.

        Raises:
            PluginError: a plugin returned something other than names and rows.
        """
        rows = [row for row in self._listed_functions() if not isinstance(row, str)]
        return {row.made: row for row in reversed(rows)}

    def _listed_functions(self) -> list[str | Factory]:
        return _all_of(self.ask.functions)

    def structures(self) -> dict[type, Structure]:
        """Return the rows of the hook ``structures``, by their classes.

        Raises:
            PluginError: a plugin returned something other than such rows.
        """
        # The first row of a class counts, and so it comes last here.
        return {row.cls: row for row in reversed(_all_of(self.ask.structures))}

    @functools.cached_property
    def tensor_kinds(self) -> TensorKinds:
        """The rows of the hook ``tensor_kinds``.

        Raises:
            PluginError: a plugin returned something other than such rows.
        """
        from layergraph.tensors.kinds import TensorKinds

        return TensorKinds(_all_of(self.ask.tensor_kinds))

    def idle_mark(self, cls: type) -> str:
        """Return why the decorator of a class has no effect.

        Empty if a plugin lists the class, or if the class has no decorator.
        """
        from layergraph.layers import is_marked

        if not is_marked(cls) or any(
            each.table and each.table.find(cls) for each in self.implementations
        ):
            return ""
        return (
            f"{cls.__qualname__} is decorated with @layergraph.layer, but no plugin that is asked "
            f"lists it, so that the decorator has no effect: let an entry point of the group "
            f"'layergraph' name its module, {cls.__module__}, and install it, or register handlers "
            "on a converter"
        )

    def types(self) -> Iterator[str]:
        """Yield the type of each row of layers."""
        for each in self.implementations:
            yield from (row.type for row in each.table or ())

    def asked(self, hook: str) -> list[str]:
        """Return the names of all owners that implement a hook, in the order of asking."""
        asked = (each.owner for each in self.implementations if each.hook == hook)
        return list(dict.fromkeys(["this converter", *asked]))


def _all_of(ask: Callable[[], Iterable[Iterable[Any]]]) -> list[Any]:
    """Return all items that plugins list through a hook."""
    with _failures():
        return [*itertools.chain.from_iterable(ask())]


@contextmanager
def _failures() -> Iterator[None]:
    """Turn the failure of a plugin into an error with the remedy."""
    try:
        yield
    except HookFailure as failure:
        raise PluginError(f"{failure}; mend it, or disable the plugin") from failure.error


class _Registered:
    """One implementation, as an object that pluggy registers.

    pluggy reads each attribute that ``dir`` lists, so ``dir`` lists only the function.
    """

    def __init__(self, hook: str, function: Callable[..., Any], owner: str) -> None:
        self.hook = hook
        self.function = function
        self.owner = owner

    def __dir__(self) -> list[str]:
        return ["function"]


def _joined(listed: Iterable[HookImplementation]) -> Iterator[_Registered]:
    """Yield the implementations; one asks all that answer a hook of which the first answer counts.

    pluggy takes many steps for each implementation that it asks, and a model has many modules.
    """
    asked: dict[str, list[HookImplementation]] = {}
    for each in listed:
        if each.is_wrapper or each.hook not in _OF_FIRST_ANSWER:
            function = contained(each.hook, each.function, each.owner, is_wrapper=each.is_wrapper)
            yield _Registered(each.hook, function, each.owner)
        else:
            asked.setdefault(each.hook, []).append(each)
    for hook, found in asked.items():
        function = first_answer_of(hook, [*_in_turn(hook, found[::-1])])
        function = functools.wraps(getattr(hookspecs, hook))(function)
        yield _Registered(hook, hookspecs.hookimpl(function), "all plugins")


_OF_FIRST_ANSWER = frozenset(
    name
    for name, hook in vars(hookspecs).items()
    if (getattr(hook, f"{hookspecs.PROJECT}_spec", None) or {}).get("firstresult")
)


def _in_turn(
    hook: str, asked: Iterable[HookImplementation]
) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield owner and function of each implementation; adjacent tables of rows are one."""
    for has_rows, group in itertools.groupby(asked, lambda each: each.table is not None):
        if has_rows:
            tables = [each.table for each in group if each.table is not None]
            yield "rows of layers", _answering(tables, hook)
        else:
            yield from ((each.owner, _of_all_arguments(hook, each.function)) for each in group)


def _of_all_arguments(hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an implementation that may take some arguments of a hook as one that takes all."""
    given, taken = PARAMETERS[hook], tuple(inspect.signature(function).parameters)
    if taken == given:
        return function
    places = [given.index(name) for name in taken]
    return lambda *args: function(*[args[place] for place in places])


def _answering(tables: Iterable[LayerTable], hook: str) -> Callable[..., Any]:
    """Return an implementation of a hook that looks up the rows of tables, earlier tables first."""
    rows: dict[type | str, list[Layer]] = {}
    for row in itertools.chain.from_iterable(tables):
        rows.setdefault(row.cls if hook == "torch_to_ir" else row.type, []).append(row)

    def torch_to_ir(module: Any) -> Any:
        for row in rows.get(type(module), ()):
            answer = row.to_ir(module)
            if answer is not None:
                return answer
        return None

    def ir_to_torch(implementation: Any, _children: Any) -> Any:
        found = rows.get(implementation.type)
        return None if found is None else found[0].to_torch(implementation)

    return torch_to_ir if hook == "torch_to_ir" else ir_to_torch


def _name_of(row: str | Factory) -> str:
    """Return the name of the function that a graph calls."""
    return row if isinstance(row, str) else row.call


def function_homes() -> dict[str, str]:
    """Return the distribution of each function that the installed plugins name.

    Returns:
        Full names of functions, each with the normalised name of a distribution.

    Raises:
        PluginError: a plugin returned something other than names.
    """
    return _homes("functions", _name_of)


def kind_homes() -> dict[str, str]:
    """Return the distribution of each kind of tensors that the installed plugins list.

    Raises:
        PluginError: a plugin returned something other than rows of the hook ``tensor_kinds``.
    """
    return _homes("tensor_kinds", lambda row: row.name)


def _homes(hook: str, name_of: Callable[[Any], str]) -> dict[str, str]:
    with _failures():
        return {
            name_of(row): plugin.distribution
            for plugin in installed_plugins()
            for each in plugin.hooks
            if each.hook == hook and not each.is_wrapper
            for row in each.ask() or ()
        }


class _Manager(pluggy.PluginManager):
    """A plugin manager that asks in reverse order of registration.

    It ignores the marks ``tryfirst`` and ``trylast``: ``by_precedence`` has sorted by them.
    """

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        options = super().parse_hookimpl_opts(plugin, name)
        if options is not None:
            options = options.copy()
            options["specname"] = plugin.hook
            options["tryfirst"] = options["trylast"] = False
        return options
