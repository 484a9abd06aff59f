"""The functions of nodes as Python expressions."""

from __future__ import annotations

import importlib
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from layergraph.functions import checked
from layergraph.functions.foreign import applied_class
from layergraph.functions.names import Targets
from layergraph.ir.function_name import FunctionName
from layergraph_source.context import Context
from layergraph_source.helpers import UncopiedError
from layergraph_source.layout import outside_strings
from layergraph_source.literals import UnspeakableError

_SYMBOLS = (
    "add:+ sub:- mul:* truediv:/ floordiv:// mod:% pow:** matmul:@ and_:& or_:| xor:^ lshift:<< "
    "rshift:>> eq:== ne:!= lt:< le:<= gt:> ge:>="
)
_INFIX = dict(pair.split(":") for pair in _SYMBOLS.split())
_PREFIX = {"neg": "-", "pos": "+", "invert": "~", "not_": "not "}
IN_PLACE = {
    f"operator.i{name.rstrip('_')}": symbol
    for name, symbol in _INFIX.items()
    if hasattr(operator, f"i{name.rstrip('_')}")
}
_GUARDS = frozenset(
    (
        "assume assume_container assume_device assume_distinct assume_environment assume_length "
        "assume_named assume_tensor assume_truth"
    ).split()
)
_OURS = frozenset("loop bound vmap grad grad_and_value jvp".split())
_INLINE = frozenset("truth set_grad_enabled enter_autocast exit_autocast select_attention".split())
_HELPERS = {f"layergraph.{name}": f"_{name}" for name in _GUARDS | _OURS}


class FunctionWriter:
    """Writes the calls of functions.

    Args:
        context: the names of the module.
        functions: the functions that nodes may name.
    """

    def __init__(self, context: Context, functions: Targets) -> None:
        self._context = context
        self._functions = functions
        self._known: dict[str, str] = {}

    def prepare(self, name: str, args: Sequence[Any]) -> None:
        """Import or copy what the calls of a function need.

        Raises:
            UnspeakableError: the function cannot be called without layergraph, or not at all.
        """
        if name in _HELPERS:
            self._context.helper(_HELPERS[name])
        elif name == "layergraph.holds":
            self._context.helper("_holds")
            self._context.helper(_guard(args))
        elif name == "layergraph.choose":
            self._context.helper("_choose")
        elif name.startswith("layergraph.") and name.partition(".")[2] not in _INLINE:
            raise UnspeakableError(f"no function is named {name!r}")
        elif not name.startswith(("layergraph.", "operator.")):
            target = self._functions.target(name)
            if target is None:
                raise UnspeakableError(f"no function is named {name!r}")
            if target.op == "call_function":
                self._path(name, target.target)

    def call(
        self, name: str, raw: Sequence[Any], args: list[str], kwargs: Mapping[str, str]
    ) -> str:
        """Return the expression of a call.

        Args:
            name: the name of the function.
            raw: the positional arguments.
            args: their expressions.
            kwargs: the expressions of the keyword arguments.

        Raises:
            UnspeakableError: see :meth:`prepare`.
        """
        given = [*args, *[f"{key}={each}" for key, each in kwargs.items()]]
        if name in _HELPERS:
            return f"{_HELPERS[name]}({', '.join(given)})"
        if name == "layergraph.truth":
            return f"True if {args[0]} else False"
        if name == "layergraph.holds":
            return f"_holds({', '.join([_guard(raw), *given[1:]])})"
        if name == "layergraph.choose":
            return f"_choose({', '.join(given)})"
        home, _, last = name.rpartition(".")
        if home == "operator" and not kwargs:
            text = self._operation(last, args)
            if text is not None:
                return text
        target = self._functions.target(name)
        if target is None:
            raise UnspeakableError(f"no function is named {name!r}")
        if target.op == "attribute":
            return f"{owner(args[0])}.{target.target}"
        if target.op == "call_method":
            return f"{owner(args[0])}.{target.target}({', '.join(given[1:])})"
        return f"{self._path(name, target.target)}({', '.join(given)})"

    def _operation(self, name: str, args: list[str]) -> str | None:
        if name in _INFIX and len(args) == 2:
            symbol = _INFIX[name]
            # Formatters put no spaces around a power of plain operands.
            is_plain = name == "pow" and all(re.fullmatch(r"-?[\w.]+", each) for each in args)
            space = "" if is_plain else " "
            return f"{operand(args[0])}{space}{symbol}{space}{operand(args[1])}"
        if name in _PREFIX and len(args) == 1:
            return f"{_PREFIX[name]}{operand(args[0])}"
        if name == "contains" and len(args) == 2:
            return f"{operand(args[1])} in {operand(args[0])}"
        if name == "abs":
            return f"{self._context.builtin('abs')}({args[0]})"
        return None

    def _path(self, name: str, function: Any) -> str:
        if name not in self._known:
            self._known[name] = self._found_path(name, function)
        return self._known[name]

    def _found_path(self, name: str, function: Any) -> str:
        root = name.partition(".")[0]
        context = self._context
        if root == "builtins":
            return context.builtin(name.removeprefix("builtins."))
        if root in ("math", "operator"):
            return f"{context.library(root)}.{name.partition('.')[2]}"
        if getattr(function, "__module__", None) == checked.__name__:
            return context.helper(function.__name__, checked)
        if root == "torch":
            return self._path_in_torch(name, function)
        if root.startswith("layergraph"):
            return self._copied(name)
        if type(name) is FunctionName and ("<" in name or "#" in name):
            raise UnspeakableError(f"{name!r} is defined inside a function")
        home, _, last = name.rpartition(".")
        if not all(part.isidentifier() and part.isascii() for part in name.split(".")):
            raise UnspeakableError(f"{name!r} is no path of names")
        if root == "__main__":
            raise UnspeakableError(f"{name!r} is in no module that can be imported")
        path = f"{context.library(home)}.{last}"
        return f"{path}.apply" if applied_class(function) is not None else path

    def _path_in_torch(self, name: str, function: Any) -> str:
        of_module = f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', '')}"
        for path in (name, of_module):
            if path.startswith("torch.") and _resolved(path) is function:
                short = path.removeprefix("torch.nn.functional.")
                if short != path:
                    return f"{self._context.functional}.{short}"
                return f"{self._context.torch}.{path.removeprefix('torch.')}"
        raise UnspeakableError(f"no path in torch leads to {name!r}")

    def _copied(self, name: str) -> str:
        home, _, last = name.rpartition(".")
        try:
            return self._context.helper(last, importlib.import_module(home))
        except UncopiedError as error:
            raise UnspeakableError(f"{name!r} cannot be copied: {error}") from None


def _guard(args: Sequence[Any]) -> str:
    if not args or args[0] not in _GUARDS:
        raise UnspeakableError("layergraph.holds takes the name of a guard")
    return f"_{args[0]}"


def _resolved(path: str) -> Any:
    found: Any = torch
    for name in path.split(".")[1:]:
        found = getattr(found, name, None)
    return found


def owner(text: str) -> str:
    """Return an expression for use before a dot.

    Example:
        >>> from layergraph_source.functions import owner
        >>> owner("self.fc(x)"), owner("-x"), owner("1")
        ('self.fc(x)', '(-x)', '(1)')
    """
    return text if is_primary(text) and not text[0].isdigit() else f"({text})"


def operand(text: str) -> str:
    """Return an expression for use beside an operator: ``-2 ** x`` is ``-(2 ** x)``."""
    return text if is_primary(text) else f"({text})"


def is_primary(text: str) -> bool:
    """Return whether an expression is a name, number, call or subscript, without operators."""
    depth = 0
    for _, character in outside_strings(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif depth == 0 and not (character.isalnum() or character in "._"):
            return False
    return bool(text)
